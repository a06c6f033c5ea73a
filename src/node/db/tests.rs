use std::collections::BTreeMap;

use super::*;
use crate::{
    base::TimeRange,
    node::{
        head::{Batch, Refusal},
        storage::Storage as _,
    },
    series::{MatchOp, Matcher, Samples},
};

const NOW: i64 = 1_700_000_000_000;

pub(super) fn options() -> Options {
    Options { clock: || NOW, monotonic: || Duration::ZERO, ..Options::default() }
}

fn matcher(name: &str, op: MatchOp, value: &str) -> Matcher {
    Matcher { name: name.into(), op, value: value.into() }
}

pub(super) type Model = BTreeMap<String, BTreeMap<i64, u64>>;

pub(super) fn read(db: &Db, matchers: &[Matcher], window: TimeRange) -> Model {
    let selection = db.select(matchers, window).unwrap();
    let mut samples = Samples::default();
    let mut found = Model::new();
    for number in 0..selection.series() {
        let Some(labels) = selection.read(number, &mut samples).unwrap() else { continue };
        assert!(samples.times.is_sorted_by(|a, b| a < b) && !samples.is_empty());
        let bits = samples.values.iter().map(|v| v.to_bits());
        let before = found.insert(labels.to_string(), samples.times.iter().copied().zip(bits).collect());
        assert!(before.is_none(), "a series came twice");
    }
    found
}

pub(super) fn write(db: &Db, series: &[(&str, &[(i64, f64)])]) -> Result<Appended, WriteError> {
    let mut batch = Batch::new(db.options().labels);
    for (name, samples) in series {
        batch.label("__name__", name);
        for (time, value) in *samples {
            batch.sample(*time, *value);
        }
        batch.end_series().unwrap();
    }
    db.append(&batch)
}

pub(super) const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

