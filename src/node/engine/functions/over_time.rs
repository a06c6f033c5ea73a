//! Functions of all samples in a window: `*_over_time`, `deriv`, `predict_linear`, smoothing.

use crate::{node::engine::window::Window, series::is_stale};

/// A function of a window and its scalar arguments; `None` when the window holds too little.
pub(super) type RangeFn = fn(&Window<'_>, &[f64]) -> Option<f64>;

pub(super) fn find(name: &str) -> Option<RangeFn> {
    let f: RangeFn = match name {
        "count_over_time" => |w, _| Some(w.values.len() as f64),
        "present_over_time" => |_, _| Some(1.0),
        "ts_of_min_over_time" => |w, _| extreme(w, |new, old| new <= old).map(|(time, _)| time as f64 / 1e3),
        "ts_of_max_over_time" => |w, _| extreme(w, |new, old| new >= old).map(|(time, _)| time as f64 / 1e3),
        "first_over_time" => |w, _| w.first().map(|(_, value)| value),
        "last_over_time" => |w, _| w.last().map(|(_, value)| value),
        "ts_of_first_over_time" => |w, _| w.first().map(|(time, _)| time as f64 / 1e3),
        "ts_of_last_over_time" => |w, _| w.last().map(|(time, _)| time as f64 / 1e3),
        "stdvar_over_time" => |w, _| Some(variance(w.values)),
        "stddev_over_time" => |w, _| Some(variance(w.values).sqrt()),
        "quantile_over_time" => |w, p| Some(quantile(arg(p, 0), &mut w.values.to_vec())),
        "mad_over_time" => |w, _| Some(median_deviation(w.values)),
        "deriv" => |w, _| linear(w, w.first()?.0).map(|(slope, _)| slope),
        "predict_linear" => |w, p| linear(w, w.at).map(|(slope, now)| slope * arg(p, 0) + now),
        "double_exponential_smoothing" | "holt_winters" => |w, p| smooth(w.values, arg(p, 0), arg(p, 1)),
        _ => return None,
    };
    Some(f)
}

fn arg(params: &[f64], index: usize) -> f64 {
    params.get(index).copied().unwrap_or(f64::NAN)
}

/// A sum with a running compensation for what rounding loses (Kahan's, as Neumaier improved it).
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::node::engine) struct Kahan {
    pub(in crate::node::engine) sum: f64,
    pub(in crate::node::engine) lost: f64,
}

impl Kahan {
    pub(in crate::node::engine) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - total) + value;
        } else {
            self.lost += (value - total) + self.sum;
        }
        self.sum = total;
    }

    pub(in crate::node::engine) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }

    /// The sum of some values.
    pub(in crate::node::engine) fn of(values: &[f64]) -> f64 {
        let mut kahan = Self::default();
        for value in values {
            kahan.add(*value);
        }
        kahan.total()
    }
}

/// A mean as a sum divided at the end, or, once the sum overflows, corrected value by value.
#[derive(Clone, Copy, Debug)]
pub(in crate::node::engine) struct Mean {
    state: Kahan,
    count: f64,
    incremental: bool,
}

impl Mean {
    pub(in crate::node::engine) fn new(first: f64) -> Self {
        Self { state: Kahan { sum: first, lost: 0.0 }, count: 1.0, incremental: false }
    }

