//! A full disk: writes are refused, reads go on, nothing that was acknowledged is lost.

use std::{fs, path::Path};

use super::{
    tests::{ALL, Model, options, read, write},
    *,
};

const START: i64 = 1_699_990_000_000;

fn small(sync: SyncPolicy) -> Options {
    Options { block_ms: 60_000, out_of_order_ms: 0, sync, ..options() }
}

/// Writes a sample; returns whether the disk took it. A sample taken is in the model.
fn put(db: &Db, model: &mut Model, i: i64) -> bool {
    let (name, time, value) = (format!("m{}", i % 7), START + i * 1_000, i as f64);
    match write(db, &[(&name, &[(time, value)])]) {
        Ok(done) => {
            assert_eq!(done.samples, 1);
            let samples = model.entry(format!("{{__name__={name:?}}}")).or_default();
            samples.insert(time, value.to_bits());
            true
        }
        Err(error) => {
            assert_eq!(error, WriteError::DiskFull);
            false
        }
    }
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir.join("wal")).unwrap().count()
}

#[test]
fn writes_stop_reads_go_on_and_what_was_acknowledged_stays() {
    for policy in [SyncPolicy::Always, SyncPolicy::Never] {
        // Full before the first byte, within a record's head, within a later record.
        for room in [0, 5, 700, 2_000] {
            let dir = tempfile::tempdir().unwrap();
            let db = Db::open(dir.path(), small(policy)).unwrap().0;
            db.wal.as_ref().unwrap().room().leave(Some(room));
            let mut model = Model::new();
            let mut numbers = 0..;
            while put(&db, &mut model, numbers.next().unwrap()) {}
            for i in numbers.by_ref().take(20) {
                assert!(!put(&db, &mut model, i));
            }
            assert!(files(dir.path()) <= 3, "refused writes leave files behind");
            assert_eq!(read(&db, &[], ALL), model);
            assert!(db.checkpoint().is_err() || model.is_empty());
            assert_eq!(read(&db, &[], ALL), model);

            db.wal.as_ref().unwrap().room().leave(None);
            for i in numbers.by_ref().take(10) {
                assert!(put(&db, &mut model, i), "there is room again");
            }
            db.wal.as_ref().unwrap().room().leave(Some(3));
            assert!(!put(&db, &mut model, numbers.next().unwrap()));
            drop(db);
            let (db, replayed) = Db::open(dir.path(), small(policy)).unwrap();
            assert_eq!((read(&db, &[], ALL), replayed.damaged), (model, 0), "{policy:?} {room}");
        }
    }
}

#[test]
fn a_block_that_cannot_be_written_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), small(SyncPolicy::Never)).unwrap().0;
    let mut model = Model::new();
    assert!((0..600).all(|i| put(&db, &mut model, i)));
    // A file where the block's folder would be made.
    let stone = dir.path().join("blocks/0.tmp");
    fs::write(&stone, "").unwrap();
    assert!(db.maintain().is_err());
    assert_eq!((read(&db, &[], ALL), db.stats().blocks), (model.clone(), 0));
    fs::remove_file(stone).unwrap();
    db.maintain().unwrap();
    assert!(db.stats().blocks > 0);
    assert_eq!(read(&db, &[], ALL), model);
}

#[test]
fn the_oldest_blocks_go_when_all_take_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), small(SyncPolicy::Never)).unwrap().0;
    let mut model = Model::new();
    assert!((0..1_200).all(|i| put(&db, &mut model, i)));
    db.maintain().unwrap();
    let all = db.stats();
    drop(db);
    let most = all.block_bytes * 2 / 3;
    let db = Db::open(dir.path(), Options { size_bytes: most, ..small(SyncPolicy::Never) }).unwrap().0;
    db.maintain().unwrap();
    let left = db.stats();
    assert!(left.blocks > 0 && left.blocks < all.blocks, "{all:?} {left:?}");
    assert!(left.block_bytes <= most && left.samples_expired > 0, "{all:?} {left:?}");
    // The newest samples are left, without a gap.
    let first = *read(&db, &[], ALL).values().flat_map(|s| s.keys()).min().unwrap();
    assert!(first > START);
    for samples in model.values_mut() {
        samples.retain(|time, _| *time >= first);
    }
    assert_eq!(read(&db, &[], ALL), model);
}
