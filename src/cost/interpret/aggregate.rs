//! One rule for each aggregation.

use super::{
    Interpreter, Traversal,
    engine::Order,
    value::{Load, MadeLabels, Operands, Priced, Value, sum, times},
};
use crate::promql::ast::{AggregateOp, Grouping, NodeId};

/// The value of a float as a label: `strconv.FormatFloat` without an exponent, in the usual ranges.
const VALUE_BYTES: u64 = 26;
/// `topk` and its like: a place in a map for each series.
const CHOSEN_BYTES: u64 = 150;
/// `topk` and its like: a heap for each group.
const HEAP_BYTES: u64 = 48;
/// The node's `topk`: a heap for each group and step, and each value in it with the number of its series. A heap begins
/// with room for four and doubles.
const STEP_HEAP_BYTES: u64 = 24;
const STEP_ENTRY_BYTES: u64 = 16;
/// A sample that `quantile` copies, in a slice that grew by append.
const COPIED_BYTES: u64 = 96;

impl Interpreter<'_> {
    pub(super) fn aggregate(
        &self,
        op: AggregateOp,
        param: Option<NodeId>,
        expr: NodeId,
        grouping: &Grouping,
        steps: u64,
    ) -> Priced {
        let input = self.value(expr);
        let groups = self.groups(grouping, &input);
        let folded = Value {
            series: groups,
            churn: input.churn.min(groups.max(1)),
            points: steps,
            distinct: steps,
            domain: u64::MAX,
            // A label set that a builder made keeps the bytes of the first series of its group.
            labels: if is_everything(grouping) { 0 } else { input.labels },
            fresh: true,
            ..input
        };
        let floats = Value { buckets: 0, objects: 0, ..folded };
        match op {
            AggregateOp::Sum | AggregateOp::Avg => {
                let histograms = Value { series: times(2, groups), objects: 1, ..input };
                let value = Value { objects: steps, ..folded };
                self.folds(param, expr, value, self.histograms(&histograms))
            }
            AggregateOp::Group => self.folds(param, expr, Value { distinct: 1, domain: 1, ..floats }, 0),
            AggregateOp::Count => {
                let domain = input.series.saturating_add(1);
                self.folds(param, expr, Value { distinct: steps.min(domain), domain, ..floats }, 0)
            }
            AggregateOp::Min | AggregateOp::Max => {
                self.folds(param, expr, Value { domain: input.domain, ..floats }, 0)
            }
            // VictoriaMetrics folds most aggregates of rollups series by series, but not these.
            AggregateOp::Stddev | AggregateOp::Stdvar if self.engine.order == Order::InPlace => {
                self.collects(param, expr, floats, 0)
            }
            AggregateOp::Stddev | AggregateOp::Stdvar => self.folds(param, expr, floats, 0),
            AggregateOp::Quantile => self.collects(param, expr, floats, times(COPIED_BYTES, input.series)),
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
                self.chosen(param, expr, groups, steps)
            }
            AggregateOp::LimitRatio => self.collects(param, expr, Value { points: steps, ..input }, 0),
            AggregateOp::CountValues => self.count_values(param, expr, &folded),
        }
    }

    fn folds(&self, param: Option<NodeId>, expr: NodeId, value: Value, work: u64) -> Priced {
        self.over(Traversal::Groups, param, expr, value, work)
    }

    fn collects(&self, param: Option<NodeId>, expr: NodeId, value: Value, work: u64) -> Priced {
        self.over(Traversal::All, param, expr, value, work)
    }

    fn over(
        &self,
        traversal: Traversal,
        param: Option<NodeId>,
        expr: NodeId,
        value: Value,
        work: u64,
    ) -> Priced {
        let operands = match param {
            Some(param) => self.operands(&[param, expr], traversal),
            None => self.operands(&[expr], traversal),
        };
        self.produce(traversal, operands, value, work)
    }

    /// The first, last or largest k of each group; others at each step, perhaps.
    fn chosen(&self, param: Option<NodeId>, expr: NodeId, groups: u64, steps: u64) -> Priced {
        let input = self.value(expr);
        let k = param.and_then(|param| self.shape_of(param).number);
        // A cast from float saturates; a k that is computed from data may be any number.
        let k = k.map_or(u64::MAX, |k| k.max(0.0) as u64).min(input.series);
        let at_once = times(k, groups).min(input.series);
        let turns = if at_once == 0 { 1 } else { steps.min(input.series.div_ceil(at_once)) };
        let value = Value {
            series: times(at_once, steps).min(input.series),
            churn: times(input.churn, turns),
            points: steps,
            present: times(at_once, steps).min(input.all_points()),
            ..input
        };
        let heaps = match self.engine.order {
            Order::Streaming => {
                let entries = times(4, groups).max(times(2, at_once));
                times(steps, times(STEP_HEAP_BYTES, groups).saturating_add(times(STEP_ENTRY_BYTES, entries)))
            }
            Order::Eager | Order::InPlace => {
                times(groups, times(HEAP_BYTES, k).saturating_add(self.engine.taken))
            }
        };
        self.completes(param, expr, value, times(CHOSEN_BYTES, input.series).saturating_add(heaps))
    }

    /// All rows are there before the first is passed on, also by the node, which needs no complete operand for that.
    fn completes(&self, param: Option<NodeId>, expr: NodeId, value: Value, work: u64) -> Priced {
        if self.engine.order != Order::Streaming {
            return self.collects(param, expr, value, work);
        }
        let Operands { held, peak, .. } = self.operands(&[expr], Traversal::EachSeries);
        let bytes = self.rows(&value).saturating_add(value.own_labels());
        let rows = Load { bytes, points: value.all_points() };
        Priced { value, held: rows, peak: peak.max(held.plus(rows).plus(Load::bytes(work))), lazy: false }
    }

    /// A series for each value, and a row of all steps for each of these: the worst is every sample's own, unless a
    /// function has few values (`hour`, `sgn`, `== bool`).
    fn count_values(&self, param: Option<NodeId>, expr: NodeId, folded: &Value) -> Priced {
        let input = self.value(expr);
        let name = param.map_or(0, |param| self.string(param).len() as u64);
        let value = Value {
            series: times(input.series, input.distinct).min(times(folded.series, input.domain)),
            churn: times(folded.churn, input.distinct).min(input.domain),
            present: input.all_points(),
            distinct: folded.points.min(input.series),
            domain: input.series.saturating_add(1),
            made: MadeLabels::Any,
            labels: sum([folded.labels, name, VALUE_BYTES]),
            longest: input.longest.max(VALUE_BYTES),
            buckets: 0,
            objects: 0,
            ..*folded
        };
        self.completes(param, expr, value, 0)
    }

    /// Groups that the series of an operand fall into.
    fn groups(&self, grouping: &Grouping, input: &Value) -> u64 {
        if is_everything(grouping) {
            return input.series.min(1);
        }
        // `without ()` drops the name alone.
        if grouping.labels.is_empty() {
            return input.series;
        }
        // Not known. One group takes 24 bytes a point beyond the operand; one group for each series takes 100 with its
        // answer. Half of the series as groups are 50: at most twice the truth, and at least half of it.
        let unknown = input.series.div_ceil(2);
        if grouping.without {
            return unknown;
        }
        self.values(&grouping.labels, input).map_or(unknown, |groups| groups.min(input.series))
    }

    /// At most how many different sets of values these labels have; `None` where the backend did not say.
    pub(super) fn values(&self, labels: &[Box<str>], of: &Value) -> Option<u64> {
        let values = |label: &str| match of.made {
            MadeLabels::Any => None,
            MadeLabels::Label(made, most) if made == label => Some(most),
            _ => self.table?.values(label),
        };
        // A series may be without the label.
        let values = |label: &str| Some(values(label)?.saturating_add(1));
        labels.iter().try_fold(1_u64, |product, label| Some(times(product, values(label)?)))
    }
}

fn is_everything(grouping: &Grouping) -> bool {
    grouping.labels.is_empty() && !grouping.without
}
