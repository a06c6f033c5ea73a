//! Small data with every kind of series: 500 each of counters, gauges, classic buckets and native histograms, two and a
//! half hours every 15 s, so that a Prometheus keeps all of it in its head and compacts nothing meanwhile.

use super::grammar::Schema;
use crate::Result;
use crate::client::Request;
use crate::data::Series;
use crate::remote::{self, field, varint};
use std::time::{SystemTime, UNIX_EPOCH};

const INTERVAL: u64 = 15;
const SAMPLES: usize = 600;
const BUCKETS: [&str; 10] = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "5", "+Inf"];
const JOBS: [&str; 5] = ["api", "db", "web", "cache", "queue"];
/// Samples of a series in one request.
const LOADED: usize = 60;
/// Series of native histograms, and the buckets of each.
const HISTOGRAMS: usize = 100;
const HISTOGRAM_BUCKETS: usize = 40;

pub(super) const SCHEMA: Schema = Schema {
    counters: &["c0_total", "c1_total"],
    gauges: &["g0_level", "g1_level"],
    buckets: &["d_bucket"],
    natives: &[],
    labels: &["job", "instance", "path"],
    matchers: &["job=\"api\"", "path=~\"/p[0-4]\"", "instance!=\"10.0.0.1:9100\""],
    newer: false,
};

/// The name of the native histograms.
pub(super) const NATIVE: &str = "n_seconds";

/// All of the data, and the second of its last sample.
pub(super) struct Data {
    series: Vec<Series>,
    times: Vec<u64>,
    pub(super) end: u64,
}

impl Data {
    pub(super) fn new() -> Result<Self> {
        let end = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / INTERVAL * INTERVAL;
        let times = (0..SAMPLES as u64).rev().map(|n| end - n * INTERVAL).collect();
        let mut rng = fastrand::Rng::with_seed(3);
        let mut series = Vec::new();
        for name in SCHEMA.counters.iter().chain(SCHEMA.gauges) {
            for labels in labels() {
                let rises = name.ends_with("_total");
                series.push(Series { name: (*name).to_owned(), labels, values: values(&mut rng, rises) });
            }
        }
        for labels in labels().step_by(10) {
            for bucket in BUCKETS {
                let mut labels = labels.clone();
                labels.push(("le", bucket.to_owned()));
                series.push(Series { name: "d_bucket".to_owned(), labels, values: values(&mut rng, true) });
            }
        }
        Ok(Self { series, times, end })
    }

    /// Sends all of it; whether the database took native histograms too.
    pub(super) fn load(&self, port: u16) -> Result<bool> {
        let mut histograms = true;
        for start in (0..SAMPLES).step_by(LOADED) {
            let some = start..(start + LOADED).min(SAMPLES);
            remote::send(
                port,
                &remote::requests(remote::PROMETHEUS, &self.series, some.clone(), &self.times)?,
            )?;
            histograms = histograms && remote::send(port, &[self.histograms(some)?]).is_ok();
        }
        Ok(histograms)
    }

    fn histograms(&self, samples: std::ops::Range<usize>) -> Result<Vec<Request>> {
        let mut body = Vec::new();
        for labels in labels().take(HISTOGRAMS) {
            let mut message = Vec::new();
            let mut all: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
            all.push(("__name__", NATIVE));
            all.sort_unstable();
            for (name, value) in all {
                let mut label = Vec::new();
                field(&mut label, 1, name.as_bytes());
                field(&mut label, 2, value.as_bytes());
                field(&mut message, 1, &label);
            }
            for n in samples.clone() {
                field(&mut message, 4, &histogram(n as u64 + 1, self.times.get(n).copied().unwrap_or(0)));
            }
            field(&mut body, 1, &message);
        }
        let body = snap::raw::Encoder::new().compress_vec(&body)?;
        Ok(vec![Request::remote_write(remote::PROMETHEUS, &body)])
    }
}

/// A `Histogram` of remote write: this number of observations in each bucket of one span.
fn histogram(each: u64, time: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut number = |key: u64, value: u64| {
        varint(&mut out, key << 3);
        varint(&mut out, value);
    };
    number(1, each * HISTOGRAM_BUCKETS as u64);
    // Schema 3, in zigzag form.
    number(4, 6);
    number(6, 0);
    out.push(3 << 3 | 1);
    out.extend((each as f64).to_le_bytes());
    out.push(5 << 3 | 1);
    out.extend(1e-9f64.to_le_bytes());
    let mut span = Vec::new();
    varint(&mut span, 2 << 3);
    varint(&mut span, HISTOGRAM_BUCKETS as u64);
    field(&mut out, 11, &span);
    let mut deltas = Vec::new();
    varint(&mut deltas, each * 2);
    deltas.extend(std::iter::repeat_n(0, HISTOGRAM_BUCKETS - 1));
    field(&mut out, 12, &deltas);
    varint(&mut out, 15 << 3);
    varint(&mut out, time * 1000);
    out
}

/// 500 label sets.
fn labels() -> impl Iterator<Item = Vec<(&'static str, String)>> {
    (0..500).map(|n| {
        vec![
            ("instance", format!("10.0.0.{}:9100", n / 5 % 10)),
            ("job", JOBS[n % 5].to_owned()),
            ("path", format!("/p{}", n / 50)),
        ]
    })
}

/// A counter, or a walk of two decimals.
fn values(rng: &mut fastrand::Rng, rises: bool) -> Vec<f64> {
    let mut value = rng.f64() * 1_000.0;
    let mut next = || {
        value += if rises { (rng.f64() * 10.0).floor() } else { rng.f64() - 0.5 };
        (value * 100.0).round() / 100.0
    };
    (0..SAMPLES).map(|_| next()).collect()
}
