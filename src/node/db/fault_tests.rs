//! Clocks that are stepped, files that go missing, folders of another version.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

use super::{
    sealed_tests::{START, fill, key, put, small},
    tests::{ALL, Model, read, write},
    *,
};
use crate::node::block::tests::content;

const DAY: i64 = 86_400_000;
const HOUR: i64 = 3_600_000;
const STEP: i64 = 16 * DAY;

thread_local! {
    /// The time that has passed, and by how much the wall clock is off, milliseconds.
    static PASSED: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

/// Sets both.
fn at(passed: i64, off: i64) {
    PASSED.set((passed, off));
}

fn wall() -> i64 {
    START + PASSED.get().0 + PASSED.get().1
}

fn stepped() -> Options {
    let monotonic = || Duration::from_millis(PASSED.get().0 as u64);
    Options { clock: wall, monotonic, retention_ms: 15 * DAY as u64, ..small() }
}

/// Ten minutes, with a sample every ten seconds that has the right time.
fn ten_minutes(db: &Db, model: &mut Model, from: i64, off: i64) {
    for i in 0..60 {
        at(from + i * 10_000, off);
        put(db, model, "a", START + from + i * 10_000, i as f64);
    }
    at(from + 600_000, off);
}

#[test]
fn a_step_of_the_clock_deletes_nothing_and_shuts_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    at(0, 0);
    let mut db = Db::open(dir.path(), stepped()).unwrap().0;
    let mut model = Model::new();
    ten_minutes(&db, &mut model, 0, 0);
    db.maintain().unwrap();
    assert!(db.stats().blocks > 0);

    // The clock runs ahead, and something that has its time from it is stored.
    at(11 * 60_000, STEP);
    db.maintain().unwrap();
    put(&db, &mut model, "self", wall(), 1.0);
    put(&db, &mut model, "a", wall(), 1.0);
    db.maintain().unwrap();
    assert_eq!((read(&db, &[], ALL), db.stats().clock_steps), (model.clone(), 1));
    // A sender with the right time is accepted all along, in the same series, with the clock put right, and after a
    // restart.
    let mut blocks = db.stats().blocks;
    for (minutes, off) in [(20, STEP), (30, 0), (40, -STEP), (50, STEP), (60, 0)] {
        ten_minutes(&db, &mut model, (minutes - 10) * 60_000, off);
        db.maintain().unwrap();
        assert_eq!(read(&db, &[], ALL), model, "{minutes} {off}");
        assert_eq!(db.stats().samples_refused, 0);
        drop(db);
        db = Db::open(dir.path(), stepped()).unwrap().0;
        assert_eq!(read(&db, &[], ALL), model, "{minutes} {off}, after a restart");
    }
    // Sealing goes on without the early ones: they do not end the head for others.
    db.maintain().unwrap();
    assert!(db.stats().blocks >= blocks, "{:?}", db.stats());
    blocks = db.stats().blocks;
    db.maintain().unwrap();
    assert_eq!(db.stats().blocks, blocks, "no block for every few samples");
}

#[test]
fn a_clock_that_stays_ahead_is_believed_after_hours() {
    let dir = tempfile::tempdir().unwrap();
    at(0, 0);
    let db = Db::open(dir.path(), stepped()).unwrap().0;
    let mut model = Model::new();
    ten_minutes(&db, &mut model, 0, 0);
    db.maintain().unwrap();
    let blocks = db.stats().blocks;
    drop(db);

    // As after sixteen days without power: the monotonic clock begins anew.
    let restart = |passed: i64| {
        at(passed, STEP + 10 * 60_000 - passed);
        Db::open(dir.path(), stepped()).unwrap().0
    };
    let db = restart(0);
    put(&db, &mut model, "b", wall(), 1.0);
    for minutes in 0..5 * 60 {
        at(minutes * 60_000, STEP);
        db.maintain().unwrap();
    }
    assert_eq!((read(&db, &[], ALL), db.stats().samples_expired), (model.clone(), 0));
    // The wait begins anew with a restart: a clock must be right in one piece.
    drop(db);
    let db = Db::open(dir.path(), stepped()).unwrap().0;
    for minutes in 5 * 60..10 * 60 {
        at(minutes * 60_000, STEP);
        db.maintain().unwrap();
    }
    assert_eq!(db.stats().samples_expired, 0);
    for minutes in 10 * 60..12 * 60 {
        at(minutes * 60_000, STEP);
        db.maintain().unwrap();
    }
    let stats = db.stats();
    assert!(stats.samples_expired >= 59 && stats.blocks < blocks, "{stats:?}");
    assert_eq!(read(&db, &[], ALL).keys().collect::<Vec<_>>(), [&key("b")]);
}

