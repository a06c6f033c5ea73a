//! The write-ahead log: its records survive the process.
//!
//! Segments of records, each `mark · length · crc32 · payload`. Writers that arrive while another one is at the disk
//! are written, and synced, together. A damaged record costs itself only: reading goes on at the next mark whose record
//! is sound. A checkpoint replaces all segments before it; damaged ones are set aside then, not deleted. Bytes cut off
//! the end of the last segment are copied before.

mod disk;
mod quarantine;
mod read;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use disk::DiskSpace;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use read::{RecordError, Replayed, is_superseded};

use crate::base::files::{FolderLock, is_named};

/// Begins a record, and says which version of the format it has. Another version differs in two bits at least, so that
/// one flipped bit is not taken for it.
const MARK: [u8; 4] = [0xb2, 0x6d, 0x1e, 0xc3];
/// Bytes before a record's payload: mark, length, checksum.
const HEAD: usize = 12;
/// Bytes after which another segment begins.
const SEGMENT_BYTES: u64 = 128 << 20;
/// Bytes that a disk with room for a write takes at least.
const PROBE_BYTES: usize = 4 << 10;
/// A longer record is taken for damage.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// When written records are also forced to the disk. A killed process loses nothing in any of them; a machine that
/// loses its power does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before a write is acknowledged.
    Always,
    /// At the first write after this long.
    Every(Duration),
    /// When the operating system chooses to.
    Never,
}

/// Why a record is not in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// No room on the disk.
    Full,
    /// The disk takes no writes.
    ReadOnly,
    /// The log's folder or file was deleted, moved or replaced.
    Gone(PathBuf),
    /// Anything else.
    Io(String),
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Io(error.to_string()),
        }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("no space is left on the disk"),
            Self::ReadOnly => f.write_str("the disk is read-only"),
            Self::Gone(path) => write!(f, "{} was deleted, moved or replaced", path.display()),
            Self::Io(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for LogError {}

type Outcome = Arc<OnceLock<Result<(), LogError>>>;

/// A file of the log, as it should be found again.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct LogFile {
    /// Its name in the log's folder.
    pub name: String,
    /// Bytes that it has at least.
    pub bytes: u64,
}

/// Records that will reach the disk together.
#[derive(Debug, Default)]
struct Group {
    bytes: Vec<u8>,
    outcome: Outcome,
}

#[derive(Debug)]
struct Writer {
    /// `None` after a failure that may have left half a record: the next write begins a new segment.
    file: Option<File>,
    number: u64,
    /// Bytes of the segment that are sound.
    written: u64,
    /// Bytes since the last checkpoint.
    total: u64,
    synced: Instant,
    room: DiskSpace,
    /// Files that a restart reads, oldest first; the last one is the segment being written, if there is one.
    files: Vec<LogFile>,
}

/// The log, open for writing.
#[derive(Debug)]
pub struct Wal {
    dir: PathBuf,
    policy: SyncPolicy,
    group: Mutex<Group>,
    writer: Mutex<Writer>,
    /// The number of the segment that was written last, for readers that must not wait for a writer.
    segment: AtomicU64,
    /// Files in which damage was found when they were read back.
    damaged: Vec<PathBuf>,
    /// Held for as long as the log is open, so that no second process writes it.
    lock: FolderLock,
}

impl Wal {
    /// Opens the log in `dir`, made if it is missing, after handing every sound record to `each` in order.
    ///
    /// # Errors
    /// The directory cannot be used, another process uses it, or another version of the format is in it.
    pub fn open(
        dir: &Path,
        policy: SyncPolicy,
        mut each: impl FnMut(&[u8]) -> Result<(), RecordError>,
    ) -> io::Result<(Self, Replayed)> {
        let lock = FolderLock::take(dir)?;
        let replayed = read::replay(dir, &mut each)?;
        let writer = Writer {
            file: None,
            number: replayed.last_segment,
            written: 0,
            total: replayed.bytes,
            synced: Instant::now(),
            room: DiskSpace::default(),
            files: replayed.files.clone(),
        };
        let wal = Self {
            dir: dir.to_owned(),
            policy,
            group: Mutex::default(),
            writer: Mutex::new(writer),
            segment: AtomicU64::new(0),
            damaged: replayed.damaged_files.clone(),
            lock,
        };
        Ok((wal, replayed))
    }

