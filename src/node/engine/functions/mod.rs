//! The functions of PromQL.

mod absent;
mod date;
mod extreme;
mod histogram;
mod info;
mod labels;
mod math;
mod over_time;
pub(super) mod rate;
mod sliding;
mod sort;

pub(super) use over_time::{Mean, quantile};

use super::{
    error::{EvalError, execution},
    eval::{Eval, Sink, emit},
    number,
    selector::{Lookup, Take},
    value::{HOLE, Series},
    window::RangeArg,
};
use crate::{
    promql::ast::{Edges, Expr, NodeId},
    series::Labels,
};

/// The series of a function that returns an instant vector.
pub(super) fn stream(
    eval: &Eval<'_>,
    id: NodeId,
    name: &str,
    args: &[NodeId],
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    if let Some(range) = args.iter().find_map(|arg| eval.range_arg(*arg)) {
        return over_range(eval, name, args, &range, sink);
    }
    match name {
        "vector" => {
            let values = eval.scalars(arg(args, 0)?)?;
            sink(&mut Series { labels: Labels::default(), drop_name: false, values: values.into() })
        }
        "absent" => absent::absent(eval, arg(args, 0)?, sink),
        "timestamp" => timestamp(eval, arg(args, 0)?, Take::Time, sink),
        "start_timestamp" => timestamp(eval, arg(args, 0)?, Take::Start, sink),
        "label_replace" => labels::replace(eval, args, sink),
        "label_join" => labels::join(eval, args, sink),
        "info" => info::info(eval, args, sink),
        "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => {
            sort::sort(eval, id, name, args, sink)
        }
        "histogram_quantile" => histogram::quantile(eval, args, sink),
        "histogram_quantiles" => histogram::quantiles(eval, args, sink),
        "histogram_fraction" => histogram::fraction(eval, args, sink),
        "clamp" | "clamp_min" | "clamp_max" => clamp(eval, name, args, sink),
        "round" => round(eval, args, sink),
        // They are about native histograms and pass over floats, which is all there is here.
        "histogram_avg" | "histogram_count" | "histogram_sum" | "histogram_stddev" | "histogram_stdvar" => {
            eval.stream(arg(args, 0)?, &mut |_| Ok(()))
        }
        _ => elementwise(eval, name, args, sink),
    }
}

/// The vector argument of a function that looks at one series at a time, and the other arguments.
pub(super) fn by_series(eval: &Eval<'_>, name: &str, args: &[NodeId]) -> Option<(NodeId, Vec<NodeId>)> {
    let range = args.iter().position(|arg| eval.range_arg(*arg).is_some());
    let at = match (range, name) {
        (Some(_), "absent_over_time") => return None,
        (Some(at), _) => at,
        (None, "timestamp" | "clamp" | "clamp_min" | "clamp_max" | "round") => 0,
        (None, name) if math::find(name).is_some() || date::find(name).is_some() => 0,
        (None, _) => return None,
    };
    let first = *args.get(at)?;
    Some((first, args.iter().copied().filter(|arg| *arg != first).collect()))
}

fn elementwise(eval: &Eval<'_>, name: &str, args: &[NodeId], sink: Sink<'_>) -> Result<(), EvalError> {
    if let Some(f) = math::find(name) {
        return map(eval, arg(args, 0)?, &|_, value| Some(f(value)), sink);
    }
    let Some(f) = date::find(name) else {
        return execution(format!("function {name} is not supported"));
    };
    if let Some(arg) = args.first() {
        return map(eval, *arg, &|_, value| Some(date::of_seconds(f, value)), sink);
    }
    let values: Vec<f64> = eval.grid.times().map(|t| date::of_seconds(f, (t / 1000) as f64)).collect();
    sink(&mut Series { labels: Labels::default(), drop_name: false, values: values.into() })
}

/// The values of a function that returns a scalar.
pub(super) fn scalars(eval: &Eval<'_>, name: &str, args: &[NodeId]) -> Result<Vec<f64>, EvalError> {
    let times = eval.cx.times;
    let seconds = |ms: i64| ms as f64 / 1e3;
    let constant = |value: f64| Ok(vec![value; eval.grid.count]);
    match name {
        "time" => Ok(eval.grid.times().map(seconds).collect()),
        "pi" => constant(std::f64::consts::PI),
        "start" => constant(seconds(times.start)),
        "end" => constant(seconds(times.end)),
        "range" => constant(seconds(times.end.saturating_sub(times.start))),
        "step" => constant(if times.start == times.end { 0.0 } else { seconds(times.step as i64) }),
        "scalar" => only_value(eval, arg(args, 0)?),
        "min_of" | "max_of" => {
            let choose = if name == "min_of" { math::min } else { math::max };
            let (a, b) = (eval.scalars(arg(args, 0)?)?, eval.scalars(arg(args, 1)?)?);
            Ok(a.into_iter().zip(b).map(|(a, b)| choose(a, b)).collect())
        }
        _ => execution(format!("function {name} is not supported")),
    }
}

