//! The one thread that writes, and the handle by which queries reach it.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use crossbeam_queue::ArrayQueue;

use super::{
    block,
    codec::Encoder,
    read::{files, sequence},
    record::{Record, Text},
};

/// Records between the queries and the thread.
const QUEUE: usize = 4_096;
/// Bytes of texts between them.
const QUEUE_TEXT_BYTES: u64 = 8 << 20;
/// Records at which the thread is woken before its time: few, since each is a kilobyte until it is written.
const WAKE_AT: usize = QUEUE / 16;
/// Bytes of records that make a block.
const BLOCK_BYTES: usize = 64 << 10;
/// The longest time between a query's end and its record on disk.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// Files that the journal consists of when it has its full size.
const FILES: u64 = 8;
/// Time between two complaints of a disk that does not take records.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// How a journal is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder of its files.
    pub folder: PathBuf,
    /// Bytes of all of them.
    pub size: u64,
    /// The part of a query's text that is kept.
    pub text: TextKept,
}

/// The part of a query's text that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextKept {
    /// All of it.
    #[default]
    Full,
    /// Nothing but its fingerprint.
    Fingerprint,
}

/// Records since the start, by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// They are on disk.
    pub written: u64,
    /// The queue was full.
    pub dropped: u64,
    /// The disk did not take them.
    pub failed: u64,
    /// Bytes of all files now.
    pub bytes: u64,
}

#[derive(Debug)]
struct Shared {
    queue: ArrayQueue<Box<Record>>,
    /// Bytes of the texts in the queue.
    text_bytes: AtomicU64,
    /// The thread was woken and did not look yet.
    is_woken: AtomicBool,
    is_ended: AtomicBool,
    thread: OnceLock<Thread>,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

/// The way of records to disk. Writing to it never waits.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    text: TextKept,
}

impl Journal {
    /// Starts the thread. The journal ends, with everything on disk, when the [`Writer`] is dropped.
    ///
    /// # Errors
    /// The folder cannot be made or read, or there is no thread.
    pub fn start(settings: Settings) -> io::Result<(Self, Writer)> {
        fs::create_dir_all(&settings.folder)?;
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(QUEUE),
            text_bytes: AtomicU64::new(0),
            is_woken: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
            thread: OnceLock::new(),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let text = settings.text;
        let files = Files::open(settings)?;
        shared.bytes.store(files.total, Relaxed);
        let loop_ =
            Loop { shared: Arc::clone(&shared), files, encoder: Encoder::default(), complained: None };
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || loop_.run())?;
        // Set once, here.
        let _ = shared.thread.set(thread.thread().clone());
        let writer = Writer { shared: Arc::clone(&shared), thread: Some(thread) };
        Ok((Self { shared, text }, writer))
    }

    /// Puts a record on its way, or counts it as dropped.
    pub fn write(&self, mut record: Box<Record>) {
        let shared = &*self.shared;
        if self.text == TextKept::Fingerprint {
            record.query = Text::default();
        }
        let length = record.query.len() as u64;
        let before = shared.text_bytes.fetch_add(length, Relaxed);
        let is_full = before + length > QUEUE_TEXT_BYTES || shared.is_ended.load(Relaxed);
        if is_full || shared.queue.push(record).is_err() {
            shared.text_bytes.fetch_sub(length, Relaxed);
            shared.dropped.fetch_add(1, Relaxed);
            return;
        }
        let is_due = shared.queue.len() >= WAKE_AT || before + length > QUEUE_TEXT_BYTES / 4;
        if is_due && !shared.is_woken.swap(true, Relaxed) {
            shared.wake();
        }
    }

    /// Records by result.
    pub fn counters(&self) -> Counters {
        let Shared { written, dropped, failed, bytes, .. } = &*self.shared;
        let [written, dropped, failed, bytes] = [written, dropped, failed, bytes].map(|n| n.load(Relaxed));
        Counters { written, dropped, failed, bytes }
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// Ends the journal when it is dropped.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.is_ended.store(true, Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in it was logged by the hook.
            let _ = thread.join();
        }
    }
}

struct Loop {
    shared: Arc<Shared>,
    files: Files,
    encoder: Encoder,
    /// When a failure was last said in the log.
    complained: Option<Instant>,
}

