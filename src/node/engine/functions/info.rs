//! `info`: labels of info metrics joined to series by `instance` and `job`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use smallvec::SmallVec;

use super::call::Call;
use crate::{
    node::engine::{
        error::{EvalError, execution},
        eval::{Eval, Sink, emit_all},
        matcher::Matchers,
        meter::Held,
        selector::{Lookup, Take},
        value::{Matrix, Merged, Series},
    },
    promql::ast::{Expr, MatchOp, Matcher, NodeId},
    series::{Labels, METRIC_NAME},
};

/// The labels by which an info series names its target.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The most values that one matcher lists; with more, all series are read and joined.
const VALUES_MAX: usize = 500;

/// Bytes of an entry of a map or set of borrowed texts.
const ENTRY_BYTES: u64 = 64;

/// An info series: its metric, and its target.
type Key<'m> = (&'m str, [&'m str; 2]);

/// `info(v, {selector})`
pub(super) fn info(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let base_arg = call.arg(0)?;
    let wanted: &[Matcher] = match call.args.get(1).map(|id| eval.expr(eval.unparen(*id))) {
        Some(Expr::Selector(selector)) => &selector.matchers,
        _ => &[],
    };
    let (names, data): (Vec<Matcher>, Vec<Matcher>) =
        wanted.iter().cloned().partition(|m| &*m.name == METRIC_NAME);
    let names = effective_names(names);
    let compiled = Matchers::compile(&names).map_err(EvalError::Execution)?;

    let base = eval.collect(base_arg)?;
    let is_info = |series: &Series| compiled.accept(series.labels.metric_name());
    let mut held = eval.cx.meter.hold();
    let values = identifying_values(base.series.iter().filter(|s| !is_info(s)), &mut held)?;
    let infos = if values.is_empty() {
        Matrix { series: Vec::new(), held: eval.cx.meter.hold() }
    } else {
        read_infos(eval, lookup_of(eval, base_arg), &names, &data, &values)?
    };

    let join = Join::new(&infos, &data)?;
    let mut merged = Merged::new(eval.cx.meter.hold(), eval.grid.count);
    for mut series in base.series {
        eval.cx.meter.check()?;
        if is_info(&series) {
            merged.add(&mut series)?;
        } else {
            join.enrich(eval, &series, &mut merged)?;
        }
    }
    emit_all(merged.matrix, sink)
}

/// Which metrics are info metrics: those asked for, `target_info` if nothing is, and with exclusions only all others.
fn effective_names(mut names: Vec<Matcher>) -> Vec<Matcher> {
    let name = |op, value: &str| Matcher { name: METRIC_NAME.into(), op, value: value.into() };
    if names.is_empty() {
        names.push(name(MatchOp::Equal, "target_info"));
    } else if !names.iter().any(|m| matches!(m.op, MatchOp::Equal | MatchOp::Regex)) {
        names.insert(0, name(MatchOp::Regex, ".+_info"));
    }
    names
}

fn identifying_values<'s>(
    series: impl Iterator<Item = &'s Series>,
    held: &mut Held<'_>,
) -> Result<BTreeMap<&'static str, BTreeSet<&'s str>>, EvalError> {
    let mut values: BTreeMap<&'static str, BTreeSet<&str>> = BTreeMap::new();
    for series in series {
        for name in IDENTIFYING {
            let value = series.labels.get(name);
            if !value.is_empty() && values.entry(name).or_default().insert(value) {
                held.borrow(ENTRY_BYTES)?;
            }
        }
    }
    Ok(values)
}

/// Info series as of the time at which the first selector below `id` looks; their values are sample times.
fn read_infos<'a>(
    eval: &Eval<'a>,
    lookup: Lookup,
    names: &[Matcher],
    data: &[Matcher],
    values: &BTreeMap<&'static str, BTreeSet<&str>>,
) -> Result<Matrix<'a>, EvalError> {
    let mut matchers: Vec<Matcher> = names.iter().chain(data).cloned().collect();
    for (name, values) in values.iter().filter(|(_, values)| values.len() <= VALUES_MAX) {
        let any: Vec<String> = values.iter().map(|v| quote(v)).collect();
        matchers.push(Matcher { name: (*name).into(), op: MatchOp::Regex, value: any.join("|").into() });
    }
    let mut matrix = Matrix { series: Vec::new(), held: eval.cx.meter.hold() };
    eval.look_up(&matchers, lookup, Take::Time, &mut |series| matrix.push(series))?;
    Ok(matrix)
}

/// A pattern that matches exactly `text`.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// When the first selector of an expression looks: its own `@` and offset, and those of the subqueries around it up to
/// the first that fixes a time.
fn lookup_of(eval: &Eval<'_>, id: NodeId) -> Lookup {
    let none = Lookup { at: None, offset: 0 };
    find_lookup(eval, id).unwrap_or(none)
}

