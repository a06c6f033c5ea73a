//! The ranking of the heaviest: by fingerprint, dashboard and panel, user, rule, tenant and client, over 5 minutes, an hour and a day.
//!
//! ```text
//! record of a query ─▶ Top::observe ─▶ slot of the moment, for each window ─▶ one table for each kind of key
//! GET /api/v1/admin/top ─▶ Top::ranking ─▶ the slots of the window added up, each number with the most that it lacks
//! ```
//!
//! A table is bounded: it keeps the [`KEYS_MAX`] heaviest keys by each measure (space-saving). No
//! query pays for it: the journal's thread feeds it.

mod dimensions;
mod file;
mod ranking;
mod slots;
mod stats;
mod table;
#[cfg(test)]
mod tests;

use std::{fs, io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;

pub use dimensions::{By, KEYS_MAX, Measure, Observation, Window};
pub use file::FileError;
pub use ranking::{Ranking, Row};
use slots::Slots;
pub use stats::{Amounts, Worst};

use crate::base::files;

/// The name of the file below `--data`.
pub const FILE: &str = "top.json";

/// The sketches of all windows. Shared freely: each operation is short and takes `&self`.
#[derive(Debug)]
pub struct Top {
    slots: Mutex<Slots>,
    file: Option<PathBuf>,
}

impl Top {
    /// The contents of a file, or nothing yet; without a file it ends with the process. Blocks.
    pub fn open(file: Option<PathBuf>, now_ms: i64) -> Arc<Self> {
        let read = file.as_ref().map(fs::read);
        let slots = match read {
            None => Slots::default(),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Slots::default(),
            Some(read) => {
                let slots = read.map_err(FileError::Io).and_then(|bytes| file::from_bytes(&bytes, now_ms));
                slots.unwrap_or_else(|error| {
                    let file = file.as_deref().unwrap_or(FILE.as_ref()).display();
                    tracing::warn!(%error, %file, "the ranking of queries starts anew");
                    Slots::default()
                })
            }
        };
        Arc::new(Self { slots: Mutex::new(slots), file })
    }

    /// Counts a query.
    pub fn observe(&self, query: &Observation<'_>) {
        self.slots.lock().observe(query);
    }

    /// The heaviest keys of a window by one measure, the heaviest first; at most `limit`.
    pub fn ranking(&self, window: Window, by: By, sort: Measure, limit: usize, now_ms: i64) -> Ranking {
        self.ranking_with(&[], window, by, sort, limit, now_ms)
    }

    /// The same with queries that still run: the culprit of the moment has not ended.
    pub fn ranking_with(
        &self,
        running: &[Observation<'_>],
        window: Window,
        by: By,
        sort: Measure,
        limit: usize,
        now_ms: i64,
    ) -> Ranking {
        let mut under_way = Slots::default();
        for query in running {
            under_way.observe(query);
        }
        let ranking = ranking::rank([&self.slots.lock(), &under_way], window, by, sort, limit, now_ms);
        Ranking { running: running.len(), ..ranking }
    }

    /// Writes the file, if there is one. Blocks; nothing is serialised under the lock.
    ///
    /// # Errors
    /// The file cannot be written; the one before stays.
    pub fn save(&self) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let slots = self.slots.lock().clone();
        files::replace_private(path, &file::to_bytes(&slots))
    }
}