impl Loop {
    fn run(mut self) {
        let mut flushed = Instant::now();
        loop {
            // Looked at before the queue: records from before the end are written.
            let is_ended = self.shared.is_ended.load(Relaxed);
            self.shared.is_woken.store(false, Relaxed);
            while let Some(record) = self.shared.queue.pop() {
                self.shared.text_bytes.fetch_sub(record.query.len() as u64, Relaxed);
                self.encoder.push(&record);
                if self.encoder.len() >= BLOCK_BYTES {
                    self.flush();
                    flushed = Instant::now();
                }
            }
            if is_ended || flushed.elapsed() >= FLUSH_EVERY {
                self.flush();
                flushed = Instant::now();
            }
            if is_ended {
                return;
            }
            thread::park_timeout(FLUSH_EVERY);
        }
    }

    fn flush(&mut self) {
        if self.encoder.records() == 0 {
            return;
        }
        let (raw, records) = self.encoder.take();
        let written = block::encode(&raw, records).and_then(|block| self.files.append(&block));
        let count = if written.is_ok() { &self.shared.written } else { &self.shared.failed };
        count.fetch_add(u64::from(records), Relaxed);
        self.shared.bytes.store(self.files.total, Relaxed);
        if let Err(error) = written
            && self.complained.is_none_or(|before| before.elapsed() >= COMPLAIN_EVERY)
        {
            self.complained = Some(Instant::now());
            let folder = self.files.settings.folder.display();
            tracing::warn!(%error, %folder, records, "queries are missing in the journal: it cannot be written");
        }
    }
}

/// The files on disk.
struct Files {
    settings: Settings,
    /// The file that is written, and its bytes.
    current: Option<(File, u64)>,
    /// Older files and their bytes, the oldest first.
    older: VecDeque<(PathBuf, u64)>,
    current_path: PathBuf,
    next: u64,
    /// Bytes of all files.
    total: u64,
}

impl Files {
    fn open(settings: Settings) -> io::Result<Self> {
        let mut older = VecDeque::new();
        let mut next = 1;
        for path in files(&settings.folder)? {
            next = next.max(sequence(&path).unwrap_or(0).saturating_add(1));
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            older.push_back((path, bytes));
        }
        let total = older.iter().map(|(_, bytes)| bytes).sum();
        Ok(Self { settings, current: None, older, current_path: PathBuf::new(), next, total })
    }

    /// Appends a whole block. After a failure the next one goes to a new file, since half a block may stand in this one.
    fn append(&mut self, block: &[u8]) -> io::Result<()> {
        let length = block.len() as u64;
        let is_full = |(_, bytes): &(File, u64)| bytes + length > self.settings.size / FILES;
        if self.current.as_ref().is_some_and(is_full) {
            self.retire();
        }
        self.make_room(length + block::FILE_HEAD as u64);
        if self.current.is_none() {
            self.create()?;
        }
        let Some((file, bytes)) = &mut self.current else { return Ok(()) };
        if let Err(error) = file.write_all(block) {
            self.retire();
            return Err(error);
        }
        *bytes += length;
        self.total += length;
        Ok(())
    }

    fn create(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.settings.folder)?;
        let path = self.settings.folder.join(format!("{:08}.journal", self.next));
        // Not everybody on this machine should read the texts of queries.
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
        self.next += 1;
        file.write_all(&block::file_head())?;
        self.current_path = path;
        self.current = Some((file, block::FILE_HEAD as u64));
        self.total += block::FILE_HEAD as u64;
        Ok(())
    }

    /// The file that is written becomes an older one.
    fn retire(&mut self) {
        if let Some((_, bytes)) = self.current.take() {
            self.older.push_back((std::mem::take(&mut self.current_path), bytes));
        }
    }

    /// Deletes the oldest files until this number of bytes fits.
    fn make_room(&mut self, bytes: u64) {
        while self.total + bytes > self.settings.size {
            let Some((path, freed)) = self.older.pop_front() else { return };
            // One that is gone already holds nothing.
            let _ = fs::remove_file(path);
            self.total = self.total.saturating_sub(freed);
        }
    }
}