    /// Writes a record; returns when it is as safe as the policy says.
    ///
    /// # Errors
    /// It is not in the log, and will not be after a restart either.
    pub fn append(&self, payload: &[u8]) -> Result<(), LogError> {
        if payload.len() > RECORD_BYTES_MAX {
            return Err(LogError::Io(format!("a record of {} bytes is too large", payload.len())));
        }
        let outcome = {
            let mut group = self.group.lock();
            frame(payload, &mut group.bytes);
            Arc::clone(&group.outcome)
        };
        let mut writer = self.writer.lock();
        // An earlier sync may have included this record.
        if let Some(done) = outcome.get() {
            return done.clone();
        }
        let group = std::mem::take(&mut *self.group.lock());
        let result = writer.write(&self.dir, &group.bytes, self.policy);
        self.segment.store(writer.number, Ordering::Relaxed);
        // Set once: a group is taken out by one writer only.
        let _ = group.outcome.set(result.clone());
        result
    }

    /// The room on its disk.
    #[cfg(test)]
    pub(in crate::node) fn room(&self) -> DiskSpace {
        self.writer.lock().room.clone()
    }

    /// Bytes that a restart would have to read.
    pub fn size(&self) -> u64 {
        self.writer.lock().total
    }

    /// The files that a restart would read, oldest first.
    pub fn files(&self) -> Vec<LogFile> {
        self.writer.lock().files.clone()
    }

    /// The number of the segment that was written last.
    pub fn segment(&self) -> u64 {
        self.segment.load(Ordering::Relaxed)
    }

    /// Tries whether a write would be taken now: the folder is where it was, and its disk takes a few KiB.
    ///
    /// # Errors
    /// Why a write would not be taken.
    pub fn probe(&self) -> Result<(), LogError> {
        if !self.lock.is_in_place() {
            return Err(LogError::Gone(self.dir.clone()));
        }
        let path = self.dir.join("probe");
        let room = self.writer.lock().room.clone();
        let tried =
            File::create(&path).and_then(|mut file| room.writer(&mut file).write_all(&[0; PROBE_BYTES]));
        let removed = fs::remove_file(&path);
        tried.and(removed).map_err(|error| read::at(&path, error).into())
    }

    /// Forces everything to the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> Result<(), LogError> {
        Ok(self.writer.lock().sync()?)
    }

    /// Replaces everything so far by the records that `fill` hands to its argument. Nobody may append meanwhile.
    ///
    /// # Errors
    /// The old log stays in place.
    pub fn checkpoint(
        &self,
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        let number = writer.number + 1;
        let unfinished = self.dir.join("checkpoint.unfinished");
        let result = write_checkpoint(&unfinished, &writer.room, fill);
        let total = result.inspect_err(|_| {
            // The rest of it only takes room; the next one starts over anyway.
            let _ = fs::remove_file(&unfinished);
        })?;
        let path = read::checkpoint_path(&self.dir, number);
        fs::rename(&unfinished, &path).map_err(|error| read::at(&path, error))?;
        // From here on it counts, so that nothing may go into a segment before it, even if a later step fails.
        let files = vec![LogFile { name: read::name(&path), bytes: total }];
        let room = writer.room.clone();
        *writer = Writer { file: None, number, written: 0, total, synced: Instant::now(), room, files };
        Ok(sync_dir(&self.dir)?)
    }

    /// Removes the files that the last checkpoint made superfluous. Apart from it, so that the keeper of the list of
    /// files can do so in between.
    ///
    /// # Errors
    /// They are tried again after the next checkpoint.
    pub fn clear(&self) -> Result<(), LogError> {
        let Some(newest) = read::newest_checkpoint(&read::files(&self.dir)?) else { return Ok(()) };
        for old in read::files(&self.dir)?.into_iter().filter(|file| file.is_old(newest)) {
            self.retire(&old.path).map_err(|error| read::at(&old.path, error))?;
        }
        Ok(())
    }

    /// Removes a file that is no longer needed, or sets it aside if it is damaged.
    fn retire(&self, file: &Path) -> io::Result<()> {
        if self.damaged.iter().any(|damaged| damaged == file) {
            if let Some(place) = quarantine::quarantine(file)? {
                tracing::warn!(place = %place.display(), "a damaged file of the log is set aside");
                return Ok(());
            }
            tracing::warn!(file = %file.display(), "a damaged file of the log is removed: enough of them are kept");
        }
        fs::remove_file(file)
    }
}

