//! Functions that return a scalar, and `vector`.

use super::{call::Call, math};
use crate::{
    node::engine::{
        buffers::Numbers,
        error::{EvalError, execution},
        eval::{Eval, Sink},
        value::Series,
    },
    promql::{ast::NodeId, function::FunctionId},
    series::Labels,
};

/// The values of a function that returns a scalar.
pub(in crate::node::engine) fn scalars(eval: &Eval<'_>, call: &Call<'_>) -> Result<Numbers, EvalError> {
    let (times, meter) = (eval.cx.times, &eval.cx.meter);
    let seconds = |ms: i64| ms as f64 / 1e3;
    let constant = |value: f64| meter.column_of(value, eval.grid.count);
    match call.func {
        FunctionId::Time => {
            let mut values = meter.numbers(eval.grid.count)?;
            values.extend(eval.grid.times().map(seconds));
            Ok(values)
        }
        FunctionId::Pi => constant(std::f64::consts::PI),
        FunctionId::Start => constant(seconds(times.start)),
        FunctionId::End => constant(seconds(times.end)),
        FunctionId::Range => constant(seconds(times.end.saturating_sub(times.start))),
        FunctionId::Step => constant(if times.start == times.end { 0.0 } else { seconds(times.step as i64) }),
        FunctionId::Scalar => only_value(eval, call.arg(0)?),
        FunctionId::MinOf | FunctionId::MaxOf => {
            let choose = if call.func == FunctionId::MinOf { math::min } else { math::max };
            let (mut a, b) = (eval.scalars(call.arg(0)?)?, eval.scalars(call.arg(1)?)?);
            for (a, b) in a.iter_mut().zip(b.iter()) {
                *a = choose(*a, *b);
            }
            Ok(a)
        }
        _ => execution("a function that returns a vector stands where a scalar is needed"),
    }
}

/// The same as a series without labels.
pub(super) fn stream(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let values = scalars(eval, call)?;
    sink(&mut Series { labels: Labels::default(), drop_name: false, values })
}

/// `vector`
pub(super) fn vector(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let values = eval.scalars(call.arg(0)?)?;
    sink(&mut Series { labels: Labels::default(), drop_name: false, values })
}

/// `scalar`: the value where exactly one series has one.
fn only_value(eval: &Eval<'_>, id: NodeId) -> Result<Numbers, EvalError> {
    let mut seen = eval.cx.meter.column_of(0.0, eval.grid.count)?;
    let mut values = eval.cx.meter.column_of(f64::NAN, eval.grid.count)?;
    eval.stream(id, &mut |series| {
        for (step, (seen, value)) in seen.iter_mut().zip(values.iter_mut()).enumerate() {
            if let Some(v) = series.at(step) {
                *seen += 1.0;
                *value = if *seen == 1.0 { v } else { f64::NAN };
            }
        }
        Ok(())
    })?;
    Ok(values)
}
