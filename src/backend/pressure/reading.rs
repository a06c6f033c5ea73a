//! What the metrics of a backend say about its distress, by kind.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    controller::FULL,
    page::Page,
    rate::Rates,
    settings::Settings,
    signal::{FORESEEN_MOST, Reading, Signal},
};
use crate::backend::Kind;

/// Go's way to say that there is no limit is one near 2^63.
const NO_LIMIT: f64 = (1_u64 << 60) as f64;
/// Queries at work fill their places in normal work: the budget of the proxy is what fills them. So as many as there are
/// places is two thirds of full pressure, where budget is still given back, and half as many again is all of it.
const QUEUED_AT_FULL: f64 = 1.5;
/// Queries that had to wait for a place, per place and second, at full pressure.
const WAITING_AT_FULL: f64 = 1.0;
/// The share of reads that find the pools exhausted at full pressure.
const EXHAUSTED_AT_FULL: f64 = 0.5;
/// Reads per second below which a share of them says little.
const READS_LEAST: f64 = 1.0;
/// Reads beyond one of M3's own limits, per second, at full pressure.
const REFUSED_AT_FULL: f64 = 1.0;

/// Seconds that memory is looked ahead: one until the next look, and two that a query goes on to grow.
const FORESIGHT: f64 = 3.0;

/// One look at the page of one replica.
struct Look<'a> {
    page: Page<'a>,
    settings: &'a Settings,
    rates: &'a mut Rates,
    now: Instant,
}

/// Reads a metrics page in text form: what each signal says that it holds.
pub(super) fn read(
    kind: Kind,
    page: &str,
    settings: &Settings,
    rates: &mut Rates,
    now: Instant,
) -> Vec<Reading> {
    let mut look = Look { page: Page(page), settings, rates, now };
    let of_process = [look.memory(), look.heap()];
    let of_kind = match kind {
        Kind::VictoriaMetrics => [look.victoria_queries(), look.victoria_waiting(), None],
        Kind::Weir => [look.lent(), look.exhausted(), look.get_on_empty(&WEIR_POOLS)],
        Kind::M3 => [look.m3_limits(), look.m3_refusals(), look.get_on_empty(&M3_POOLS)],
        // All of them run Prometheus' engine and count as it does.
        Kind::Prometheus | Kind::Thanos | Kind::Mimir | Kind::Cortex => {
            [look.prometheus_queries(), None, None]
        }
    };
    of_process.into_iter().chain(of_kind).flatten().collect()
}

/// Bytes that a process holds for good reason: what the storage node's pools have lent, or the mean of a Go process' heap
/// between what the last collection left and where the next one begins. `None` where it does not tell.
///
/// That mean is what an estimate speaks of: what is left alone is less than a query makes the process hold, and what is
/// resident is mostly garbage of others. The collector's goal is what it left and as much again as GOGC says; where a
/// limit of memory lowers the goal, this finds less than there is.
pub(super) fn held(kind: Kind, page: &str) -> Option<f64> {
    let page = Page(page);
    if kind == Kind::Weir {
        return page.sum("weir_pool_outstanding_bytes");
    }
    // VictoriaMetrics sets its own where the environment sets none.
    let usual = if kind == Kind::VictoriaMetrics { 30.0 } else { 100.0 };
    let percent = page.sum("go_gc_gogc_percent").filter(|percent| *percent > 0.0).unwrap_or(usual);
    let next = page.sum("go_memstats_next_gc_bytes")?;
    Some(f64::midpoint(next, next / (1.0 + percent / 100.0)))
}

