//! The log of the code under test. Only of this thread: of one test with a runtime of one thread.
//!
//! One subscriber for the whole process, since with several that come and go `tracing` may remember of a place in the
//! code that nobody listens, while one does on another thread.

use std::{
    cell::RefCell,
    io,
    sync::{Arc, Mutex, Once},
};

use serde_json::Value;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Duration, Instant},
};

/// Longest wait for a line.
const SOON: Duration = Duration::from_secs(10);

static LISTENING: Once = Once::new();

thread_local! {
    /// Where this thread's lines go.
    static WRITTEN: RefCell<Written> = RefCell::default();
}

type Written = Option<Arc<Mutex<Vec<u8>>>>;

/// Writes for the thread that it is used on.
struct Writer;

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WRITTEN.with_borrow(|written| {
            if let Some(written) = written {
                written.lock().unwrap().extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Logs {
    written: Arc<Mutex<Vec<u8>>>,
}

impl Drop for Logs {
    fn drop(&mut self) {
        WRITTEN.set(None);
    }
}

impl Logs {
    /// Catches every line from now on.
    pub(crate) fn catch() -> Self {
        LISTENING.call_once(|| {
            let subscriber = tracing_subscriber::fmt().json().flatten_event(true);
            let subscriber = subscriber.with_max_level(tracing::Level::INFO).with_writer(|| Writer);
            tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
        });
        let written = Arc::default();
        WRITTEN.set(Some(Arc::clone(&written)));
        Self { written }
    }

    /// A runtime of one thread; the lines of its threads for work that blocks are caught too.
    pub(crate) fn runtime(&self) -> Runtime {
        let written = Arc::clone(&self.written);
        let catch = move || WRITTEN.set(Some(Arc::clone(&written)));
        Builder::new_current_thread().enable_all().on_thread_start(catch).build().unwrap()
    }

    /// The lines so far with this target.
    pub(crate) fn of(&self, target: &str) -> Vec<Value> {
        let written = self.written.lock().unwrap().clone();
        let lines = written.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap());
        lines.filter(|line| line["target"] == target).collect()
    }

    /// The first `count` lines about queries, when they are there.
    pub(crate) async fn queries(&self, count: usize) -> Vec<Value> {
        let end = Instant::now() + SOON;
        loop {
            let lines = self.of("weir::query");
            if lines.len() >= count {
                return lines;
            }
            assert!(Instant::now() < end, "{} lines instead of {count}: {lines:#?}", lines.len());
            tokio::task::yield_now().await;
        }
    }
}
