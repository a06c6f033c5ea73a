//! One rule for each binary operator.

use super::{
    Interpreter, Traversal,
    engine::Order,
    value::{Priced, Value, sum, times},
};
use crate::promql::ast::{BinaryOp, Group, NodeId, ValueType, VectorMatching};

/// The signature of a series in the maps of a join, without its labels.
const SIGNATURE_BYTES: u64 = 110;
/// A pair in the cache of joined label sets, without the labels of both sides that are its key.
const PAIR_BYTES: u64 = 60;

/// How an operator makes its series from those of its operands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// New values under labels without the name.
    Arithmetic,
    /// Some of the left side's points as they are, or with `bool` 0 and 1.
    Comparison,
    /// Some series of the left side, or of both.
    Intersection,
    Union,
}

const fn kind(op: BinaryOp) -> Kind {
    match op {
        BinaryOp::Add
        | BinaryOp::Sub
        | BinaryOp::Mul
        | BinaryOp::Div
        | BinaryOp::Mod
        | BinaryOp::Pow
        | BinaryOp::Atan2
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => Kind::Arithmetic,
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Gt | BinaryOp::Lt | BinaryOp::Ge | BinaryOp::Le => {
            Kind::Comparison
        }
        BinaryOp::And | BinaryOp::Unless => Kind::Intersection,
        BinaryOp::Or => Kind::Union,
    }
}

impl Interpreter<'_> {
    pub(super) fn binary(
        &self,
        op: BinaryOp,
        sides: (NodeId, NodeId),
        return_bool: bool,
        matching: Option<&VectorMatching>,
        steps: u64,
    ) -> Priced {
        let scalar = |id| self.ty(id) == ValueType::Scalar;
        match (scalar(sides.0), scalar(sides.1)) {
            (true, true) => self.with(Traversal::EachSeries, sides, Value::one(steps), 0),
            (false, true) => self.with_scalar(op, sides, self.value(sides.0), return_bool, steps),
            (true, false) => self.with_scalar(op, sides, self.value(sides.1), return_bool, steps),
            (false, false) => self.vectors(op, sides, return_bool, matching, steps),
        }
    }

    fn with(&self, traversal: Traversal, sides: (NodeId, NodeId), value: Value, work: u64) -> Priced {
        self.produce(traversal, self.operands(&[sides.0, sides.1], traversal), value, work)
    }

    fn with_scalar(
        &self,
        op: BinaryOp,
        sides: (NodeId, NodeId),
        vector: Value,
        return_bool: bool,
        steps: u64,
    ) -> Priced {
        let applied = applied(op, return_bool, vector, steps);
        let is_constant = [sides.0, sides.1].iter().any(|side| self.shape_of(*side).number.is_some());
        let domain = if is_constant { applied.domain.min(vector.domain) } else { applied.domain };
        let value = Value { domain, ..applied };
        self.with(Traversal::EachSeries, sides, value, 0)
    }

    fn vectors(
        &self,
        op: BinaryOp,
        sides: (NodeId, NodeId),
        return_bool: bool,
        matching: Option<&VectorMatching>,
        steps: u64,
    ) -> Priced {
        let (left, right) = (self.value(sides.0), self.value(sides.1));
        let signature = left.labels.max(right.labels).saturating_add(SIGNATURE_BYTES);
        let signatures = times(left.series.saturating_add(right.series), signature);
        let either = Value {
            churn: left.churn.max(right.churn),
            points: steps,
            labels: left.labels.max(right.labels),
            longest: left.longest.max(right.longest),
            fresh: left.fresh || right.fresh,
            buckets: left.buckets.max(right.buckets),
            objects: left.objects.max(right.objects),
            distinct: left.distinct.max(right.distinct),
            domain: left.domain.saturating_add(right.domain),
            made: left.made.and(right.made),
            ..left
        };
        match kind(op) {
            Kind::Intersection => {
                return self.with(Traversal::All, sides, Value { points: steps, ..left }, signatures);
            }
            Kind::Union => {
                let series = left.series.saturating_add(right.series);
                let present = left.all_points().saturating_add(right.all_points());
                let buckets = mean_buckets(&left, &right);
                let value = Value { series, present, buckets, ..either };
                return self.with(Traversal::All, sides, value, signatures);
            }
            Kind::Arithmetic | Kind::Comparison => {}
        }
        let value = applied(op, return_bool, self.joined(&left, &right, matching, either), steps);
        let pair = sum([left.labels, right.labels, PAIR_BYTES]);
        let keys = times(value.series, pair);
        self.with(Traversal::All, sides, value, signatures.saturating_add(keys))
    }

    /// The series of a join by labels.
    fn joined(&self, left: &Value, right: &Value, matching: Option<&VectorMatching>, either: Value) -> Value {
        let include = matching.map_or(&[][..], |matching| &matching.include);
        let named = include.iter().map(|label| label.len() as u64).fold(0, u64::saturating_add);
        let many = |many: &Value, one: &Value| {
            // Each time that a series with other labels takes the place of the one, all of the many get these; without
            // labels to take over they keep theirs.
            let turns = if include.is_empty() { 1 } else { self.values(include, one).unwrap_or(u64::MAX) };
            Value {
                series: times(many.series, one.churn.min(either.points.max(1)).min(turns)),
                present: many.all_points(),
                labels: sum([many.labels, named, times(include.len() as u64, one.longest)]),
                fresh: true,
                ..either
            }
        };
        // MetricsQL takes one series without labels for a scalar: it meets each series of the other side.
        let is_plain = matching.is_none_or(|m| !m.on && m.labels.is_empty() && m.group == Group::OneToOne);
        if self.engine.order == Order::InPlace && is_plain && left.series.min(right.series) <= 1 {
            return Value { series: left.series.max(right.series), present: u64::MAX, fresh: true, ..either };
        }
        let pairs = match matching.map_or(Group::OneToOne, |m| m.group) {
            // A filter keeps the left side's labels, of which several may meet one of the right over time.
            Group::OneToOne | Group::ManyToMany => Value {
                series: left.series.min(times(right.series, left.churn)),
                present: left.all_points(),
                labels: left.labels,
                fresh: true,
                ..either
            },
            Group::ManyToOne => many(left, right),
            Group::OneToMany => many(right, left),
        };
        let is_filled = matching.is_some_and(|m| m.fill_left.is_some() || m.fill_right.is_some());
        if !is_filled {
            return pairs;
        }
        let series = left.series.saturating_add(right.series).max(pairs.series);
        let present = left.all_points().saturating_add(right.all_points());
        Value { series, present, ..pairs }
    }
}

/// Buckets of a series of either side, on average.
fn mean_buckets(left: &Value, right: &Value) -> u64 {
    let all = |value: &Value| u128::from(value.series) * u128::from(value.buckets);
    let series = u128::from(left.series) + u128::from(right.series);
    u64::try_from((all(left) + all(right)).div_ceil(series.max(1))).unwrap_or(u64::MAX)
}

/// The values of an operator on the series that come out.
fn applied(op: BinaryOp, return_bool: bool, series: Value, steps: u64) -> Value {
    match kind(op) {
        Kind::Comparison if return_bool => Value { distinct: 2, domain: 2, ..series.floats(steps) },
        // The points of the left side, under their own labels.
        Kind::Comparison | Kind::Intersection | Kind::Union => Value { points: steps, ..series },
        Kind::Arithmetic => {
            Value { distinct: steps, domain: u64::MAX, fresh: true, points: steps, objects: steps, ..series }
        }
    }
}
