//! The data of the real databases: metrics of services, queries of dashboards, and series that come and go.

use std::{collections::BTreeMap, fmt::Write as _, io};

use weir::promql::{self, ast::MatchOp, shape::Shape};

use crate::support::weir::now_ms;

/// Seconds between two samples.
const INTERVAL: i64 = 30;
/// Samples of a series that lives all the time: three hours.
const SAMPLES: i64 = 360;
/// The newest samples, which are in Prometheus' head.
const FRESH: i64 = 40;
/// Samples of a series that comes and goes.
const LIFE: i64 = 40;
/// Bytes of one import.
const IMPORT: usize = 4 << 20;
/// Series of one remote write.
const WRITE: usize = 500;

/// Labels and the samples, by number, in which it lives.
struct Series {
    labels: Vec<(String, String)>,
    lives: std::ops::Range<i64>,
    counts: bool,
}

pub(crate) struct Data {
    /// The last sample, seconds since the epoch.
    pub(crate) end: i64,
    series: Vec<Series>,
}

/// Queries as dashboards ask them, with the parameters of a template filled in.
pub(crate) fn dashboard_queries() -> Vec<&'static str> {
    let text = include_str!("../../../data/dashboard_queries.txt");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

impl Data {
    /// None at all.
    pub(super) fn none() -> Self {
        Self { end: 0, series: Vec::new() }
    }

    pub(super) fn new() -> Self {
        let mut series = Vec::new();
        let always = |name: &str, more: &[(&str, &str)]| {
            let mut labels = vec![("__name__".to_owned(), name.to_owned())];
            labels.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
            Series {
                labels,
                lives: 0..SAMPLES,
                counts: name.ends_with("_total") || name.ends_with("_bucket"),
            }
        };
        for job in ["api", "web", "db", "queue"] {
            for host in 0..10 {
                let instance = format!("10.0.0.{host}:9100");
                for path in ["/", "/a", "/b", "/c", "/d"] {
                    let labels = [("job", job), ("instance", &*instance), ("path", path)];
                    for metric in 0..4 {
                        series.push(always(&format!("requests_{metric}_total"), &labels));
                        series.push(always(&format!("level_{metric}"), &labels));
                    }
                    let le = ["0.01", "0.1", "1", "10", "+Inf"][host % 5];
                    series.push(always(
                        "latency_bucket",
                        &[("job", job), ("path", path), ("le", le), ("shard", ["a", "b"][host / 5])],
                    ));
                }
            }
        }
        for number in 0..160 {
            let mut one = always("pod_restarts_total", &[("pod", &format!("pod-{number}"))]);
            let start = number * (SAMPLES - LIFE) / 160;
            one.lives = start..start + LIFE;
            series.push(one);
        }
        for (name, labels) in dashboard_metrics() {
            for host in ["web-1:9100", "web-2:9100", "web-3:9100"] {
                let mut labels: Vec<_> = labels.iter().map(|(k, v)| (&**k, &**v)).collect();
                labels.retain(|(name, _)| *name != "instance");
                labels.push(("instance", host));
                series.push(always(&name, &labels));
            }
        }
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Self { end: now_ms() / 1_000 / INTERVAL * INTERVAL, series }
    }

    pub(crate) fn series(&self) -> usize {
        self.series.len()
    }

    /// The first moment that Prometheus' head holds, seconds since the epoch.
    pub(crate) fn head_start(&self) -> i64 {
        self.time(SAMPLES - FRESH)
    }

    fn time(&self, sample: i64) -> i64 {
        self.end - (SAMPLES - 1 - sample) * INTERVAL
    }

    /// All but the newest samples.
    pub(super) fn open_metrics(&self, out: &mut impl io::Write) -> io::Result<()> {
        for (number, series) in self.series.iter().enumerate() {
            let text = series.text();
            for sample in series.lives.clone().filter(|sample| *sample < SAMPLES - FRESH) {
                writeln!(out, "{text} {} {}", series.value(number, sample), self.time(sample))?;
            }
        }
        out.write_all(b"# EOF\n")
    }

