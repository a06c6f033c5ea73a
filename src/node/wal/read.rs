//! Reading the log back.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use memchr::memmem;

use super::{HEAD, LogFile, MARK, RECORD_BYTES_MAX, quarantine};

/// Damage is described this many times; after that it is only counted.
const DAMAGE_SHOWN: usize = 20;
/// The largest number of a file: they are given one by one, so that larger ones are not ours.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// The records that were read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Sound records.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes cut off the end: of a record that was being written when the process ended, or of damage in the last ones,
    /// which may have been acknowledged. The file does not show which.
    pub torn_bytes: u64,
    /// Places where records are lost.
    pub damaged: u64,
    /// Bytes that are lost there.
    pub damaged_bytes: u64,
    /// Where the first of them are.
    pub damage: Vec<String>,
    /// Files that should be there and are not, the first few gaps.
    pub gaps: Vec<String>,
    /// The files that were read, oldest first, with the bytes that are sound.
    pub files: Vec<LogFile>,
    pub(super) damaged_files: Vec<PathBuf>,
    pub(super) last_segment: u64,
}

/// Why a record, whose checksum is right, is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The part of it that is lost.
    Lost(String),
    /// Another version of Weir wrote it.
    Version(String),
}

impl Replayed {
    fn damage(&mut self, file: &Path, bytes: usize, text: impl FnOnce() -> String) {
        self.damaged += 1;
        self.damaged_bytes += bytes as u64;
        if self.damage.len() < DAMAGE_SHOWN {
            self.damage.push(format!("{}: {}", file.display(), text()));
        }
        if self.damaged_files.last().is_none_or(|last| last != file) {
            self.damaged_files.push(file.to_owned());
        }
    }

    /// Says which files before this one are missing, where the next should have had the number `expected`.
    fn look_for_gap(&mut self, file: &Found, expected: u64) {
        if !file.checkpoint && file.number > expected && self.gaps.len() < DAMAGE_SHOWN {
            self.gaps.push(match file.number - 1 {
                last if last == expected => format!("number {expected}"),
                last => format!("numbers {expected} to {last}"),
            });
        }
    }
}

/// A file in the folder of a log.
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    checkpoint: bool,
}

impl Found {
    /// A file by its name; `None` for a name that is neither a segment's nor a checkpoint's.
    fn of(path: PathBuf) -> Option<Self> {
        let checkpoint = match path.extension()?.to_str()? {
            "wal" => false,
            "checkpoint" => true,
            _ => return None,
        };
        let number = path.file_stem()?.to_str()?.parse().ok()?;
        Some(Self { number, path, checkpoint })
    }

    /// Whether a checkpoint of this number makes it superfluous: it holds the content of the segments up to that
    /// number.
    pub(super) fn is_old(&self, checkpoint: u64) -> bool {
        self.number < checkpoint || self.number == checkpoint && !self.checkpoint
    }
}

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.wal"))
}

pub(super) fn checkpoint_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.checkpoint"))
}

pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The number of the newest checkpoint.
pub(super) fn newest_checkpoint(files: &[Found]) -> Option<u64> {
    files.iter().filter(|file| file.checkpoint).map(|file| file.number).max()
}

/// Whether a file of the log in `dir` is one that a later checkpoint replaces, so that it may be gone.
pub fn is_superseded(dir: &Path, name: &str) -> bool {
    let newest = files(dir).ok().and_then(|files| newest_checkpoint(&files));
    newest.zip(Found::of(dir.join(name))).is_some_and(|(newest, file)| file.is_old(newest))
}

/// Segments and checkpoints, in order.
pub(super) fn files(dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| at(dir, error))? {
        found.extend(Found::of(entry?.path()));
    }
    found.sort_by_key(|f| (f.number, !f.checkpoint));
    Ok(found)
}

