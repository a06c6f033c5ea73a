//! The history of queries, kept on disk between runs.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use super::clock::now_ms;
use crate::{
    base::files::{FolderError, FolderLock},
    cost::History,
};

/// Queries whose cost is remembered.
const CAPACITY: usize = 50_000;
/// Time between two writes.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// The file in the data folder.
const FILE: &str = "learned";

/// The history of queries and its file.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) history: Arc<History>,
    folder: PathBuf,
    /// Held until the end, so that no second process writes over the file; `None` where nothing can be written.
    _lock: Option<Arc<FolderLock>>,
}

impl Memory {
    /// Reads the file; one that is missing or damaged is an empty store, said in the log.
    ///
    /// # Errors
    /// Another process has the folder.
    pub(super) fn open(folder: PathBuf) -> Result<Self, String> {
        let lock = match FolderLock::take(&folder) {
            Ok(lock) => Some(Arc::new(lock)),
            Err(error @ FolderError::InUse(_)) => return Err(error.to_string()),
            // Said below: a proxy does without.
            Err(FolderError::Io(..)) => None,
        };
        let now = now_ms();
        let history = match fs::read(folder.join(FILE)) {
            Ok(bytes) => History::from_bytes(&bytes, CAPACITY, now).unwrap_or_else(|error| {
                tracing::warn!(%error, "learned costs start anew");
                History::new(CAPACITY)
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, "learned costs start anew");
                }
                History::new(CAPACITY)
            }
        };
        let memory = Self { history: Arc::new(history), folder, _lock: lock };
        // Said now rather than a minute after the first query.
        if let Err(error) = memory.usable() {
            memory.complain(&error);
        }
        Ok(memory)
    }

    fn usable(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let draft = self.draft();
        let there = draft.exists();
        fs::OpenOptions::new().create(true).append(true).open(&draft)?;
        if there { Ok(()) } else { fs::remove_file(draft) }
    }

    fn draft(&self) -> PathBuf {
        self.folder.join("learned.new")
    }

    fn complain(&self, error: &io::Error) {
        let folder = self.folder.display();
        tracing::warn!(
            %error, %folder,
            "learned costs are not kept: what queries cost is found out anew after the next start; \
             `--data` names a folder that can be written to"
        );
    }

    /// Writes the file anew, whole or not at all.
    pub(super) fn save(&self) {
        if self.history.is_empty() {
            return;
        }
        let writing = || {
            fs::create_dir_all(&self.folder)?;
            let draft = self.draft();
            fs::write(&draft, self.history.to_bytes())?;
            fs::rename(draft, self.folder.join(FILE))
        };
        if let Err(error) = writing() {
            self.complain(&error);
        }
    }

    /// Saves every minute, until the future is dropped.
    pub(super) async fn keep(self) {
        loop {
            tokio::time::sleep(SAVE_EVERY).await;
            let memory = self.clone();
            // A failed join is a panic in a write: logged by the hook, and the next minute is another chance.
            let _ = tokio::task::spawn_blocking(move || memory.save()).await;
        }
    }
}
