//! The answer: the slots of a window added up.

use std::{cmp::Reverse, collections::HashMap};

use serde::Serialize;

use super::{
    dimensions::{By, Measure, PANEL_SEPARATOR, Window},
    slots::Slots,
    stats::{Amounts, Details, Worst, object},
};

/// The heaviest keys of a window.
#[derive(Clone, Debug, Serialize)]
pub struct Ranking {
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// The beginning of the oldest slot that holds a query: at most a slot before the window's.
    pub from_ms: i64,
    /// How far back.
    pub window: Window,
    /// The kind of key.
    pub by: By,
    /// The measure by which they are ranked.
    pub sort: Measure,
    /// Queries among them that have not ended.
    pub running: usize,
    /// All queries of the window.
    #[serde(serialize_with = "object")]
    pub total: Amounts,
    /// Those of the total that are in no row.
    #[serde(serialize_with = "object")]
    pub other: Amounts,
    /// The heaviest first.
    pub rows: Vec<Row>,
}

/// The queries of a key. Each number may lack as much as `missed`, and is never too high.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// A fingerprint, a dashboard's UID, a user, a rule's UID, a tenant, or an address.
    pub key: String,
    /// The panel of the dashboard.
    pub panel: Option<String>,
    /// The measures.
    #[serde(flatten, serialize_with = "object")]
    pub amounts: Amounts,
    /// Estimated series, over the queries that ran.
    pub series: u64,
    /// Series that the database says it read; `None` where it never said.
    pub series_read: Option<u64>,
    /// Samples that the database says it read; `None` where it never said.
    pub samples_read: Option<u64>,
    /// Bytes of answers.
    pub answer_bytes: Option<u64>,
    /// The median time from a query's arrival to its last byte, of those that ran.
    pub p50_seconds: Option<f64>,
    /// The 99th percentile of the same.
    pub p99_seconds: Option<f64>,
    /// The most that each measure may lack.
    #[serde(serialize_with = "object")]
    pub missed: Amounts,
    /// The query with the greatest estimated memory.
    pub worst: Option<ShownWorst>,
}

impl Row {
    /// Its key, with the panel where it has one.
    pub fn name(&self) -> String {
        self.panel.as_ref().map_or_else(|| self.key.clone(), |panel| format!("{}/{panel}", self.key))
    }
}

/// A [`Worst`] with its duration in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct ShownWorst {
    query: Box<str>,
    fingerprint: Box<str>,
    tenant: Box<str>,
    at_ms: i64,
    memory: Option<u64>,
    seconds: f64,
    refused: bool,
}

/// The known numbers of a key, over the slots so far.
#[derive(Default)]
struct Sum {
    seen: Amounts,
    details: Details,
    missed: Amounts,
}

pub(super) fn rank(
    slots: [&Slots; 2],
    window: Window,
    by: By,
    sort: Measure,
    limit: usize,
    now_ms: i64,
) -> Ranking {
    let (mut sums, mut total, mut floors) =
        (HashMap::<&str, Sum>::new(), Amounts::default(), Amounts::default());
    let mut from_ms = None;
    for slot in slots.iter().flat_map(|slots| slots.of(window, now_ms)) {
        from_ms = from_ms.or(Some(slot.index.saturating_mul(window.slot_ms())));
        total.add(&slot.total);
        let table = &slot.tables[by as usize];
        let floor = table.floor();
        for sum in sums.values_mut() {
            sum.missed.add(&floor);
        }
        for entry in table.entries() {
            // A new key may have been below the floor of each slot before.
            let fresh = || {
                let mut missed = floors;
                missed.add(&floor);
                Sum { missed, ..Sum::default() }
            };
            let sum = sums.entry(&entry.key).or_insert_with(fresh);
            sum.seen.add(&entry.seen);
            sum.details.add(&entry.details);
            sum.missed.subtract(&floor);
            sum.missed.add(&table.missed(entry, &floor));
        }
        floors.add(&floor);
    }
    // A key whose queries were all refused has nothing else.
    let counts = |sum: &Sum| sum.seen.get(sort) > 0 || sum.seen.get(Measure::Refused) > 0;
    let mut sums: Vec<_> = sums.into_iter().filter(|(_, sum)| counts(sum)).collect();
    sums.sort_unstable_by_key(|(key, sum)| {
        (Reverse(sum.seen.get(sort)), Reverse(sum.seen.get(Measure::Count)), *key)
    });
    sums.truncate(limit);
    let mut other = total;
    for (_, sum) in &sums {
        other.subtract(&sum.seen);
    }
    let rows = sums.into_iter().map(|(key, sum)| row(key, sum)).collect();
    Ranking { now_ms, from_ms: from_ms.unwrap_or(now_ms), window, by, sort, running: 0, total, other, rows }
}

fn row(key: &str, sum: Sum) -> Row {
    let Sum { seen, details, missed } = sum;
    let (key, panel) = key.split_once(PANEL_SEPARATOR).unwrap_or((key, ""));
    let quantile = |share| details.durations.quantile(share);
    Row {
        key: key.to_owned(),
        panel: (!panel.is_empty()).then(|| panel.to_owned()),
        amounts: seen,
        series: details.series,
        series_read: details.series_read,
        samples_read: details.samples_read,
        answer_bytes: details.answer_bytes,
        p50_seconds: quantile(0.5),
        p99_seconds: quantile(0.99),
        missed,
        worst: details.worst.as_deref().map(|worst| {
            let Worst { query, fingerprint, tenant, at_ms, memory, took_ms, refused } = worst.clone();
            ShownWorst { query, fingerprint, tenant, at_ms, memory, seconds: took_ms as f64 / 1e3, refused }
        }),
    }
}
