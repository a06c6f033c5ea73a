//! Every record written is read back, with any contents, while files are written, rotated, damaged or foreign.

use std::{fs, path::Path};

use smallvec::smallvec;

use super::*;
use crate::{
    base::{Confidence, Estimate, Kind, QueryCost, TextSize, time::EvalTimes},
    cost::{Model, SampleType, Source, Unknown},
    promql::Fingerprint,
    top::{By, Measure, Top, Window},
};

fn settings(folder: &Path) -> Settings {
    Settings { folder: Some(folder.to_owned()), size: 1 << 20, text: TextKept::Full }
}

fn start(settings: Settings) -> (Journal, Writer) {
    Journal::start(settings, Top::open(None, 0)).unwrap()
}

/// A number of any size.
fn number(random: &mut fastrand::Rng) -> u64 {
    random.u64(..) >> random.u32(..64)
}

fn priced(random: &mut fastrand::Rng) -> Priced {
    let confidences = [Confidence::Exact, Confidence::Learned, Confidence::Assumed, Confidence::AtLeast];
    let estimate = |random: &mut fastrand::Rng| {
        Estimate::new(number(random), confidences[random.usize(..confidences.len())])
    };
    Priced {
        cost: QueryCost {
            series: estimate(random),
            blocks: estimate(random),
            samples: estimate(random),
            points: estimate(random),
            memory: Estimate::new(u64::MAX, Confidence::Assumed),
            range_seconds: number(random),
            listing_seconds: 0,
            steps: number(random),
            selectors: 2,
            text: TextSize { bytes: 9, nodes: 8, depth: 7, matchers: 6, regex_bytes: 5 },
        },
        parts: 3,
        whole_memory: estimate(random),
        basis: Basis {
            model: Model { kind: Kind::Thanos, unknown: Unknown::Number(number(random)), ..Model::default() },
            split_above: random.bool().then(|| number(random)),
            split_mode: SplitMode::AllReplicas,
            lookback_ms: 300_000,
        },
        counts: smallvec![
            SelectorCount {
                series: estimate(random),
                source: Source::Probe,
                sample_type: SampleType::Histogram(9)
            },
            SelectorCount {
                series: estimate(random),
                source: Source::LabelTable,
                sample_type: SampleType::Float
            },
            SelectorCount {
                series: estimate(random),
                source: Source::Probe,
                sample_type: SampleType::Assumed
            },
        ],
    }
}

/// A record with every field filled in, by a seed.
fn record(random: &mut fastrand::Rng) -> Record {
    let maybe = |random: &mut fastrand::Rng| random.bool().then(|| number(random));
    let text = |random: &mut fastrand::Rng, what: &str| Text::from(format!("{what}-{}-é", random.u8(..4)));
    Record {
        at_ms: random.i64(-1 << 40..1 << 45),
        took_ms: maybe(random),
        wait_ms: maybe(random),
        tenant: text(random, "tenant"),
        actor: text(random, "actor"),
        class: "adhoc".into(),
        backend: text(random, "backend"),
        endpoint: "query_range".into(),
        user: text(random, "user"),
        dashboard: text(random, "dashboard"),
        panel: text(random, "panel"),
        rule: Text::default(),
        user_agent: text(random, "agent"),
        client: [None, Some([127, 0, 0, 1].into()), Some([0x2001, 0, 0, 0, 0, 0, 0, 1].into())]
            [random.usize(..3)],
        query: text(random, "up"),
        query_is_cut: random.bool(),
        fingerprint: random.bool().then(|| Fingerprint::from_words([number(random), number(random)])),
        times: random.bool().then(|| EvalTimes { start: random.i64(..), end: random.i64(..), step: 15 }),
        priced: random.bool().then(|| priced(random)),
        verdict: "weir-max-series".into(),
        limit: Text::default(),
        shadowed: text(random, "weir-max-steps,weir-max-range"),
        outcome: "refused".into(),
        status: random.bool().then_some(422),
        actual: Actual {
            answer_series: maybe(random),
            answer_samples: maybe(random),
            answer_bytes: maybe(random),
            series_read: maybe(random),
            samples_read: maybe(random),
        },
    }
}

fn read(folder: &Path) -> (Vec<Record>, Damage) {
    let mut reader = Reader::open(folder).unwrap();
    let records = reader.by_ref().map(|record| record.unwrap()).collect();
    (records, reader.damage())
}

/// Writes records, in parts that the queue surely holds, each part by a process of its own.
fn write(folder: &Path, records: &[Record]) -> Counters {
    let mut counters = Counters::default();
    for part in records.chunks(1_000) {
        let (journal, writer) = start(settings(folder));
        for record in part {
            journal.write(Box::new(record.clone()));
        }
        drop(writer);
        counters = journal.counters();
        assert_eq!((counters.dropped, counters.failed, counters.written), (0, 0, part.len() as u64));
    }
    counters
}

#[test]
fn what_is_written_is_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let records: Vec<_> = (0..3_000).map(|_| record(&mut random)).collect();
    let counters = write(folder.path(), &records);
    let (got, damage) = read(folder.path());
    assert!(got == records && damage.is_none(), "{} records, {damage}", got.len());
    let on_disk: u64 =
        fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(counters.bytes, on_disk);
}