fn write_checkpoint(
    path: &Path,
    room: &DiskSpace,
    fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<u64> {
    let write = || -> io::Result<u64> {
        let mut file = File::create(path)?;
        let mut out = io::BufWriter::with_capacity(1 << 20, room.writer(&mut file));
        let mut total = 0;
        let mut framed = Vec::new();
        fill(&mut |payload| {
            framed.clear();
            frame(payload, &mut framed);
            total += framed.len() as u64;
            out.write_all(&framed)
        })?;
        out.flush()?;
        drop(out);
        file.sync_all()?;
        Ok(total)
    };
    write().map_err(|error| read::at(path, error))
}

impl Writer {
    fn write(&mut self, dir: &Path, bytes: &[u8], policy: SyncPolicy) -> Result<(), LogError> {
        if self.written >= SEGMENT_BYTES {
            self.sync()?;
            self.file = None;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.begin_segment(dir)?,
        };
        let path = read::segment_path(dir, self.number);
        let due = match policy {
            SyncPolicy::Always => true,
            SyncPolicy::Every(period) => self.synced.elapsed() >= period,
            SyncPolicy::Never => false,
        };
        let written = self.room.writer(&mut file).write_all(bytes);
        let reached = written.is_ok();
        let result = written.and_then(|()| if due { file.sync_data() } else { Ok(()) });
        if let Err(error) = result {
            // Half a record, or one whose write was reported as failed, must not be read back.
            let undone = file.set_len(self.written).and_then(|()| file.seek(SeekFrom::Start(self.written)));
            // After a failed sync the content of the file on the disk is unknown.
            if undone.is_ok() && !reached {
                self.file = Some(file);
            } else if self.written == 0 {
                // Nothing in it was acknowledged, and refused writes must not heap up files.
                self.discard_segment(dir);
            }
            return Err(read::at(&path, error).into());
        }
        // A file without a name takes bytes as any other, and is gone with the process.
        if !is_named(&file, &path) {
            return Err(LogError::Gone(path));
        }
        self.file = Some(file);
        if due {
            self.synced = Instant::now();
        }
        self.written += bytes.len() as u64;
        self.total += bytes.len() as u64;
        if let Some(segment) = self.files.last_mut() {
            segment.bytes = self.written;
        }
        Ok(())
    }

    fn begin_segment(&mut self, dir: &Path) -> io::Result<File> {
        let number = self.number + 1;
        let path = read::segment_path(dir, number);
        let opened = OpenOptions::new().create_new(true).write(true).open(&path);
        // Taken once there is a file of this number, and no earlier: a gap in the numbers means loss.
        if opened.as_ref().map_or_else(|error| error.kind() == io::ErrorKind::AlreadyExists, |_| true) {
            (self.number, self.written) = (number, 0);
        }
        let file = opened.map_err(|error| read::at(&path, error))?;
        sync_dir(dir).inspect_err(|_| self.discard_segment(dir))?;
        self.files.push(LogFile { name: read::name(&path), bytes: 0 });
        Ok(file)
    }

    /// Removes the segment that was begun last.
    fn discard_segment(&mut self, dir: &Path) {
        let path = read::segment_path(dir, self.number);
        if fs::remove_file(&path).is_ok() {
            self.number = self.number.saturating_sub(1);
            let name = read::name(&path);
            self.files.retain(|file| file.name != name);
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        self.synced = Instant::now();
        Ok(())
    }
}

fn frame(payload: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&MARK);
    into.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    into.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    into.extend_from_slice(payload);
}

/// A new name in a directory is safe when the directory is.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| read::at(dir, error))
}
