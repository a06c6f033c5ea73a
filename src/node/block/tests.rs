//! Blocks written, read back, damaged and interrupted.

use std::{fs, path::Path};

use super::*;
use crate::base::TimeRange;

const STEP: i64 = 15_000;

fn window(start: i64, end: i64) -> TimeRange {
    TimeRange { start, end }
}

fn columns(series: usize, count: usize) -> (Vec<i64>, Vec<f64>) {
    let times = (0..count as i64).map(|i| i * STEP).collect();
    (times, (0..count).map(|i| (i * series) as f64).collect())
}

/// A block of ten series with 2,000 samples each.
fn write(folder: &Path, name: &str, replaces: &[&str]) {
    let mut writer =
        BlockWriter::create(folder, name, replaces.iter().map(|&name| name.to_owned()).collect()).unwrap();
    for series in 0..10 {
        let (times, values) = columns(series, 2_000);
        let id = series.to_string();
        writer.series(&[("__name__", "up"), ("id", &id)], &times, &values).unwrap();
    }
    writer.series(&[("__name__", "empty")], &[], &[]).unwrap();
    assert_eq!(writer.finish().unwrap().unwrap(), folder.join(name));
}

/// Opens a folder as a start does.
fn open_all(folder: &Path) -> Result<Opened, BlockError> {
    let mut opened = super::open_all(folder)?;
    opened.repair()?;
    Ok(opened)
}

const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

/// Reads and checks every chunk.
fn verify(block: &Block) -> Result<(), BlockError> {
    for series in 0..block.series_count() {
        for chunk in block.chunks(series, ALL)? {
            block.chunk(&chunk)?;
        }
    }
    Ok(())
}

#[test]
fn a_block_gives_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "1", &[]);
    let block = Block::open(&folder.path().join("1")).unwrap();
    let meta = block.meta();
    assert_eq!((meta.series, meta.samples, meta.chunks), (10, 20_000, 30));
    assert_eq!((meta.min_time_ms, meta.max_time_ms), (0, 1_999 * STEP));
    assert_eq!(block.labels(3).unwrap(), [("__name__", "up"), ("id", "3")]);
    assert!(block.labels(10).is_err());
    verify(&block).unwrap();
    let (times, values) = columns(3, 2_000);
    let windows =
        [(i64::MIN, i64::MAX), (0, 0), (100 * STEP, 900 * STEP), (STEP + 1, 2 * STEP - 1), (-5, -1)];
    for (start, end) in windows {
        let (mut got_times, mut got_values) = (Vec::new(), Vec::new());
        let got = block.read(3, window(start, end), &mut got_times, &mut got_values).unwrap();
        let expected = times.iter().zip(&values).filter(|(time, _)| (start..=end).contains(*time));
        let (times, values): (Vec<i64>, Vec<f64>) = expected.unzip();
        assert_eq!((got, got_times, got_values), (times.len(), times, values), "{start} to {end}");
    }
}

#[test]
fn cost_is_known_from_the_index() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "1", &[]);
    let block = Block::open(&folder.path().join("1")).unwrap();
    let cost = block.cost(3, window(0, 10 * STEP)).unwrap();
    assert_eq!((cost.chunks, cost.samples), (1, 667));
    let cost = block.cost(3, window(i64::MIN, i64::MAX)).unwrap();
    assert_eq!((cost.chunks, cost.samples), (3, 2_000));
    assert_eq!(block.cost(3, window(-9, -1)).unwrap(), SeriesCost::default());
    assert_eq!(block.chunks(3, window(0, 0)).unwrap()[0].samples, 667);
}

#[test]
fn a_flipped_bit_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(3);
    for file in [META_FILE, INDEX_FILE, CHUNKS_FILE] {
        write(folder.path(), "1", &[]);
        let path = folder.path().join("1").join(file);
        let sound = fs::read(&path).unwrap();
        for _ in 0..150 {
            let mut damaged = sound.clone();
            let at = rng.usize(..damaged.len());
            damaged[at] ^= 1 << rng.u8(0..8);
            fs::write(&path, &damaged).unwrap();
            let found = Block::open(&folder.path().join("1")).and_then(|block| verify(&block));
            // White space in JSON carries nothing, nor do the first bytes of chunks.
            let harmless = file == META_FILE && sound[at].is_ascii_whitespace()
                || file == CHUNKS_FILE && at < CHUNKS_MAGIC.len();
            // A digit that was hit looks like another version.
            let refused =
                |error: &BlockError| error.is_corrupt() || matches!(error, BlockError::Version { .. });
            assert!(harmless || found.is_err_and(|error| refused(&error)), "{file} byte {at}");
        }
        for length in [0, 7, sound.len() / 2, sound.len() - 1] {
            fs::write(&path, &sound[..length]).unwrap();
            Block::open(&folder.path().join("1")).and_then(|block| verify(&block)).unwrap_err();
        }
        fs::remove_dir_all(folder.path().join("1")).unwrap();
    }
}

