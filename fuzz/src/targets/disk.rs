//! Files: the write-ahead log and sealed blocks.

use std::{fs, path::Path, time::Duration};

use weir::{
    base::TimeRange,
    node::{
        block::{Block, BlockWriter, Meta},
        db::{Db, Options},
        head::{Batch, LabelLimits},
        storage::Storage as _,
        wal::SyncPolicy,
    },
    series::Samples,
};

const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };
/// The present of every database here, milliseconds.
const NOW: i64 = 1_700_000_000_000;
const MARK: [u8; 4] = [0xb2, 0x6d, 0x1e, 0xc3];

fn options() -> Options {
    let monotonic = || Duration::ZERO;
    Options { sync: SyncPolicy::Never, clock: || NOW, monotonic, max_series: 1_000, ..Options::default() }
}

/// Every series with its samples, floats as bits.
type Content = Vec<(String, Vec<i64>, Vec<u64>)>;

fn content(db: &Db) -> Content {
    let mut found = Content::new();
    let mut samples = Samples::default();
    let selection = db.select(&[], ALL).unwrap();
    for number in 0..selection.series() {
        let Some(labels) = selection.read(number, &mut samples).unwrap() else { continue };
        assert!(samples.times.is_sorted_by(|a, b| a < b), "times that do not rise");
        let values = samples.values.iter().map(|value| value.to_bits()).collect();
        found.push((format!("{labels:?}"), samples.times.clone(), values));
    }
    found.sort();
    found
}

/// A folder whose log is `input`, as a segment or as a checkpoint; whether all of it was sound.
fn open_log(input: &[u8], file: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("wal")).unwrap();
    fs::write(folder.path().join("wal").join(file), input).unwrap();
    let (db, replayed) = match Db::open(folder.path(), options()) {
        Ok(opened) => opened,
        Err(refused) => {
            // Only a file that looks like another version's ends a start, which leaves the file unchanged.
            assert!(refused.to_string().contains("another version"), "{refused}");
            assert_eq!(fs::read(folder.path().join("wal").join(file)).unwrap(), input);
            return false;
        }
    };
    let first = content(&db);
    drop(db);
    // A record read once is read again: a start changes nothing but the torn end.
    let (db, again) = Db::open(folder.path(), options()).unwrap();
    assert_eq!(content(&db), first);
    assert_eq!((again.records, again.torn_bytes), (replayed.records, 0));
    replayed.damaged == 0 && replayed.torn_bytes == 0 && replayed.records > 0
}

pub(super) fn log(input: &[u8]) -> bool {
    open_log(input, "0000000001.wal")
}

/// Whole records: their content is reached although a checksum guards it.
pub(super) fn log_record(payload: &[u8]) -> bool {
    let mut framed = MARK.to_vec();
    framed.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    framed.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    framed.extend_from_slice(payload);
    open_log(&framed, "0000000001.checkpoint")
}

/// The files of a log: one of writes, and the checkpoint after them.
pub(super) fn logs() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(folder.path(), options()).unwrap();
    for step in 0..20 {
        let names = ["a", "b", "c with a long value", "at the time of c"];
        let mut batch = Batch::new(LabelLimits::default());
        for (i, name) in names.iter().enumerate() {
            batch.label("__name__", "up");
            batch.label("instance", name);
            let value = if i == 1 { f64::from_bits(0x7ff0_0000_0000_0002) } else { step as f64 * 1.25 };
            batch.sample(NOW + step * 15_000 - i.min(2) as i64 * 40_000, value);
            batch.end_series().unwrap();
        }
        db.append(&batch).unwrap();
    }
    let read = || {
        let mut files: Vec<_> =
            fs::read_dir(folder.path().join("wal")).unwrap().map(|e| e.unwrap()).collect();
        files.retain(|file| file.file_name() != "lock");
        files.iter().map(|file| fs::read(file.path()).unwrap()).collect::<Vec<_>>()
    };
    let mut files = read();
    db.checkpoint().unwrap();
    files.extend(read());
    files
}

