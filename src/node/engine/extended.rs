//! Windows with `anchored` and `smoothed` edges: values exactly at their ends.

use super::samples_window::Window;
use crate::promql::ast::Edges;

/// A window with values exactly at its edges.
pub(super) struct Extended<'w> {
    pub(super) left: f64,
    /// Strictly between the edges.
    pub(super) inner: &'w [f64],
    pub(super) inner_times: &'w [i64],
    pub(super) right: f64,
}

/// The window up to its edges, whose values are samples or interpolated.
pub(super) fn edges<'w>(w: &Window<'w>, counter: bool) -> Option<Extended<'w>> {
    let smoothed = w.edges == Edges::Smoothed;
    let newest = w.times.len().checked_sub(1)?;
    let mut first = w.times.get(..newest)?.partition_point(|t| *t <= w.start).saturating_sub(1);
    let mut last = newest;
    if smoothed {
        last = w.times.get(..newest)?.partition_point(|t| *t < w.end);
    }
    let (first_time, last_time) = (*w.times.get(first)?, *w.times.get(last)?);
    if last_time <= w.start || (smoothed && first_time > w.end) {
        return None;
    }
    let left = if smoothed && first_time < w.start {
        interpolate(w, first, first + 1, w.start, counter)?
    } else {
        *w.values.get(first)?
    };
    let right = if smoothed && last > 0 && last_time > w.end {
        interpolate(w, last - 1, last, w.end, counter)?
    } else {
        *w.values.get(last)?
    };
    if first_time <= w.start {
        first += 1;
    }
    // One past the last inner sample.
    let upto = if last_time >= w.end { last } else { last + 1 };
    let inner = first..upto.max(first);
    Some(Extended { left, inner: w.values.get(inner.clone())?, inner_times: w.times.get(inner)?, right })
}

/// The value at `time` on the line between two samples; a counter that was reset between them starts from zero.
fn interpolate(w: &Window<'_>, a: usize, b: usize, time: i64, counter: bool) -> Option<f64> {
    let (from, to) = (*w.times.get(a)?, *w.times.get(b)?);
    let (mut start, end) = (*w.values.get(a)?, *w.values.get(b)?);
    if counter && end < start {
        start = 0.0;
    }
    let between = |from: i64, to: i64| to.saturating_sub(from) as f64;
    Some(start + (end - start) * between(from, time) / between(from, to))
}

/// Hands on the samples of an anchored or smoothed window, with one at each edge.
pub(super) fn points(w: &Window<'_>, mut each: impl FnMut(i64, f64)) {
    let Some(edges) = edges(w, false) else { return };
    each(w.start, edges.left);
    for (time, value) in edges.inner_times.iter().zip(edges.inner) {
        each(*time, *value);
    }
    each(w.end, edges.right);
}
