//! Reading the log back.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use memchr::memmem;

use super::{HEAD, MARK, OLD_MARKS, RECORD_BYTES_MAX, aside};

/// Damage is described this many times; after that it is only counted.
const DAMAGE_SHOWN: usize = 20;
/// The largest number of a file: they are given one by one, so that larger ones are not ours.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// What was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Sound records.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes cut off the end: of a record that was being written when the process ended, or of damage in the last ones,
    /// which may have been acknowledged. Nobody can tell.
    pub torn_bytes: u64,
    /// Places where records are lost.
    pub damaged: u64,
    /// Bytes that are lost there.
    pub damaged_bytes: u64,
    /// Where the first of them are.
    pub damage: Vec<String>,
    /// Files that should be there and are not, the first few gaps.
    pub gaps: Vec<String>,
    pub(super) damaged_files: Vec<PathBuf>,
    pub(super) last_segment: u64,
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
    fn look_for_gap(&mut self, file: &LogFile, expected: u64) {
        if !file.checkpoint && file.number > expected && self.gaps.len() < DAMAGE_SHOWN {
            self.gaps.push(match file.number - 1 {
                last if last == expected => format!("number {expected}"),
                last => format!("numbers {expected} to {last}"),
            });
        }
    }
}

pub(super) struct LogFile {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    checkpoint: bool,
}

impl LogFile {
    /// Whether a checkpoint of this number makes it superfluous: it holds what the segments up to that number say.
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

/// Segments and checkpoints, in order.
pub(super) fn files(dir: &Path) -> io::Result<Vec<LogFile>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let kind = path.extension().and_then(|e| e.to_str());
        let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
        if let (Some(kind @ ("wal" | "checkpoint")), Some(number)) = (kind, number) {
            let checkpoint = kind == "checkpoint";
            found.push(LogFile { number, path, checkpoint });
        }
    }
    found.sort_by_key(|f| (f.number, !f.checkpoint));
    Ok(found)
}

pub(super) fn replay(dir: &Path, each: &mut impl FnMut(&[u8]) -> Result<(), String>) -> io::Result<Replayed> {
    let mut files = files(dir)?;
    if let Some(newest) = files.iter().filter(|f| f.checkpoint).map(|f| f.number).max() {
        files.retain(|f| !f.is_old(newest));
    }
    if let Some(file) = files.iter().find(|file| file.number > NUMBER_MAX) {
        let path = file.path.display();
        return Err(io::Error::other(format!("{path} has a number that no log reaches: move it away")));
    }
    let mut replayed = Replayed::default();
    let mut expected = 1;
    for (i, file) in files.iter().enumerate() {
        replayed.look_for_gap(file, expected);
        expected = file.number + 1;
        replayed.last_segment = replayed.last_segment.max(file.number);
        let bytes = fs::read(&file.path).map_err(|error| at(&file.path, error))?;
        // Refused, since what is not understood would be taken for damage and written over in the end.
        if OLD_MARKS.iter().any(|mark| record(&bytes, *mark).is_some()) {
            return Err(io::Error::other(format!(
                "{} was written by an earlier version of Weir, whose log this one does not read: start that one, or \
                 move the folder {} away",
                file.path.display(),
                dir.display()
            )));
        }
        let sound = read_records(&bytes, &file.path, &mut replayed, each);
        let left = bytes.len() - sound;
        if left > 0 && i + 1 == files.len() && !file.checkpoint {
            replayed.torn_bytes = left as u64;
            cut_off(&file.path, &bytes, sound).map_err(|error| at(&file.path, error))?;
        } else if left > 0 {
            replayed.damage(&file.path, left, || format!("{left} bytes at {sound} are lost"));
        }
        replayed.bytes += sound as u64;
    }
    Ok(replayed)
}

/// Cuts off what is behind the last sound record of the last segment, and keeps a copy if there is anything in it.
fn cut_off(path: &Path, bytes: &[u8], sound: usize) -> io::Result<()> {
    let end = bytes.get(sound..).unwrap_or_default();
    if end.iter().any(|byte| *byte != 0) {
        let (file, bytes) = (path.display(), end.len());
        let message = "the end of the log is not whole and is cut off; it may have been acknowledged";
        match aside::copy_end(path, end) {
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

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Hands out the sound records of a file; where the last of them ends.
fn read_records(
    bytes: &[u8],
    path: &Path,
    replayed: &mut Replayed,
    each: &mut impl FnMut(&[u8]) -> Result<(), String>,
) -> usize {
    let (mut at, mut sound) = (0, 0);
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if let Some(payload) = record(rest, MARK) {
            if at > sound {
                replayed.damage(path, at - sound, || format!("{} bytes at {sound} are lost", at - sound));
            }
            if let Err(why) = each(payload) {
                replayed.damage(path, payload.len(), || format!("the record at {at}: {why}"));
            }
            replayed.records += 1;
            at += HEAD + payload.len();
            sound = at;
        } else {
            let next = rest.get(1..).and_then(|r| memmem::find(r, &MARK));
            let Some(next) = next else { break };
            at += 1 + next;
        }
    }
    sound
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
