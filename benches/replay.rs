//! How long a journal of a million queries takes to be replayed, and the memory that it takes: `cargo bench --bench
//! replay`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement fails and prints")]

use std::{fs, time::Instant};

use smallvec::smallvec;
use weir::{
    base::{Estimate, QueryCost, time::EvalTimes},
    config,
    cost::{Model, SampleType, Source},
    journal::{Actual, Basis, Journal, Priced, Reader, Record, SelectorCount, Settings, SplitMode, TextKept},
    promql::{self, shape::Shape},
    proxy::replay::Replay,
    replay::Summary,
    top::Top,
};

const QUERIES: u64 = 1_000_000;
/// Different texts, as 500 dashboards of 10 panels have them.
const TEXTS: u64 = 5_000;

fn record(i: u64) -> Record {
    let text = i % TEXTS;
    let query = format!("sum by (job) (rate(http_requests_total{{panel=\"{text}\",code!=\"500\"}}[5m]))");
    let times = EvalTimes { start: 1_700_000_000_000 - 21_600_000, end: 1_700_000_000_000, step: 15_000 };
    let size = Shape::of(&promql::parse(&query).unwrap().into(), times, 300_000).size;
    let series = Estimate::exact(text * 7 % 3_000);
    let cost = QueryCost {
        series,
        memory: Estimate::exact(series.value << 14),
        steps: 1_441,
        text: size,
        ..QueryCost::NOTHING
    };
    Record {
        at_ms: 1_700_000_000_000 + i as i64,
        took_ms: Some(i % 900),
        tenant: format!("team-{}", i % 40).into(),
        actor: format!("dashboard:{}", text / 10).into(),
        class: "adhoc".into(),
        backend: "main".into(),
        endpoint: "query_range".into(),
        dashboard: format!("{}", text / 10).into(),
        panel: format!("{}", text % 10).into(),
        query: query.into(),
        times: Some(times),
        verdict: "admitted".into(),
        outcome: "complete".into(),
        status: Some(200),
        priced: Some(Priced {
            cost,
            parts: 1,
            whole_memory: cost.memory,
            counts: smallvec![SelectorCount {
                series,
                source: Source::Probe,
                sample_type: SampleType::Float
            }],
            basis: Basis {
                model: Model::default(),
                split_above: Some(1 << 30),
                split_mode: SplitMode::Yes,
                lookback_ms: 300_000,
            },
        }),
        actual: Actual { answer_bytes: Some(9_000 + i % 999), ..Actual::default() },
        ..Record::default()
    }
}

fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { folder: Some(folder.path().to_owned()), size: 1 << 30, text: TextKept::Full };
    let (journal, writer) = Journal::start(settings, Top::open(None, 0)).unwrap();
    for i in 0..QUERIES {
        // Tried again until the thread has taken it.
        loop {
            let dropped = journal.counters().dropped;
            journal.write(Box::new(record(i)));
            if journal.counters().dropped == dropped {
                break;
            }
            std::thread::yield_now();
        }
    }
    drop(writer);
    println!("{} bytes on disk for {QUERIES} queries", journal.counters().bytes);
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    println!("{} files, {} MiB resident at most while writing", files.len(), peak_mib());
    // One by the recorded cost alone, one that has to look at each text again.
    for (what, yaml) in [
        ("the recorded formulas", "backends: [{urls: [\"http://127.0.0.1:1\"], budget: {memory: 2GiB}}]"),
        ("other formulas", "backends: [{urls: [\"http://127.0.0.1:1\"], scrape_interval: 30s}]"),
    ] {
        let loaded = config::load_text("bench", yaml, &|_| None).unwrap();
        let mut replay = Replay::new(config::resolve(&loaded.raw).unwrap());
        let (mut summary, began) = (Summary::default(), Instant::now());
        for record in Reader::open(folder.path()).unwrap() {
            let record = record.unwrap();
            let replayed = replay.replay(&record);
            summary.add(&record, &replayed);
        }
        assert_eq!(summary.total.queries, QUERIES);
        println!("{what}: {:.1} s, {} MiB resident at most", began.elapsed().as_secs_f64(), peak_mib());
    }
}