    pub(in crate::node::engine) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.incremental {
            let mut next = self.state;
            next.add(value);
            if !next.sum.is_infinite() {
                self.state = next;
                return;
            }
            self.incremental = true;
            self.state.sum /= self.count - 1.0;
            self.state.lost /= self.count - 1.0;
        }
        let kept = (self.count - 1.0) / self.count;
        self.state.sum *= kept;
        self.state.lost *= kept;
        self.state.add(value / self.count);
    }

    /// The mean of some values.
    pub(in crate::node::engine) fn of(values: &[f64]) -> f64 {
        let mut values = values.iter();
        let Some(first) = values.next() else { return f64::NAN };
        let mut mean = Self::new(*first);
        values.for_each(|v| mean.add(*v));
        mean.value()
    }

    /// The mean of both sets of values.
    pub(in crate::node::engine) fn merge(&mut self, other: Self) {
        let count = self.count + other.count;
        if !self.incremental && !other.incremental {
            let mut both = self.state;
            both.add(other.state.sum);
            if !both.sum.is_infinite() {
                both.lost += other.state.lost;
                *self = Self { state: both, count, incremental: false };
                return;
            }
        }
        let mut state = Kahan::default();
        state.add(self.value() * (self.count / count));
        state.add(other.value() * (other.count / count));
        *self = Self { state, count, incremental: true };
    }

    pub(in crate::node::engine) fn value(self) -> f64 {
        if self.incremental {
            self.state.sum + self.state.lost
        } else {
            self.state.sum / self.count + self.state.lost / self.count
        }
    }
}

/// The first sample that none after it beats; NaN is beaten by everything.
fn extreme(w: &Window<'_>, beats: fn(f64, f64) -> bool) -> Option<(i64, f64)> {
    let samples = w.times.iter().copied().zip(w.values.iter().copied());
    samples.reduce(|best, new| if best.1.is_nan() || beats(new.1, best.1) { new } else { best })
}

fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares, mut count) = (Kahan::default(), Kahan::default(), 0.0);
    for value in values {
        count += 1.0;
        let delta = value - (mean.sum + mean.lost);
        mean.add(delta / count);
        squares.add(delta * (value - (mean.sum + mean.lost)));
    }
    (squares.sum + squares.lost) / count
}

/// The value below which a share `q` of the values lies, interpolated between two of them; sorts, NaN first.
pub(in crate::node::engine) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b)));
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor();
    let weight = rank - lower;
    let at = |index: usize| values.get(index.min(values.len() - 1)).copied().unwrap_or(f64::NAN);
    at(lower as usize) * (1.0 - weight) + at(lower as usize + 1) * weight
}

fn median_deviation(values: &[f64]) -> f64 {
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut values = values.to_vec();
    let median = quantile(0.5, &mut values);
    for value in &mut values {
        *value = (*value - median).abs();
    }
    quantile(0.5, &mut values)
}

/// Slope per second and value at `origin` of the least-squares line through the samples.
fn linear(w: &Window<'_>, origin: i64) -> Option<(f64, f64)> {
    if w.values.len() < 2 {
        return None;
    }
    let first = *w.values.first()?;
    if w.values.iter().all(|v| *v == first) {
        return Some(if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) });
    }
    let [mut x_sum, mut y_sum, mut xy_sum, mut xx_sum] = [Kahan::default(); 4];
    for (time, y) in w.times.iter().zip(w.values) {
        debug_assert!(!is_stale(*y), "windows hold no staleness markers");
        let x = time.saturating_sub(origin) as f64 / 1e3;
        x_sum.add(x);
        y_sum.add(*y);
        xy_sum.add(x * y);
        xx_sum.add(x * x);
    }
    let n = w.values.len() as f64;
    let [x, y, xy, xx] = [x_sum, y_sum, xy_sum, xx_sum].map(|k| k.sum + k.lost);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    Some((slope, y / n - slope * x / n))
}

/// Holt's linear smoothing: a level and a trend, each a weighted mean of what was and what is.
fn smooth(values: &[f64], level_weight: f64, trend_weight: f64) -> Option<f64> {
    let (first, second) = (*values.first()?, *values.get(1)?);
    let (mut level, mut trend) = (first, second - first);
    let mut before: Option<f64> = None;
    for value in values.iter().skip(1) {
        if let Some(before) = before {
            trend = trend_weight * (level - before) + (1.0 - trend_weight) * trend;
        }
        let next = level_weight * value + (1.0 - level_weight) * (level + trend);
        before = Some(level);
        level = next;
    }
    Some(level)
}