/// `scalar`: the value where exactly one series has one.
fn only_value(eval: &Eval<'_>, id: NodeId) -> Result<Vec<f64>, EvalError> {
    let mut seen = vec![0_u32; eval.grid.count];
    let mut values = vec![f64::NAN; eval.grid.count];
    eval.stream(id, &mut |series| {
        for (step, (seen, value)) in seen.iter_mut().zip(&mut values).enumerate() {
            if let Some(v) = series.at(step) {
                *seen += 1;
                *value = if *seen == 1 { v } else { f64::NAN };
            }
        }
        Ok(())
    })?;
    Ok(values)
}

fn arg(args: &[NodeId], index: usize) -> Result<NodeId, EvalError> {
    args.get(index).copied().ok_or_else(|| EvalError::Execution("an argument is missing".to_owned()))
}

/// Applies a function to every value.
fn map(
    eval: &Eval<'_>,
    id: NodeId,
    f: &dyn Fn(usize, f64) -> Option<f64>,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    eval.stream(id, &mut |series| {
        series.drop_name = true;
        series.map(f);
        emit(series, sink)
    })
}

fn clamp(eval: &Eval<'_>, name: &str, args: &[NodeId], sink: Sink<'_>) -> Result<(), EvalError> {
    let (low, high) = match name {
        "clamp_min" => (Some(arg(args, 1)?), None),
        "clamp_max" => (None, Some(arg(args, 1)?)),
        _ => (Some(arg(args, 1)?), Some(arg(args, 2)?)),
    };
    let bound = |id: Option<NodeId>, none: f64| match id {
        Some(id) => eval.scalars(id),
        None => Ok(vec![none; eval.grid.count]),
    };
    let (low, high) = (bound(low, f64::NEG_INFINITY)?, bound(high, f64::INFINITY)?);
    let clamped = |step: usize, value: f64| {
        let (low, high) = (*low.get(step)?, *high.get(step)?);
        // An empty interval holds nothing.
        if high < low { None } else { Some(math::max(low, math::min(high, value))) }
    };
    map(eval, arg(args, 0)?, &clamped, sink)
}

fn round(eval: &Eval<'_>, args: &[NodeId], sink: Sink<'_>) -> Result<(), EvalError> {
    let nearest = match args.get(1) {
        Some(id) => eval.scalars(*id)?,
        None => vec![1.0; eval.grid.count],
    };
    map(eval, arg(args, 0)?, &|step, value| Some(math::round(value, *nearest.get(step)?)), sink)
}

/// `timestamp` and `start_timestamp`: of the sample itself right over a selector, else of the evaluation.
fn timestamp(eval: &Eval<'_>, id: NodeId, take: Take, sink: Sink<'_>) -> Result<(), EvalError> {
    let id = eval.unparen(id);
    if let Expr::Selector(selector) = eval.expr(id) {
        let planned = eval.planned(id);
        let lookup = Lookup { at: planned.at, offset: planned.offset };
        return eval.look_up(&selector.matchers, lookup, take, sink);
    }
    if take == Take::Start {
        return eval.stream(id, &mut |_| Ok(()));
    }
    let grid = eval.grid;
    map(eval, id, &|step, _| Some(grid.time(step) as f64 / 1e3), sink)
}

/// What a function of a range vector computes in each window.
enum Over {
    Rate(rate::Rate),
    Extreme(extreme::Extreme),
    Sliding(sliding::Sliding),
    Window(over_time::RangeFn),
}

impl Over {
    fn find(name: &str) -> Option<Self> {
        if let Some(rate) = rate::find(name) {
            return Some(Self::Rate(rate));
        }
        if let Some(extreme) = extreme::find(name) {
            return Some(Self::Extreme(extreme));
        }
        if let Some(sliding) = sliding::find(name) {
            return Some(Self::Sliding(sliding));
        }
        let f: over_time::RangeFn = match name {
            "irate" => |w, _| rate::instant(w, true),
            "idelta" => |w, _| rate::instant(w, false),
            "resets" => |w, _| rate::count_resets(w),
            "changes" => |w, _| rate::count_changes(w),
            _ => over_time::find(name)?,
        };
        Some(Self::Window(f))
    }
}

