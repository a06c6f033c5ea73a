//! Sealing, merging, retention and damage, held against a map.

use std::{fs, path::Path};

use super::{
    tests::{ALL, Model, options, read, write},
    *,
};
use crate::base::TimeRange;

pub(super) const START: i64 = 1_699_990_000_000;
const BLOCK: i64 = 60_000;

pub(super) fn small() -> Options {
    Options { block_ms: BLOCK as u64, out_of_order_ms: 20_000, sync: SyncPolicy::Never, ..options() }
}

pub(super) fn key(name: &str) -> String {
    format!("{{__name__={name:?}}}")
}

/// Writes a sample and, if it was taken, adds it to the model.
pub(super) fn put(db: &Db, model: &mut Model, name: &str, time: i64, value: f64) {
    if write(db, &[(name, &[(time, value)])]).unwrap().samples > 0 {
        model.entry(key(name)).or_default().entry(time).or_insert(value.to_bits());
    }
}

pub(super) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn agree(db: &Db, model: &Model, random: &mut fastrand::Rng, what: &str) {
    assert_eq!(&read(db, &[], ALL), model, "{what}");
    for _ in 0..5 {
        let start = START + random.i64(0..1_500_000);
        let window = TimeRange { start, end: start + random.i64(0..300_000) };
        let mut cut = model.clone();
        for samples in cut.values_mut() {
            samples.retain(|t, _| *t >= window.start && *t <= window.end);
        }
        cut.retain(|_, s| !s.is_empty());
        assert_eq!(read(db, &[], window), cut, "{what}");
        let cost = db.query_cost(&[], window).unwrap();
        let samples: usize = cut.values().map(std::collections::BTreeMap::len).sum();
        assert_eq!((cost.series, cost.samples), (cut.len() as u64, samples as u64), "{what}");
        let all = db.candidates(&[]).unwrap();
        assert_eq!(db.series(&all, window, 100).items.len(), cut.len(), "{what}");
    }
}

#[test]
fn sealed_or_not_every_sample_is_read_once() {
    let mut random = fastrand::Rng::with_seed(31);
    let dir = tempfile::tempdir().unwrap();
    let mut db = Db::open(dir.path(), small()).unwrap().0;
    let mut model = Model::new();
    for round in 0..1_200_i64 {
        let now = START + round * 1_000;
        for _ in 0..4 {
            let late = if random.u8(..) < 30 { random.i64(0..18_000) } else { 0 };
            put(&db, &mut model, &format!("m{}", random.u8(..8)), now - late, random.f64());
        }
        // A series that begins far behind the others, in windows that are sealed.
        if round % 300 == 299 {
            for i in 0..50 {
                put(&db, &mut model, &format!("late{round}"), START + i * 7_000, i as f64);
            }
        }
        if random.u8(..) < 12 {
            db.maintain().unwrap();
            agree(&db, &model, &mut random, &format!("after upkeep in round {round}"));
        }
        if random.u8(..) < 6 {
            let killed = tempfile::tempdir().unwrap();
            copy_all(dir.path(), killed.path());
            let (reopened, replayed) = Db::open(killed.path(), small()).unwrap();
            assert_eq!(replayed.damaged, 0);
            agree(&reopened, &model, &mut random, &format!("after a kill in round {round}"));
        }
        if random.u8(..) < 2 {
            drop(db);
            db = Db::open(dir.path(), small()).unwrap().0;
        }
    }
    db.maintain().unwrap();
    let stats = db.stats();
    assert!(stats.blocks_compacted > 3 && stats.blocks > 1 && stats.blocks < 12, "{stats:?}");
    assert!(db.wal.as_ref().unwrap().size() < 40_000, "the log is short");
}

/// Ten blocks' worth of two series, of which most are sealed but not merged.
pub(super) fn fill(dir: &Path) -> (Db, Model) {
    let db = Db::open(dir, small()).unwrap().0;
    let mut model = Model::new();
    for i in 0..600 {
        put(&db, &mut model, "a", START + i * 1_000, i as f64);
        put(&db, &mut model, "b", START + i * 1_000, 1.0);
    }
    db.maintain().unwrap();
    assert!(db.stats().blocks > 1);
    (db, model)
}

#[test]
fn a_kill_between_sealing_and_shortening_the_log_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let unsealed = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), small()).unwrap().0;
    let mut model = Model::new();
    for i in 0..600 {
        put(&db, &mut model, "a", START + i * 1_000, i as f64);
    }
    copy_all(dir.path(), unsealed.path());
    db.maintain().unwrap();
    drop(db);
    copy_all(&dir.path().join("blocks"), &unsealed.path().join("blocks"));
    let db = Db::open(unsealed.path(), small()).unwrap().0;
    let mut random = fastrand::Rng::with_seed(1);
    agree(&db, &model, &mut random, "after the restart");
    db.maintain().unwrap();
    agree(&db, &model, &mut random, "after more upkeep");
    // A sealed sample is known, and an older one is refused.
    let again = write(&db, &[("a", &[(START + 599_000, 599.0), (START, 5.0)])]).unwrap();
    assert_eq!((again.known, again.refused), (1, 1));
}

#[test]
fn retention_removes_whole_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = fill(dir.path());
    let before = db.stats().blocks;
    drop(db);
    let short = Options { retention_ms: 120_000, ..small() };
    let db = Db::open(dir.path(), short).unwrap().0;
    db.maintain().unwrap();
    let stats = db.stats();
    assert!(stats.blocks < before && stats.samples_expired > 0, "{stats:?}");
    assert_eq!(fs::read_dir(dir.path().join("blocks")).unwrap().count() as u64, stats.blocks);
    let left = read(&db, &[], ALL);
    assert_eq!(left[&key("a")].len(), 121);
}
