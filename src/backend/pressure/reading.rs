//! Readings of distress from a backend's metrics, by kind.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{memory::Level, monitor::Reading, page::Page, rate::Rates, settings::Settings};
use crate::{backend::Kind, base::distress::Signal};

/// Go's way to say that there is no limit is one near 2^63.
const NO_LIMIT: f64 = (1_u64 << 60) as f64;
/// The share of reads that find the pools exhausted at full pressure.
const EXHAUSTED_AT_FULL: f64 = 0.5;
/// Reads per second below which a share of them says little.
const READS_LEAST: f64 = 1.0;
/// Reads beyond one of M3's own limits, per second, at full pressure.
const REFUSED_AT_FULL: f64 = 1.0;

/// One scrape at the page of one replica.
struct Scrape<'a> {
    page: Page<'a>,
    settings: &'a Settings,
    rates: &'a mut Rates,
    now: Instant,
}

/// Reads pools and saturation from a metrics page.
pub(super) fn read(
    kind: Kind,
    page: Page<'_>,
    settings: &Settings,
    rates: &mut Rates,
    now: Instant,
) -> impl Iterator<Item = Reading> {
    let mut scrape = Scrape { page, settings, rates, now };
    let of_kind = match kind {
        Kind::Weir => [scrape.lent(), scrape.exhausted(), scrape.get_on_empty(&WEIR_POOLS)],
        Kind::M3 => [scrape.m3_limits(), scrape.m3_refusals(), scrape.get_on_empty(&M3_POOLS)],
        Kind::Prometheus | Kind::Thanos | Kind::Mimir | Kind::Cortex | Kind::VictoriaMetrics => [None; 3],
    };
    of_kind.into_iter().flatten()
}

/// Queries that the backend runs at a time; `None` where it does not export them.
pub(super) fn places(kind: Kind, page: Page<'_>) -> Option<f64> {
    page.sum(places_of(kind)?.all)
}

/// Queries that run at the backend, from all its clients; `None` where it does not export them.
pub(super) fn running(kind: Kind, page: Page<'_>) -> Option<f64> {
    page.sum(places_of(kind)?.taken)
}

const fn places_of(kind: Kind) -> Option<Places> {
    match kind {
        // All of them run Prometheus' engine and count as it does.
        Kind::Prometheus | Kind::Thanos | Kind::Mimir | Kind::Cortex => Some(PROMETHEUS_PLACES),
        Kind::VictoriaMetrics => Some(VICTORIA_PLACES),
        Kind::M3 | Kind::Weir => None,
    }
}

/// Memory that only the process itself can give back, against the configured limit or else its own.
///
/// The kernel may reclaim pages of mapped files, so anonymous memory counts where it is known. The idle part of Go's
/// heap that is not yet returned is reused by the next allocations, so that it is no part of the growth to come.
pub(super) fn memory(page: Page<'_>, settings: &Settings) -> Option<Level> {
    let said = || {
        let limits = ["process_memory_limit_bytes", "vm_available_memory_bytes", "go_gc_gomemlimit_bytes"];
        limits.iter().find_map(|name| page.sum(name).filter(|limit| is_limit(*limit)))
    };
    let limit = settings.memory_limit.map(|bytes| bytes as f64).or_else(said)?;
    let resident = page.sum("process_resident_memory_anon_bytes");
    let resident = resident.or_else(|| page.sum("process_resident_memory_bytes"));
    let Some(resident) = resident else {
        return page.sum("go_memstats_heap_inuse_bytes").map(|bytes| Level { bytes, limit });
    };
    let idle = page.sum("go_memstats_heap_idle_bytes").unwrap_or(0.0);
    let returned = page.sum("go_memstats_heap_released_bytes").unwrap_or(0.0);
    let reusable = (idle - returned).clamp(0.0, resident.max(0.0));
    Some(Level { bytes: resident - reusable, limit })
}

