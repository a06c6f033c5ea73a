//! Replacing the settings of a running Weir. A file with mistakes changes nothing.

use super::{
    diagnostic::Report,
    diff::diff,
    load::{Loaded, load_file},
    raw::Raw,
};
use crate::http::pem::FILE_BYTES_MAX;
use notify::{RecursiveMode, Watcher as _};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

/// Time without a change after which the file is read: editors write it in several steps.
const QUIET: Duration = Duration::from_millis(500);

/// Settings that take effect only at the next start: the sockets are bound, the log is open.
const AT_START: [&str; 13] = [
    "server.listen:",
    "server.admin_listen:",
    "fleet.store:",
    "fleet.name:",
    "fleet.timeout:",
    "journal.enabled:",
    "journal.size:",
    "journal.text:",
    "node.",
    "telemetry.log:",
    "telemetry.log_format:",
    "telemetry.otlp.endpoint:",
    "telemetry.profiling.enabled:",
];

/// The configuration file, the settings that were last read from it, and the function that applies them.
pub struct Reloader {
    path: PathBuf,
    current: Mutex<Current>,
    apply: Box<Apply>,
}

/// Hands new settings to the running modules, or says why they cannot be obeyed.
type Apply = dyn Fn(&Loaded) -> Result<(), String> + Send + Sync;

/// The configuration that was last read.
struct Current {
    loaded: Arc<Loaded>,
    /// Digests of the files that the settings named then, by key.
    files: BTreeMap<String, Digest>,
}

impl Current {
    fn of(loaded: Loaded, files: BTreeMap<String, Digest>) -> Self {
        Self { loaded: Arc::new(loaded), files }
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Reloader {
    /// A reloader of `path`, whose settings are `current` now; `apply` hands new ones to the running modules.
    pub fn new(
        path: PathBuf,
        current: Loaded,
        apply: impl Fn(&Loaded) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let files = digests(&current.raw);
        Self { path, current: Mutex::new(Current::of(current, files)), apply: Box::new(apply) }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock()
    }

    /// Reads the file, and those that it names, and applies the changes. Returns them, one line each; on
    /// mistakes the settings stay.
    pub fn reload(&self) -> Result<Vec<String>, Report> {
        // Held throughout, so that two reloads at a time cannot apply in the wrong order.
        let mut current = self.current();
        self.obey(&mut current).inspect_err(|report| {
            tracing::error!(%report, "configuration not reloaded; the old settings stay");
        })
    }

    fn obey(&self, current: &mut Current) -> Result<Vec<String>, Report> {
        let new = load_file(&self.path)?;
        let mut changes = diff(&current.loaded, &new);
        for line in changes.iter_mut().filter(|line| AT_START.iter().any(|key| line.starts_with(key))) {
            line.push_str(" (at the next start)");
        }
        let files = digests(&new.raw);
        let renewed =
            files.iter().filter(|(key, now)| current.files.get(*key).is_some_and(|was| was != *now));
        changes.extend(renewed.map(|(key, _)| format!("{key}: the file has changed")));
        for warning in &new.warnings {
            tracing::warn!("{}:{warning}", self.path.display());
        }
        if !changes.is_empty() {
            (self.apply)(&new).map_err(|why| Report::of_file(&self.path.display().to_string(), why))?;
            *current = Current::of(new, files);
        }
        tracing::info!(changes = changes.len(), diff = changes.join("; "), "configuration reloaded");
        Ok(changes)
    }

    /// Calls `changed` whenever the text of the file, or of one that it names, is another, until the future is dropped.
    /// Fails if the directory of the file cannot be watched.
    pub async fn watch(&self, mut changed: impl FnMut()) -> notify::Result<()> {
        let (touched, events) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // A full channel already says that something changed.
                let _ = touched.try_send(());
            }
        })?;
        watcher.watch(directory(&self.path), RecursiveMode::NonRecursive)?;
        let mut watched = BTreeSet::from([directory(&self.path).to_owned()]);
        let mut seen = self.look();
        self.watch_files(&mut watcher, &mut watched);
        each_time_quiet(events, || {
            // Other files live there too, perhaps the log that a reload writes to.
            let now = self.look();
            if now == seen {
                return;
            }
            changed();
            self.watch_files(&mut watcher, &mut watched);
            // The content of a file before it was read again counts, so that no change goes unseen.
            seen = self
                .look()
                .into_iter()
                .map(|(path, later)| (path.clone(), *now.get(&path).unwrap_or(&later)))
                .collect();
        })
        .await;
        Ok(())
    }

    /// The contents of the file, and of those that the settings name.
    fn look(&self) -> BTreeMap<PathBuf, Digest> {
        let named = self.current().loaded.raw.files().into_values();
        named.chain([self.path.clone()]).map(|path| (path.clone(), digest(&path))).collect()
    }

    /// Watches the directories of the files that the settings name now. Those of files no longer named stay watched:
    /// an event there finds nothing changed.
    fn watch_files(&self, watcher: &mut impl notify::Watcher, watched: &mut BTreeSet<PathBuf>) {
        let files = self.current().loaded.raw.files();
        for (key, path) in files {
            let directory = directory(&path);
            if watched.contains(directory) {
                continue;
            }
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => _ = watched.insert(directory.to_owned()),
                Err(error) => tracing::warn!(
                    key, %error, "a file is not watched; after a change of it use SIGHUP or POST /-/reload"
                ),
            }
        }
    }
}

