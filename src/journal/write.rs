//! The one thread that writes, and the handle by which queries reach it.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
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
use crate::top::Top;

/// Records between the queries and the thread.
const QUEUE: usize = 4_096;
/// Bytes of texts between them.
const QUEUE_TEXT_BYTES: u64 = 8 << 20;
/// Records at which the thread is woken before its time: few, since each is a kilobyte until it is written.
const WAKE_AT: usize = QUEUE / 16;
/// Bytes of records that make a block.
const BLOCK_BYTES: usize = 64 << 10;
/// The longest time between a query's end and its place in the ranking.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest time between a query's end and its record on disk.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// The longest time between a query's end and its place in the ranking on disk.
const SAVE_EVERY: Duration = Duration::from_secs(300);
/// Files that the journal consists of when it has its full size.
const FILES: u64 = 8;
/// Time between two complaints of a disk that does not take records.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// How a journal is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder of its files; without one, records go into the ranking of queries only.
    pub folder: Option<PathBuf>,
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
    top: Arc<Top>,
}

impl Journal {
    /// Starts the thread, which feeds `top` too. The journal ends, with everything on disk, when the [`Writer`] is dropped.
    ///
    /// # Errors
    /// The folder cannot be made or read, or there is no thread.
    pub fn start(settings: Settings, top: Arc<Top>) -> io::Result<(Self, Writer)> {
        let text = settings.text;
        let files = settings.folder.map(|folder| Files::open(folder, settings.size)).transpose()?;
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
        shared.bytes.store(files.as_ref().map_or(0, |files| files.total), Relaxed);
        let loop_ = Loop {
            shared: Arc::clone(&shared),
            files,
            encoder: Encoder::default(),
            top: Arc::clone(&top),
            complained: None,
        };
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || loop_.run())?;
        // Set once, here.
        let _ = shared.thread.set(thread.thread().clone());
        let writer = Writer { shared: Arc::clone(&shared), thread: Some(thread) };
        Ok((Self { shared, text, top }, writer))
    }

    /// The ranking of queries that the records make.
    pub const fn top(&self) -> &Arc<Top> {
        &self.top
    }

    /// Puts a record on its way, or counts it as dropped.
    pub fn write(&self, mut record: Box<Record>) {
        let shared = &*self.shared;
        if self.text == TextKept::Fingerprint {
            record.query = Text::default();
        }
        let length = record.query.len() as u64;
        let before = shared.text_bytes.fetch_add(length, Relaxed);
        let is_full = before + length > QUEUE_TEXT_BYTES;
        if is_full || shared.queue.push(record).is_err() {
            shared.text_bytes.fetch_sub(length, Relaxed);
            shared.dropped.fetch_add(1, Relaxed);
            return;
        }
        // After the push: the later one of the thread and this query takes the record out.
        if shared.is_ended.load(SeqCst) {
            shared.drop_rest();
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
    /// Counts the records that nobody will write any more as dropped.
    fn drop_rest(&self) {
        while self.queue.pop().is_some() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

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
        self.shared.is_ended.store(true, SeqCst);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in it was logged by the hook.
            let _ = thread.join();
        }
        self.shared.drop_rest();
    }
}

struct Loop {
    shared: Arc<Shared>,
    files: Option<Files>,
    encoder: Encoder,
    top: Arc<Top>,
    /// When a failure was last said in the log.
    complained: Option<Instant>,
}

impl Loop {
    fn run(mut self) {
        let (mut flushed, mut saved) = (Instant::now(), Instant::now());
        loop {
            // Looked at before the queue: records from before the end are written.
            let is_ended = self.shared.is_ended.load(SeqCst);
            self.shared.is_woken.store(false, Relaxed);
            while let Some(record) = self.shared.queue.pop() {
                self.shared.text_bytes.fetch_sub(record.query.len() as u64, Relaxed);
                self.top.observe(&record.observation());
                if self.files.is_none() {
                    continue;
                }
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
            if is_ended || saved.elapsed() >= SAVE_EVERY {
                self.save_top();
                saved = Instant::now();
            }
            if is_ended {
                return;
            }
            thread::park_timeout(LOOK_EVERY);
        }
    }

    fn save_top(&self) {
        if let Err(error) = self.top.save() {
            tracing::warn!(%error, "the ranking of queries will be missing after a restart");
        }
    }

    fn flush(&mut self) {
        let Some(files) = self.files.as_mut().filter(|_| self.encoder.records() > 0) else { return };
        let (raw, records) = self.encoder.take();
        let written = block::encode(&raw, records).and_then(|block| files.append(&block));
        let count = if written.is_ok() { &self.shared.written } else { &self.shared.failed };
        count.fetch_add(u64::from(records), Relaxed);
        self.shared.bytes.store(files.total, Relaxed);
        if let Err(error) = written
            && self.complained.is_none_or(|before| before.elapsed() >= COMPLAIN_EVERY)
        {
            self.complained = Some(Instant::now());
            let folder = files.folder.display();
            tracing::warn!(%error, %folder, records, "queries are missing in the journal: it cannot be written");
        }
    }
}

/// The files on disk.
struct Files {
    folder: PathBuf,
    /// Bytes that they have at most.
    size: u64,
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
    fn open(folder: PathBuf, size: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut older = VecDeque::new();
        let mut next = 1;
        for path in files(&folder)? {
            next = next.max(sequence(&path).unwrap_or(0).saturating_add(1));
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            older.push_back((path, bytes));
        }
        let total = older.iter().map(|(_, bytes)| bytes).sum();
        Ok(Self { folder, size, current: None, older, current_path: PathBuf::new(), next, total })
    }

    /// Appends a whole block. After a failure the next one goes to a new file, since half a block may stand in this one.
    fn append(&mut self, block: &[u8]) -> io::Result<()> {
        let length = block.len() as u64;
        let is_full = |(_, bytes): &(File, u64)| bytes + length > self.size / FILES;
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
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("{:08}.journal", self.next));
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
        while self.total + bytes > self.size {
            let Some((path, freed)) = self.older.pop_front() else { return };
            // One that is gone already holds nothing.
            let _ = fs::remove_file(path);
            self.total = self.total.saturating_sub(freed);
        }
    }
}
