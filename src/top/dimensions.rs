//! The kinds of keys, the numbers by which they are ranked, the windows; and a query as it is counted.

use std::net::IpAddr;

use crate::promql::Fingerprint;

/// Keys that each measure keeps in one table.
pub const KEYS_MAX: usize = 40;

/// Between a dashboard and its panel in a key; no header holds it.
pub(super) const PANEL_SEPARATOR: char = '\u{1f}';

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
        /// The query, with any times and constants.
        Fingerprint => "fingerprint",
        /// Grafana's dashboard and panel.
        Dashboard => "dashboard",
        /// Grafana's user.
        User => "user",
        /// Grafana's alert rule.
        Rule => "rule",
        /// The tenant that pays.
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
    /// The tenant that pays.
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