#[test]
fn a_clock_that_is_behind_at_every_start_shuts_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    at(0, 0);
    drop(Db::open(dir.path(), stepped()).unwrap());
    let mut model = Model::new();
    for minute in 1..5 {
        at(minute * 60_000, -STEP);
        let db = Db::open(dir.path(), stepped()).unwrap().0;
        put(&db, &mut model, "a", START + minute * 60_000, 1.0);
        assert_eq!((db.stats().samples_refused, read(&db, &[], ALL)), (0, model.clone()), "{minute}");
    }
}

#[test]
fn samples_are_taken_by_either_clock_and_not_beyond() {
    at(HOUR, 0);
    let db = Db::in_memory(stepped());
    let mut model = Model::new();
    // A clock that begins in 1970 and is put right.
    at(2 * HOUR, -START);
    db.maintain().unwrap();
    put(&db, &mut model, "a", START + 2 * HOUR, 1.0);
    at(3 * HOUR, 0);
    put(&db, &mut model, "a", START + 3 * HOUR, 1.0);
    assert_eq!(read(&db, &[], ALL), model);
    let refused = write(&db, &[("a", &[(START + 3 * HOUR + 600_001, 1.0)])]).unwrap();
    assert_eq!(refused.refused, 1);
}

fn files_in(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    paths.sort();
    paths
}

