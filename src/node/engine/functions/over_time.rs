//! Functions of all samples in a window: `*_over_time`, `deriv`, `predict_linear`, smoothing.

use crate::{
    node::engine::{quantile::quantile, samples_window::Window, sums::Kahan},
    series::is_stale,
};

/// A function of a window and its scalar arguments; `None` when the window holds too little.
pub(super) type RangeFn = fn(&Window<'_>, &[f64]) -> Option<f64>;

pub(super) fn ts_of_min(w: &Window<'_>, _: &[f64]) -> Option<f64> {
    extreme(w, |new, old| new <= old).map(|(time, _)| time as f64 / 1e3)
}

pub(super) fn ts_of_max(w: &Window<'_>, _: &[f64]) -> Option<f64> {
    extreme(w, |new, old| new >= old).map(|(time, _)| time as f64 / 1e3)
}

pub(super) fn ts_of_first(w: &Window<'_>, _: &[f64]) -> Option<f64> {
    w.first().map(|(time, _)| time as f64 / 1e3)
}

pub(super) fn ts_of_last(w: &Window<'_>, _: &[f64]) -> Option<f64> {
    w.last().map(|(time, _)| time as f64 / 1e3)
}

pub(super) fn deriv(w: &Window<'_>, _: &[f64]) -> Option<f64> {
    linear(w, w.first()?.0).map(|(slope, _)| slope)
}

pub(super) fn predict_linear(w: &Window<'_>, params: &[f64]) -> Option<f64> {
    linear(w, w.at).map(|(slope, now)| slope * arg(params, 0) + now)
}

pub(super) fn smoothed(w: &Window<'_>, params: &[f64]) -> Option<f64> {
    smooth(w.values, arg(params, 0), arg(params, 1))
}

pub(super) fn arg(params: &[f64], index: usize) -> f64 {
    params.get(index).copied().unwrap_or(f64::NAN)
}

/// The first sample that none after it beats; NaN is beaten by everything.
fn extreme(w: &Window<'_>, beats: fn(f64, f64) -> bool) -> Option<(i64, f64)> {
    let samples = w.times.iter().copied().zip(w.values.iter().copied());
    samples.reduce(|best, new| if best.1.is_nan() || beats(new.1, best.1) { new } else { best })
}

/// The mean square of the distances from the mean.
pub(super) fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares, mut count) = (Kahan::default(), Kahan::default(), 0.0);
    for value in values {
        count += 1.0;
        let delta = value - (mean.sum + mean.lost);
        mean.add(delta / count);
        squares.add(delta * (value - (mean.sum + mean.lost)));
    }
    (squares.sum + squares.lost) / count
}

pub(super) fn quantile_of(values: &mut [f64], params: &[f64]) -> f64 {
    quantile(arg(params, 0), values)
}

/// The median distance from the median; `values` are sorted and changed.
pub(super) fn median_deviation(values: &mut [f64]) -> f64 {
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let median = quantile(0.5, values);
    for value in values.iter_mut() {
        *value = (*value - median).abs();
    }
    quantile(0.5, values)
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

/// Holt's linear smoothing: a level and a trend, each a weighted mean of the newest value and the previous ones.
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
