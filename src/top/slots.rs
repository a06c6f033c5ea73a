//! Windows that move in steps: the queries of a window are those of its slots.

use std::{collections::VecDeque, fmt::Write as _, hash::BuildHasher as _};

use foldhash::fast::RandomState;

use super::{
    dimensions::{By, Observation, PANEL_SEPARATOR, Window},
    stats::{Amounts, Worst},
    table::Table,
};

impl Window {
    /// The length of a slot, milliseconds.
    pub(super) const fn slot_ms(self) -> i64 {
        match self {
            Self::FiveMinutes => 60_000,
            Self::Hour => 600_000,
            Self::Day => 10_800_000,
        }
    }

    /// Whole slots; the one of the moment comes on top.
    pub(super) const fn slots(self) -> i64 {
        match self {
            Self::FiveMinutes => 5,
            Self::Hour => 6,
            Self::Day => 8,
        }
    }
}

/// The queries of one stretch of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// Its beginning in lengths of a slot.
    pub(super) index: i64,
    /// All queries.
    pub(super) total: Amounts,
    /// In the order of [`By::ALL`].
    pub(super) tables: [Table; By::ALL.len()],
}

/// The slots of each window, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    pub(super) windows: [VecDeque<Slot>; Window::ALL.len()],
    hasher: RandomState,
    /// The key that is looked at; kept for its memory.
    key: String,
}

impl Slots {
    pub(super) fn observe(&mut self, query: &Observation<'_>) {
        let (added, ended_ms) = (Amounts::of(query), query.at_ms.saturating_add_unsigned(query.took_ms));
        for (window, slots) in Window::ALL.iter().zip(&mut self.windows) {
            current(slots, *window, ended_ms).total.add(&added);
        }
        let mut worst = None;
        for by in By::ALL {
            self.key.clear();
            write_key(&mut self.key, *by, query);
            if self.key.is_empty() {
                continue;
            }
            let key = (self.key.as_str(), self.hasher.hash_one(self.key.as_str()));
            for table in
                self.windows.iter_mut().filter_map(|slots| slots.back_mut()?.tables.get_mut(*by as usize))
            {
                table.observe(key, query, &added, || worst.get_or_insert_with(|| Worst::of(query)).clone());
            }
        }
    }

    /// The slots of a window that ends now.
    pub(super) fn of(&self, window: Window, now_ms: i64) -> impl Iterator<Item = &Slot> {
        let oldest = now_ms.div_euclid(window.slot_ms()) - window.slots();
        // There is one for each.
        self.windows[window as usize].iter().filter(move |slot| slot.index >= oldest)
    }

    /// The hash of a key, as tables take it.
    pub(super) fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }
}

/// The slot of a moment; a clock that goes back counts in the newest.
fn current(slots: &mut VecDeque<Slot>, window: Window, at_ms: i64) -> &mut Slot {
    let at = at_ms.div_euclid(window.slot_ms());
    if slots.back().is_none_or(|newest| newest.index < at) {
        slots.retain(|slot| slot.index >= at - window.slots());
        slots.push_back(Slot { index: at, ..Slot::default() });
    }
    let newest = slots.len() - 1;
    &mut slots[newest]
}

/// The key of a query; nothing where it has none of this kind.
fn write_key(key: &mut String, by: By, query: &Observation<'_>) {
    // Writing to a string does not fail.
    match by {
        By::Fingerprint => _ = query.fingerprint.map(|of| write!(key, "{of}")),
        By::Client => _ = query.client.map(|of| write!(key, "{of}")),
        By::Dashboard if query.dashboard.is_empty() => {}
        By::Dashboard => key.extend([query.dashboard, PANEL_SEPARATOR.encode_utf8(&mut [0; 4]), query.panel]),
        By::User => key.push_str(query.user),
        By::Rule => key.push_str(query.rule),
        By::Tenant => key.push_str(query.tenant),
    }
}
