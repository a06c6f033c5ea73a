//! The data of both databases: counters with resets, gauges, a histogram; gaps, series that come and go, staleness
//! markers, NaN and infinities.
//!
//! Samples lie [`RESIDUE_MS`] after a full second, and queries ask at full seconds: no window begins or ends at a
//! sample, where Prometheus before 3.0 took one more in. Gauges are multiples of a quarter, so that sums are exact in
//! any order.

use weir::series::STALE_NAN;

use crate::support::real::data::remote_write;

/// Second of the first sample; a multiple of an hour.
pub(super) const START: i64 = 1_699_999_200;
/// Second after the last sample.
pub(super) const END: i64 = START + 2 * 3_600;
const INTERVAL: i64 = 30;
const SAMPLES: i64 = (END - START) / INTERVAL;
const RESIDUE_MS: i64 = 137;
/// Samples of one request: Prometheus' head takes nothing that is an hour behind.
const BATCH: i64 = 60;

struct Series {
    labels: Vec<(String, String)>,
    samples: Vec<(f64, i64)>,
}

/// Remote writes, in order of time.
pub(super) fn writes() -> Vec<Vec<u8>> {
    writes_of(None)
}

/// The same of the series with this job alone.
pub(super) fn writes_of(job: Option<&str>) -> Vec<Vec<u8>> {
    let is_own = |series: &Series| {
        job.is_none_or(|job| series.labels.iter().any(|(name, value)| name == "job" && value == job))
    };
    let series: Vec<Series> = all().into_iter().filter(is_own).collect();
    let batches = (0..SAMPLES).step_by(BATCH as usize);
    let batches = batches.map(|from| {
        let (from, to) = (time_ms(from), time_ms(from + BATCH));
        remote_write(series.iter().map(|series| {
            let inside = series.samples.iter().filter(|(_, ms)| (from..to).contains(ms));
            (&*series.labels, inside.copied().collect())
        }))
    });
    batches.collect()
}

fn time_ms(sample: i64) -> i64 {
    (START + sample * INTERVAL) * 1_000 + RESIDUE_MS
}

fn all() -> Vec<Series> {
    let mut rng = fastrand::Rng::with_seed(42);
    let mut series = Vec::new();
    let mut add = |name: &str, labels: &[(&str, &str)], values: &mut dyn FnMut(i64) -> Option<f64>| {
        let mut all = vec![("__name__".to_owned(), name.to_owned())];
        all.extend(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let samples = (0..SAMPLES).filter_map(|i| Some((values(i)?, time_ms(i)))).collect();
        series.push(Series { labels: all, samples });
    };
    for (j, job) in ["api", "web", "db"].into_iter().enumerate() {
        for i in 0..4 {
            let instance = format!("h{i}");
            let about = [("job", job), ("instance", &*instance)];
            let life = life(&mut rng);
            for code in ["200", "500"] {
                // A counter never starts near zero: how far it is extrapolated there changed between versions.
                let mut value = f64::from(rng.u32(20_000..1_000_000));
                let labels = [about[0], about[1], ("code", code)];
                add("requests_total", &labels, &mut |sample| {
                    value = if rng.u8(..90) == 0 { 20_000.0 } else { value + f64::from(rng.u8(..20)) };
                    life.at(sample, value)
                });
            }
            let mut level = f64::from(rng.i16(-400..400));
            add("mem", &about, &mut |sample| {
                level += f64::from(rng.i8(-8..9));
                life.at(sample, level / 4.0)
            });
            let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
            add("temp", &[about[0], about[1], ("zone", ["a", "b"][i % 2])], &mut |sample| {
                let odd = (i == 3 && rng.u8(..8) == 0).then(|| odd[rng.usize(..3)]);
                life.at(sample, odd.unwrap_or_else(|| f64::from(rng.i16(-80..80)) / 4.0))
            });
            // No two series ever have the same value.
            add("rank", &about, &mut |_| Some(f64::from(rng.u16(..1_000)) * 16.0 + (j * 4 + i) as f64));
            add("flag", &about, &mut |_| Some((j + i) as f64 % 3.0));
        }
        let mut counts = [0.0; 5];
        let bounds = ["0.1", "0.5", "1", "5", "+Inf"];
        let mut rows: Vec<[f64; 5]> = Vec::new();
        for _ in 0..SAMPLES {
            let mut more = 0.0;
            for count in &mut counts {
                more += f64::from(rng.u8(..6));
                *count += more;
            }
            rows.push(counts.map(|count| count + 20_000.0));
        }
        for (at, le) in bounds.into_iter().enumerate() {
            add("lat_bucket", &[("job", job), ("le", le)], &mut |sample| Some(rows[sample as usize][at]));
        }
    }
    series
}

/// When something is there.
struct Life {
    from: i64,
    to: i64,
    gap: std::ops::Range<i64>,
    /// Ends and gaps are marked.
    marked: bool,
}

fn life(rng: &mut fastrand::Rng) -> Life {
    let (from, to) = match rng.u8(..3) {
        0 => (rng.i64(0..SAMPLES / 2), SAMPLES),
        1 => (0, rng.i64(SAMPLES / 2..SAMPLES)),
        _ => (0, SAMPLES),
    };
    let gap = rng.i64(0..SAMPLES);
    Life { from, to, gap: gap..gap + rng.i64(1..25), marked: rng.bool() }
}

impl Life {
    fn at(&self, sample: i64, value: f64) -> Option<f64> {
        if self.marked && (sample == self.to || sample == self.gap.start) && sample > self.from {
            return Some(f64::from_bits(STALE_NAN));
        }
        let lives = (self.from..self.to).contains(&sample) && !self.gap.contains(&sample);
        lives.then_some(value)
    }
}
