//! The statistics of the queries of one key.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};

use super::dimensions::{Measure, Observation};

/// Characters of the worst query's text.
const QUERY_CHARS: usize = 500;
/// Ranges of durations: from 1 ms to 2^20 ms (17 minutes), two for each doubling.
const RANGES: usize = 40;

/// One number for each [`Measure`], in the order of [`Measure::ALL`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Amounts(pub(super) [u64; Measure::ALL.len()]);

impl Amounts {
    /// The numbers that one query adds.
    pub(super) fn of(query: &Observation<'_>) -> Self {
        let if_ran = |amount: Option<u64>| known(amount).filter(|_| query.ran).unwrap_or(0);
        Self([
            if_ran(query.memory),
            1,
            if_ran(query.samples),
            if_ran(Some(query.took_ms.saturating_sub(query.wait_ms))),
            u64::from(query.refused),
            u64::from(query.shadow_refused),
        ])
    }

    /// The number of one measure in its unit.
    pub fn number(&self, measure: Measure) -> f64 {
        let number = self.get(measure) as f64;
        if measure == Measure::Seconds { number / 1e3 } else { number }
    }

    /// The same as it is kept: seconds in milliseconds.
    pub fn get(&self, measure: Measure) -> u64 {
        // There is one for each.
        self.0[measure as usize]
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.each(other, u64::saturating_add);
    }

    /// Subtracts, down to zero.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.each(other, u64::saturating_sub);
    }

    fn each(&mut self, other: &Self, operation: fn(u64, u64) -> u64) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = operation(*mine, theirs);
        }
    }
}

/// An object with a member for each measure.
pub(super) fn object<S: Serializer>(amounts: &Amounts, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(Measure::ALL.len()))?;
    for measure in Measure::ALL {
        match measure {
            Measure::Seconds => map.serialize_entry("seconds", &amounts.number(*measure))?,
            measure => map.serialize_entry(measure.as_str(), &amounts.get(*measure))?,
        }
    }
    map.end()
}

impl Serialize for Amounts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

/// A number that a limit was held against, and not the sign for an unknown one.
fn known(amount: Option<u64>) -> Option<u64> {
    amount.filter(|amount| *amount < u64::MAX)
}

/// How long queries took, within 19 % (half a range of a factor of √2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Durations([u32; RANGES]);

impl Default for Durations {
    fn default() -> Self {
        Self([0; RANGES])
    }
}

impl Durations {
    fn observe(&mut self, ms: u64) {
        let range = ((ms.max(1) as f64).log2() * 2.0) as usize;
        let count = &mut self.0[range.min(RANGES - 1)];
        *count = count.saturating_add(1);
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// The duration that this share of the queries did not exceed, seconds; `None` where there were none.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let rank = ((all as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let range = self.0.iter().position(|count| {
            below += u64::from(*count);
            below >= rank
        })?;
        Some(f64::midpoint(range as f64, 0.5).exp2() / 1e3)
    }

    /// The ranges that hold any.
    pub(super) fn to_pairs(self) -> Vec<(usize, u32)> {
        self.0.into_iter().enumerate().filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn from_pairs(pairs: &[(usize, u32)]) -> Self {
        let mut all = Self::default();
        for (range, count) in pairs {
            all.0[(*range).min(RANGES - 1)] = *count;
        }
        all
    }
}

/// The query with the greatest estimated memory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Worst {
    /// Its text, cut at 500 characters; empty where texts are not kept.
    pub query: Box<str>,
    /// Its fingerprint; empty where it could not be read.
    pub fingerprint: Box<str>,
    /// The tenant that paid.
    pub tenant: Box<str>,
    /// When it came, milliseconds since the epoch.
    pub at_ms: i64,
    /// Estimated bytes; `None` is unknown.
    pub memory: Option<u64>,
    /// From its arrival to its last byte, milliseconds.
    pub took_ms: u64,
    /// A limit or a rule refused or stopped it.
    pub refused: bool,
}

impl Worst {
    pub(super) fn of(query: &Observation<'_>) -> Arc<Self> {
        let end = query.query.char_indices().nth(QUERY_CHARS).map_or(query.query.len(), |(end, _)| end);
        Arc::new(Self {
            query: query.query[..end].into(),
            fingerprint: query.fingerprint.map(|of| of.to_string()).unwrap_or_default().into(),
            tenant: query.tenant.into(),
            at_ms: query.at_ms,
            memory: known(query.memory),
            took_ms: query.took_ms,
            refused: query.refused,
        })
    }
}

/// Everything beside the measures.
#[derive(Clone, Debug, Default)]
pub(super) struct Details {
    pub(super) series: u64,
    pub(super) series_read: Option<u64>,
    pub(super) samples_read: Option<u64>,
    pub(super) answer_bytes: Option<u64>,
    pub(super) durations: Durations,
    pub(super) worst: Option<Arc<Worst>>,
}

impl Details {
    /// Adds a query; `worst` makes the copy of it that is kept, where it is the worst so far.
    pub(super) fn observe(&mut self, query: &Observation<'_>, worst: impl FnOnce() -> Arc<Worst>) {
        if query.ran {
            self.series = self.series.saturating_add(known(query.series).unwrap_or(0));
            self.series_read = sum(self.series_read, query.series_read);
            self.samples_read = sum(self.samples_read, query.samples_read);
            self.answer_bytes = sum(self.answer_bytes, query.answer_bytes);
            self.durations.observe(query.took_ms);
        }
        if self.worst.as_ref().is_none_or(|before| before.memory < known(query.memory)) {
            self.worst = Some(worst());
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.series = self.series.saturating_add(other.series);
        self.series_read = sum(self.series_read, other.series_read);
        self.samples_read = sum(self.samples_read, other.samples_read);
        self.answer_bytes = sum(self.answer_bytes, other.answer_bytes);
        self.durations.add(&other.durations);
        let memory = |of: &Option<Arc<Worst>>| of.as_ref().map(|worst| worst.memory);
        if memory(&self.worst) < memory(&other.worst) {
            self.worst.clone_from(&other.worst);
        }
    }
}

/// The sum of the known numbers.
fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (one, None) | (None, one) => one,
    }
}