pub(super) fn log_records() -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    for file in logs() {
        // Records after the first of a segment lean on its labels; alone they mean nothing.
        let length = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
        payloads.push(file[12..12 + length].to_vec());
    }
    payloads
}

/// The three files of a block in one input: two lengths before the first two files, then the chunks.
fn joined(meta: &[u8], index: &[u8], chunks: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in [meta, index] {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
    out.extend_from_slice(chunks);
    out
}

fn parted(input: &[u8]) -> Option<[&[u8]; 3]> {
    let part = |input| -> Option<(&[u8], &[u8])> {
        let (length, rest): (&[u8; 4], &[u8]) = <[u8]>::split_first_chunk(input)?;
        rest.split_at_checked(u32::from_le_bytes(*length) as usize)
    };
    let (meta, rest) = part(input)?;
    let (index, chunks) = part(rest)?;
    Some([meta, index, chunks])
}

fn open_block(meta: &[u8], index: &[u8], chunks: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("meta.json", meta), ("index", index), ("chunks", chunks)] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    read_block(folder.path())
}

fn read_block(path: &Path) -> bool {
    let Ok(block) = Block::open(path) else { return false };
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for series in 0..block.series_count() {
        assert!(block.labels(series).is_ok(), "an open block has labels that cannot be read");
        for window in [ALL, TimeRange { start: NOW, end: NOW + 60_000 }] {
            times.clear();
            values.clear();
            let read = block.read(series, window, &mut times, &mut values);
            assert!(read.is_ok(), "an open block cannot be read: {read:?}");
            assert_eq!(times.len(), values.len());
        }
    }
    block.intact().is_ok()
}

pub(super) fn block(input: &[u8]) -> bool {
    parted(input).is_some_and(|[meta, index, chunks]| open_block(meta, index, chunks))
}

/// The same with checksums made to fit, so that the guarded bytes are reached.
pub(super) fn block_signed(input: &[u8]) -> bool {
    let Some([meta, index, chunks]) = parted(input) else { return false };
    let index = signed_index(index);
    let Ok(mut meta) = serde_json::from_slice::<Meta>(meta) else { return false };
    meta.index_bytes = index.len() as u64;
    meta.chunks_bytes = chunks.len() as u64;
    meta.crc = 0;
    meta.crc = crc32fast::hash(&serde_json::to_vec(&meta).unwrap());
    open_block(&serde_json::to_vec(&meta).unwrap(), &index, chunks)
}

/// Bytes of the tail of an index.
const TAIL: usize = 64;

/// Puts the right checksums behind the sections that the tail of an index names.
fn signed_index(index: &[u8]) -> Vec<u8> {
    let mut out = index.to_vec();
    let Some(tail) = out.len().checked_sub(TAIL) else { return out };
    let mut at = 8_usize;
    for section in 0..3 {
        let length_at = tail + section * 8;
        let length = out[length_at..length_at + 8].try_into().map_or(0, u64::from_le_bytes);
        let end = at.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(tail);
        let crc = crc32fast::hash(&out[at.min(end)..end]);
        let crc_at = tail + 24 + section * 4;
        out[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
    let crc = crc32fast::hash(&out[tail..tail + TAIL - 4]);
    out[tail + TAIL - 4..].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn blocks() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = BlockWriter::create(folder.path(), "1", Vec::new()).unwrap();
    for series in 0..3 {
        let times: Vec<i64> = (0..120).map(|i| NOW + i * 15_000 + series * (i % 3)).collect();
        let values: Vec<f64> = (0..120).map(|i| (i * series) as f64 / 7.0).collect();
        writer.series(&[("__name__", "up"), ("id", &series.to_string())], &times, &values).unwrap();
    }
    let path = writer.finish().unwrap().unwrap();
    let read = |name| fs::read(path.join(name)).unwrap();
    vec![joined(&read("meta.json"), &read("index"), &read("chunks"))]
}
