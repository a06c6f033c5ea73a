//! Metrics pages: those of real databases, cut to the lines in question, and made-up ones.

use std::time::Duration;

use tokio::time::Instant;

use super::super::{
    Level, Monitor, Reading, Settings,
    page::Page,
    rate::Rates,
    reading::{held, memory, read, running},
};
use crate::{
    backend::Kind,
    base::distress::{Load, Signal},
};

/// Of Prometheus 2.42, idle.
const PROMETHEUS: &str = "\
# HELP go_memstats_heap_inuse_bytes Number of heap bytes that are in use.
# TYPE go_memstats_heap_inuse_bytes gauge
go_gc_duration_seconds{quantile=\"0.5\"} 0.000322077
go_memstats_heap_alloc_bytes 8.092224e+06
go_memstats_heap_idle_bytes 1.72032e+06
go_memstats_heap_inuse_bytes 1.0141696e+07
go_memstats_heap_released_bytes 1.589248e+06
process_resident_memory_bytes 4.3134976e+07
process_virtual_memory_max_bytes 1.8446744073709552e+19
prometheus_engine_queries 0
prometheus_engine_queries_concurrent_max 20
";

/// Of VictoriaMetrics 1.79.5, idle.
const VICTORIA: &str = "\
go_memstats_heap_idle_bytes 4112384
go_memstats_heap_inuse_bytes 7946240
go_memstats_heap_released_bytes 3145728
process_memory_limit_bytes 25276510208
process_resident_memory_anon_bytes 10100736
process_resident_memory_bytes 21827584
process_resident_memory_file_bytes 11948032
process_resident_memory_peak_bytes 22048768
vm_available_memory_bytes 25276510208
vm_concurrent_select_capacity 4
vm_concurrent_select_current 0
vm_concurrent_select_limit_reached_total 0
vm_concurrent_select_limit_timeout_total 0
";

fn once(kind: Kind, page: &str) -> Vec<(Signal, f64)> {
    let (settings, mut rates) = (Settings::default(), Rates::default());
    let readings = read(kind, Page(page), &settings, &mut rates, Instant::now());
    readings.map(|Reading { pressure, signal }| (signal, pressure)).collect()
}

/// Bytes and limit of the memory on a page.
fn level(page: &str, memory_limit: Option<u64>) -> Option<(f64, f64)> {
    let settings = Settings { memory_limit, ..Settings::default() };
    memory(Page(page), &settings).map(|Level { bytes, limit }| (bytes, limit))
}

/// A page a second; the value of a signal at the last.
fn after(kind: Kind, signal: Signal, seconds: u64, page: impl Fn(u64) -> String) -> Option<f64> {
    let (start, mut rates) = (Instant::now(), Rates::default());
    let mut last = None;
    for second in 0..=seconds {
        let now = start + Duration::from_secs(second);
        let text = page(second);
        let settings = Settings::default();
        let readings = read(kind, Page(&text), &settings, &mut rates, now);
        let ours = readings.filter(|reading| reading.signal == signal);
        last = ours.map(|reading| reading.pressure).reduce(f64::max);
    }
    last
}

#[test]
fn real_pages_are_read() {
    assert_eq!(once(Kind::Prometheus, PROMETHEUS), []);
    // 43,134,976 less the 131,072 that Go keeps for itself.
    assert_eq!(level(PROMETHEUS, Some(50_000_000)), Some((43_003_904.0, 50e6)));
    assert_eq!(level(PROMETHEUS, None), None);
    assert_eq!(once(Kind::VictoriaMetrics, VICTORIA), []);
    // Mapped pages are the kernel's to take back: 10,100,736 less 966,656.
    assert_eq!(level(VICTORIA, None), Some((9_134_080.0, 25_276_510_208.0)));
    assert_eq!(running(Kind::Prometheus, Page("prometheus_engine_queries 3\n")), Some(3.0));
    assert_eq!(running(Kind::VictoriaMetrics, Page(VICTORIA)), Some(0.0));
    assert_eq!(running(Kind::M3, Page(PROMETHEUS)), None);
    // Places for queries, over two replicas.
    for (kind, page, places) in [
        (Kind::Prometheus, PROMETHEUS, Some(40)),
        (Kind::VictoriaMetrics, VICTORIA, Some(8)),
        (Kind::M3, PROMETHEUS, None),
    ] {
        let mut monitor = Monitor::new(kind, Settings::default(), Instant::now());
        let observation = monitor.observe(&[Some(page), Some(page)], Load::default(), Instant::now());
        assert_eq!(observation.distress.places, places);
    }
}

#[test]
fn memory_is_measured_against_what_is_configured_or_said() {
    let rss = "process_resident_memory_bytes 3.0e+09\n";
    assert_eq!(level(rss, Some(4_000_000_000)), Some((3e9, 4e9)));
    assert_eq!(level(rss, None), None);
    let said = format!("{rss}process_memory_limit_bytes 6e9\n");
    assert_eq!(level(&said, None), Some((3e9, 6e9)));
    // Go's page without a limit.
    let heap = "go_memstats_heap_inuse_bytes 50\ngo_gc_gomemlimit_bytes ";
    assert_eq!(level(&format!("{heap}9.223372036854776e+18\n"), None), None);
    assert_eq!(level(&format!("{heap}100\n"), None), Some((50.0, 100.0)));
    // A burst is over, and Go has not returned its memory yet.
    let over = "process_resident_memory_bytes 95\ngo_memstats_heap_idle_bytes 80\ngo_memstats_heap_released_bytes 5\n";
    assert_eq!(level(over, Some(100)), Some((20.0, 100.0)));
}

#[test]
fn lent_bytes_are_summed_against_the_cap() {
    let lent = "weir_pool_outstanding_bytes{pool=\"a} b\"} 30\n\
        weir_pool_outstanding_bytes{pool=\"b\",bucket=\"16\"} 30 1700\n";
    let weir = |cap: &str| once(Kind::Weir, &format!("{lent}weir_pool_cap_bytes {cap}\n"));
    assert_eq!(weir("100"), [(Signal::Pools, 0.6)]);
    assert_eq!(weir("60"), [(Signal::Pools, 1.0)]);
    // Without a cap there is no share of it, but the signal was heard.
    assert_eq!(weir("0"), [(Signal::Pools, 0.0)]);
    for garbage in [
        "",
        "weir_pool_outstanding_bytes",
        "weir_pool_outstanding_bytes{ 1",
        "weir_pool_outstanding_bytes NaN\nweir_pool_cap_bytes 0",
        "{} 1\n# 2\n \n=\"",
    ] {
        assert_eq!(once(Kind::Weir, garbage), [], "{garbage}");
    }
}

/// Pools of 100 MiB and of 1,000 samples, and how many Gets a second find the first empty.
fn weir_pools(second: u64, misses: u64, small_misses: u64) -> String {
    format!(
        "weir_pool_get_on_empty_total{{bucket=\"16\",pool=\"bytes\"}} {}\n\
         weir_pool_get_on_empty_total{{bucket=\"4096\",pool=\"bytes\"}} {}\n\
         weir_pool_get_on_empty_total{{bucket=\"10\",pool=\"samples\"}} 40\n\
         weir_pool_total{{bucket=\"16\",pool=\"bytes\"}} 524288\n\
         weir_pool_total{{bucket=\"4096\",pool=\"bytes\"}} 8192\n\
         weir_pool_total{{bucket=\"10\",pool=\"samples\"}} 100\n",
        1_000_000 + second * small_misses,
        5_000 + second * misses
    )
}

#[test]
fn empty_pools_count_by_what_they_allocate_and_not_in_normal_work() {
    let pressure = |misses, small_misses| {
        after(Kind::Weir, Signal::Pools, 60, |s| weir_pools(s, misses, small_misses)).unwrap()
    };
    // The pools keep 8 + 32 MiB. Counts before the first observation do not matter.
    assert_eq!(pressure(0, 0), 0.0);
    // A tenth too small all the time; thousands of small buffers a second.
    assert!(pressure(800, 0) < 0.1, "{}", pressure(800, 0));
    assert!(pressure(0, 100_000) < 0.1, "{}", pressure(0, 100_000));
    // The incident: several times the pools each second.
    assert_eq!(pressure(40_000, 500_000), 1.0);
    // A pool under a cap may be empty.
    let bounded = |s| format!("{}weir_pool_cap_bytes 1000000\n", weir_pools(s, 40_000, 500_000));
    assert_eq!(after(Kind::Weir, Signal::Pools, 60, bounded), Some(0.0));
    // One burst that takes twice the pools at once is over before it counts.
    let burst = after(Kind::Weir, Signal::Pools, 3, |s| weir_pools(u64::from(s >= 3), 20_000, 0));
    assert!(burst.unwrap() < 0.3, "{burst:?}");
    // M3 names them differently, and puts a configurable prefix before them.
    let m3 = after(Kind::M3, Signal::Pools, 60, |second| {
        format!(
            "dbnode_bytes_pool_get_on_empty{{bucket_capacity=\"4096\"}} {}\n\
             dbnode_bytes_pool_total{{bucket_capacity=\"4096\"}} 8192\n",
            second * 40_000
        )
    });
    assert_eq!(m3, Some(1.0));
}

#[test]
fn exhausted_pools_count_as_a_share_of_the_reads() {
    let exhausted = |refused: u64, reads: u64| {
        let page = |second| {
            format!(
                "weir_pool_exhausted_total{{pool=\"samples\"}} {}\nweir_node_reads_total {}\n",
                second * refused,
                second * reads
            )
        };
        after(Kind::Weir, Signal::Pools, 60, page).unwrap()
    };
    assert_eq!(exhausted(0, 100), 0.0);
    assert!(exhausted(2, 100) < 0.1 && exhausted(90, 100) == 1.0);
}

#[test]
fn m3_is_measured_against_its_own_limits() {
    // With one type each, as the source of May 2026 labels them, and without.
    let page = |used: u64| {
        format!(
            "query_limit_current_limit_docs_matched{{type=\"fetch\"}} 1000\n\
             query_limit_current_limit_docs_matched{{type=\"aggregate\"}} 1000000\n\
             query_limit_recent_count_docs_matched{{type=\"fetch\"}} {used}\n\
             query_limit_recent_count_docs_matched{{type=\"aggregate\"}} 480\n\
             query_limit_recent_max_docs_matched{{type=\"fetch\"}} 990\n\
             query_limit_current_limit_disk_bytes_read 0\n\
             query_limit_recent_count_disk_bytes_read 5e9\n"
        )
    };
    assert_eq!(once(Kind::M3, &page(900)), [(Signal::Saturation, 0.9)]);
    assert_eq!(once(Kind::M3, &page(480)), [(Signal::Saturation, 0.48)]);
    let refused = after(Kind::M3, Signal::Saturation, 60, |second| {
        format!("query_limit_exceeded{{limit=\"docs-matched\"}} {}\n", second * 5)
    });
    assert_eq!(refused, Some(0.97));
}

#[test]
fn counters_that_fall_began_anew_and_clocks_may_stand_still() {
    let (start, mut rates) = (Instant::now() + Duration::from_secs(100), Rates::default());
    let at = |second| start + Duration::from_secs(second);
    assert_eq!(rates.of("a", 1e9, at(0)), 0.0);
    let mut rate = 0.0;
    for second in 1..100 {
        // It starts anew at 0 in the middle, and grows by ten a second all the time.
        let value = if second < 50 { 1e9 + 10.0 * second as f64 } else { 10.0 * (second - 49) as f64 };
        let before = rate;
        rate = rates.of("a", value, at(second));
        assert!(rate >= before && rate <= 10.0, "{second}: {before} {rate}");
        assert_eq!(rates.of("a", 1e12, at(second)), rate, "no time passed");
        assert_eq!(rates.of("a", 1e12, start - Duration::from_secs(50)), rate, "it went back");
    }
    assert!(rate > 9.9);
    // After a gap it is the mean of the gap.
    assert!((rates.of("a", 510.0 + 100_000.0, at(1_099)) - 100.0).abs() < 1.0);
    // The number of series followed is bounded.
    for n in 0..1_000 {
        rates.of(&n.to_string(), 0.0, at(0));
        rates.of(&n.to_string(), 1.0, at(1));
    }
    assert_eq!(rates.of("999", 2.0, at(2)), 0.0);
}

#[test]
fn labels_are_found_whatever_they_hold() {
    let line = r#"x{a="1,b=\"2\"",bucket_capacity="9", pool="p\\"} 4"#;
    let found = Page(line).all("x").next().unwrap();
    assert_eq!(found.label("bucket_capacity"), Some("9"));
    assert_eq!(found.label("pool"), Some(r"p\\"));
    assert_eq!((found.label("b"), found.label("capacity")), (None, None));
}

#[test]
fn what_a_process_holds_is_told_by_its_collector() {
    for (kind, page, expected) in [
        (Kind::Prometheus, "go_memstats_next_gc_bytes 200\n", Some(150.0)),
        (Kind::Prometheus, "go_memstats_next_gc_bytes 300\ngo_gc_gogc_percent 50\n", Some(250.0)),
        (Kind::VictoriaMetrics, "go_memstats_next_gc_bytes 130\n", Some(115.0)),
        (Kind::Weir, "weir_pool_outstanding_bytes{bucket=\"16\",pool=\"bytes\"} 7\n", None),
        (Kind::Thanos, "process_resident_memory_bytes 5\n", None),
    ] {
        assert_eq!(held(kind, Page(page)), expected, "{page}");
    }
}
