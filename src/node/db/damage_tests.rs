//! Damaged blocks: only the damaged part is lost, and answers say so.

use std::{fs, path::Path};

use super::{
    sealed_tests::{START, copy_all, fill, key, put, small},
    tests::{ALL, Model, read, write},
    *,
};
use crate::base::TimeRange;

/// The folders of blocks, by number.
fn folders(dir: &Path) -> Vec<std::path::PathBuf> {
    let folders = fs::read_dir(dir.join("blocks")).unwrap().flatten().map(|entry| entry.path());
    let mut folders: Vec<_> = folders.collect();
    folders.sort();
    folders
}

/// Takes the samples of damaged chunks out of the model; returns their number.
fn take(model: &mut Model, block: &Path, hit: impl Fn(u64, u64) -> bool) -> u64 {
    let block = Block::open(block).unwrap();
    let mut lost = 0;
    for series in 0..block.series_count() {
        let name = key(block.labels(series).unwrap()[0].1);
        for chunk in block.chunks(series, ALL).unwrap() {
            if hit(chunk.offset, chunk.offset + u64::from(chunk.bytes)) {
                lost += 1;
                let samples = model.get_mut(&name).unwrap();
                samples.retain(|time, _| !(chunk.min_time_ms..=chunk.max_time_ms).contains(time));
            }
        }
    }
    lost
}

#[test]
fn damaged_chunks_are_missed_aloud_and_nothing_else_is() {
    let whole = tempfile::tempdir().unwrap();
    let (db, all) = fill(whole.path());
    drop(db);
    let mut random = fastrand::Rng::with_seed(17);
    for round in 0..24 {
        let dir = tempfile::tempdir().unwrap();
        copy_all(whole.path(), dir.path());
        let mut model = all.clone();
        let blocks = folders(dir.path());
        let block = &blocks[random.usize(..blocks.len())];
        let path = block.join("chunks");
        let mut bytes = fs::read(&path).unwrap();
        let at = random.usize(8..bytes.len());
        let cut = random.bool();
        let hit = |from: u64, to: u64| if cut { to > at as u64 } else { from <= at as u64 && to > at as u64 };
        let lost = take(&mut model, block, hit);
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= random.u8(1..);
        }
        fs::write(&path, bytes).unwrap();

        let mut db = Db::open(dir.path(), small()).unwrap().0;
        let asked_first = random.bool();
        for step in 0..4 {
            let what = format!("round {round}, step {step}, {lost} lost of {}", path.display());
            if step > 0 || asked_first {
                assert_eq!(read(&db, &[], ALL), model, "{what}");
                let said = db.warnings([ALL]);
                assert!(said.len() == 1 && said[0].contains("may be missing"), "{what}: {said:?}");
                assert_eq!(db.stats().chunks_damaged, lost, "{what}");
                let cost = db.query_cost(&[], ALL).unwrap();
                assert_eq!(cost.samples, model.values().map(|s| s.len() as u64).sum::<u64>(), "{what}");
            }
            assert_eq!((db.stats().blocks_quarantined, path.exists()), (0, true), "{what}");
            // More to seal, and so to merge.
            for i in 0..400 {
                let time = START + (600 + step * 400 + i) * 1_000;
                put(&db, &mut model, "a", time, 1.0);
            }
            db.maintain().unwrap();
            if step == 1 {
                drop(db);
                db = Db::open(dir.path(), small()).unwrap().0;
            }
        }
        assert!(db.stats().blocks_compacted > 0, "the others are merged");
        let newest = TimeRange { start: START + 1_000_000, end: i64::MAX };
        assert!(db.warnings([newest]).is_empty(), "its times are not asked for");
    }
}

#[test]
fn a_block_with_a_damaged_index_is_set_aside_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (db, model) = fill(dir.path());
    drop(db);
    let mut blocks: Vec<_> =
        fs::read_dir(dir.path().join("blocks")).unwrap().flatten().map(|e| e.path()).collect();
    blocks.sort();
    let index = blocks[0].join("index");
    let mut bytes = fs::read(&index).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    fs::write(&index, bytes).unwrap();
    let db = Db::open(dir.path(), small()).unwrap().0;
    let said = db.warnings([ALL]);
    assert!(said.len() == 1 && said[0].contains("may be missing"), "{said:?}");
    let left = read(&db, &[], ALL);
    assert!(left[&key("b")].len() < model[&key("b")].len());
    assert_eq!((db.stats().blocks_quarantined, db.stats().blocks_missing), (1, 1));
    assert!(!blocks[0].exists());
    assert_eq!(db.warnings([ALL]), said);
    let newest = TimeRange { start: START + 600_000, end: i64::MAX };
    assert!(db.warnings([newest]).is_empty(), "its times are not asked for");
    // A read now sees the same: nothing of the damaged block, everything else.
    let left = read(&db, &[], ALL);
    for (name, samples) in &left {
        assert!(samples.iter().all(|(time, bits)| model[name].get(time) == Some(bits)));
    }
    assert_eq!(write(&db, &[("a", &[(START + 700_000, 1.0)])]).unwrap().samples, 1);
    // For as long as the files lie there, and no longer.
    drop(db);
    let db = Db::open(dir.path(), small()).unwrap().0;
    assert_eq!((db.warnings([ALL]), db.stats().blocks_missing), (said, 1));
    let aside = fs::read_dir(dir.path().join("blocks")).unwrap().flatten().map(|e| e.path());
    let aside = aside.into_iter().find(|path| path.to_string_lossy().contains("corrupt")).unwrap();
    fs::write(aside.join("meta.json"), "{}").unwrap();
    drop(db);
    let db = Db::open(dir.path(), small()).unwrap().0;
    assert!(db.warnings([newest])[0].contains("not known"));
    fs::remove_dir_all(aside).unwrap();
    db.maintain().unwrap();
    assert_eq!((db.warnings([ALL]).len(), db.stats().blocks_missing), (0, 0));
}

#[test]
fn a_block_that_cannot_be_set_aside_holds_up_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (db, mut model) = fill(dir.path());
    let blocks = db.blocks();
    let (gone, stuck) = (&blocks[0], &blocks[1]);
    gone.damaged();
    stuck.damaged();
    fs::remove_dir_all(gone.path()).unwrap();
    // Every name that it could get is taken.
    let taken: Vec<_> = (0..1_000).map(|i| stuck.path().with_extension(format!("corrupt-{i}"))).collect();
    for path in &taken {
        fs::write(path, "").unwrap();
    }
    let first = db.stats().blocks;
    for i in 600..900 {
        put(&db, &mut model, "a", START + i * 1_000, 1.0);
    }
    let refused = db.maintain().unwrap_err().to_string();
    assert!(refused.contains("too many damaged blocks"), "{refused}");
    let stats = db.stats();
    assert!(!db.blocks().iter().any(|block| Arc::ptr_eq(block, gone)), "nobody waits for what is gone");
    assert!(stats.blocks + stats.blocks_compacted > first, "the rest is sealed: {stats:?}");
    assert_eq!((stats.blocks_quarantined, stats.blocks_missing), (0, 0));

    for path in &taken {
        fs::remove_file(path).unwrap();
    }
    db.maintain().unwrap();
    assert_eq!((db.stats().blocks_quarantined, stuck.path().exists()), (1, false));
}
