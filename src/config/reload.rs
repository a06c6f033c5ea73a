//! Replacing the settings of a running Weir. A file with mistakes changes nothing.

use super::{
    diagnostic::Report,
    diff::diff,
    load::{Loaded, load_file},
};
use notify::{RecursiveMode, Watcher as _};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

/// Editors and orchestrators write a file in several steps; the file is read when it has been quiet for so long.
const QUIET: Duration = Duration::from_millis(500);

/// What takes effect only at the next start: the sockets are bound, the log is open.
const AT_START: [&str; 5] = [
    "server.listen:",
    "server.admin_listen:",
    "telemetry.log:",
    "telemetry.log_format:",
    "telemetry.profiling.enabled:",
];

/// The configuration file, the settings that were last read from it, and whoever obeys them.
pub struct Reloader {
    path: PathBuf,
    current: Mutex<Arc<Loaded>>,
    apply: Box<dyn Fn(&Loaded) + Send + Sync>,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Reloader {
    /// A reloader of `path`, whose settings are `current` now; `apply` hands new ones to the running modules.
    pub fn new(path: PathBuf, current: Loaded, apply: impl Fn(&Loaded) + Send + Sync + 'static) -> Self {
        Self { path, current: Mutex::new(Arc::new(current)), apply: Box::new(apply) }
    }

    /// Reads the file and applies what changed. Returns the changes, one line each; on mistakes the settings stay.
    pub fn reload(&self) -> Result<Vec<String>, Report> {
        // Held throughout, so that two reloads at a time cannot apply in the wrong order.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let new = match load_file(&self.path) {
            Ok(new) => new,
            Err(report) => {
                tracing::error!(%report, "configuration not reloaded; the old settings stay");
                return Err(report);
            }
        };
        let mut changes = diff(&current, &new);
        for line in changes.iter_mut().filter(|line| AT_START.iter().any(|key| line.starts_with(key))) {
            line.push_str(" (at the next start)");
        }
        for warning in &new.warnings {
            tracing::warn!("{}:{warning}", self.path.display());
        }
        // A certificate may have been renewed under the name it had.
        if !changes.is_empty() || new.raw.names_files() {
            (self.apply)(&new);
            *current = Arc::new(new);
        }
        tracing::info!(changes = changes.len(), diff = ?changes, "configuration reloaded");
        Ok(changes)
    }

    /// Calls `changed` whenever the text of the file is another, until the future is dropped. Fails if the directory
    /// cannot be watched.
    pub async fn watch(&self, mut changed: impl FnMut()) -> notify::Result<()> {
        // The directory, not the file: a mounted ConfigMap is replaced by swapping a link beside it.
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let (touched, events) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // A full channel already says that something changed.
                let _ = touched.try_send(());
            }
        })?;
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        // Other files live there too, perhaps the log that a reload writes to.
        let mut seen = fs::read(&self.path).ok();
        each_time_quiet(events, || {
            let now = fs::read(&self.path).ok();
            if now != seen {
                seen = now;
                changed();
            }
        })
        .await;
        Ok(())
    }
}

/// Runs `act` once after each burst of events, until the sender is gone.
async fn each_time_quiet(mut events: mpsc::Receiver<()>, mut act: impl FnMut()) {
    while events.recv().await.is_some() {
        while let Ok(Some(())) = tokio::time::timeout(QUIET, events.recv()).await {}
        act();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::load_file, *};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_reload_applies_changes_and_survives_mistakes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.yaml");
        fs::write(&path, "server: {listen: 127.0.0.1:1}").unwrap();
        let applied = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&applied);
        let reloader = Reloader::new(path.clone(), load_file(&path).unwrap(), move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        });

        assert_eq!(reloader.reload().unwrap(), Vec::<String>::new());
        assert_eq!(applied.load(Ordering::Relaxed), 0);

        fs::write(&path, "server: {listen: 127.0.0.1:2, grace: 5s}").unwrap();
        let expected =
            ["server.grace: 30s -> 5s", "server.listen: 127.0.0.1:1 -> 127.0.0.1:2 (at the next start)"];
        assert_eq!(reloader.reload().unwrap(), expected);
        assert_eq!(applied.load(Ordering::Relaxed), 1);

        fs::write(&path, "server: {grace: soon}").unwrap();
        assert!(reloader.reload().unwrap_err().to_string().contains("weir.yaml:1:17: server.grace"));
        fs::remove_file(&path).unwrap();
        assert!(reloader.reload().is_err());
        assert_eq!(applied.load(Ordering::Relaxed), 1);

        fs::write(&path, "server: {grace: 6s}").unwrap();
        assert!(reloader.reload().unwrap().contains(&"server.grace: 5s -> 6s".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_events_acts_once() {
        let (touched, events) = mpsc::channel(1);
        let writer = tokio::spawn(async move {
            for pause in [100, 100, 100, 900, 100] {
                touched.send(()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        });
        let mut acts = 0;
        each_time_quiet(events, || acts += 1).await;
        writer.await.unwrap();
        assert_eq!(acts, 2);
    }
}