/// Hands every sound record to `each`. Nothing in the folder is changed before all of it was read.
pub(super) fn replay(
    dir: &Path,
    each: &mut impl FnMut(&[u8]) -> Result<(), RecordError>,
) -> io::Result<Replayed> {
    let mut files = files(dir)?;
    if let Some(newest) = newest_checkpoint(&files) {
        files.retain(|f| !f.is_old(newest));
    }
    if let Some(file) = files.iter().find(|file| file.number > NUMBER_MAX) {
        let path = file.path.display();
        return Err(io::Error::other(format!("{path} has a number that no log reaches: move it away")));
    }
    let mut replayed = Replayed::default();
    let (mut expected, mut torn) = (1, None);
    for (i, file) in files.iter().enumerate() {
        replayed.look_for_gap(file, expected);
        expected = file.number + 1;
        replayed.last_segment = replayed.last_segment.max(file.number);
        let bytes = fs::read(&file.path).map_err(|error| at(&file.path, error))?;
        let sound = read_records(&bytes, &file.path, &mut replayed, each)?;
        let left = bytes.len() - sound;
        if left > 0 && i + 1 == files.len() && !file.checkpoint {
            replayed.torn_bytes = left as u64;
            torn = Some((&file.path, bytes, sound));
        } else if left > 0 {
            replayed.damage(&file.path, left, || format!("{left} bytes at {sound} are lost"));
        }
        replayed.bytes += sound as u64;
        replayed.files.push(LogFile { name: name(&file.path), bytes: sound as u64 });
    }
    if let Some((path, bytes, sound)) = torn {
        cut_off(path, &bytes, sound).map_err(|error| at(path, error))?;
    }
    Ok(replayed)
}

/// Cuts off the bytes behind the last sound record of the last segment, and keeps a copy if there is anything in it.
fn cut_off(path: &Path, bytes: &[u8], sound: usize) -> io::Result<()> {
    let end = bytes.get(sound..).unwrap_or_default();
    if end.iter().any(|byte| *byte != 0) {
        let (file, bytes) = (path.display(), end.len());
        let message = "the end of the log is not whole and is cut off; it may have been acknowledged";
        match quarantine::copy_end(path, end) {
            Ok(Some(copy)) => tracing::warn!(%file, at = sound, bytes, copy = %copy.display(), "{message}"),
            Ok(None) => tracing::warn!(%file, at = sound, bytes, "{message}; enough such copies are kept"),
            // A start on a full disk is worth more.
            Err(error) => {
                tracing::warn!(%file, at = sound, bytes, %error, "{message}; it could not be copied");
            }
        }
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(sound as u64)?;
    file.sync_all()
}

/// The error with the file or folder that it is about.
pub(super) fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Hands out the sound records of a file; where the last of them ends. Records of another version are an error: taken
/// for damage they would be written over in the end.
fn read_records(
    bytes: &[u8],
    path: &Path,
    replayed: &mut Replayed,
    each: &mut impl FnMut(&[u8]) -> Result<(), RecordError>,
) -> io::Result<usize> {
    let other = |what: String| {
        io::Error::other(format!(
            "{} was written by another version of Weir, whose log this one does not read ({what}): start that one, or \
             move the folder {} away",
            path.display(),
            path.parent().unwrap_or(path).display()
        ))
    };
    let (mut at, mut sound) = (0, 0);
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if let Some(payload) = record(rest, MARK) {
            if at > sound {
                replayed.damage(path, at - sound, || format!("{} bytes at {sound} are lost", at - sound));
            }
            match each(payload) {
                Ok(()) => {}
                Err(RecordError::Version(what)) => return Err(other(what)),
                Err(RecordError::Lost(why)) => {
                    replayed.damage(path, payload.len(), || format!("the record at {at}: {why}"));
                }
            }
            replayed.records += 1;
            at += HEAD + payload.len();
            sound = at;
        } else if let Some(mark) = foreign_mark(rest, bytes) {
            return Err(other(format!("the record at {at} is marked {mark:02x?}")));
        } else {
            let next = rest.get(1..).and_then(|r| memmem::find(r, &MARK));
            let Some(next) = next else { break };
            at += 1 + next;
        }
    }
    Ok(sound)
}

/// The mark of another version, if a record with one begins at `rest`. One bit may have been flipped; that happens to
/// no two records in the same way, nor to all of a file.
fn foreign_mark(rest: &[u8], whole: &[u8]) -> Option<[u8; 4]> {
    let mark: [u8; 4] = rest.get(..4)?.try_into().ok()?;
    let payload = record(rest, mark)?;
    let bits = mark.iter().zip(MARK).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    let next = rest.get(HEAD + payload.len()..).unwrap_or_default();
    let other = bits > 1 || record(next, mark).is_some() || memmem::find(whole, &MARK).is_none();
    (other && !payload.is_empty()).then_some(mark)
}

/// The payload of the record at the beginning of `bytes`, if it is sound.
fn record(bytes: &[u8], mark: [u8; 4]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let number = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    if head.get(..4)? != mark {
        return None;
    }
    let payload = rest.get(..number(4)? as usize).filter(|p| p.len() <= RECORD_BYTES_MAX)?;
    (crc32fast::hash(payload) == number(8)?).then_some(payload)
}
