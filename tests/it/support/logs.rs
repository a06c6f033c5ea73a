//! What the code under test writes to its log. Only of this thread: of one test with a runtime of one thread.

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::time::{Duration, Instant};
use tracing::subscriber::DefaultGuard;

/// Longest wait for a line.
const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Logs {
    written: Written,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Logs {
    /// Catches every line from now on.
    pub(crate) fn catch() -> Self {
        let written = Written::default();
        let writer = written.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_max_level(tracing::Level::INFO);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        Self { written, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The lines so far with this target.
    pub(crate) fn of(&self, target: &str) -> Vec<Value> {
        let written = self.written.0.lock().unwrap().clone();
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