fn over_range(
    eval: &Eval<'_>,
    name: &str,
    args: &[NodeId],
    range: &RangeArg,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    check_edges(name, range.edges)?;
    if name == "absent_over_time" {
        return absent::absent_over_time(eval, range, sink);
    }
    let Some(mut over) = Over::find(name) else {
        return execution(format!("function {name} is not supported"));
    };
    let mut params = Vec::new();
    for id in args.iter().filter(|id| eval.range_arg(**id).is_none()) {
        params.push(eval.scalars(*id)?);
    }
    // These two act like an offset: the series stays what it is.
    let keeps_name = matches!(name, "last_over_time" | "first_over_time");
    let mut out = Series::blank();
    let mut row = Vec::with_capacity(params.len());
    let mut drops = rate::Drops::default();
    eval.stream_ranges(range, &mut |labels, drop_name, samples| {
        out.labels = labels.clone();
        out.drop_name = drop_name || !keeps_name;
        eval.cx.meter.renew(&mut out.values, eval.grid.count)?;
        out.values.resize(eval.grid.count, HOLE);
        let mut overlap = false;
        match &mut over {
            Over::Rate(_) => drops.find(&samples.values),
            Over::Extreme(extreme) => extreme.start(),
            Over::Sliding(sliding) => sliding.start(),
            Over::Window(_) => {}
        }
        eval.windows(range, samples, |step, window| {
            if !params.is_empty() {
                row.clear();
                row.extend(params.iter().filter_map(|values| values.get(step).copied()));
                check_params(eval, name, args, &row)?;
            }
            let value = match &mut over {
                Over::Rate(rate) => {
                    overlap |= rate.warns_about_gauges() && rate::starts_overlap(window);
                    rate.of(window, &mut drops)
                }
                Over::Extreme(extreme) => extreme.of(window),
                Over::Sliding(sliding) => sliding.of(window),
                Over::Window(f) => f(window, &row),
            };
            if let (Some(value), Some(cell)) = (value, out.values.get_mut(step)) {
                *cell = value;
            }
            Ok(())
        })?;
        if let Over::Rate(rate) = &over {
            annotate_rate(eval, *rate, labels, overlap, range.id, &out);
        }
        emit(&mut out, sink)
    })
}

fn annotate_rate(
    eval: &Eval<'_>,
    rate: rate::Rate,
    labels: &Labels,
    overlap: bool,
    id: NodeId,
    out: &Series,
) {
    let name = labels.metric_name();
    if overlap {
        let text = "sample has start time that overlaps with previous sample timestamp for metric";
        eval.warn(eval.span(id), format!("{text} {name:?}"));
    }
    if rate.warns_about_gauges() && !name.is_empty() && !rate::is_counter_name(name) && !out.is_empty() {
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
        eval.info(eval.span(id), format!("{text} {name:?}"));
    }
}

/// Complains about scalar arguments, once there is a window that needs them.
fn check_params(eval: &Eval<'_>, name: &str, args: &[NodeId], params: &[f64]) -> Result<(), EvalError> {
    match (name, params) {
        ("quantile_over_time", [q]) => check_quantile(eval, *q, arg(args, 0)?),
        ("double_exponential_smoothing" | "holt_winters", [level, trend]) => {
            for (value, what, short) in [(level, "smoothing", "sf"), (trend, "trend", "tf")] {
                if *value <= 0.0 || *value >= 1.0 {
                    return execution(format!(
                        "invalid {what} factor. Expected: 0 < {short} < 1, got: {value:.6}"
                    ));
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Warns of a quantile outside `[0, 1]`.
pub(super) fn check_quantile(eval: &Eval<'_>, q: f64, at: NodeId) {
    if !(0.0..=1.0).contains(&q) {
        let text = format!("quantile value should be between 0 and 1, got {}", number::short(q));
        eval.warn(eval.span(at), text);
    }
}

fn check_edges(name: &str, edges: Edges) -> Result<(), EvalError> {
    let (word, allowed): (_, &[&str]) = match edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
        Edges::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if allowed.contains(&name) {
        return Ok(());
    }
    execution(format!("{word} modifier can only be used with: {} - not with {name}", allowed.join(", ")))
}