#[test]
fn reads_what_a_map_would_hold() {
    let mut random = fastrand::Rng::with_seed(3);
    let db = Db::in_memory(options());
    let mut model: BTreeMap<String, BTreeMap<i64, u64>> = BTreeMap::new();
    let names: Vec<String> = (0..40).map(|i| format!("m{i}")).collect();
    for round in 0..400_i64 {
        let mut batch = Batch::new(db.options().labels);
        let mut accepted = 0;
        for name in &names {
            if random.bool() {
                continue;
            }
            batch.label("__name__", name);
            let time =
                NOW - 5_000_000 + round * 1_000 - i64::from(random.u8(..) < 30) * random.i64(0..900_000);
            let value = f64::from(random.u8(..));
            batch.sample(time, value);
            batch.end_series().unwrap();
            let samples = model.entry(format!("{{__name__={name:?}}}")).or_default();
            if let std::collections::btree_map::Entry::Vacant(place) = samples.entry(time) {
                place.insert(value.to_bits());
                accepted += 1;
            }
        }
        assert_eq!(db.append(&batch).unwrap().samples, accepted);
    }
    assert_eq!(read(&db, &[], ALL), model);
    for _ in 0..50 {
        let window = TimeRange::new(NOW - random.i64(0..6_000_000), NOW - random.i64(0..6_000_000));
        let mut cut = model.clone();
        for samples in cut.values_mut() {
            samples.retain(|t, _| *t >= window.start && *t <= window.end);
        }
        cut.retain(|_, s| !s.is_empty());
        assert_eq!(read(&db, &[], window), cut);
        let cost = db.query_cost(&[], window).unwrap();
        let samples: usize = cut.values().map(BTreeMap::len).sum();
        assert_eq!(
            (cost.series, cost.blocks, cost.samples),
            (cut.len() as u64, cut.len() as u64, samples as u64)
        );
        let listed = db.series(&db.candidates(&[]).unwrap(), window, 7);
        assert_eq!((listed.items.len(), listed.cut), (cut.len().min(7), cut.len() > 7));
        let expected: Vec<String> = cut.keys().take(7).cloned().collect();
        assert_eq!(listed.items.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }
    let some = [matcher("__name__", MatchOp::Regex, "m1.")];
    assert_eq!(db.query_cost(&some, ALL).unwrap().series, 10);
    let among = db.candidates(&[some.to_vec()]).unwrap();
    assert_eq!(among.series(), 10);
    assert_eq!(db.label_values("__name__", &among, ALL, 3).items.len(), 3);
    assert_eq!(db.label_names(&among, ALL, 3).items, [Arc::<str>::from("__name__")]);
    assert_eq!(db.tsdb_status(&[some.to_vec()], 2).unwrap().series, 10);
    assert!(db.query_cost(&[matcher("a", MatchOp::Regex, "(")], ALL).is_err());
}

#[test]
fn refusals_are_named_and_the_rest_is_written() {
    let db = Db::in_memory(Options { out_of_order_ms: 60_000, ..options() });
    write(&db, &[("a", &[(NOW, 1.0)])]).unwrap();
    type Case = (&'static [(i64, f64)], u64, Option<Refusal>);
    let cases: &[Case] = &[
        (&[(NOW, 1.0)], 0, None),
        (&[(NOW, 2.0), (NOW + 1, 2.0)], 1, Some(Refusal::Duplicate)),
        (&[(NOW - 60_001, 2.0), (NOW - 30_000, 2.0)], 1, Some(Refusal::TooOld)),
        (&[(i64::MAX, 1.0)], 0, Some(Refusal::TooFarAhead)),
        (&[(i64::MIN, 1.0)], 0, Some(Refusal::TooOld)),
        (&[(NOW + 600_001, 1.0)], 0, Some(Refusal::TooFarAhead)),
    ];
    for (samples, written, why) in cases {
        let outcome = write(&db, &[("a", samples)]).unwrap();
        assert_eq!((outcome.samples, outcome.first.map(|f| f.0)), (*written, *why), "{samples:?}");
    }
    write(&db, &[("never", &[(i64::MAX, 1.0)]), ("never", &[(i64::MIN, 1.0)])]).unwrap();
    assert_eq!(db.stats().series, 1);
}

#[test]
fn the_series_limit_refuses_new_series_and_keeps_the_old() {
    let db = Db::in_memory(Options { max_series: 2, ..options() });
    let outcome = write(&db, &[("a", &[(NOW, 1.0)]), ("b", &[(NOW, 1.0)]), ("c", &[(NOW, 1.0)])]).unwrap();
    assert_eq!((outcome.samples, outcome.series_refused, outcome.refused), (2, 1, 1));
    assert_eq!(outcome.first.unwrap().0, Refusal::SeriesLimit);
    assert_eq!(write(&db, &[("a", &[(NOW + 1, 1.0)])]).unwrap().samples, 1);
}

#[test]
fn what_is_past_its_retention_goes_and_its_series_with_it() {
    let db = Db::in_memory(Options { retention_ms: 1_000, max_series: 2, ..options() });
    write(&db, &[("old", &[(NOW - 5_000, 1.0)]), ("both", &[(NOW - 5_000, 1.0)])]).unwrap();
    write(&db, &[("both", &[(NOW, 2.0)])]).unwrap();
    // Hidden at once, cleared later.
    assert_eq!(db.query_cost(&[], ALL).unwrap(), Cost { series: 1, blocks: 1, samples: 1 });
    db.maintain().unwrap();
    assert_eq!((db.stats().series, db.stats().samples_expired), (1, 2));
    assert_eq!(write(&db, &[("new", &[(NOW, 2.0)])]).unwrap().samples, 1);
    assert_eq!(read(&db, &[], ALL).len(), 2);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// After a kill the files hold their content at that moment, with the last write cut anywhere.
#[test]
fn every_acknowledged_sample_is_there_after_a_kill() {
    let mut random = fastrand::Rng::with_seed(21);
    let dir = tempfile::tempdir().unwrap();
    let options = Options { sync: SyncPolicy::Never, ..options() };
    let mut model = Model::new();
    let mut db = Db::open(dir.path(), options).unwrap().0;
    for round in 0..200_i64 {
        let names: Vec<String> = (0..random.usize(1..6)).map(|_| format!("m{}", random.u8(..30))).collect();
        let samples =
            [(NOW - 400_000 + round * 1_000, random.f64()), (NOW - 400_000 + round * 1_000 + 1, f64::NAN)];
        for name in &names {
            if write(&db, &[(name, &samples)]).unwrap().samples > 0 {
                let all = model.entry(format!("{{__name__={name:?}}}")).or_default();
                all.extend(samples.map(|(t, v)| (t, v.to_bits())));
            }
        }
        if random.u8(..) < 20 {
            db.checkpoint().unwrap();
        }
        if random.u8(..) < 90 {
            let killed = tempfile::tempdir().unwrap();
            copy(&dir.path().join("wal"), &killed.path().join("wal"));
            // A record that was on its way.
            let mut files: Vec<_> = std::fs::read_dir(killed.path().join("wal")).unwrap().flatten().collect();
            files.retain(|f| f.path().extension().is_some_and(|e| e == "wal"));
            files.sort_by_key(std::fs::DirEntry::path);
            if let Some(last) = files.last() {
                let mut bytes = std::fs::read(last.path()).unwrap();
                let tail: Vec<u8> = bytes.iter().take(random.usize(1..40)).copied().collect();
                bytes.extend(&tail[..tail.len().min(20)]);
                std::fs::write(last.path(), bytes).unwrap();
            }
            let (reopened, replayed) = Db::open(killed.path(), options).unwrap();
            assert_eq!((read(&reopened, &[], ALL), replayed.damaged), (model.clone(), 0), "round {round}");
        }
        if random.u8(..) < 20 {
            drop(db);
            db = Db::open(dir.path(), options).unwrap().0;
        }
    }
}

#[test]
fn flipped_bits_cost_little_and_invent_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options { sync: SyncPolicy::Never, ..options() }).unwrap().0;
    for i in 0..20 {
        write(&db, &[("a", &[(NOW - 100 + i, 1.0)]), ("b", &[(NOW - 100 + i, 2.0)])]).unwrap();
    }
    drop(db);
    let mut path = std::fs::read_dir(dir.path().join("wal")).unwrap().flatten().map(|e| e.path());
    let path = path.find(|p| p.extension().is_some()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for bit in (0..whole.len() * 8).step_by(101) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &bytes).unwrap();
        let (db, replayed) = Db::open(dir.path(), options()).unwrap();
        let cost = db.query_cost(&[], ALL).unwrap();
        // Labels are said twice, so even the first record costs only its own samples.
        assert_eq!(cost.samples, 38, "bit {bit}: {replayed:?}");
        assert!(replayed.damaged + replayed.torn_bytes > 0, "bit {bit}");
        assert!(
            read(&db, &[], ALL)
                .values()
                .flatten()
                .all(|(_, v)| [1.0_f64.to_bits(), 2.0_f64.to_bits()].contains(v))
        );
    }
}