/// Bytes of a Go process' heap in use: the mean of the heap that the last collection left and the heap at which the
/// next one begins. `None` where the page does not have it.
///
/// Estimates are compared with this: the live heap alone is less than a query makes the process hold, and resident
/// memory is mostly garbage of others. The goal is the live heap plus GOGC percent of it; a memory limit lowers the
/// goal, and then this is below the truth.
pub(super) fn held(kind: Kind, page: Page<'_>) -> Option<f64> {
    // VictoriaMetrics sets its own where the environment sets none.
    let usual = if kind == Kind::VictoriaMetrics { 30.0 } else { 100.0 };
    let percent = page.sum("go_gc_gogc_percent").filter(|percent| *percent > 0.0).unwrap_or(usual);
    let next = page.sum("go_memstats_next_gc_bytes")?;
    Some(f64::midpoint(next, next / (1.0 + percent / 100.0)))
}

impl Scrape<'_> {
    /// A cap of 0 is none: bytes lent are no reading then, but the signal was heard.
    fn lent(&self) -> Option<Reading> {
        let cap = self.page.sum("weir_pool_cap_bytes")?;
        Some(Reading::new(Signal::Pools, self.page.sum("weir_pool_outstanding_bytes")?, cap))
    }

    /// One read may ask many times before it fails, so that there may be more refusals than reads.
    fn exhausted(&mut self) -> Option<Reading> {
        let refused = "weir_pool_exhausted_total";
        let refused = self.rates.of(refused, self.page.sum(refused)?, self.now);
        let reads = "weir_node_reads_total";
        let reads = self.page.sum(reads).map(|total| self.rates.of(reads, total, self.now));
        let reads = reads.unwrap_or(0.0).max(READS_LEAST);
        Some(Reading::new(Signal::Pools, refused, reads * EXHAUSTED_AT_FULL))
    }

    /// The share of the pools' size that is allocated anew in a second because buckets were empty, smoothed over ten
    /// seconds.
    ///
    /// The bare rate of empty Gets would misfire: a pool that is a little too small for a steady load misses all the
    /// time and never grows, since its buffers come back. Against all Gets, a burst of small queries would hide a few
    /// huge ones.
    ///
    /// So each miss counts with the size of its bucket, against the size of the pools: a pool a tenth too small makes a
    /// fraction of itself per second, while in the incident several times the pools were allocated every second for
    /// minutes.
    ///
    /// Pools under a cap may be empty: then the distance to the cap is the signal.
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
        Some(Reading::new(Signal::Pools, most, self.settings.get_on_empty_at_full?))
    }

    /// M3's count in the present window of each of its limits on recent reads, against the limit. A limit and its
    /// counter have the same name behind their prefix, and the same labels.
    fn m3_limits(&self) -> Option<Reading> {
        const USED: &str = "query_limit_recent_count_";
        const LIMIT: &str = "query_limit_current_limit_";
        let of = |name: &'_ str, part: &str| name.find(part).map(|at| at + part.len());
        let mut limits: BTreeMap<(&str, Option<&str>), (f64, f64)> = BTreeMap::new();
        for (part, is_limit) in [(LIMIT, true), (USED, false)] {
            for sample in self.page.holding(part) {
                let Some(name) = of(sample.name, part).and_then(|at| sample.name.get(at..)) else { continue };
                let (limit, used) = limits.entry((name, sample.label("type"))).or_default();
                *(if is_limit { limit } else { used }) += sample.value;
            }
        }
        let shares = limits.into_values().filter(|(limit, _)| *limit > 0.0).map(|(limit, used)| used / limit);
        Some(Reading::new(Signal::Saturation, shares.max_by(f64::total_cmp)?, 1.0))
    }

    /// Reads that M3 refused because of one of those limits.
    fn m3_refusals(&mut self) -> Option<Reading> {
        const REFUSED: &str = "query_limit_exceeded";
        let refused =
            self.page.ending(REFUSED).map(|sample| sample.value).reduce(|sum, value| sum + value)?;
        let refused = self.rates.of(REFUSED, refused, self.now);
        Some(Reading::new(Signal::Saturation, refused, REFUSED_AT_FULL))
    }
}

/// Where a process counts its places for queries and those that are taken.
struct Places {
    all: &'static str,
    taken: &'static str,
}

const PROMETHEUS_PLACES: Places =
    Places { all: "prometheus_engine_queries_concurrent_max", taken: "prometheus_engine_queries" };
const VICTORIA_PLACES: Places =
    Places { all: "vm_concurrent_select_capacity", taken: "vm_concurrent_select_current" };

/// The metrics of a process' pools.
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