    /// Everything, in bodies of a few megabytes.
    pub(super) fn text_imports(&self) -> Vec<String> {
        let mut bodies = vec![String::new()];
        for (number, series) in self.series.iter().enumerate() {
            let text = series.text();
            if bodies.last().is_some_and(|body| body.len() > IMPORT) {
                bodies.push(String::new());
            }
            let Some(body) = bodies.last_mut() else { continue };
            for sample in series.lives.clone() {
                let (value, ms) = (series.value(number, sample), self.time(sample) * 1_000);
                writeln!(body, "{text} {value} {ms}").unwrap();
            }
        }
        bodies
    }

    /// The newest samples, as remote write sends them.
    pub(super) fn remote_writes(&self) -> Vec<Vec<u8>> {
        let numbered: Vec<_> = self.series.iter().enumerate().collect();
        let body = |some: &[(usize, &Series)]| {
            let written = some.iter().map(|(number, series)| {
                let fresh = series.lives.clone().filter(|sample| *sample >= SAMPLES - FRESH);
                let samples =
                    fresh.map(|sample| (series.value(*number, sample), self.time(sample) * 1_000)).collect();
                (&*series.labels, samples)
            });
            remote_write(written)
        };
        numbered.chunks(WRITE).map(body).collect()
    }
}

impl Series {
    fn value(&self, number: usize, sample: i64) -> f64 {
        let step = (number as i64 * 7 + sample) % 13;
        if self.counts { (sample * 10 + step) as f64 } else { (number % 90) as f64 + step as f64 / 4.0 }
    }

    /// In the text format.
    fn text(&self) -> String {
        let mut out = String::new();
        let mut labels = self.labels.iter();
        out.extend(labels.next().map(|(_, name)| name.as_str()));
        let pairs: Vec<_> = labels.map(|(name, value)| format!("{name}={value:?}")).collect();
        write!(out, "{{{}}}", pairs.join(",")).unwrap();
        out
    }
}

/// A body of remote write: the labels of each series, and its values with their milliseconds.
pub(crate) fn remote_write<'l>(
    series: impl Iterator<Item = (&'l [(String, String)], Vec<(f64, i64)>)>,
) -> Vec<u8> {
    let mut request = Vec::new();
    for (labels, samples) in series.filter(|(_, samples)| !samples.is_empty()) {
        let mut labels: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        labels.sort_unstable();
        let samples = samples.into_iter().map(|(value, ms)| (ms, value));
        field(&mut request, 1, &timeseries(&labels, samples));
    }
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

/// A series of remote write: its labels in this order, and its values behind their milliseconds.
pub(crate) fn timeseries(labels: &[(&str, &str)], samples: impl IntoIterator<Item = (i64, f64)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        field(&mut label, 1, name.as_bytes());
        field(&mut label, 2, value.as_bytes());
        field(&mut out, 1, &label);
    }
    for (ms, value) in samples {
        let mut sample = vec![1 << 3 | 1];
        sample.extend(value.to_le_bytes());
        sample.push(2 << 3);
        varint(&mut sample, ms as u64);
        field(&mut out, 2, &sample);
    }
    out
}

/// A length-delimited field.
pub(crate) fn field(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Every metric that the dashboards name, with the labels that its first selector asks for.
fn dashboard_metrics() -> BTreeMap<String, Vec<(String, String)>> {
    let mut metrics = BTreeMap::new();
    for query in dashboard_queries() {
        let ast = promql::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        for selector in Shape::of(&ast.into(), weir::base::time::EvalTimes::instant(0), 300_000).selectors {
            let Some(name) = selector.metric_name() else { continue };
            let mut labels: Vec<_> = (selector.matchers.iter())
                .filter(|m| m.op == MatchOp::Equal && &*m.name != "__name__" && !m.value.is_empty())
                .map(|m| (m.name.to_string(), m.value.to_string()))
                .collect();
            labels.sort();
            labels.dedup_by(|a, b| a.0 == b.0);
            metrics.entry(name.to_owned()).or_insert(labels);
        }
    }
    metrics
}
