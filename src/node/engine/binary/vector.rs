//! Arithmetic and comparison between two instant vectors.

use smallvec::SmallVec;

use super::node::{Node, Outcome, apply, is_comparison, note_types};
use crate::{
    node::engine::{
        error::{EvalError, execution},
        eval::{Eval, Sink, emit_all},
        meter::Held,
        places::Places,
        value::{Matrix, Merged, Series},
    },
    promql::ast::{Group, NodeId, VectorMatching},
    series::{Label, Labels, METRIC_NAME},
};

/// Two instant vectors, their series grouped by the labels that match them.
pub(super) struct Sides<'a> {
    pub(super) left: Matrix<'a>,
    pub(super) right: Matrix<'a>,
    pub(super) groups: Vec<Matched>,
    _held: Held<'a>,
}

/// The series of both sides that have the same matching labels, by their places.
#[derive(Debug, Default)]
pub(super) struct Matched {
    pub(super) left: SmallVec<[usize; 2]>,
    pub(super) right: SmallVec<[usize; 2]>,
}

impl<'a> Sides<'a> {
    pub(super) fn collect(
        eval: &Eval<'a>,
        lhs: NodeId,
        rhs: NodeId,
        matching: &VectorMatching,
    ) -> Result<Self, EvalError> {
        let (left, right) = (eval.collect(lhs)?, eval.collect(rhs)?);
        let mut held = eval.cx.meter.hold();
        let mut places = Places::default();
        let mut groups: Vec<Matched> = Vec::new();
        let all = left.series.iter().enumerate().map(|(i, s)| (true, i, s));
        for (is_left, place, series) in all.chain(right.series.iter().enumerate().map(|(i, s)| (false, i, s)))
        {
            let own = || series.labels.iter().filter(|label| matches(matching, label));
            let hash = places.hash(own());
            let same = |number: usize| {
                let first = groups.get(number).and_then(|group| group.first(&left.series, &right.series));
                first.is_some_and(|first| {
                    first.labels.iter().filter(|label| matches(matching, label)).eq(own())
                })
            };
            let number = match places.find(hash, same) {
                Some(number) => number,
                None => {
                    places.insert(hash, groups.len(), &mut held)?;
                    held.push(&mut groups, Matched::default())?;
                    groups.len() - 1
                }
            };
            if let Some(group) = groups.get_mut(number) {
                let side = if is_left { &mut group.left } else { &mut group.right };
                // Up to two are in the group itself.
                held.borrow(2 * size_of::<usize>() as u64)?;
                side.push(place);
            }
        }
        Ok(Self { left, right, groups, _held: held })
    }
}

impl Matched {
    /// Any of its series.
    fn first<'s>(&self, left: &'s [Series], right: &'s [Series]) -> Option<&'s Series> {
        match self.left.first() {
            Some(place) => left.get(*place),
            None => right.get(*self.right.first()?),
        }
    }
}

/// Whether a label is one of those by which series are matched.
fn matches(matching: &VectorMatching, label: &Label) -> bool {
    let named = matching.labels.iter().any(|name| **name == *label.name);
    if matching.on { named } else { !named && &*label.name != METRIC_NAME }
}

/// The labels by which a series is matched.
fn match_labels(matching: &VectorMatching, labels: &Labels) -> Labels {
    if matching.on { labels.only(&matching.labels) } else { labels.except(&matching.labels) }
}

/// A side of an operation at one step: a sample, or the value that fills in for one.
#[derive(Clone, Copy, Debug)]
struct Operand {
    value: f64,
    /// `None`: filled in.
    place: Option<usize>,
}

/// The operation with the side that may have many series for one of the other first.
struct Join<'j> {
    eval: &'j Eval<'j>,
    node: &'j Node<'j>,
    matching: &'j VectorMatching,
    /// The many side stands on the right of the operator.
    swapped: bool,
    many: &'j [Series],
    one: &'j [Series],
    /// Whether the many side has any sample, step by step.
    many_there: Vec<bool>,
    out: Merged<'j>,
    /// The results, found by the places of their two series.
    places: Places,
    results: Vec<Pair>,
    /// The group and step at which each result was last made.
    made: Vec<Option<(usize, usize)>>,
    held: Held<'j>,
    untyped: bool,
}

/// Two series, and the place of their result.
type Pair = ((Option<usize>, Option<usize>), usize);

pub(super) fn stream(
    eval: &Eval<'_>,
    node: &Node<'_>,
    matching: &VectorMatching,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let sides = Sides::collect(eval, node.lhs, node.rhs, matching)?;
    let swapped = matching.group == Group::OneToMany;
    let (many, one) = (&sides.left.series, &sides.right.series);
    let (many, one) = if swapped { (one, many) } else { (many, one) };
    let there = |step: usize| many.iter().any(|s| s.at(step).is_some());
    let mut join = Join {
        eval,
        node,
        matching,
        swapped,
        many,
        one,
        many_there: (0..eval.grid.count).map(there).collect(),
        out: Merged::new(eval.cx.meter.hold(), eval.grid.count),
        places: Places::default(),
        results: Vec::new(),
        made: Vec::new(),
        held: eval.cx.meter.hold(),
        untyped: false,
    };
    for (number, group) in sides.groups.iter().enumerate() {
        let (many, one) = if swapped { (&group.right, &group.left) } else { (&group.left, &group.right) };
        join.group(number, many, one)?;
    }
    if join.untyped {
        note_types(eval, node);
    }
    let Join { out, .. } = join;
    emit_all(out.matrix, sink)
}

