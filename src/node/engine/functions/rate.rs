//! Functions of change: `rate`, `increase`, `delta`, `irate`, `idelta`, `resets`, `changes`.

use crate::{
    node::engine::{extended::edges, samples_window::Window},
    promql::ast::Edges,
};

/// The variants of a rate function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// A drop is a reset, and values are never negative.
    counter: bool,
    /// The result is divided by the window's seconds.
    per_second: bool,
}

impl Rate {
    pub(super) const RATE: Self = Self { counter: true, per_second: true };
    pub(super) const INCREASE: Self = Self { counter: true, per_second: false };
    pub(super) const DELTA: Self = Self { counter: false, per_second: false };
}

/// Whether a metric's name says that it is a counter.
pub(super) fn is_counter_name(name: &str) -> bool {
    ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix))
}

/// Where the values of one series fall, found once for all of its windows.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// Indices of the samples before each fall.
    at: Vec<usize>,
    /// How many of them lie before the window.
    passed: usize,
}

impl Drops {
    pub(super) fn find(&mut self, values: &[f64]) {
        self.at.clear();
        self.passed = 0;
        let pairs = values.iter().zip(values.iter().skip(1)).enumerate();
        self.at.extend(pairs.filter(|(_, (before, after))| after < before).map(|(i, _)| i));
    }

    /// The values before the falls inside a window. Windows move forward only.
    fn inside<'d>(&'d mut self, w: &'d Window<'_>) -> impl Iterator<Item = f64> + 'd {
        let rest = self.at.get(self.passed..).unwrap_or_default();
        self.passed += rest.iter().take_while(|at| **at < w.from).count();
        let rest = self.at.get(self.passed..).unwrap_or_default();
        let last = w.from + w.values.len().saturating_sub(1);
        let inside = rest.iter().take_while(move |at| **at < last);
        inside.filter_map(|at| w.values.get(*at - w.from)).copied()
    }
}

impl Rate {
    pub(super) fn warns_about_gauges(self) -> bool {
        self.counter
    }

    pub(super) fn of(self, w: &Window<'_>, drops: &mut Drops) -> Option<f64> {
        if w.edges == Edges::Plain {
            return self.extrapolated(w, drops);
        }
        let change = self.extended(w)?;
        Some(if self.per_second { change / w.seconds() } else { change })
    }

