//! Functions of a range vector, window by window.

use super::{
    call::Call,
    extreme::Extreme,
    over_time::RangeFn,
    rate::{self, Drops, Rate},
    totals::Totals,
};
use crate::{
    node::engine::{
        error::{EvalError, execution},
        eval::{Eval, Sink, emit},
        quantile::check_quantile,
        samples_window::Window,
        value::{HOLE, Series},
        window::RangeArg,
    },
    promql::{ast::Edges, function::FunctionId},
    series::{Labels, Samples},
};

/// A function of the values of a window, which it may change, and its scalar arguments.
pub(super) type SortedFn = fn(&mut [f64], &[f64]) -> f64;

/// The function of each window.
pub(super) enum Over {
    Rate(Rate),
    Extreme(Extreme),
    Total(Totals),
    Sorted(SortedFn),
    Window(RangeFn),
}

/// Bytes of scratch space for each sample of a series, beside the sample: candidates of extremes, the largest of all.
const SCRATCH_BYTES: u64 = 16;

/// Scratch space for one series after the other.
#[derive(Default)]
struct Scratch {
    /// The scalar arguments of a step.
    params: Vec<f64>,
    drops: Drops,
    sorted: Vec<f64>,
}

impl Over {
    /// Begins with a series.
    fn start(&mut self, samples: &Samples, scratch: &mut Scratch) {
        match self {
            Self::Rate(_) => scratch.drops.find(&samples.values),
            Self::Extreme(extreme) => extreme.start(),
            Self::Total(totals) => totals.start(&samples.values),
            Self::Sorted(_) | Self::Window(_) => {}
        }
    }

    fn of(&mut self, window: &Window<'_>, scratch: &mut Scratch) -> Option<f64> {
        match self {
            Self::Rate(rate) => rate.of(window, &mut scratch.drops),
            Self::Extreme(extreme) => extreme.of(window),
            Self::Total(totals) => Some(totals.of(window)),
            Self::Sorted(f) => {
                scratch.sorted.clear();
                scratch.sorted.extend_from_slice(window.values);
                Some(f(&mut scratch.sorted, &scratch.params))
            }
            Self::Window(f) => f(window, &scratch.params),
        }
    }

    fn warns_about_gauges(&self) -> bool {
        matches!(self, Self::Rate(rate) if rate.warns_about_gauges())
    }
}

pub(super) fn stream(
    eval: &Eval<'_>,
    call: &Call<'_>,
    mut over: Over,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let Some(range) = call.args.iter().find_map(|arg| eval.range_arg(*arg)) else {
        return execution("expected a range vector");
    };
    check_edges(call.func, range.edges)?;
    let mut params = Vec::new();
    for id in call.args.iter().filter(|id| eval.range_arg(**id).is_none()) {
        params.push(eval.scalars(*id)?);
    }
    // These two act like an offset: the series keeps its name.
    let keeps_name = matches!(call.func, FunctionId::LastOverTime | FunctionId::FirstOverTime);
    let mut out = Series::blank();
    let mut held = eval.cx.meter.hold();
    let mut scratch = Scratch::default();
    eval.stream_ranges(&range, &mut |labels, drop_name, samples| {
        held.at_least(SCRATCH_BYTES.saturating_mul(samples.len() as u64))?;
        out.labels = labels.clone();
        out.drop_name = drop_name || !keeps_name;
        eval.cx.meter.renew(&mut out.values, eval.grid.count)?;
        out.values.resize(eval.grid.count, HOLE);
        let mut overlap = false;
        over.start(samples, &mut scratch);
        eval.windows(&range, samples, |step, window| {
            if !params.is_empty() {
                scratch.params.clear();
                scratch.params.extend(params.iter().filter_map(|values| values.get(step).copied()));
                check_params(eval, call, &scratch.params)?;
            }
            overlap |= over.warns_about_gauges() && rate::starts_overlap(window);
            if let (Some(value), Some(cell)) = (over.of(window, &mut scratch), out.values.get_mut(step)) {
                *cell = value;
            }
            Ok(())
        })?;
        if over.warns_about_gauges() {
            annotate_rate(eval, labels, overlap, &range, &out);
        }
        emit(&mut out, sink)
    })
}

fn annotate_rate(eval: &Eval<'_>, labels: &Labels, overlap: bool, range: &RangeArg, out: &Series) {
    let name = labels.metric_name();
    if overlap {
        let text = "sample has start time that overlaps with previous sample timestamp for metric";
        eval.warn(eval.span(range.id), format!("{text} {name:?}"));
    }
    if !name.is_empty() && !rate::is_counter_name(name) && !out.is_empty() {
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
        eval.info(eval.span(range.id), format!("{text} {name:?}"));
    }
}

/// Complains about scalar arguments, once there is a window that needs them.
fn check_params(eval: &Eval<'_>, call: &Call<'_>, params: &[f64]) -> Result<(), EvalError> {
    match (call.func, params) {
        (FunctionId::QuantileOverTime, [q]) => check_quantile(eval, *q, call.arg(0)?),
        (FunctionId::DoubleExponentialSmoothing | FunctionId::HoltWinters, [level, trend]) => {
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

/// Whether a function takes a range with these edges.
pub(super) fn check_edges(func: FunctionId, edges: Edges) -> Result<(), EvalError> {
    use FunctionId::{Changes, Delta, Increase, Rate, Resets};
    let (word, allowed) = match edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => ("anchored", &[Changes, Delta, Increase, Rate, Resets][..]),
        Edges::Smoothed => ("smoothed", &[Delta, Increase, Rate][..]),
    };
    if allowed.contains(&func) {
        return Ok(());
    }
    let names: Vec<&str> = allowed.iter().map(|func| func.name()).collect();
    let names = names.join(", ");
    execution(format!("{word} modifier can only be used with: {names} - not with {}", func.name()))
}