impl Look<'_> {
    /// Memory that only the process itself can give back, against what is configured or else what it tells.
    ///
    /// Pages of mapped files are the kernel's to take, so anonymous memory counts where it is told apart; and what Go's
    /// heap holds idle but not yet returned is where its next allocations go, so that it is no part of the growth to
    /// come. Without this a burst that is over would go on to count for minutes.
    fn memory(&mut self) -> Option<Reading> {
        let page = self.page;
        let configured = self.settings.memory_limit.map(|bytes| bytes as f64);
        let told =
            || page.sum("process_memory_limit_bytes").or_else(|| page.sum("vm_available_memory_bytes"));
        let limit = configured.or_else(|| told().filter(|limit| is_limit(*limit)))?;
        let resident = page.sum("process_resident_memory_anon_bytes");
        let resident = resident.or_else(|| page.sum("process_resident_memory_bytes"))?;
        let idle = page.sum("go_memstats_heap_idle_bytes").unwrap_or(0.0);
        let returned = page.sum("go_memstats_heap_released_bytes").unwrap_or(0.0);
        let reusable = (idle - returned).clamp(0.0, resident.max(0.0));
        Some(self.foreseen(Signal::Memory, resident - reusable, limit))
    }

    /// The heap against what is configured or else the limit that Go's collector obeys.
    fn heap(&mut self) -> Option<Reading> {
        let configured = self.settings.memory_limit.map(|bytes| bytes as f64);
        let told = || self.page.sum("go_gc_gomemlimit_bytes").filter(|limit| is_limit(*limit));
        let limit = configured.or_else(told)?;
        let used = self.page.sum("go_memstats_heap_inuse_bytes")?;
        Some(self.foreseen(Signal::Heap, used, limit))
    }

    /// Memory as it will be in a few seconds if it grows on like this. In the recorded incident the last look before the
    /// end found 83 % of the limit: at 400 MiB a second, what is at work already passes the rest before a smaller budget
    /// has any effect.
    fn foreseen(&mut self, signal: Signal, used: f64, limit: f64) -> Reading {
        let (smoothed, latest) = self.rates.slope(signal.as_str(), used, self.now);
        let growth = smoothed.max(0.0);
        let now = Reading::new(signal, used, limit);
        let soon = Reading::new(signal, used + growth * FORESIGHT, limit).pressure.min(FORESEEN_MOST);
        // The next look would come too late. A query that decodes what it read grows faster by the second.
        let at_once = if used + growth.max(latest) >= limit { FULL } else { 0.0 };
        Reading { pressure: now.pressure.max(soon).max(at_once), signal }
    }

    /// Prometheus counts queries that wait for a place as well.
    fn prometheus_queries(&self) -> Option<Reading> {
        let places = self.page.sum("prometheus_engine_queries_concurrent_max")?;
        let queries = self.page.sum("prometheus_engine_queries")?;
        Some(Reading::new(Signal::Queries, queries, places * QUEUED_AT_FULL))
    }

    fn victoria_queries(&self) -> Option<Reading> {
        let places = self.page.sum("vm_concurrent_select_capacity")?;
        let queries = self.page.sum("vm_concurrent_select_current")?;
        Some(Reading::new(Signal::Queries, queries, places * QUEUED_AT_FULL))
    }

    /// VictoriaMetrics' gauge of queries at work ends at the places for them; that there were more is counted here.
    fn victoria_waiting(&mut self) -> Option<Reading> {
        let places = self.page.sum("vm_concurrent_select_capacity")?;
        let name = "vm_concurrent_select_limit_reached_total";
        let waiting = self.rates.of(name, self.page.sum(name)?, self.now);
        Some(Reading::new(Signal::QueriesWaiting, waiting, places * WAITING_AT_FULL))
    }

    /// A cap of 0 is none: what is lent says nothing then, but was heard.
    fn lent(&self) -> Option<Reading> {
        let cap = self.page.sum("weir_pool_cap_bytes")?;
        Some(Reading::new(Signal::Pool, self.page.sum("weir_pool_outstanding_bytes")?, cap))
    }

    /// One read may ask many times before it fails, so that there may be more refusals than reads.
    fn exhausted(&mut self) -> Option<Reading> {
        let refused = "weir_pool_exhausted_total";
        let refused = self.rates.of(refused, self.page.sum(refused)?, self.now);
        let reads = "weir_node_reads_total";
        let reads = self.page.sum(reads).map(|total| self.rates.of(reads, total, self.now));
        let reads = reads.unwrap_or(0.0).max(READS_LEAST);
        Some(Reading::new(Signal::PoolExhausted, refused, reads * EXHAUSTED_AT_FULL))
    }

    /// How often in a second all that the pools keep was allocated anew because they were empty.
    ///
    /// The bare rate of empty Gets would misfire: a pool that is a little too small for a steady load misses all the
    /// time and never grows, since what it lends comes back; the first queries after an idle time miss as well. Against
    /// all Gets, a burst of small queries would hide a few huge ones. So each miss counts with the size of its bucket,
    /// and the sum is taken against the size of the pools: a pool that is a tenth too small makes a fraction of itself
    /// per second, while in the incident several times the pools were allocated every second for minutes. The rate is
    /// smoothed over ten seconds, so that a pool that fills up once passes for a tenth of that.
    ///
    /// Where a cap bounds what pools lend, they may be as empty as they like: how near the cap is says what matters.
    fn get_on_empty(&mut self, names: &PoolNames) -> Option<Reading> {
        let mut pools: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        let size = |label: Option<&str>| label.and_then(|size| size.parse::<f64>().ok()).unwrap_or(1.0);
        for sample in self.page.ending(names.missed).chain(self.page.ending(names.kept)) {
            // Sizes of different pools are in different units: bytes here, samples there.
            let pool = pools.entry(sample.label("pool").unwrap_or("")).or_default();
            let bytes = sample.value * size(sample.label(names.size));
            if sample.name.ends_with(names.missed) { pool.0 += bytes } else { pool.1 += bytes }
        }
        let turns = pools.into_iter().filter(|(_, (_, kept))| *kept > 0.0).map(|(pool, (missed, kept))| {
            self.rates.of(&format!("{}{pool}", names.missed), missed, self.now) / kept
        });
        let most = turns.max_by(f64::total_cmp)?;
        let is_bounded = self.page.sum("weir_pool_cap_bytes").is_some_and(|cap| cap > 0.0);
        let most = if is_bounded { 0.0 } else { most };
        Some(Reading::new(Signal::PoolGetOnEmpty, most, self.settings.get_on_empty_at_full?))
    }

    /// What M3 counted in the present window of each of its limits on recent reads, against the limit.
    fn m3_limits(&self) -> Option<Reading> {
        const USED: &str = "query_limit_recent_count_";
        const LIMIT: &str = "query_limit_current_limit_";
        let mut most: Option<f64> = None;
        let mut limits: BTreeMap<&str, f64> = BTreeMap::new();
        let key = |name: &'_ str, part: &str| name.find(part).map(|at| at + part.len());
        for limit in self.page.holding(LIMIT) {
            if let Some(of) = key(limit.name, LIMIT).and_then(|at| limit.name.get(at..)) {
                *limits.entry(of).or_default() += limit.value;
            }
        }
        for (of, limit) in limits.into_iter().filter(|(_, limit)| *limit > 0.0) {
            let used = self.page.holding(USED).filter(|used| used.name.ends_with(of));
            let used: f64 = used.map(|used| used.value).sum();
            most = Some(most.unwrap_or(0.0).max(used / limit));
        }
        Some(Reading::new(Signal::QueryLimits, most?, 1.0))
    }

    /// Reads that M3 refused because of one of those limits.
    fn m3_refusals(&mut self) -> Option<Reading> {
        const REFUSED: &str = "query_limit_exceeded";
        let refused =
            self.page.ending(REFUSED).map(|sample| sample.value).reduce(|sum, value| sum + value)?;
        let refused = self.rates.of(REFUSED, refused, self.now);
        Some(Reading::new(Signal::QueryLimits, refused, REFUSED_AT_FULL))
    }
}

/// Where a process counts what its pools miss and keep.
struct PoolNames {
    missed: &'static str,
    kept: &'static str,
    /// The label that says how large an object is.
    size: &'static str,
}

const WEIR_POOLS: PoolNames =
    PoolNames { missed: "weir_pool_get_on_empty_total", kept: "weir_pool_total", size: "bucket" };
const M3_POOLS: PoolNames =
    PoolNames { missed: "bytes_pool_get_on_empty", kept: "bytes_pool_total", size: "bucket_capacity" };

fn is_limit(bytes: f64) -> bool {
    bytes > 0.0 && bytes < NO_LIMIT
}