/// Holds a damaged block against a sound one: all but the chunks that were hit is read, and those are known as lost.
fn held_against(block: &Block, sound: &Block, hit: impl Fn(&ChunkRef) -> bool, what: &str) {
    let mut lost = 0;
    for series in 0..10 {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        block.read(series, ALL, &mut times, &mut values).unwrap();
        let chunks = sound.chunks(series, ALL).unwrap();
        let hit: Vec<_> = chunks.into_iter().filter(&hit).collect();
        let is_lost = |time: i64| hit.iter().any(|c| (c.min_time_ms..=c.max_time_ms).contains(&time));
        let (all, numbers) = columns(series as usize, 2_000);
        let left: (Vec<i64>, Vec<f64>) =
            all.into_iter().zip(numbers).filter(|(time, _)| !is_lost(*time)).unzip();
        assert_eq!((times, values), left, "{what}");
        assert_eq!(block.count(series, ALL).unwrap(), left.0.len() as u64, "{what}");
        lost += hit.len() as u64;
    }
    assert_eq!(block.lost_chunks(), lost, "{what}");
    assert_eq!((block.lost_ranges().is_empty(), block.intact().is_ok()), (lost == 0, lost == 0), "{what}");
}

#[test]
fn damage_in_the_chunks_costs_the_chunks_that_it_hits() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(9);
    write(folder.path(), "1", &[]);
    write(folder.path(), "2", &[]);
    let sound = Block::open(&folder.path().join("1")).unwrap();
    let path = folder.path().join("2").join(CHUNKS_FILE);
    let bytes = fs::read(&path).unwrap();
    for _ in 0..60 {
        let at = rng.usize(..bytes.len());
        let mut flipped = bytes.clone();
        flipped[at] ^= rng.u8(1..);
        fs::write(&path, flipped).unwrap();
        let block = Block::open(&folder.path().join("2")).unwrap();
        let within = |c: &ChunkRef| (c.offset..c.offset + u64::from(c.bytes)).contains(&(at as u64));
        held_against(&block, &sound, within, &format!("byte {at}"));
        drop(block);
        fs::write(&path, &bytes[..at]).unwrap();
        let block = Block::open(&folder.path().join("2")).unwrap();
        let beyond = |c: &ChunkRef| c.offset + u64::from(c.bytes) > at as u64;
        held_against(&block, &sound, beyond, &format!("cut at {at}"));
    }
}

#[test]
fn what_is_no_block_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "1", &[]);
    let foreign = ["lost+found", "a.tmp", "x.corrupt-0", "18446744073709551615", "1.bak", "+3"];
    for name in foreign {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    // A folder in the place of a file.
    write(folder.path(), "2", &[]);
    fs::remove_file(folder.path().join("2").join(CHUNKS_FILE)).unwrap();
    fs::create_dir(folder.path().join("2").join(CHUNKS_FILE)).unwrap();
    let opened = open_all(folder.path()).unwrap();
    assert_eq!((opened.blocks.len(), opened.damaged.len(), opened.quarantined.len()), (1, 1, 1));
    assert!(opened.damaged[0].1.to_string().contains("it is a folder"));
    assert_eq!(opened.foreign.len(), foreign.len());
    assert!(foreign.iter().all(|name| folder.path().join(name).is_dir()));
}

#[test]
fn damage_is_set_aside_and_the_rest_opens() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["1", "2", "3"] {
        write(folder.path(), name, &[]);
    }
    fs::write(folder.path().join("2").join(INDEX_FILE), b"nonsense").unwrap();
    fs::remove_file(folder.path().join("3").join(META_FILE)).unwrap();
    let opened = open_all(folder.path()).unwrap();
    assert_eq!(opened.blocks.len(), 1);
    assert_eq!(opened.damaged.len(), 2);
    assert!(opened.damaged.iter().all(|(path, error)| path.exists() && error.is_corrupt()));
    let again = open_all(folder.path()).unwrap();
    assert_eq!((again.blocks.len(), again.damaged.len()), (1, 0));
}

#[test]
fn what_is_unfinished_or_replaced_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "1", &[]);
    write(folder.path(), "2", &["1"]);
    fs::create_dir(folder.path().join("3.tmp")).unwrap();
    let abandoned = BlockWriter::create(folder.path(), "4", vec![]).unwrap();
    drop(abandoned);
    assert!(BlockWriter::create(folder.path(), "5", vec![]).unwrap().finish().unwrap().is_none());
    let opened = open_all(folder.path()).unwrap();
    assert_eq!(opened.blocks.len(), 1);
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["2"]);
}

