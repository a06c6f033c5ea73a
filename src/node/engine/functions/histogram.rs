//! Classic histograms: `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`.

use super::call::Call;
use crate::{
    node::engine::{
        annotations::{Forced, for_metric},
        error::EvalError,
        eval::{Eval, Sink, emit, emit_all},
        meter::Held,
        number,
        places::Places,
        quantile::check_quantile,
        value::{Matrix, Merged},
    },
    promql::ast::NodeId,
    series::{BUCKET, Label, Labels},
};

/// Counts that differ by less than this share are the same: floats were added in another order.
const SMALL_DELTA: f64 = 1e-12;

/// A bucket at one step: its upper bound and its cumulative count.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    upper: f64,
    count: f64,
}

/// The series of one classic histogram.
struct Classic {
    /// Without `le`.
    labels: Labels,
    /// Upper bounds and places in the matrix, by rising bound.
    buckets: Vec<(f64, usize)>,
}

/// The histograms of an instant vector.
struct Histograms<'a> {
    matrix: Matrix<'a>,
    all: Vec<Classic>,
    /// The memory of the lists above, and of the buckets of the histogram in hand.
    _held: Held<'a>,
}

impl<'a> Histograms<'a> {
    fn collect(eval: &Eval<'a>, id: NodeId) -> Result<Self, EvalError> {
        let matrix = eval.collect(id)?;
        let mut held = eval.cx.meter.hold();
        let mut places = Places::default();
        let mut all: Vec<Classic> = Vec::new();
        for (place, series) in matrix.series.iter().enumerate() {
            let le = series.labels.get(BUCKET);
            let Some(upper) = parse_bound(le) else {
                let text = format!("bucket label \"le\" is missing or has a malformed value of {le:?}");
                eval.warn(eval.span(id), for_metric(&text, series.labels.metric_name()));
                continue;
            };
            let own = || series.labels.iter().filter(|label: &&Label| &*label.name != BUCKET);
            let hash = places.hash(own());
            let same = |at: usize| all.get(at).is_some_and(|known| known.labels.iter().eq(own()));
            let at = match places.find(hash, same) {
                Some(at) => at,
                None => {
                    places.insert(hash, all.len(), &mut held)?;
                    let labels = series.labels.with(BUCKET, "");
                    held.borrow(labels.bytes() as u64)?;
                    held.push(&mut all, Classic { labels, buckets: Vec::new() })?;
                    all.len() - 1
                }
            };
            if let Some(classic) = all.get_mut(at) {
                held.push(&mut classic.buckets, (upper, place))?;
            }
        }
        for classic in &mut all {
            classic.buckets.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        }
        let most = all.iter().map(|classic| classic.buckets.len()).max().unwrap_or_default();
        held.borrow((most * size_of::<Bucket>()) as u64)?;
        Ok(Self { matrix, all, _held: held })
    }

    /// The buckets of one histogram at a step, those with the same bound added up.
    fn at(&self, classic: &Classic, step: usize) -> Vec<Bucket> {
        let mut buckets: Vec<Bucket> = Vec::with_capacity(classic.buckets.len());
        for (upper, place) in &classic.buckets {
            let Some(count) = self.matrix.series.get(*place).and_then(|s| s.at(step)) else { continue };
            match buckets.last_mut() {
                Some(last) if last.upper == *upper => last.count += count,
                _ => buckets.push(Bucket { upper: *upper, count }),
            }
        }
        buckets
    }
}

/// A bucket bound as Go parses floats, in the forms that exporters write.
fn parse_bound(text: &str) -> Option<f64> {
    let looks_like_one = !text.is_empty() && !text.contains(char::is_whitespace);
    text.parse().ok().filter(|_| looks_like_one)
}