#[test]
fn the_oldest_files_go_when_the_size_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut last = 0;
    for _ in 0..40 {
        let (journal, writer) = start(settings(folder.path()));
        for _ in 0..500 {
            last += 1;
            let noise: String = (0..100).map(|_| random.alphanumeric()).collect();
            journal.write(Box::new(Record { at_ms: last, query: noise.into(), ..Record::default() }));
        }
        drop(writer);
        assert!(journal.counters().bytes <= 1 << 20);
    }
    let (got, damage) = read(folder.path());
    assert!(damage.is_none());
    let first = got[0].at_ms;
    assert!(first > 1, "the oldest are gone");
    assert!(got.iter().map(|record| record.at_ms).eq(first..=last), "and nothing else");
    assert!(got.len() > 5_000, "{} are left", got.len());
}

#[test]
fn a_full_queue_drops_and_counts_and_never_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, writer) = start(settings(folder.path()));
    drop(writer);
    for i in 0..10 {
        journal.write(Box::new(Record { at_ms: i, ..Record::default() }));
    }
    assert_eq!(journal.counters().dropped, 10, "nobody takes them any more");

    let long = "x".repeat(TEXT_BYTES_MAX);
    let (journal, writer) = start(settings(folder.path()));
    for _ in 0..20_000 {
        journal.write(Box::new(Record { query: long.clone().into(), ..Record::default() }));
    }
    drop(writer);
    let Counters { written, dropped, .. } = journal.counters();
    assert_eq!(written + dropped, 20_000);
}

#[test]
fn a_text_that_is_not_kept_leaves_its_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Settings { text: TextKept::Fingerprint, ..settings(folder.path()) };
    let (journal, writer) = start(kept);
    let fingerprint = Some(Fingerprint::from_words([1, 2]));
    journal.write(Box::new(Record { query: "secret".into(), fingerprint, ..Record::default() }));
    drop(writer);
    let (got, _) = read(folder.path());
    assert_eq!((&*got[0].query, got[0].fingerprint), ("", fingerprint));
}

#[test]
fn damage_takes_the_block_that_it_hit_and_a_torn_end_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("00000001.journal");
    let mut random = fastrand::Rng::with_seed(9);
    let records: Vec<_> = (0..900).map(|_| record(&mut random)).collect();
    write(folder.path(), &records);
    let whole = fs::read(&file).unwrap();
    for _ in 0..300 {
        let mut bytes = whole.clone();
        let at = random.usize(block::FILE_HEAD..bytes.len());
        bytes[at] ^= 1 << random.u32(..8);
        fs::write(&file, &bytes).unwrap();
        let (got, damage) = read(folder.path());
        assert!(!damage.is_none() || got.len() < records.len(), "a flipped bit at {at} is seen");
        assert!(got.iter().all(|record| records.contains(record)));

        let cut = random.usize(block::FILE_HEAD..whole.len());
        fs::write(&file, &whole[..cut]).unwrap();
        let (got, damage) = read(folder.path());
        assert!(records.starts_with(&got) && damage.is_none());
    }
}

#[test]
fn files_of_another_version_and_other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("00000001.journal");
    for (bytes, message) in [
        (&b"WEIRJRNL\x02\0\0\0"[..], "this journal has version 2, and this program reads version 1"),
        (b"{\"query\": \"up\"}", "this is not a journal of Weir"),
    ] {
        fs::write(&file, bytes).unwrap();
        let error = Reader::open(&file).unwrap().next().unwrap().unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    // A file whose head is still to be written holds nothing yet.
    fs::write(&file, "WEIRJ").unwrap();
    assert_eq!(read(folder.path()).0, []);
    assert!(Reader::open(&folder.path().join("none")).is_err());
}

#[test]
fn bytes_that_are_no_records_never_panic() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..random.usize(..200)).map(|_| random.u8(..) >> random.u32(..8)).collect();
        let mut decoder = codec::Decoder::new(&bytes);
        while decoder.next().is_ok() {}
    }
}

#[test]
fn a_data_folder_stands_for_its_journal() {
    let data = tempfile::tempdir().unwrap();
    write(&data.path().join(FOLDER), &[Record { at_ms: 5, ..Record::default() }]);
    assert_eq!(read(data.path()).0[0].at_ms, 5);
}

#[test]
fn without_a_folder_records_are_ranked_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let top = Top::open(Some(folder.path().join("top.json")), 1_000);
    let (journal, writer) =
        Journal::start(Settings { folder: None, ..settings(folder.path()) }, top).unwrap();
    for verdict in ["admitted", "admitted", "weir-max-series", "bad_data"] {
        let outcome = if verdict == "admitted" { "complete" } else { "refused" };
        let record = Record {
            at_ms: 1_000,
            tenant: "a".into(),
            verdict: verdict.into(),
            outcome: outcome.into(),
            ..Record::default()
        };
        journal.write(Box::new(record));
    }
    drop(writer);
    assert_eq!(journal.counters(), Counters::default());
    let ranking = |top: &Top| {
        let ranking = top.ranking(Window::FiveMinutes, By::Tenant, Measure::Count, 9, 1_000);
        (ranking.rows[0].amounts.get(Measure::Count), ranking.rows[0].amounts.get(Measure::Refused))
    };
    assert_eq!(ranking(journal.top()), (4, 1));
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["top.json"]);
    assert_eq!(ranking(&Top::open(Some(folder.path().join("top.json")), 2_000)), (4, 1));
}