/// Any block.
fn block_of(dir: &Path) -> PathBuf {
    fs::read_dir(dir.join("blocks"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.join("index").exists())
        .unwrap()
}

#[test]
fn a_folder_of_another_version_is_left_as_it_was() {
    type Change = fn(&Path);
    let cases: [(&str, Change); 5] = [
        ("version 2", |dir| {
            let path = dir.join("manifest.json");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        }),
        ("the field `parts`", |dir| {
            let path = dir.join("manifest.json");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(path, text.replace("\"version\": 1", "\"parts\": [], \"version\": 1")).unwrap();
        }),
        ("the field `parts`", |dir| {
            let path = block_of(dir).join("meta.json");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(path, text.replace("\"version\": 2", "\"parts\": [], \"version\": 2")).unwrap();
        }),
        // A mark of a next version, in every second record.
        ("is marked", |dir| {
            let path = files_in(&dir.join("wal"), "wal").pop().unwrap();
            let mut bytes = fs::read(&path).unwrap();
            let mark: [u8; 4] = bytes[..4].try_into().unwrap();
            let starts: Vec<_> = memchr::memmem::find_iter(&bytes, &mark).collect();
            for at in starts.into_iter().skip(1).step_by(2) {
                bytes[at + 3] = bytes[at + 3].wrapping_add(1);
            }
            fs::write(path, bytes).unwrap();
        }),
        ("is marked", |dir| {
            let path = files_in(&dir.join("wal"), "checkpoint").pop().unwrap();
            let mut bytes = fs::read(&path).unwrap();
            bytes[3] = bytes[3].wrapping_add(1);
            fs::write(path, bytes).unwrap();
        }),
    ];
    let whole = tempfile::tempdir().unwrap();
    let (db, mut model) = fill(whole.path());
    for i in 600..620 {
        put(&db, &mut model, "a", START + i * 1_000, 1.0);
    }
    drop(db);
    // A start would clear this away, cut that off, and set the last aside.
    fs::create_dir(whole.path().join("blocks/900.tmp")).unwrap();
    let torn = files_in(&whole.path().join("wal"), "wal").pop().unwrap();
    fs::write(&torn, [fs::read(&torn).unwrap(), b"torn".to_vec()].concat()).unwrap();
    fs::create_dir(whole.path().join("blocks/901")).unwrap();
    for (said, change) in cases {
        let dir = tempfile::tempdir().unwrap();
        super::sealed_tests::copy_all(whole.path(), dir.path());
        change(dir.path());
        let before = content(dir.path());
        for _ in 0..2 {
            let refused = Db::open(dir.path(), small()).unwrap_err().to_string();
            assert!(refused.contains(said), "{said}: {refused}");
        }
        assert!(content(dir.path()) == before && dir.path().join("blocks/900.tmp").is_dir(), "{said}");
    }
    let db = Db::open(whole.path(), small()).unwrap().0;
    assert!(!whole.path().join("blocks/900.tmp").exists() && db.stats().blocks_quarantined == 1);
}

#[test]
fn metadata_are_kept_and_of_another_version_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), small()).unwrap().0;
    let mut batch = crate::node::head::Batch::new(small().labels);
    batch.describe("up", crate::node::head::MetadataField::Type("gauge"));
    db.append(&batch).unwrap();
    db.maintain().unwrap();
    drop(db);
    let kept =
        |metric| Arc::new(Db::open(dir.path(), small()).unwrap().0).metadata(metric).collect::<Vec<_>>();
    let held = kept(Some("up"));
    assert_eq!((held.len(), held[0].1.kind.as_str()), (1, "gauge"));
    let path = dir.path().join("metadata.json");
    let text = fs::read_to_string(&path).unwrap();
    for changed in ["\"version\":2", "\"more\":[],\"version\":1"] {
        let changed = text.replace("\"version\":1", changed);
        fs::write(&path, &changed).unwrap();
        let refused = Db::open(dir.path(), small()).unwrap_err().to_string();
        assert!(refused.contains("metadata.json has"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), changed);
    }
    fs::write(&path, "nonsense").unwrap();
    assert_eq!(kept(None), []);
    fs::remove_file(&path).unwrap();
    let missed = || Db::open(dir.path(), small()).unwrap().0.stats().files_missing;
    assert_eq!((missed(), missed()), (1, 0), "missed once");
}

#[test]
fn files_that_went_missing_are_missed() {
    type Change = fn(&Path);
    let last = |dir: &Path| files_in(&dir.join("wal"), "wal").pop().unwrap();
    let cases: [(&str, u64, Change); 8] = [
        ("nothing", 0, |_| {}),
        ("a block", 1, |dir| fs::remove_dir_all(block_of(dir)).unwrap()),
        ("all blocks", 1, |dir| {
            fs::remove_dir_all(dir.join("blocks")).unwrap();
            fs::create_dir(dir.join("blocks")).unwrap();
        }),
        ("the log", 2, |dir| fs::remove_dir_all(dir.join("wal")).unwrap()),
        ("the newest file of the log", 1, |_| {}),
        ("all but the beginning of it", 1, |_| {}),
        ("all of its content", 1, |_| {}),
        ("the checkpoint", 1, |dir| {
            fs::remove_file(files_in(&dir.join("wal"), "checkpoint").pop().unwrap()).unwrap();
        }),
    ];
    let whole = tempfile::tempdir().unwrap();
    let (db, mut model) = fill(whole.path());
    let blocks = db.stats().blocks;
    for i in 600..620 {
        put(&db, &mut model, "a", START + i * 1_000, 1.0);
    }
    db.maintain().unwrap();
    drop(db);
    for (what, least, change) in cases {
        let dir = tempfile::tempdir().unwrap();
        super::sealed_tests::copy_all(whole.path(), dir.path());
        change(dir.path());
        match what {
            "the newest file of the log" => fs::remove_file(last(dir.path())).unwrap(),
            "all but the beginning of it" => {
                let bytes = fs::read(last(dir.path())).unwrap();
                fs::write(last(dir.path()), &bytes[..bytes.len() / 2]).unwrap();
            }
            "all of its content" => fs::write(last(dir.path()), "").unwrap(),
            _ => {}
        }
        let db = Db::open(dir.path(), small()).unwrap().0;
        let missing = db.stats().files_missing;
        let most = if what == "all blocks" { blocks } else { least };
        assert!((least..=most).contains(&missing), "{what}: {missing}");
        // It is reported once: from now on these are the files expected.
        drop(db);
        assert_eq!(Db::open(dir.path(), small()).unwrap().0.stats().files_missing, 0, "{what}");
    }
}