    /// The change between the first and the last sample, stretched to the window's edges where the series seems to reach
    /// them: where the gap is no longer than the usual distance between its samples.
    ///
    /// The order of the operations is that of `extrapolatedRate` in Prometheus: it shows in the last digit, and the last
    /// digit decides whether a value is above a threshold that it just reaches.
    fn extrapolated(self, w: &Window<'_>, drops: &mut Drops) -> Option<f64> {
        let ((first_time, first), (last_time, last)) = (w.first()?, w.last()?);
        let mut change = last - first;
        if self.counter && w.starts.is_empty() {
            drops.inside(w).for_each(|before| change += before);
        } else if self.counter {
            resets(w).for_each(|(before, _)| change += before);
        }
        let gaps = w.times.len() - 1;
        let mut sampled = seconds(first_time, last_time);
        let average = if gaps > 0 { sampled / gaps as f64 } else { 0.0 };
        let threshold = average * 1.1;
        let mut to_start = seconds(w.start, first_time);
        let mut to_end = seconds(last_time, w.end);

        let known_start = w
            .starts
            .first()
            .copied()
            .filter(|start| self.counter && *start != 0 && *start > w.start && *start < first_time);
        if let Some(start) = known_start {
            // The counter was zero when it started: that is as good as a sample, and nothing came before it.
            to_start = 0.0;
            sampled = seconds(start, last_time);
            change += first;
        } else if gaps == 0 {
            return None;
        } else {
            if to_start >= threshold {
                to_start = average / 2.0;
            }
            if self.counter && change > 0.0 && first >= 0.0 {
                // A counter cannot have been below zero.
                let to_zero = sampled * (first / change);
                if to_zero < to_start {
                    to_start = to_zero;
                }
            }
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
        if self.per_second {
            factor /= w.seconds();
        }
        Some(change * factor)
    }

    /// The change between the window's edges, which are samples or interpolated.
    fn extended(self, w: &Window<'_>) -> Option<f64> {
        let edges = edges(w, self.counter)?;
        let mut resets = 0.0;
        if self.counter {
            let mut before = edges.left;
            for value in edges.inner.iter().chain([&edges.right]) {
                if *value < before {
                    resets += before;
                }
                before = *value;
            }
        }
        Some(edges.right - edges.left + resets)
    }
}

fn seconds(from: i64, to: i64) -> f64 {
    to.saturating_sub(from) as f64 / 1e3
}

/// Pairs of values around the counter resets of a window.
fn resets<'w>(w: &'w Window<'_>) -> impl Iterator<Item = (f64, f64)> + 'w {
    pairs(w, 0)
        .filter_map(|(i, before, after)| (after < before || restarted(w, i)).then_some((before, after)))
}

/// Neighbouring values from index `from` on, with the index of the first of them.
fn pairs<'w>(w: &'w Window<'_>, from: usize) -> impl Iterator<Item = (usize, f64, f64)> + 'w {
    let pairs = w.values.iter().zip(w.values.iter().skip(1)).enumerate().skip(from);
    pairs.map(|(i, (before, after))| (i, *before, *after))
}

/// Whether the start times say that the counter restarted between samples `i` and `i + 1`.
fn restarted(w: &Window<'_>, i: usize) -> bool {
    let around = |column: &[i64]| column.get(i).copied().zip(column.get(i + 1).copied());
    let (Some((before_start, start)), Some((before, time))) = (around(w.starts), around(w.times)) else {
        return false;
    };
    // Unknown, or nonsense.
    if start == 0 || start >= time || start < before {
        return false;
    }
    // A start at the sample before is a delta, unless that sample did not know its own start.
    start > before || (before_start != 0 && before_start < before)
}

/// Whether a sample claims to have started before the sample before it was taken, and not when that one did.
pub(super) fn starts_overlap(w: &Window<'_>) -> bool {
    let starts = w.starts.iter().zip(w.starts.iter().skip(1));
    starts.zip(w.times).any(|((before, start), time)| *start != 0 && start < time && start != before)
}

/// `irate` and `idelta`: the change between the last two samples.
pub(super) fn instant(w: &Window<'_>, per_second: bool) -> Option<f64> {
    let last = w.values.len().checked_sub(1)?;
    let before = last.checked_sub(1)?;
    let (a, b) = (*w.values.get(before)?, *w.values.get(last)?);
    let interval = seconds(*w.times.get(before)?, *w.times.get(last)?);
    if interval == 0.0 {
        return None;
    }
    let reset = per_second && (b < a || restarted(w, before));
    let change = if reset { b } else { b - a };
    Some(if per_second { change / interval } else { change })
}

/// `resets`: how often a counter was reset.
pub(super) fn count_resets(w: &Window<'_>) -> Option<f64> {
    let from = first_seen(w)?;
    Some(pairs(w, from).filter(|(i, before, after)| after < before || restarted(w, *i)).count() as f64)
}

/// `changes`: how often a value changed.
pub(super) fn count_changes(w: &Window<'_>) -> Option<f64> {
    let from = first_seen(w)?;
    let changed =
        |(_, before, after): &(usize, f64, f64)| before != after && !(before.is_nan() && after.is_nan());
    Some(pairs(w, from).filter(changed).count() as f64)
}

/// Where counting starts: at the first sample, or, anchored, at the last one before the window. `None` when the window
/// itself is empty.
fn first_seen(w: &Window<'_>) -> Option<usize> {
    if w.edges == Edges::Plain {
        return Some(0);
    }
    let inside = w.times.partition_point(|t| *t <= w.start);
    (inside < w.times.len()).then(|| inside.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(values: &[f64], interval: i64, range: i64) -> f64 {
        let times: Vec<i64> = (1..=values.len() as i64).map(|n| n * interval).collect();
        let end = values.len() as i64 * interval;
        let window = Window {
            times: &times,
            values,
            from: 0,
            starts: &[],
            start: end - range,
            end,
            at: end,
            edges: Edges::Plain,
        };
        let mut drops = Drops::default();
        drops.find(values);
        Rate::RATE.of(&window, &mut drops).unwrap()
    }

    #[test]
    fn a_rate_is_divided_in_the_order_of_prometheus() {
        // 30 for each 15 s over five minutes: Prometheus says a little less than two, and `> 2` does not fire.
        let counter: Vec<f64> = (0..20).map(|n| f64::from(n) * 30.0 + 1e6).collect();
        let (change, sampled) = (19.0 * 30.0, 285.0);
        assert_eq!(rate(&counter, 15_000, 300_000), change * ((sampled + 15.0) / sampled / 300.0));
        assert_eq!(rate(&counter, 15_000, 300_000), 1.9999999999999998);
    }
}
