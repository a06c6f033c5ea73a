//! The data of the incident: 20,000 seeded series over 6 h as blocks of Prometheus, made once and kept.

use crate::Result;
use crate::process::{command, need};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const INTERVAL: u64 = 15;
const SAMPLES: u64 = 6 * 3600 / INTERVAL;
const BUCKETS: [&str; 10] = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "5", "+Inf"];

/// Blocks in a folder, and the second after their last sample.
#[derive(Debug)]
pub(crate) struct Data {
    blocks: PathBuf,
    pub(crate) end: u64,
}

impl Data {
    /// The data kept in `dir`, made if there is none.
    pub(crate) fn get(dir: &Path) -> Result<Self> {
        let (blocks, end_file) = (dir.join("prometheus"), dir.join("end"));
        if let Ok(text) = fs::read_to_string(&end_file) {
            return Ok(Self { blocks, end: text.trim().parse()? });
        }
        need(&["promtool"])?;
        eprintln!(
            "making 20,000 series × 6 h in {}; this takes some minutes, once, and 2.2 GB for a while",
            dir.display()
        );
        fs::create_dir_all(dir)?;
        let end = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / INTERVAL * INTERVAL;
        let text = dir.join("data.om");
        write(&mut BufWriter::new(File::create(&text)?), end)?;
        let output = command("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .arg(&text)
            .arg(&blocks)
            .output()?;
        fs::remove_file(&text)?;
        if !output.status.success() {
            return Err(format!("promtool: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        // Last, so that an unfinished load is made anew.
        fs::write(end_file, end.to_string())?;
        Ok(Self { blocks, end })
    }

    /// Copies the blocks, so that no run sees the files of another.
    pub(crate) fn copy(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(&self.blocks)? {
            let from = entry?.path();
            if from.join("meta.json").is_file() {
                copy_tree(&from, &to.join(from.file_name().unwrap_or_default()))?;
            }
        }
        Ok(())
    }
}

/// Copies a folder with all below it.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let to = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_tree(&path, &to)?;
        } else {
            fs::copy(&path, &to)?;
        }
    }
    Ok(())
}

/// One series of the data.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Without the name, in the order in which they are written.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// One a sample, [`INTERVAL`] apart.
    pub(crate) values: Vec<f64>,
}

impl Series {
    pub(crate) fn text(&self) -> String {
        let labels: Vec<_> = self.labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        format!("{}{{{}}}", self.name, labels.join(","))
    }
}

/// OpenMetrics text of [`generate`].
fn write(out: &mut impl Write, end: u64) -> Result<()> {
    let mut last = String::new();
    generate(|series| {
        if series.name != last {
            last.clone_from(&series.name);
            let (family, kind) = match series.name.strip_suffix("_total") {
                Some(family) => (family, "counter"),
                None => (series.name.as_str(), "gauge"),
            };
            writeln!(out, "# TYPE {family} {kind}")?;
        }
        let text = series.text();
        for (value, time) in series.values.iter().zip(times(end)) {
            writeln!(out, "{text} {value} {time}")?;
        }
        Ok(())
    })?;
    writeln!(out, "# EOF")?;
    Ok(out.flush()?)
}

/// All of [`generate`], held in memory.
pub(crate) fn generated() -> Result<Vec<Series>> {
    let mut all = Vec::new();
    generate(|series| {
        all.push(series);
        Ok(())
    })?;
    Ok(all)
}

/// 29 counters, 10 gauges and a histogram, 500 series each; the same every time.
pub(crate) fn generate(mut each: impl FnMut(Series) -> Result<()>) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(7);
    let counters = (0..28).map(|n| format!("c{n:02}_total")).chain(["http_requests_total".to_owned()]);
    for name in counters {
        for labels in labels() {
            each(Series { name: name.clone(), labels, values: counter(&mut rng) })?;
        }
    }
    for name in (1..10).map(|n| format!("g{n:02}_level")).chain(["mem_usage".to_owned()]) {
        for labels in labels() {
            let mut value = rng.f64() * 100.0;
            let mut next = || {
                value += rng.f64() - 0.5;
                // Two decimals as a text format has them.
                Ok(format!("{value:.2}").parse()?)
            };
            let values = (0..SAMPLES).map(|_| next()).collect::<Result<_>>()?;
            each(Series { name: name.clone(), labels, values })?;
        }
    }
    for labels in labels().step_by(10) {
        for bucket in BUCKETS {
            let le = ("le", bucket.to_owned());
            let labels = labels.iter().cloned().chain([le]).collect();
            each(Series { name: "req_dur_bucket".to_owned(), labels, values: counter(&mut rng) })?;
        }
    }
    Ok(())
}

fn counter(rng: &mut fastrand::Rng) -> Vec<f64> {
    let mut value = rng.u32(..1000);
    let mut next = || {
        value += rng.u32(..20);
        f64::from(value)
    };
    (0..SAMPLES).map(|_| next()).collect()
}

/// The second of each sample.
pub(crate) fn times(end: u64) -> impl Iterator<Item = u64> {
    (0..SAMPLES).map(move |n| end - (SAMPLES - n) * INTERVAL)
}

/// 500 label sets: 5 jobs × 10 hosts × 10 paths.
fn labels() -> impl Iterator<Item = Vec<(&'static str, String)>> {
    (0..500).map(|n| {
        let job = ["api", "web", "db", "cache", "queue"][n / 100];
        let (host, path) = (n / 10 % 10 + 1, n % 10);
        vec![
            ("job", job.to_owned()),
            ("instance", format!("10.0.0.{host}:9100")),
            ("path", format!("/p{path}")),
        ]
    })
}