#[test]
fn a_manifest_never_names_what_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options { retention_ms: 400_000, ..small() }).unwrap().0;
    let mut model = Model::new();
    for i in 0..2_000 {
        put(&db, &mut model, "a", START + i * 1_000, i as f64);
        if i % 25 == 0 {
            db.maintain().unwrap();
        }
        if i % 40 == 0 {
            let killed = tempfile::tempdir().unwrap();
            super::sealed_tests::copy_all(dir.path(), killed.path());
            let db = Db::open(killed.path(), small()).unwrap().0;
            assert_eq!(db.stats().files_missing, 0, "{i}");
        }
    }
    assert!(db.stats().samples_expired > 0 && db.stats().blocks_compacted > 0);
}

#[test]
fn a_deleted_folder_refuses_writes_and_says_so() {
    for what in ["deleted", "moved", "replaced"] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("node");
        let db = Db::open(&folder, small()).unwrap().0;
        let mut model = Model::new();
        put(&db, &mut model, "a", START, 1.0);
        db.maintain().unwrap();
        assert_eq!(db.refuses_writes(), None);
        match what {
            "deleted" => fs::remove_dir_all(&folder).unwrap(),
            _ => fs::rename(&folder, dir.path().join("other")).unwrap(),
        }
        if what == "replaced" {
            super::sealed_tests::copy_all(&dir.path().join("other"), &folder);
        }
        let refused = write(&db, &[("a", &[(START + 1, 1.0)])]).unwrap_err();
        assert!(matches!(refused, WriteError::Deleted(_)), "{what}: {refused}");
        assert_eq!(read(&db, &[], ALL), model, "reads go on");
        assert!(db.maintain().is_err(), "{what}");
        assert!(matches!(db.refuses_writes(), Some(WriteError::Deleted(_))), "{what}");
        let stats = db.stats();
        assert_eq!(stats.writes_failed[2], ("deleted", 1), "{what}");
    }
}

#[test]
fn a_deleted_file_of_the_log_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), small()).unwrap().0;
    let mut model = Model::new();
    put(&db, &mut model, "a", START, 1.0);
    fs::remove_file(files_in(&dir.path().join("wal"), "wal").pop().unwrap()).unwrap();
    assert!(write(&db, &[("a", &[(START + 1, 1.0)])]).is_err());
    put(&db, &mut model, "a", START + 2, 1.0);
    db.maintain().unwrap();
    drop(db);
    assert_eq!(read(&Db::open(dir.path(), small()).unwrap().0, &[], ALL), model);
}

#[test]
fn a_full_disk_is_found_without_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), small()).unwrap().0;
    db.maintain().unwrap();
    assert_eq!(
        (db.refuses_writes(), db.stats().disk.is_some_and(|disk| disk.size > disk.free)),
        (None, true)
    );
    db.wal.as_ref().unwrap().room().leave(Some(100));
    assert!(db.maintain().is_err());
    assert_eq!((db.refuses_writes(), db.stats().upkeep_failed), (Some(WriteError::DiskFull), 1));
    db.wal.as_ref().unwrap().room().leave(None);
    db.maintain().unwrap();
    assert_eq!((db.refuses_writes(), db.stats().upkeep_failed), (None, 1));
}
