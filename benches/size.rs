//! Bytes per sample on disk, by kind of data: of blocks, of their index, and of the log of samples outside of blocks.
//!
//! `cargo bench --bench size` prints Markdown. A kind is 2,000 series over 6 h at 15 s, written in the way that is
//! named.

use std::{fs, path::Path};

use weir::node::{
    db::{Db, Options},
    head::{Batch, LabelLimits},
    wal::SyncPolicy,
};

const NOW: i64 = 1_700_003_300_000;
const STEPS: i64 = 1_440;
const SERIES: usize = 2_000;

type Next = fn(&mut fastrand::Rng, f64) -> f64;

struct Kind {
    name: &'static str,
    next: Next,
    /// Samples of a series in one write.
    together: i64,
    /// Milliseconds around the grid.
    jitter: i64,
    /// Samples after which a series ends and another one begins.
    life: i64,
}

/// Two decimals, as a text format has them.
fn cents(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn kinds() -> Vec<Kind> {
    let kind = |name, next| Kind { name, next, together: 20, jitter: 0, life: STEPS };
    let counter: Next = |rng, last| last + f64::from(rng.u32(..20));
    let gauge: Next = |rng, last| cents(last + rng.f64() - 0.5);
    vec![
        kind("counter, steps of 0 to 19", counter),
        kind("gauge of two decimals", gauge),
        Kind { together: 1, ..kind("counter, a scrape at a time", counter) },
        Kind { together: 1, jitter: 3, ..kind("the same with jitter of 3 ms", counter) },
        kind("counter, seldom moved", |rng, last| last + f64::from(u8::from(rng.u8(..10) == 0))),
        kind("counter, bursts", |rng, last| last + (-20.0 * (1.0 - rng.f64()).ln()).floor().min(1e6)),
        kind("constant", |_, last| last),
        kind("random floats", |rng, _| rng.f64()),
        kind("walk of random floats", |rng, last| last + rng.f64() - 0.5),
        Kind { life: 40, ..kind("counter, series that live 10 minutes", counter) },
    ]
}

fn write(db: &Db, kind: &Kind) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut values: Vec<f64> = (0..SERIES).map(|_| f64::from(rng.u32(..1_000))).collect();
    let hosts: Vec<[String; 2]> =
        (0..SERIES).map(|i| [format!("10.0.0.{}:9100", i / 10 % 10), format!("/p{}", i % 10)]).collect();
    let names: Vec<String> = (0..SERIES).map(|i| format!("c{:02}_total", i / 100)).collect();
    for start in (0..STEPS).step_by(kind.together as usize) {
        let generation = format!("{}", start / kind.life);
        for (part, some) in hosts.chunks(500).enumerate() {
            let mut batch = Batch::new(LabelLimits::default());
            for (i, [host, path]) in some.iter().enumerate() {
                let series = part * 500 + i;
                for (name, value) in
                    [("__name__", &names[series]), ("instance", host), ("path", path), ("pod", &generation)]
                {
                    batch.label(name, value);
                }
                for step in start..start + kind.together {
                    let time = NOW - (STEPS - step) * 15_000 + rng.i64(-kind.jitter..=kind.jitter);
                    values[series] = (kind.next)(&mut rng, values[series]);
                    batch.sample(time, values[series]);
                }
                batch.end_series().expect("labels are fine");
            }
            assert!(db.append(&batch).expect("the disk has room").refused == 0);
        }
        // As a running node does all the while.
        if start % 40 == 0 {
            db.maintain().expect("the disk has room");
        }
    }
    db.maintain().expect("the disk has room");
}

/// Bytes of the files below a folder whose path ends so.
fn size(dir: &Path, end: &str) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .map(|path| match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => size(&path, end),
            Ok(meta) if path.to_string_lossy().ends_with(end) => meta.len(),
            _ => 0,
        })
        .sum()
}

#[allow(clippy::print_stdout, reason = "its output")]
fn main() {
    let samples = STEPS as f64 * SERIES as f64;
    println!("| bytes per sample | chunks | index | log | checkpoint | all |\n|--|--|--|--|--|--|");
    for kind in kinds() {
        let dir = tempfile::tempdir().expect("a folder");
        let options = Options { sync: SyncPolicy::Never, clock: || NOW, ..Options::default() };
        let (db, _) = Db::open(dir.path(), options).expect("an empty folder");
        write(&db, &kind);
        drop(db);
        let each = |end: &str| format!("{:.3}", size(dir.path(), end) as f64 / samples);
        let cells = ["/chunks", "/index", ".wal", ".checkpoint", ""].map(each);
        println!("| {} | {} |", kind.name, cells.join(" | "));
    }
}
