//! What the metrics of a backend say about its distress.

use super::signal::Signal;
use crate::backend::Kind;

/// A backend's distress and what says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// 0: at ease; 1: at its limit.
    pub pressure: f64,
    /// What says so.
    pub signal: Signal,
}

/// A share of a limit: one metric over another, or over what the configuration says.
struct Share {
    signal: Signal,
    used: &'static str,
    limit: Limit,
}

enum Limit {
    /// Another metric.
    Metric(&'static str),
    /// The configured limit on memory.
    Memory,
}

/// The process' memory, where the operator says what it may be.
const MEMORY: Share =
    Share { signal: Signal::Memory, used: "process_resident_memory_bytes", limit: Limit::Memory };

/// Taken slots are no distress: the budget is what fills them.
const PROMETHEUS: &[Share] = &[MEMORY];

const VICTORIA_METRICS: &[Share] = &[
    MEMORY,
    Share {
        signal: Signal::Memory,
        used: "process_resident_memory_bytes",
        limit: Limit::Metric("vm_available_memory_bytes"),
    },
    Share {
        signal: Signal::Queries,
        used: "vm_concurrent_select_current",
        limit: Limit::Metric("vm_concurrent_select_capacity"),
    },
];

const WEIR: &[Share] = &[
    MEMORY,
    Share {
        signal: Signal::Pool,
        used: "weir_pool_outstanding_bytes",
        limit: Limit::Metric("weir_pool_cap_bytes"),
    },
];

/// Reads a metrics page in text form: what each signal says that it holds.
pub(super) fn read(kind: Kind, page: &str, memory_limit: Option<u64>) -> Vec<Reading> {
    let shares = match kind {
        Kind::VictoriaMetrics => VICTORIA_METRICS,
        Kind::Weir => WEIR,
        Kind::Prometheus | Kind::Thanos | Kind::Mimir | Kind::Cortex | Kind::M3 => PROMETHEUS,
    };
    let readings = shares.iter().filter_map(|share| {
        let limit = match share.limit {
            Limit::Metric(name) => sum(page, name)?,
            Limit::Memory => memory_limit? as f64,
        };
        let used = sum(page, share.used).filter(|used| used.is_finite())?;
        // A limit of 0 is none: a pool without a cap.
        let pressure = if limit == 0.0 { 0.0 } else { (used / limit).clamp(0.0, 1.0) };
        Some(Reading { pressure, signal: share.signal })
    });
    readings.collect()
}

/// The sum over all series of a metric; `None` when it has none.
fn sum(page: &str, name: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            // A label's value may hold anything but ends before the last brace.
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest.starts_with([' ', '\t']).then_some(rest)?,
        };
        value.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}
