//! Who asks for most: by fingerprint, dashboard and panel, user, rule, tenant and client, over 5 minutes, an hour and a day.
//!
//! ```text
//! record of a query ─▶ Top::observe ─▶ slot of the moment, for each window ─▶ one table for each kind of key
//! GET /api/v1/admin/top ─▶ Top::ranking ─▶ the slots of the window added up, each number with the most that it lacks
//! ```
//!
//! A [`Table`](table::Table) is bounded whatever comes: it keeps the [`KEYS_MAX`] heaviest keys by each measure (space-saving). No
//! query pays for it: the journal's thread feeds it.

mod file;
mod ranking;
mod slots;
mod stats;
mod table;
#[cfg(test)]
mod tests;

use std::{fs, io, net::IpAddr, path::PathBuf, sync::Arc};

use parking_lot::Mutex;

pub use file::FileError;
pub use ranking::{Ranking, Row};
use slots::Slots;
pub use stats::{Amounts, Worst};

use crate::{base::files, promql::Fingerprint};

/// Keys that each measure keeps in one table.
pub const KEYS_MAX: usize = 40;

/// The name of the file below `--data`.
pub const FILE: &str = "top.json";

/// Between a dashboard and its panel in a key; no header holds it.
const PANEL_SEPARATOR: char = '\u{1f}';

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $one:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name { $($(#[$of])* $one,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$one,)*];

            /// Its name in the admin API.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$one => $text,)* } }

            /// The one of this name.
            pub fn named(name: &str) -> Option<Self> { Self::ALL.iter().copied().find(|one| one.as_str() == name) }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> { to.serialize_str(self.as_str()) }
        }
    };
}

named! {
    /// A number by which keys are ranked.
    Measure {
        /// Estimated bytes of memory of the queries that ran.
        Memory => "memory",
        /// Queries, refused ones among them.
        Count => "count",
        /// Estimated samples of the queries that ran.
        Samples => "samples",
        /// Time of the queries that ran, without their wait for budget; kept in milliseconds.
        Seconds => "seconds",
        /// Queries that a limit or a rule refused or stopped.
        Refused => "refused",
        /// Queries that a limit in shadow mode would have refused.
        ShadowRefused => "shadow_refused",
    }
}

named! {
    /// The kind of key.
    By {
        /// The query, whatever its times and constants.
        Fingerprint => "fingerprint",
        /// Grafana's dashboard and panel.
        Dashboard => "dashboard",
        /// Grafana's user.
        User => "user",
        /// Grafana's alert rule.
        Rule => "rule",
        /// Who pays.
        Tenant => "tenant",
        /// The client's address.
        Client => "client",
    }
}

named! {
    /// How far back.
    Window {
        /// Five minutes, in slots of one.
        FiveMinutes => "5m",
        /// An hour, in slots of ten minutes.
        Hour => "1h",
        /// A day, in slots of three hours.
        Day => "24h",
    }
}

/// A query that ended. A text that is empty and a number that is `None` are not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation<'a> {
    /// When it came, milliseconds since the epoch.
    pub at_ms: i64,
    /// From its arrival to its last byte, milliseconds.
    pub took_ms: u64,
    /// How long it waited for budget, milliseconds.
    pub wait_ms: u64,
    /// Who pays.
    pub tenant: &'a str,
    /// Grafana's dashboard.
    pub dashboard: &'a str,
    /// Grafana's panel.
    pub panel: &'a str,
    /// Grafana's user.
    pub user: &'a str,
    /// Grafana's alert rule.
    pub rule: &'a str,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The same for the same query with other times and constants.
    pub fingerprint: Option<Fingerprint>,
    /// Its text.
    pub query: &'a str,
    /// It was sent to the database.
    pub ran: bool,
    /// A limit or a rule refused or stopped it.
    pub refused: bool,
    /// A limit in shadow mode would have refused it.
    pub shadow_refused: bool,
    /// Estimated bytes of memory.
    pub memory: Option<u64>,
    /// Estimated series.
    pub series: Option<u64>,
    /// Estimated samples.
    pub samples: Option<u64>,
    /// Series that the database read.
    pub series_read: Option<u64>,
    /// Samples that the database read.
    pub samples_read: Option<u64>,
    /// Bytes of the answer, decompressed.
    pub answer_bytes: Option<u64>,
}

/// The sketches of all windows. Shared freely: each operation is short and takes `&self`.
#[derive(Debug)]
pub struct Top {
    slots: Mutex<Slots>,
    file: Option<PathBuf>,
}

impl Top {
    /// What a file holds, or nothing yet; without a file it ends with the process. Blocks.
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
        ranking::rank(&self.slots.lock(), window, by, sort, limit, now_ms)
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