/// `histogram_quantile(q, v)`
pub(super) fn quantile(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let (q_arg, vector) = (call.arg(0)?, call.arg(1)?);
    let qs = eval.scalars(q_arg)?;
    for q in qs.iter() {
        check_quantile(eval, *q, q_arg);
    }
    let histograms = Histograms::collect(eval, vector)?;
    for classic in &histograms.all {
        let mut out = eval.empty_row(classic.labels.clone(), true)?;
        for (step, (q, cell)) in qs.iter().zip(out.values.iter_mut()).enumerate() {
            eval.cx.meter.check()?;
            let mut buckets = histograms.at(classic, step);
            if !buckets.is_empty() {
                *cell = noted_quantile(eval, *q, &mut buckets, step, vector, &classic.labels);
            }
        }
        emit(&mut out, sink)?;
    }
    Ok(())
}

/// `histogram_quantiles(v, label, q…)`
pub(super) fn quantiles(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let (vector, label) = (call.arg(0)?, eval.string(call.arg(1)?)?);
    let histograms = Histograms::collect(eval, vector)?;
    let mut merged = Merged::new(eval.cx.meter.hold(), eval.grid.count);
    for id in call.args.iter().skip(2) {
        for (step, q) in eval.scalars(*id)?.iter().copied().enumerate() {
            eval.cx.meter.check()?;
            check_quantile(eval, q, *id);
            let text = number::open_metrics(q);
            for classic in &histograms.all {
                let mut buckets = histograms.at(classic, step);
                if !buckets.is_empty() {
                    let value = noted_quantile(eval, q, &mut buckets, step, vector, &classic.labels);
                    let slot = merged.slot(classic.labels.with(label, &text), true)?;
                    merged.put(slot, step, value)?;
                }
            }
        }
    }
    emit_all(merged.matrix, sink)
}

/// `histogram_fraction(lower, upper, v)`
pub(super) fn fraction(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let (lower, upper) = (eval.scalars(call.arg(0)?)?, eval.scalars(call.arg(1)?)?);
    let histograms = Histograms::collect(eval, call.arg(2)?)?;
    for classic in &histograms.all {
        let mut out = eval.empty_row(classic.labels.clone(), true)?;
        for (step, ((lower, upper), cell)) in
            lower.iter().zip(upper.iter()).zip(out.values.iter_mut()).enumerate()
        {
            eval.cx.meter.check()?;
            let buckets = histograms.at(classic, step);
            if !buckets.is_empty() {
                *cell = bucket_fraction(*lower, *upper, &buckets);
            }
        }
        emit(&mut out, sink)?;
    }
    Ok(())
}

fn noted_quantile(
    eval: &Eval<'_>,
    q: f64,
    buckets: &mut [Bucket],
    step: usize,
    vector: NodeId,
    labels: &Labels,
) -> f64 {
    let (value, forced) = bucket_quantile(q, buckets);
    if let Some(Correction { buckets, most }) = forced {
        let time = eval.grid.time(step);
        let forced = Forced { times: (time, time), buckets, most, samples: 1 };
        let span = eval.span(vector);
        eval.cx.annotations().forced_monotonic(span, labels.metric_name(), forced);
    }
    value
}

/// Repairs that made counts rise with the bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Correction {
    buckets: (f64, f64),
    most: f64,
}

/// The value below which a share `q` of the observations lies, spread evenly inside their buckets.
fn bucket_quantile(q: f64, buckets: &mut [Bucket]) -> (f64, Option<Correction>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if buckets.last().is_none_or(|last| last.upper != f64::INFINITY) {
        return (f64::NAN, None);
    }
    let forced = make_monotonic(buckets);
    (interpolated(q, buckets).unwrap_or(f64::NAN), forced)
}

fn interpolated(q: f64, buckets: &[Bucket]) -> Option<f64> {
    let (highest, finite) = buckets.split_last()?;
    let highest_finite = finite.last()?;
    if highest.count == 0.0 {
        return None;
    }
    let rank = q * highest.count;
    let Some(bucket) = finite.iter().position(|b| b.count >= rank) else {
        return Some(highest_finite.upper);
    };
    let Bucket { upper, count } = *finite.get(bucket)?;
    let below = bucket.checked_sub(1).and_then(|i| finite.get(i));
    match below {
        // Where the lowest bucket starts is not known, unless it ends above zero.
        None if upper <= 0.0 => Some(upper),
        None => Some(upper * (rank / count)),
        Some(b) => Some(b.upper + (upper - b.upper) * ((rank - b.count) / (count - b.count))),
    }
}

