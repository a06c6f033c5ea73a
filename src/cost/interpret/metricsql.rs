//! Functions that only the database knows: those of MetricsQL, and newer ones.

use super::{
    Interpreter, Traversal,
    function::STRING_COPIES,
    text,
    value::{MadeLabels, Priced, Value, times},
};
use crate::promql::ast::{NodeId, ValueType};

/// The series that a function makes of each one that it takes.
#[derive(Clone, Copy)]
enum Output {
    Each(u64),
    /// One for each of its arguments beside the series.
    Arguments,
    /// One for each different value among its samples, which are at most this many.
    Values(u64),
}
use Output::{Arguments, Each, Values};

/// Functions of MetricsQL that make more series than they take (`rollup.go` and `aggr.go` of VictoriaMetrics). A histogram has
/// 18 buckets for each power of ten, of which four are counted.
const MAKERS: &[(&str, Output)] = &[
    ("rollup_candlestick", Each(4)),
    ("rollup", Each(3)),
    ("aggr_over_time", Arguments),
    ("quantiles", Arguments),
    ("histogram_quantiles", Arguments),
    ("histogram_over_time", Values(72)),
    ("count_values_over_time", Values(u64::MAX)),
];

/// The series that a call makes of each that it takes, which has this number of samples. Names of a family begin alike.
fn made(call: &str, arguments: usize, samples: u64) -> u64 {
    let name = call.trim_start().to_ascii_lowercase();
    match MAKERS.iter().find(|(maker, _)| name.starts_with(maker)) {
        Some((_, Each(n))) => *n,
        Some((_, Arguments)) => (arguments as u64).saturating_sub(1).max(1),
        Some((_, Values(most))) => samples.clamp(1, *most),
        None => 1,
    }
}

/// Buckets of all floats from 1e-9 to 1e18, and one on either side (`histogram.go` of VictoriaMetrics' metrics package).
const VM_RANGES: u64 = 18 * 27 + 2;

/// Labels that a call makes.
fn labels_of(call: &str) -> MadeLabels {
    if call.trim_start().to_ascii_lowercase().starts_with("histogram_over_time") {
        MadeLabels::Label("vmrange", VM_RANGES)
    } else {
        MadeLabels::Any
    }
}

impl Interpreter<'_> {
    /// All series of all arguments come out, as often as the function of this call makes them, under labels that it has
    /// joined with its strings. Histograms stay unchanged.
    pub(super) fn unknown(&self, call: &str, args: &[NodeId], steps: u64) -> Priced {
        let add = |all: Value, arg: &NodeId| {
            let arg = self.value(*arg);
            Value {
                series: all.series.saturating_add(arg.series),
                churn: all.churn.max(arg.churn),
                labels: all.labels.saturating_add(arg.labels),
                longest: all.longest.saturating_add(arg.longest),
                buckets: all.buckets.max(arg.buckets),
                distinct: all.distinct.max(arg.distinct),
                made: all.made.and(arg.made),
                ..all
            }
        };
        let empty = Value {
            churn: 1,
            points: steps,
            present: u64::MAX,
            domain: u64::MAX,
            objects: steps,
            fresh: true,
            made: labels_of(call),
            ..Value::default()
        };
        let value = args.iter().fold(empty, add);
        let strings = args.iter().filter(|arg| self.ty(**arg) == ValueType::String);
        let written = strings.map(|arg| text::expanded(self.string(*arg), value.longest));
        let written = written.fold(0, u64::saturating_add);
        let value = Value {
            series: times(value.series.max(1), made(call, args.len(), value.distinct)),
            distinct: steps,
            labels: value.labels.saturating_add(written),
            longest: value.longest.saturating_add(written),
            ..value
        };
        // VictoriaMetrics folds a rollup of windows series by series, for any function.
        let is_rollup = args.iter().any(|arg| self.ty(*arg) == ValueType::Matrix);
        let traversal = if is_rollup { Traversal::Windows } else { Traversal::All };
        self.produce(traversal, self.operands(args, traversal), value, times(STRING_COPIES, value.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::made;

    #[test]
    fn functions_that_make_series_are_known_by_their_names() {
        for (call, arguments, series) in [
            ("rollup(g[5m])", 1, 3),
            ("rollup_rate(g[5m])", 1, 3),
            ("Rollup_Candlestick(g[5m])", 1, 4),
            ("quantiles_over_time(\"phi\", 0.1, 0.9, g[5m])", 4, 3),
            ("histogram_over_time(g[5m])", 1, 72),
            ("count_values_over_time(\"v\", g[5m])", 2, 600),
            ("range_avg(g)", 1, 1),
            ("", 0, 1),
        ] {
            assert_eq!(made(call, arguments, 600), series, "{call}");
        }
    }
}
