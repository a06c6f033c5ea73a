//! Recorded and synthetic traces: distress that must be seen in time, and load that is no distress.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::super::{Monitor, Observation, Settings};
use crate::{
    backend::Kind,
    base::distress::{FULL, HIGH, LOW, Load, Signal},
};

const MIB: u64 = 1 << 20;

/// Resident MiB of Prometheus 2.42 in the incident of `docs/incident.md`, once a second, without a guard: it was
/// killed at 4,096 MiB less than a second later.
const UNGUARDED: &[u64] =
    &[51, 53, 54, 56, 56, 55, 56, 56, 57, 56, 89, 426, 728, 1061, 1445, 1971, 2425, 2777, 3387];
/// The same behind a proxy that let one query through at a time, until it was killed.
const ONE_AT_A_TIME: &[u64] = &[
    51, 52, 52, 53, 54, 54, 54, 53, 54, 54, 67, 389, 845, 1228, 1589, 1818, 2125, 2389, 2773, 3084, 3396,
    3785,
];
/// The same behind Weir, which it survived.
const GUARDED: &[u64] = &[
    54, 54, 54, 54, 54, 54, 54, 54, 54, 54, 87, 195, 552, 927, 954, 1077, 1450, 1465, 1466, 1698, 1769, 1906,
    2242, 2291, 2307, 2343, 2235, 2185, 2195, 2140, 2145, 2014, 1999, 1997, 1810, 1612, 1510, 1497, 1497,
    1497, 1571, 1668, 1668, 1614, 1522, 1522, 1522, 1522,
];

/// The memory of a process with a limit, MiB, and the MiB of heavy queries in flight, once a second.
fn replay(limit: u64, trace: impl IntoIterator<Item = (u64, u64)>) -> Vec<Observation> {
    let start = Instant::now();
    let settings = Settings { memory_limit: Some(limit * MIB), ..Settings::default() };
    let mut monitor = Monitor::new(Kind::Prometheus, settings, start);
    let one = |(at, (mib, heavy)): (u32, (u64, u64))| {
        let page = format!("process_resident_memory_bytes {}\n", mib * MIB);
        let in_flight = Load { heavy_bytes: heavy * MIB, queries: heavy.min(1), budget: None };
        monitor.observe(&[Some(&page)], in_flight, start + Duration::from_secs(1) * at)
    };
    (1..).zip(trace).map(one).collect()
}

fn pressures(looks: &[Observation]) -> Vec<f64> {
    looks.iter().map(|look| look.distress.pressure.map_or(0.0, |(_, pressure)| pressure)).collect()
}

/// The burst comes after ten seconds.
fn burst(trace: &[u64]) -> impl Iterator<Item = (u64, u64)> + '_ {
    trace.iter().enumerate().map(|(second, mib)| (*mib, if second < 10 { 0 } else { 1_000 }))
}

#[test]
fn the_recorded_incident_is_seen_seconds_before_its_end() {
    for (trace, name) in [(UNGUARDED, "unguarded"), (ONE_AT_A_TIME, "one at a time")] {
        let seen = pressures(&replay(4096, burst(trace)));
        let first = seen.iter().position(|pressure| *pressure >= HIGH).expect("it is seen");
        assert!(trace.len() - first >= 2, "{name}: {seen:?}");
        assert!(seen[..10].iter().all(|pressure| *pressure < LOW), "{name}: {seen:?}");
    }
    let seen = pressures(&replay(4096, burst(GUARDED)));
    assert!(seen.iter().all(|pressure| *pressure < HIGH), "what was survived is no distress: {seen:?}");
}

#[test]
fn about_to_run_out_it_says_so_whatever_the_estimates_are() {
    // A query that is estimated to be light, so that nothing heavy is in flight.
    let hog = |step: u64| (0..).map(move |n| (200 + n * step).min(4096)).map(|mib| (mib, 0));
    for step in [30, 60, 400] {
        let start = Instant::now();
        let settings = Settings { memory_limit: Some(4096 * MIB), ..Settings::default() };
        let mut monitor = Monitor::new(Kind::Prometheus, settings, start);
        let first = hog(step).take_while(|(mib, _)| *mib < 4096).enumerate().find_map(|(at, (mib, _))| {
            let page = format!("process_resident_memory_bytes {}\n", mib * MIB);
            let in_flight = Load { heavy_bytes: 0, queries: 1, budget: None };
            let look = monitor.observe(&[Some(&page)], in_flight, start + Duration::from_secs(at as u64));
            look.runs_out.then_some(mib)
        });
        assert!(first.is_some_and(|mib| mib > 2048), "{step} MiB a second: {first:?}");
    }
}

