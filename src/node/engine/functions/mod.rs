//! The functions of PromQL.

mod absent;
mod call;
mod date;
mod each;
mod extreme;
mod histogram;
mod info;
mod kind;
mod labels;
mod math;
mod over_time;
mod range;
mod rate;
mod scalar;
mod sort;
mod template;
mod totals;

use super::{
    error::EvalError,
    eval::{Eval, Sink},
};
use crate::promql::{ast::NodeId, function::FunctionId};
pub(super) use call::Call;
use kind::Kind;
pub(super) use scalar::scalars;

/// The series of a function that returns an instant vector.
pub(super) fn stream(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    match kind::of(call.func) {
        Kind::Each(each) => each.stream(eval, call, sink),
        Kind::Range(over) => range::stream(eval, call, over, sink),
        Kind::Whole(whole) => whole(eval, call, sink),
        Kind::Scalar => scalar::stream(eval, call, sink),
    }
}

/// The vector argument of a function that looks at one series at a time, and the other arguments.
pub(super) fn by_series(eval: &Eval<'_>, func: FunctionId, args: &[NodeId]) -> Option<(NodeId, Vec<NodeId>)> {
    let at = match kind::of(func) {
        Kind::Each(_) => 0,
        Kind::Range(_) => args.iter().position(|arg| eval.range_arg(*arg).is_some())?,
        Kind::Whole(_) | Kind::Scalar => return None,
    };
    let first = *args.get(at)?;
    Some((first, args.iter().copied().filter(|arg| *arg != first).collect()))
}
