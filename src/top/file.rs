//! The sketches as a file: a header with a version and a checksum, then JSON.

use std::{collections::HashMap, fmt, io, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    dimensions::{By, Measure, Window},
    slots::{Slot, Slots},
    stats::{Amounts, Details, Durations, Worst},
    table::Table,
};

const HEADER: &str = "weir-top 1 ";
/// Larger files than this are none of ours.
const BYTES_MAX: usize = 256 << 20;

/// Why a file is not read.
#[derive(Debug)]
pub enum FileError {
    /// Another format, or another version of it.
    Header,
    /// The checksum does not match, or the body is not the one that it was made for.
    Damaged,
    /// It cannot be read.
    Io(io::Error),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("not a file of rankings, or of another version"),
            Self::Damaged => f.write_str("the file of rankings is damaged"),
            Self::Io(error) => write!(f, "the file of rankings cannot be read: {error}"),
        }
    }
}

impl std::error::Error for FileError {}

/// Everything. A worst query stands once, however many keys it is the worst of.
#[derive(Default, Deserialize, Serialize)]
struct Saved {
    worst: Vec<Worst>,
    /// In the order of [`Window::ALL`].
    windows: Vec<Vec<SavedSlot>>,
}

#[derive(Deserialize, Serialize)]
struct SavedSlot {
    index: i64,
    total: Amounts,
    /// In the order of [`By::ALL`].
    tables: Vec<Vec<SavedEntry>>,
}

#[derive(Deserialize, Serialize)]
struct SavedEntry {
    key: String,
    seen: Amounts,
    kept: [Option<u64>; Measure::ALL.len()],
    series: u64,
    series_read: Option<u64>,
    samples_read: Option<u64>,
    answer_bytes: Option<u64>,
    durations: Vec<(usize, u32)>,
    worst: Option<usize>,
}

/// The worst queries of a file, each once.
#[derive(Default)]
struct Shared {
    all: Vec<Worst>,
    places: HashMap<*const Worst, usize>,
}

impl Shared {
    fn place(&mut self, worst: &Arc<Worst>) -> usize {
        let all = &mut self.all;
        *self.places.entry(Arc::as_ptr(worst)).or_insert_with(|| {
            all.push(Worst::clone(worst));
            all.len() - 1
        })
    }
}

pub(super) fn to_bytes(slots: &Slots) -> Vec<u8> {
    let mut shared = Shared::default();
    let mut table = |table: &Table| -> Vec<SavedEntry> {
        let saved = table.entries().iter().map(|entry| {
            let Details { series, series_read, samples_read, answer_bytes, durations, worst } =
                &entry.details;
            SavedEntry {
                key: entry.key.to_string(),
                seen: entry.seen,
                kept: table.kept(entry),
                series: *series,
                series_read: *series_read,
                samples_read: *samples_read,
                answer_bytes: *answer_bytes,
                durations: durations.to_pairs(),
                worst: worst.as_ref().map(|worst| shared.place(worst)),
            }
        });
        saved.collect()
    };
    let mut slot = |slot: &Slot| SavedSlot {
        index: slot.index,
        total: slot.total,
        tables: slot.tables.iter().map(&mut table).collect(),
    };
    let windows = slots.windows.iter().map(|slots| slots.iter().map(&mut slot).collect()).collect();
    // Numbers and texts always serialise; an empty body would be refused on reading, which is right.
    let body = serde_json::to_vec(&Saved { windows, worst: shared.all }).unwrap_or_default();
    let mut out = format!("{HEADER}{:08x}\n", crc32fast::hash(&body)).into_bytes();
    out.extend(body);
    out
}

/// Reads the output of [`to_bytes`]; slots of the past and of the future are left out.
pub(super) fn from_bytes(bytes: &[u8], now_ms: i64) -> Result<Slots, FileError> {
    let rest = bytes.strip_prefix(HEADER.as_bytes()).ok_or(FileError::Header)?;
    let (sum, body) = rest.split_at_checked(8).ok_or(FileError::Damaged)?;
    let body = body.strip_prefix(b"\n").filter(|body| body.len() <= BYTES_MAX).ok_or(FileError::Damaged)?;
    if sum != format!("{:08x}", crc32fast::hash(body)).as_bytes() {
        return Err(FileError::Damaged);
    }
    let saved: Saved = serde_json::from_slice(body).map_err(|_| FileError::Damaged)?;
    let worst: Vec<_> = saved.worst.into_iter().map(Arc::new).collect();
    let mut slots = Slots::default();
    for (window, saved) in Window::ALL.iter().zip(saved.windows) {
        let newest = now_ms.div_euclid(window.slot_ms());
        let mut previous = i64::MIN;
        let is_within = |slot: &SavedSlot| (newest - window.slots()..=newest).contains(&slot.index);
        for slot in saved.into_iter().filter(is_within) {
            if slot.index <= previous {
                return Err(FileError::Damaged);
            }
            previous = slot.index;
            let restored = restore(&slots, slot, &worst);
            slots.windows[*window as usize].push_back(restored);
        }
    }
    Ok(slots)
}

fn restore(slots: &Slots, saved: SavedSlot, worst: &[Arc<Worst>]) -> Slot {
    let mut slot = Slot { index: saved.index, total: saved.total, ..Slot::default() };
    for (table, entries) in slot.tables.iter_mut().zip(saved.tables).take(By::ALL.len()) {
        for entry in entries {
            let details = Details {
                series: entry.series,
                series_read: entry.series_read,
                samples_read: entry.samples_read,
                answer_bytes: entry.answer_bytes,
                durations: Durations::from_pairs(&entry.durations),
                worst: entry.worst.and_then(|at| worst.get(at)).cloned(),
            };
            table.restore((&entry.key, slots.hash(&entry.key)), entry.seen, details, entry.kept);
        }
    }
    slot
}