impl Join<'_> {
    fn group(&mut self, number: usize, many: &[usize], one: &[usize]) -> Result<(), EvalError> {
        for step in 0..self.eval.grid.count {
            self.eval.cx.meter.check()?;
            let single = self.single(one, step)?;
            let other = single.or(self.matching.fill_right.map(|value| Operand { value, place: None }));
            let mut matched = false;
            let Some(other) = other else { continue };
            for place in many {
                let Some(value) = self.many.get(*place).and_then(|s| s.at(step)) else { continue };
                if matched && self.matching.group == Group::OneToOne {
                    return execution(
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                    );
                }
                matched = true;
                self.combine(number, step, Operand { value, place: Some(*place) }, other)?;
            }
            let fill = self.matching.fill_left.filter(|_| single.is_some() && !matched);
            if let Some(value) = fill {
                self.combine(number, step, Operand { value, place: None }, other)?;
            }
        }
        Ok(())
    }

    /// The sample of the one side; two are an error, unless there is nothing to match them with.
    fn single(&self, one: &[usize], step: usize) -> Result<Option<Operand>, EvalError> {
        let mut found: Option<Operand> = None;
        for place in one {
            let Some(value) = self.one.get(*place).and_then(|s| s.at(step)) else { continue };
            let known = found.and_then(|operand| operand.place).and_then(|p| self.one.get(p));
            let needed = self.many_there.get(step) == Some(&true) || self.matching.fill_left.is_some();
            if let (Some(known), Some(series), true) = (known, self.one.get(*place), needed) {
                return self.duplicates(&known.labels, &series.labels);
            }
            found = Some(Operand { value, place: Some(*place) });
        }
        Ok(found)
    }

    fn duplicates<T>(&self, a: &Labels, b: &Labels) -> Result<T, EvalError> {
        let side = if self.swapped { "left" } else { "right" };
        let group = match_labels(self.matching, a);
        let (a, b) = (a.to_string(), b.to_string());
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
             [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
        ))
    }

    fn combine(&mut self, group: usize, step: usize, many: Operand, one: Operand) -> Result<(), EvalError> {
        let (l, r) = if self.swapped { (one.value, many.value) } else { (many.value, one.value) };
        let outcome = match apply(self.node.op, l, r) {
            Outcome::Value(value) => Some(value),
            Outcome::Holds(holds) if self.node.return_bool => Some(f64::from(u8::from(holds))),
            Outcome::Holds(holds) => holds.then_some(l),
            Outcome::Untyped => {
                self.untyped = true;
                return Ok(());
            }
        };
        let slot = self.result(many.place, one.place)?;
        // Several pairs may make one result.
        let made = self.made.get_mut(slot).map(|made| made.replace((group, step)));
        if made == Some(Some((group, step))) && self.matching.group != Group::OneToOne {
            return execution("multiple matches for labels: grouping labels must ensure unique matches");
        }
        match outcome {
            Some(value) => self.out.put(slot, step, value),
            None => Ok(()),
        }
    }

    /// The place of the series that two series make.
    fn result(&mut self, many: Option<usize>, one: Option<usize>) -> Result<usize, EvalError> {
        let of = (many, one);
        let hash = self.places.hash([of]);
        let same = |number: usize| self.results.get(number).is_some_and(|pair| pair.0 == of);
        if let Some((_, slot)) = self.places.find(hash, same).and_then(|number| self.results.get(number)) {
            return Ok(*slot);
        }
        let many_series = many.and_then(|place| self.many.get(place));
        let one_series = one.and_then(|place| self.one.get(place));
        let filled = |other: Option<&Series>| {
            other.map(|series| match_labels(self.matching, &series.labels)).unwrap_or_default()
        };
        let many_labels = many_series.map_or_else(|| filled(one_series), |s| s.labels.clone());
        let one_labels = one_series.map_or_else(|| filled(many_series), |s| s.labels.clone());

        let mut labels = many_labels;
        if !is_comparison(self.node.op) {
            labels = labels.without_metadata();
        }
        if self.matching.group == Group::OneToOne {
            let named = |name: &str| self.matching.labels.iter().any(|n| **n == *name);
            labels = labels.filtered(|name| named(name) == self.matching.on);
        }
        for name in &self.matching.include {
            labels = labels.with(name, one_labels.get(name));
        }
        let dropped = many_series.is_some_and(|s| s.drop_name) && is_comparison(self.node.op);
        let slot = self.out.slot(labels, self.node.return_bool || dropped)?;
        self.places.insert(hash, self.results.len(), &mut self.held)?;
        self.held.push(&mut self.results, (of, slot))?;
        if slot >= self.made.len() {
            self.held.push(&mut self.made, None)?;
        }
        Ok(slot)
    }
}