#[test]
fn a_flipped_bit_in_a_checkpoint_costs_its_record_only() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { sync: SyncPolicy::Never, ..options() };
    let db = Db::open(dir.path(), options).unwrap().0;
    let mut random = fastrand::Rng::with_seed(4);
    let names: Vec<String> = (0..64).map(|i| format!("m{i}")).collect();
    for name in &names {
        let samples: Vec<(i64, f64)> = (0..300).map(|i| (NOW - 400_000 + i * 1_000, random.f64())).collect();
        write(&db, &[(name, &samples)]).unwrap();
    }
    let model = read(&db, &[], ALL);
    db.checkpoint().unwrap();
    // Later records lean on the labels in the checkpoint, and have them once more.
    for name in &names {
        write(&db, &[(name, &[(NOW, 1.0)])]).unwrap();
    }
    drop(db);
    let path = dir.path().join("wal/0000000002.checkpoint");
    let whole = std::fs::read(&path).unwrap();
    for _ in 0..20 {
        let mut bytes = whole.clone();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
        std::fs::write(&path, &bytes).unwrap();
        let (db, replayed) = Db::open(dir.path(), options).unwrap();
        let found = read(&db, &[], ALL);
        assert_eq!((replayed.damaged, found.len()), (1, 64), "byte {at}");
        let whole = found.iter().filter(|(name, samples)| samples.len() == model[*name].len() + 1);
        // A record is 32 KiB, and a series here 2 KiB.
        assert!(whole.count() >= 64 - 17, "byte {at}");
        assert!(found.values().all(|samples| samples.contains_key(&NOW)), "byte {at}");
    }
}