#[test]
fn memory_that_stays_is_a_finding_and_no_pressure() {
    // m3dbnode: a burst made it take 2.4 of 3 GiB; each query after that adds ten.
    let burst = (0..30).map(|n| (1_370 + n * 35, 900));
    let idle = [(2_400, 0); 60];
    let after = (0..40).flat_map(|n| [(2_405 + n * 10, 411), (2_410 + n * 10, 411), (2_410 + n * 10, 0)]);
    let looks = replay(3_072, burst.chain(idle).chain(after));
    let seen = pressures(&looks[33..]);
    assert!(seen.iter().all(|pressure| *pressure < HIGH), "{seen:?}");
    assert!(!looks.iter().any(|look| look.runs_out));
    let level = looks[80].at_rest.expect("a finding");
    assert!(level.bytes > 2_300e6 && level.limit > 3e9, "{level:?}");
    assert!(replay(3_072, [(1_370, 0); 60]).iter().all(|look| look.at_rest.is_none()));
}

#[test]
fn what_queries_add_counts_against_what_is_left_above_the_level_at_rest() {
    let looks = replay(3_072, [(2_400, 0); 10].into_iter().chain((0..10).map(|n| (2_400 + n * 80, 700))));
    let seen = pressures(&looks);
    assert!(seen[9] < 0.1 && seen[18] >= FULL, "{seen:?}");
    assert!(looks[18].runs_out);
}

#[test]
fn another_clients_query_before_ours_is_at_rest() {
    // `sum_over_time(vector(1)[2h:1ms])` past Weir, and our own small query meanwhile.
    let looks = replay(4096, [(50, 0); 5].into_iter().chain([(3_000, 0); 20]).chain([(3_020, 10); 5]));
    let seen = pressures(&looks[20..]);
    assert!(seen.iter().all(|pressure| *pressure < LOW), "{seen:?}");
}

#[test]
fn gaps_resets_and_silence_of_a_node_that_is_at_ease_are_ease() {
    let start = Instant::now();
    let mut monitor = Monitor::new(Kind::Weir, Settings::default(), start);
    let mut rng = Rng::with_seed(9);
    let (mut misses, mut reads) = (1_000_000, 5_000_000);
    for second in 1..2_000 {
        // A steady trickle of empty Gets; now and then the node starts anew, or a page is lost.
        (misses, reads) = if rng.u32(0..100) == 0 { (0, 0) } else { (misses + 500, reads + 40) };
        let page = format!(
            "weir_pool_get_on_empty_total{{bucket=\"4096\",pool=\"bytes\"}} {misses}\n\
             weir_pool_total{{bucket=\"4096\",pool=\"bytes\"}} 8192\n\
             weir_pool_outstanding_bytes{{bucket=\"4096\",pool=\"bytes\"}} 1000\n\
             weir_pool_cap_bytes 0\nweir_node_reads_total {reads}\n\
             weir_pool_exhausted_total{{pool=\"bytes\"}} {}\n",
            reads / 100
        );
        let pages = [(rng.u32(0..4) > 0).then_some(page.as_str())];
        let in_flight = Load { heavy_bytes: 1, queries: 1, budget: None };
        let look = monitor.observe(&pages, in_flight, start + Duration::from_secs(second));
        assert!(look.distress.pressure.is_none_or(|(_, pressure)| pressure < LOW), "second {second}");
        assert!(look.stale.is_empty(), "second {second}");
    }
}

#[test]
fn a_node_whose_pools_run_away_is_in_distress_until_they_do_not() {
    let start = Instant::now();
    let mut monitor = Monitor::new(Kind::Weir, Settings::default(), start);
    let mut misses = 0;
    let mut seen = Vec::new();
    for second in 1..=180 {
        misses += if (30..90).contains(&second) { 40_000 } else { 100 };
        let page = format!(
            "weir_pool_get_on_empty_total{{bucket=\"4096\",pool=\"bytes\"}} {misses}\n\
             weir_pool_total{{bucket=\"4096\",pool=\"bytes\"}} 8192\n\
             weir_pool_outstanding_bytes 0\nweir_pool_cap_bytes 0\n"
        );
        let look = monitor.observe(&[Some(&page)], Load::default(), start + Duration::from_secs(second));
        assert_eq!(look.readings.iter().filter(|reading| reading.signal == Signal::Pools).count(), 1);
        seen.extend(pressures(&[look]));
    }
    assert!(seen[28] < LOW && seen[35] > HIGH && seen[150] < LOW, "{seen:?}");
}
