//! Quantiles of some values.

use super::{eval::Eval, number};
use crate::promql::ast::NodeId;

/// The value below which a share `q` of the values lies, interpolated between two of them; sorts, NaN first.
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b)));
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor();
    let weight = rank - lower;
    let at = |index: usize| values.get(index.min(values.len() - 1)).copied().unwrap_or(f64::NAN);
    at(lower as usize) * (1.0 - weight) + at(lower as usize + 1) * weight
}

/// Warns of a quantile outside `[0, 1]`.
pub(super) fn check_quantile(eval: &Eval<'_>, q: f64, at: NodeId) {
    if !(0.0..=1.0).contains(&q) {
        let text = format!("quantile value should be between 0 and 1, got {}", number::short(q));
        eval.warn(eval.span(at), text);
    }
}
