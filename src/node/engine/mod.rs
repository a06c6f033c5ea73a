//! PromQL evaluated over float samples, as Prometheus 3.x defines it.
//!
//! # How it runs
//!
//! Every expression is a stream of series, each with one value per evaluation step. An operator pulls the series of its
//! operands one at a time and hands on its own, so `sum(rate(x[5m]))` holds one series and one accumulator per group,
//! never all series of `x`. Operators that need all series at once (vector matching, `topk`, `sort`) collect them, and
//! the values collected count against [`Limits::points`].
//!
//! | module | part |
//! |---|---|
//! | `plan` | durations, `@` and step invariance, resolved once per query |
//! | `eval` | the walk over the tree: grids, repetition, collecting |
//! | `dispatch` | from the kind of a node to the operator |
//! | `selector`, `window` | instant and range vectors out of the storage |
//! | `samples_window`, `extended` | the samples of a range vector at one step |
//! | `aggregate`, `binary`, `functions` | one folder each |
//! | `parallel`, `workers` | one operator's input, read ahead by several threads |
//! | `meter` | limits, cancellation |
//! | `buffers` | memory, out of the pools of a node |
//!
//! # Differences from Prometheus
//!
//! - Native histograms are refused by name ([`EvalError::NativeHistogram`]) instead of being evaluated.
//! - A metric name that a function dropped stays dropped through a filter such as `rate(a[5m]) > rate(b[5m])`.

mod aggregate;
mod annotations;
mod binary;
mod buffers;
mod dispatch;
mod error;
mod eval;
mod extended;
mod functions;
mod grid;
mod matcher;
mod meter;
mod number;
mod options;
mod parallel;
mod places;
mod plan;
mod quantile;
mod samples_window;
mod selector;
mod sums;
mod value;
mod window;
mod workers;

use std::sync::atomic::AtomicBool;

use crate::{
    base::time::EvalTimes,
    node::{pool::Loan, storage::Storage},
    promql::ast::{Ast, ValueType},
};

pub use buffers::{Pools, SamplePool};
pub use error::EvalError;
pub use matcher::Matchers;
pub use meter::{Limits, ReadObserver, ReadVolume, Usage};
pub use options::Options;
pub use value::{Point, Points, Row, Value};
pub use workers::Workers;

use eval::{Context, Eval};

/// The result of a query.
#[derive(Debug)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// Warnings, each with its position in the query.
    pub warnings: Vec<String>,
    /// Notes, each with its position in the query.
    pub infos: Vec<String>,
    /// Its cost.
    pub usage: Usage,
    /// The node's memory that the value takes beside its rows' own.
    pub loan: Option<Loan>,
}

/// Evaluates a query at one instant (`times.step == 0`) or over a range; `cancel` is looked at between series and
/// steps.
///
/// # Errors
/// The errors for which Prometheus answers `execution`, a limit that was reached, a cancellation, or the storage's
/// own error.
pub fn evaluate(
    ast: &Ast,
    times: EvalTimes,
    storage: &dyn Storage,
    options: &Options,
    cancel: &AtomicBool,
) -> Result<Answer, EvalError> {
    let ty = ast.node(ast.root).ty;
    if times.step > 0 && !matches!(ty, ValueType::Scalar | ValueType::Vector) {
        let name = if ty == ValueType::String { "string" } else { "range vector" };
        return Err(EvalError::Execution(format!(
            "invalid expression type \"{name}\" for range query, must be Scalar or instant Vector"
        )));
    }
    let context = Context::new(ast, times, storage, options, cancel, dispatch::OPERATORS)?;
    let (value, loan) = Eval::new(&context).value(ast.root, times.step == 0)?;
    let (warnings, infos) = context.annotations().render(&ast.text);
    Ok(Answer { value, warnings, infos, usage: context.meter.usage(), loan })
}