#[test]
fn only_a_sound_block_takes_the_place_of_others() {
    for cut in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "1", &[]);
        write(folder.path(), "2", &[]);
        // Still there after they were replaced, and after their replacement was replaced as well.
        write(folder.path(), "3", &["1", "2"]);
        write(folder.path(), "4", &["3"]);
        let damage = |name: &str| {
            let path = folder.path().join(name).join(CHUNKS_FILE);
            let mut bytes = fs::read(&path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            bytes.truncate(if cut { last } else { last + 1 });
            fs::write(path, bytes).unwrap();
        };
        let names = |opened: &Opened| -> Vec<String> {
            let paths = opened.blocks.iter().map(|block| block.path().file_name().unwrap());
            let mut names: Vec<_> = paths.map(|name| name.to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        damage("3");
        damage("4");
        let opened = open_all(folder.path()).unwrap();
        assert_eq!((names(&opened), opened.damaged.len()), (vec!["1".to_owned(), "2".to_owned()], 2));
        assert!(opened.blocks.iter().all(|block| verify(block).is_ok()));
        drop(opened);

        // A sound one stands for the blocks that a damaged one replaced, too.
        write(folder.path(), "3", &["1", "2"]);
        write(folder.path(), "4", &["3"]);
        damage("3");
        let opened = open_all(folder.path()).unwrap();
        assert_eq!((names(&opened), opened.damaged.len()), (vec!["4".to_owned()], 0));
        drop(opened);
        // Once none of the blocks that it replaces is there, its remaining chunks count.
        damage("4");
        assert_eq!(names(&open_all(folder.path()).unwrap()), ["4"]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = BlockWriter::create(folder.path(), "1", vec![]).unwrap();
    assert!(writer.series(&[], &[1, 1], &[0.0, 0.0]).is_err());
    assert!(writer.series(&[], &[1], &[]).is_err());
    for name in ["", "../1", "1.tmp", "1/2", "a", "+1", "18446744073709551615"] {
        assert!(BlockWriter::create(folder.path(), name, vec![]).is_err(), "{name}");
    }
}

/// Every file of a folder with its content.
pub(in crate::node) fn content(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(content(&entry));
        } else {
            found.push((entry.clone(), fs::read(entry).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn another_version_of_any_file_is_refused_and_left_alone() {
    type Change = fn(&Path);
    let edit = |path: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    };
    let magic = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[7] = b'3';
        fs::write(path, bytes).unwrap();
    };
    let cases: [(&str, Change, &str); 6] = [
        (
            "an older version",
            |block| {
                let mut meta = Meta::read(block).unwrap();
                meta.version -= 1;
                meta.crc = meta.checksum();
                fs::write(block.join(META_FILE), serde_json::to_vec(&meta).unwrap()).unwrap();
            },
            "version 1 of the format",
        ),
        ("a newer version", |_| {}, "version 3 of the format"),
        ("an added field", |_| {}, "field `encoding`"),
        (
            "a newer version that has other fields",
            |block| {
                fs::write(block.join(META_FILE), r#"{"version": 9, "sections": []}"#).unwrap();
            },
            "version 9 of the format",
        ),
        ("a newer index", |_| {}, "index has version 3 of"),
        ("newer chunks", |_| {}, "chunks has version 3 of"),
    ];
    for (what, change, said) in cases {
        let folder = tempfile::tempdir().unwrap();
        for name in ["1", "2", "4"] {
            write(folder.path(), name, &[]);
        }
        // A start would remove this one, and set that one aside.
        fs::create_dir(folder.path().join("3.tmp")).unwrap();
        fs::write(folder.path().join("4").join(INDEX_FILE), b"nonsense").unwrap();
        let block = folder.path().join("2");
        change(&block);
        match what {
            "a newer version" => edit(&block.join(META_FILE), "\"version\": 2", "\"version\": 3"),
            "an added field" => {
                edit(&block.join(META_FILE), "\"version\": 2", "\"encoding\": 1, \"version\": 2");
            }
            "a newer index" => magic(&block.join(INDEX_FILE)),
            "newer chunks" => magic(&block.join(CHUNKS_FILE)),
            _ => {}
        }
        let before = content(folder.path());
        for _ in 0..2 {
            let refused = open_all(folder.path()).unwrap_err();
            assert!(!refused.is_corrupt() && refused.to_string().contains(said), "{what}: {refused}");
        }
        assert_eq!(content(folder.path()), before, "{what}");
        assert!(folder.path().join("3.tmp").is_dir(), "{what}");
    }
}

#[test]
fn series_are_found_wherever_they_begin_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = BlockWriter::create(folder.path(), "1", Vec::new()).unwrap();
    let columns = |series: i64| -> (Vec<i64>, Vec<f64>) {
        let length = if series % 5 == 0 { 2_500 } else { 1 + series };
        (0..length).map(|i| ((series - 20) * 7_777 + i * STEP, (i * series) as f64)).unzip()
    };
    for series in 0..50 {
        let (times, values) = columns(series);
        writer.series(&[("id", &series.to_string())], &times, &values).unwrap();
    }
    let block = Block::open(&writer.finish().unwrap().unwrap()).unwrap();
    for series in 0..50 {
        let number = series as u32;
        let (times, values) = columns(series);
        let (mut got_times, mut got_values) = (Vec::new(), Vec::new());
        block.read(number, window(i64::MIN, i64::MAX), &mut got_times, &mut got_values).unwrap();
        assert_eq!(block.labels(number).unwrap(), [("id", series.to_string().as_str())]);
        assert_eq!(block.extent(number).unwrap(), (times[0], times[times.len() - 1], times.len() as u64));
        assert_eq!((got_times, got_values), (times, values));
    }
    assert!(block.labels(50).is_err());
}