/// `cargo test --release --lib -- --ignored restart_is_quick --nocapture`
#[test]
#[ignore = "writes and reads 28.8 million samples: seconds in a release build, minutes otherwise"]
fn restart_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { sync: SyncPolicy::Never, ..options() };
    let db = Db::open(dir.path(), options).unwrap().0;
    let labels: Vec<[String; 2]> =
        (0..20_000).map(|i| [format!("instance-{}", i % 100), format!("path-{}", i / 100)]).collect();
    let started = std::time::Instant::now();
    for step in 0..1_440_i64 {
        let mut batch = Batch::new(options.labels);
        for (i, [instance, path]) in labels.iter().enumerate() {
            batch.label("__name__", "requests_total");
            batch.label("instance", instance);
            batch.label("path", path);
            batch.sample(NOW - (1_440 - step) * 15_000 + (i % 100) as i64, (step * 7 + i as i64) as f64);
            batch.end_series().unwrap();
        }
        db.append(&batch).unwrap();
        // As a running node does, here every ten minutes of the data.
        if step % 40 == 39 {
            db.maintain().unwrap();
        }
    }
    println!("written in {:?}", started.elapsed());
    println!("on disk: {:?}", db.stats());
    // Dropping it writes nothing: the disk holds the same as after a kill.
    drop(db);
    for what in ["as killed", "after upkeep", "after a checkpoint"] {
        let started = std::time::Instant::now();
        let (db, replayed) = Db::open(dir.path(), options).unwrap();
        println!("{what}: open in {:?}, {} bytes of log read back", started.elapsed(), replayed.bytes);
        let started = std::time::Instant::now();
        assert_eq!(db.query_cost(&[], ALL).unwrap().samples, 28_800_000);
        println!("counted in {:?}", started.elapsed());
        let started = std::time::Instant::now();
        if what == "as killed" {
            db.maintain().unwrap();
        } else {
            db.checkpoint().unwrap();
        }
        println!("upkeep in {:?}", started.elapsed());
    }
}

#[test]
fn of_two_values_for_one_time_one_is_refused() {
    let db = Db::in_memory(options());
    // Late ones of one write: neither is there when they are judged.
    let late = [(NOW, 1.0), (NOW - 5, 1.0), (NOW - 5, 2.0), (NOW - 5, 1.0)];
    let outcome = write(&db, &[("late", &late)]).unwrap();
    assert_eq!((outcome.samples, outcome.known, outcome.refused), (2, 1, 1));
    assert!(outcome.first.unwrap().1.contains("late\"} at 1699999999995: 2"));
    // Writes at the same time.
    const TIMES: i64 = 500;
    let begin = std::sync::Barrier::new(2);
    let writer = |value: f64| {
        let (mut won, mut lost) = (0, 0);
        for i in 0..TIMES {
            begin.wait();
            let outcome = write(&db, &[("m", &[(NOW - TIMES + i, value)])]).unwrap();
            (won, lost) = (won + outcome.samples, lost + outcome.refused);
        }
        (won, lost)
    };
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(|| writer(2.0));
        (writer(1.0), other.join().unwrap())
    });
    assert_eq!((one.0 + two.0, one.1 + two.1), (TIMES as u64, TIMES as u64));
    let held = &read(&db, &[matcher("__name__", MatchOp::Equal, "m")], ALL)["{__name__=\"m\"}"];
    assert_eq!(held.values().filter(|bits| **bits == 1f64.to_bits()).count() as u64, one.0);
}