/// Levels every count that is lower than one before it; small differences go silently.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Correction> {
    let mut forced: Option<Correction> = None;
    let mut counts = buckets.iter_mut();
    let mut before = counts.next()?.count;
    for bucket in counts {
        if bucket.count == before {
            continue;
        }
        if nearly_equal(before, bucket.count) {
            bucket.count = before;
        } else if bucket.count < before {
            let by = before - bucket.count;
            let known = forced.get_or_insert(Correction { buckets: (bucket.upper, bucket.upper), most: 0.0 });
            known.buckets = (known.buckets.0.min(bucket.upper), known.buckets.1.max(bucket.upper));
            known.most = known.most.max(by);
            bucket.count = before;
        } else {
            before = bucket.count;
        }
    }
    forced
}

fn nearly_equal(a: f64, b: f64) -> bool {
    if a.is_nan() && b.is_nan() {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < SMALL_DELTA * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < SMALL_DELTA
}

/// The share of observations between two values.
fn bucket_fraction(lower: f64, upper: f64, buckets: &[Bucket]) -> f64 {
    let Some(highest) = buckets.last().filter(|b| b.upper == f64::INFINITY) else {
        return f64::NAN;
    };
    let total = highest.count;
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (observed_below(upper, buckets).min(total) - observed_below(lower, buckets).min(total)) / total
}

/// How many observations lie below a value.
fn observed_below(value: f64, buckets: &[Bucket]) -> f64 {
    // A lowest bucket that ends above zero starts at zero; another one has no lower end to interpolate from.
    let mut start = if buckets.first().is_some_and(|b| b.upper > 0.0) { 0.0 } else { f64::NEG_INFINITY };
    let mut below = 0.0;
    for bucket in buckets {
        if start >= value {
            return below;
        }
        if bucket.upper > value {
            if start == f64::NEG_INFINITY {
                return bucket.count;
            }
            return below + (bucket.count - below) * (value - start) / (bucket.upper - start);
        }
        start = bucket.upper;
        below = bucket.count;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(of: &[(f64, f64)]) -> Vec<Bucket> {
        of.iter().map(|(upper, count)| Bucket { upper: *upper, count: *count }).collect()
    }

    #[test]
    fn a_quantile_lies_inside_its_bucket() {
        let of = [(1.0, 10.0), (2.0, 30.0), (f64::INFINITY, 40.0)];
        for (q, want) in [(0.0, 0.0), (0.25, 1.0), (0.5, 1.5), (0.75, 2.0), (1.0, 2.0)] {
            assert_eq!(bucket_quantile(q, &mut buckets(&of)), (want, None), "q={q}");
        }
        assert!(bucket_quantile(0.5, &mut buckets(&of[..2])).0.is_nan(), "no +Inf bucket");
    }

    #[test]
    fn falling_counts_are_leveled_and_told() {
        let mut of = buckets(&[(1.0, 10.0), (2.0, 8.0), (4.0, 9.0), (f64::INFINITY, 20.0)]);
        let forced = bucket_quantile(0.5, &mut of).1;
        assert_eq!(forced, Some(Correction { buckets: (2.0, 4.0), most: 2.0 }));
        assert_eq!(of.iter().map(|b| b.count).collect::<Vec<_>>(), [10.0, 10.0, 10.0, 20.0]);
    }

    #[test]
    fn fractions_add_up() {
        let of = buckets(&[(1.0, 10.0), (2.0, 30.0), (f64::INFINITY, 40.0)]);
        assert_eq!(bucket_fraction(f64::NEG_INFINITY, f64::INFINITY, &of), 1.0);
        assert_eq!(bucket_fraction(0.0, 1.5, &of), 0.5);
        assert_eq!(bucket_fraction(1.5, 1.0, &of), 0.0);
    }
}