/// The directory of a file, and not the file: a mounted ConfigMap or Secret is replaced by swapping a link beside it.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The digest of a file; `None` when it cannot be read.
type Digest = Option<u64>;

fn digest(path: &Path) -> Digest {
    let mut hasher = DefaultHasher::new();
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    bytes.hash(&mut hasher);
    Some(hasher.finish())
}

fn digests(raw: &Raw) -> BTreeMap<String, Digest> {
    raw.files().into_iter().map(|(key, path)| (key, digest(&path))).collect()
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
        let reloader = Reloader::new(path.clone(), load_file(&path).unwrap(), move |loaded| {
            if loaded.raw.server.listen.0.port() == 3 {
                return Err("no such port".to_owned());
            }
            seen.fetch_add(1, Ordering::Relaxed);
            Ok(())
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
        // Left by a full disk: not all defaults.
        fs::write(&path, "\n").unwrap();
        assert!(reloader.reload().unwrap_err().to_string().ends_with("weir.yaml: the file is empty"));
        fs::remove_file(&path).unwrap();
        assert!(reloader.reload().is_err());
        // A file that cannot be applied is no reload, and later changes are not compared with it.
        fs::write(&path, "server: {listen: 127.0.0.1:3, grace: 5s}").unwrap();
        assert!(reloader.reload().unwrap_err().to_string().ends_with("weir.yaml: no such port"));
        assert_eq!(applied.load(Ordering::Relaxed), 1);

        fs::write(&path, "server: {grace: 6s}").unwrap();
        assert!(reloader.reload().unwrap().contains(&"server.grace: 5s -> 6s".to_owned()));
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_a_change_and_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("tls");
        fs::create_dir(&files).unwrap();
        let renew = || {
            let made = rcgen::generate_simple_self_signed(vec!["weir".to_owned()]).unwrap();
            fs::write(files.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
            fs::write(files.join("cert.pem"), made.cert.pem()).unwrap();
        };
        renew();
        let path = dir.path().join("weir.yaml");
        let (cert, key) = (files.join("cert.pem"), files.join("key.pem"));
        let tls = format!("{{cert_file: {}, key_file: {}}}", cert.display(), key.display());
        fs::write(&path, format!("server: {{tls: {tls}}}")).unwrap();
        let reloader = Reloader::new(path.clone(), load_file(&path).unwrap(), |_| Ok(()));
        assert_eq!(reloader.reload().unwrap(), Vec::<String>::new());

        let (tell, mut told) = mpsc::channel(1);
        let watching = reloader.watch(|| tell.try_send(reloader.reload().unwrap()).unwrap());
        let renewing = async {
            // Watching begins with the first poll of it.
            tokio::task::yield_now().await;
            renew();
            tokio::time::timeout(QUIET * 40, told.recv()).await.expect("it is noticed").unwrap()
        };
        let changes = tokio::select! {
            biased;
            _ = watching => panic!("watching ended"),
            changes = renewing => changes,
        };
        let expected =
            ["server.tls.cert_file: the file has changed", "server.tls.key_file: the file has changed"];
        assert_eq!(changes, expected);

        // Half of a renewal changes nothing.
        fs::write(&cert, "not yet").unwrap();
        assert!(reloader.reload().unwrap_err().to_string().contains("server.tls.cert_file"));
        renew();
        assert_eq!(reloader.reload().unwrap(), expected);
        assert_eq!(reloader.reload().unwrap(), Vec::<String>::new());
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
