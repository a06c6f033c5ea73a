//! Functions that look at one value of one series at a time.

use super::{
    call::Call,
    date::{self, DateFn},
    math::{self, FloatFn},
};
use crate::{
    node::engine::{
        error::EvalError,
        eval::{Eval, Sink, emit},
        selector::{Lookup, Take},
        value::Series,
    },
    promql::ast::{Expr, NodeId},
    series::Labels,
};

/// The function of each value.
pub(super) enum Each {
    Math(FloatFn),
    /// A part of the date that the value is, or of the evaluation's.
    Date(DateFn),
    /// With the arguments that are its bounds.
    Clamp {
        low: Option<usize>,
        high: Option<usize>,
    },
    Round,
    /// The time of the sample right over a selector, else of the evaluation.
    Timestamp(Take),
    /// It is about something else.
    Nothing,
}

impl Each {
    pub(super) fn stream(self, eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
        match self {
            Self::Math(f) => map(eval, call.arg(0)?, &|_, value| Some(f(value)), sink),
            Self::Date(f) => match call.args.first() {
                Some(arg) => map(eval, *arg, &|_, value| Some(date::of_seconds(f, value)), sink),
                None => now(eval, f, sink),
            },
            Self::Clamp { low, high } => clamp(eval, call, low, high, sink),
            Self::Round => round(eval, call, sink),
            Self::Timestamp(take) => timestamp(eval, call.arg(0)?, take, sink),
            Self::Nothing => eval.stream(call.arg(0)?, &mut |_| Ok(())),
        }
    }
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

fn now(eval: &Eval<'_>, f: DateFn, sink: Sink<'_>) -> Result<(), EvalError> {
    let mut values = eval.cx.meter.numbers(eval.grid.count)?;
    values.extend(eval.grid.times().map(|t| date::of_seconds(f, (t / 1000) as f64)));
    sink(&mut Series { labels: Labels::default(), drop_name: false, values })
}

fn clamp(
    eval: &Eval<'_>,
    call: &Call<'_>,
    low: Option<usize>,
    high: Option<usize>,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let bound = |arg: Option<usize>, none: f64| match arg {
        Some(arg) => eval.scalars(call.arg(arg)?),
        None => eval.cx.meter.column_of(none, eval.grid.count),
    };
    let (low, high) = (bound(low, f64::NEG_INFINITY)?, bound(high, f64::INFINITY)?);
    let clamped = |step: usize, value: f64| {
        let (low, high) = (*low.get(step)?, *high.get(step)?);
        // An empty interval holds nothing.
        if high < low { None } else { Some(math::max(low, math::min(high, value))) }
    };
    map(eval, call.arg(0)?, &clamped, sink)
}

fn round(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let nearest = match call.args.get(1) {
        Some(id) => eval.scalars(*id)?,
        None => eval.cx.meter.column_of(1.0, eval.grid.count)?,
    };
    map(eval, call.arg(0)?, &|step, value| Some(math::round(value, *nearest.get(step)?)), sink)
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
