//! Metrics that every query counts on.

use std::{fmt, sync::OnceLock};

use prometheus::core::{MetricVec, MetricVecBuilder};

/// Label values whose metrics are kept: a backend or two, a few classes and outcomes.
const KEPT: usize = 16;

/// Finds the metric of these label values, or makes it.
type Find<M> = Box<dyn Fn(&[&str]) -> M + Send + Sync>;

/// A metric with labels that finds those of the first label values without a write to memory that other threads read.
pub(super) struct Cached<M> {
    find: Find<M>,
    first: [OnceLock<(Vec<String>, M)>; KEPT],
}

impl<B: MetricVecBuilder + 'static> From<MetricVec<B>> for Cached<B::M> {
    fn from(all: MetricVec<B>) -> Self {
        Self {
            find: Box::new(move |labels| all.with_label_values(labels)),
            first: [const { OnceLock::new() }; KEPT],
        }
    }
}

impl<M> Cached<M> {
    /// Makes the metric of these label values, so that it is shown.
    pub(super) fn show(&self, labels: &[&str]) {
        (self.find)(labels);
    }

    /// Counts on the metric of these label values.
    pub(super) fn with(&self, labels: &[&str], count: impl FnOnce(&M)) {
        for kept in &self.first {
            let make = || {
                let owned = labels.iter().map(|&label| label.to_owned()).collect();
                (owned, (self.find)(labels))
            };
            let (known, metric) = kept.get_or_init(make);
            if known == labels {
                return count(metric);
            }
        }
        count(&(self.find)(labels));
    }
}

impl<M> fmt::Debug for Cached<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, Opts};

    use super::*;

    #[test]
    fn label_values_are_counted_each_by_itself_kept_or_not() {
        let all = IntCounterVec::new(Opts::new("n", "n"), &["a", "b"]).unwrap();
        let cached = Cached::from(all.clone());
        for _ in 0..3 {
            for n in 0..2 * KEPT {
                cached.with(&[&n.to_string(), "x"], |counter| counter.inc_by(n as u64));
            }
        }
        for n in 0..2 * KEPT {
            assert_eq!(all.with_label_values(&[&*n.to_string(), "x"]).get(), 3 * n as u64);
        }
    }
}
