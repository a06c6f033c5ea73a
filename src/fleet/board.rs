//! The fleet's board: bounded topics of entries that every proxy writes to and reads once a second. A plain value; the
//! store's side is `board.lua`.
//!
//! An entry has a name, and the last change of a name counts: its version is the store's clock in milliseconds, or one more
//! than the version before. A store that lost its memory is seen by its incarnation: all is read again, and proxies offer
//! the entries that they keep, with their versions.

/// Bytes of an entry's value; the largest rule fits.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// Bytes of an entry's name.
const NAME_BYTES_MAX: usize = 512;
/// Bytes that are written to a topic, and read from it, at once: some 500 rules of a usual size.
pub const PAGE_BYTES: usize = 256 << 10;
/// Entries that are written to a topic, and read from it, at once.
pub const PAGE_ENTRIES: usize = 256;
/// Lua counts exactly up to 2^53.
const NUMBER_MAX: u64 = 1 << 53;

/// The subject of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Queries to stop.
    Kills,
    /// Rules set at run time.
    Rules,
    /// Backends in distress.
    Pressure,
    /// Observed costs of queries.
    History,
    /// Counts of series.
    Counts,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Kills, Self::Rules, Self::Pressure, Self::History, Self::Counts];

    /// Its name in keys and metrics. A change of the form of its entries changes the key as well: add a number.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kills => "kills",
            Self::Rules => "rules",
            Self::Pressure => "pressure",
            Self::History => "history",
            Self::Counts => "counts",
        }
    }

    /// Entries that the store keeps of it; the oldest are forgotten first.
    pub const fn entries_max(self) -> usize {
        match self {
            Self::Kills => 200,
            Self::Rules => 1_000,
            Self::Pressure | Self::History | Self::Counts => 2_000,
        }
    }
}

/// An entry to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The name; the last change of a name counts.
    pub name: String,
    /// Its version where it was counted before; 0 for a change.
    pub version: u64,
    /// How long the store keeps it, in milliseconds.
    pub life_ms: u64,
    /// Its content.
    pub value: Vec<u8>,
}

/// An entry as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// Its place among the changes of the topic.
    pub version: u64,
    /// The rest of its life in milliseconds.
    pub left_ms: u64,
    /// Its content.
    pub value: Vec<u8>,
}

/// How far a proxy has read a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The incarnation of the topic: another one lost or rolled back its entries.
    pub incarnation: u64,
    /// The place of the last entry.
    pub seq: u64,
}

/// A write to a topic and a read of its news, in one.
#[derive(Clone, Debug)]
pub struct BoardAsk {
    /// The topic.
    pub topic: Topic,
    /// The place from which on entries are news.
    pub cursor: Cursor,
    /// The entries to be written.
    pub posts: Vec<Post>,
}

/// The answer to a [`BoardAsk`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardAnswer {
    /// Where to read on.
    pub cursor: Cursor,
    /// There are more news.
    pub has_more: bool,
    /// The version of each entry that was written, in their order; 0 for one that is older than the board's.
    pub versions: Vec<u64>,
    /// The news in their order.
    pub entries: Vec<Entry>,
    /// Rows that are no entries.
    pub unreadable: usize,
}

/// A row of the store's answer, before anything of it is believed: name, version, rest of its life, content.
pub(super) type Row = (Vec<u8>, u64, u64, Vec<u8>);

impl BoardAsk {
    /// The arguments of the script, before the entries.
    pub(super) fn numbers(&self, run: u64) -> [u64; 6] {
        let Cursor { incarnation, seq } = self.cursor;
        let kept = self.topic.entries_max() as u64;
        [run, incarnation, seq, kept, PAGE_BYTES as u64, PAGE_ENTRIES as u64]
    }
}

impl BoardAnswer {
    /// Checks the store's answer as any input from outside.
    pub(super) fn new(
        (incarnation, upto, seq): (u64, u64, u64),
        versions: Vec<u64>,
        rows: Vec<Option<Row>>,
    ) -> Self {
        let (read, cursor) = (rows.len(), Cursor { incarnation, seq: upto });
        let entries: Vec<_> = rows.into_iter().take(PAGE_ENTRIES).flatten().filter_map(entry).collect();
        Self { cursor, has_more: upto < seq, versions, unreadable: read - entries.len(), entries }
    }
}

fn entry((name, version, left_ms, value): Row) -> Option<Entry> {
    let name = String::from_utf8(name).ok().filter(|name| name.len() <= NAME_BYTES_MAX)?;
    let is_sound =
        value.len() <= VALUE_BYTES_MAX && (1..NUMBER_MAX).contains(&version) && left_ms < NUMBER_MAX;
    is_sound.then_some(Entry { name, version, left_ms, value })
}

/// Takes the first entries that fit in one write; one that fits in none is left out, and counted.
pub fn page(posts: &mut Vec<Post>) -> (Vec<Post>, usize) {
    let before = posts.len();
    posts.retain(|post| post.value.len() <= VALUE_BYTES_MAX && post.name.len() <= NAME_BYTES_MAX);
    let mut bytes = 0;
    let fits = |post: &&Post| {
        let is_first = bytes == 0;
        bytes += post.name.len() + post.value.len();
        is_first || bytes <= PAGE_BYTES
    };
    let too_large = before - posts.len();
    let fitting = posts.iter().take(PAGE_ENTRIES).take_while(fits).count();
    (posts.drain(..fitting).collect(), too_large)
}