fn find_lookup(eval: &Eval<'_>, id: NodeId) -> Option<Lookup> {
    let planned = eval.planned(id);
    match eval.expr(id) {
        Expr::Selector(_) => Some(Lookup { at: planned.at, offset: planned.offset }),
        Expr::Matrix { selector, .. } => find_lookup(eval, *selector),
        Expr::Subquery { expr, .. } => find_lookup(eval, *expr).map(|inner| match inner.at {
            Some(_) => inner,
            None => Lookup { at: planned.at, offset: inner.offset.saturating_add(planned.offset) },
        }),
        Expr::Call { args, .. } => args.iter().find_map(|id| find_lookup(eval, *id)),
        Expr::Aggregate { param, expr, .. } => {
            find_lookup(eval, *expr).or_else(|| param.and_then(|id| find_lookup(eval, id)))
        }
        Expr::Binary { lhs, rhs, .. } => find_lookup(eval, *lhs).or_else(|| find_lookup(eval, *rhs)),
        Expr::Unary { expr, .. } | Expr::Paren(expr) => find_lookup(eval, *expr),
        _ => None,
    }
}

/// The info series by their targets.
struct Join<'m> {
    infos: &'m Matrix<'m>,
    by_key: HashMap<Key<'m>, SmallVec<[usize; 2]>>,
    metrics: BTreeSet<&'m str>,
    _held: Held<'m>,
    /// Only these labels are joined, if any are named.
    wanted: HashSet<String>,
    /// A series without info stays.
    optional: bool,
}

fn key<'m>(metric: &'m str, labels: &'m Labels) -> Key<'m> {
    (metric, IDENTIFYING.map(|name| labels.get(name)))
}

impl<'m> Join<'m> {
    fn new(infos: &'m Matrix<'m>, data: &[Matcher]) -> Result<Self, EvalError> {
        let mut held = infos.held.meter.hold();
        let mut by_key: HashMap<Key<'m>, SmallVec<[usize; 2]>> = HashMap::new();
        let mut metrics = BTreeSet::new();
        for (place, series) in infos.series.iter().enumerate() {
            let metric = series.labels.metric_name();
            metrics.insert(metric);
            // A hash table has up to twice the room that it needs.
            held.borrow(ENTRY_BYTES + 2 * (size_of::<Key<'m>>() + size_of::<SmallVec<[usize; 2]>>()) as u64)?;
            by_key.entry(key(metric, &series.labels)).or_default().push(place);
        }
        let optional = Matchers::compile(data).map_err(EvalError::Execution)?.accept("");
        let wanted = data.iter().map(|m| m.name.to_string()).collect();
        Ok(Self { infos, by_key, metrics, _held: held, wanted, optional })
    }

    /// Adds a series to `merged`, with the labels that info series have for it at each step.
    fn enrich(&self, eval: &Eval<'_>, series: &Series, merged: &mut Merged<'_>) -> Result<(), EvalError> {
        let candidates: Vec<&[usize]> = self
            .metrics
            .iter()
            .filter_map(|metric| self.by_key.get(&key(metric, &series.labels)).map(SmallVec::as_slice))
            .collect();
        // Which info series apply changes rarely from step to step.
        let mut known: HashMap<Vec<usize>, usize> = HashMap::new();
        for step in 0..eval.grid.count {
            let Some(value) = series.at(step) else { continue };
            let mut found = Vec::with_capacity(candidates.len());
            for places in &candidates {
                found.extend(self.newest(places, step)?);
            }
            if found.is_empty() && !self.optional {
                continue;
            }
            let slot = match known.get(&found) {
                Some(slot) => *slot,
                None => {
                    let labels = self.joined(&series.labels, &found)?;
                    let slot = merged.slot(labels, series.drop_name)?;
                    known.insert(found, slot);
                    slot
                }
            };
            merged.put(slot, step, value)?;
        }
        Ok(())
    }

    /// The info series with the newest sample; two of the same time contradict each other.
    fn newest(&self, places: &[usize], step: usize) -> Result<Option<usize>, EvalError> {
        let mut best: Option<(f64, usize)> = None;
        for place in places {
            let Some(time) = self.infos.series.get(*place).and_then(|s| s.at(step)) else { continue };
            match best {
                Some((newest, other)) if newest == time => {
                    let [a, b] = [other, *place]
                        .map(|p| self.infos.series.get(p).map(|s| s.labels.to_string()).unwrap_or_default());
                    let ms = (time * 1e3) as i64;
                    return execution(format!(
                        "found duplicate series for info metric: existing {a} @ {ms}, new {b} @ {ms}"
                    ));
                }
                Some((newest, _)) if newest > time => {}
                _ => best = Some((time, *place)),
            }
        }
        Ok(best.map(|(_, place)| place))
    }

    fn joined(&self, base: &Labels, found: &[usize]) -> Result<Labels, EvalError> {
        let mut added = Labels::default();
        for series in found.iter().filter_map(|place| self.infos.series.get(*place)) {
            for label in &series.labels {
                let name: &str = &label.name;
                if name == METRIC_NAME || (!self.wanted.is_empty() && !self.wanted.contains(name)) {
                    continue;
                }
                let known = added.get(name);
                if !known.is_empty() && known != &*label.value {
                    return execution(format!("conflicting label: {name}"));
                }
                if base.get(name).is_empty() {
                    added = added.with(name, &label.value);
                }
            }
        }
        Ok(base.iter().chain(added.iter()).cloned().collect())
    }
}
