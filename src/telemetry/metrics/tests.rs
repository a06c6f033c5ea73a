use super::{super::tenants::TenantLabels, *};

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(name)).collect()
}

#[test]
fn tenants_are_bounded_and_the_first_keep_their_names() {
    let metrics = Metrics::new(3).unwrap();
    for round in 0..2 {
        for i in 0..500 {
            metrics.admitted(&tenant(&format!("t{i}")), "adhoc", Duration::ZERO);
            metrics.refused(
                &tenant(&format!("t{i}")),
                "weir-max-series",
                "enforce",
                ErrorKind::LimitExceeded,
            );
        }
        let text = metrics.encode().unwrap();
        let admissions = lines(&text, "weir_admissions_total{");
        assert_eq!(admissions.len(), 4, "{admissions:?}");
        assert!(
            admissions.contains(
                &format!("weir_admissions_total{{class=\"adhoc\",tenant=\"other\"}} {}", 497 * (round + 1))
                    .as_str()
            )
        );
        assert!(admissions.iter().any(|line| line.contains("tenant=\"t0\"")));
        assert_eq!(lines(&text, "weir_refusals_total{").len(), 4);
    }
}

#[test]
fn tenants_are_bounded_when_they_come_all_at_once() {
    let labels = TenantLabels::new(10);
    let named = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope
                    .spawn(|| (0..200).filter(|i| labels.label(&tenant(&format!("t{i}"))) != "other").count())
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).max()
    });
    assert!(named.is_some_and(|named| named <= 10));
    let still = (0..200).filter(|i| labels.label(&tenant(&format!("t{i}"))) != "other").count();
    assert_eq!(still, 10);
}

#[test]
fn what_happened_is_what_is_shown() {
    let metrics = Metrics::new(10).unwrap();
    metrics.refused(&tenant("a"), "weir-max-samples", "shadow", ErrorKind::LimitExceeded);
    metrics.estimated(Dimension::Series, 300);
    metrics.settled(Dimension::Series, 300, Confidence::UpperBound, 100);
    metrics.settled(Dimension::Samples, 0, Confidence::Exact, 0);
    metrics.queue_length("main", 7);
    metrics.budget("main", Resource::Memory, 5, 10);
    metrics.probed("main", ProbeResult::Counted, Duration::from_millis(3), 400);
    metrics.probed("main", ProbeResult::Refused, Duration::ZERO, 0);
    metrics.probe_cache(true);
    metrics.split("main", SplitOutcome::Merged);
    metrics.upstream("main", Some(200), Duration::from_millis(20));
    metrics.upstream("main", None, Duration::from_secs(1));
    metrics.answered("main", "cut_off", 1000);
    metrics.learned_entries(12);
    metrics.label_table_fetched("main", 1_700_000_000);
    metrics.reloaded(true, 1_700_000_001);
    metrics.reloaded(false, 1_700_000_002);
    metrics.decided(Duration::from_micros(90));
    let text = metrics.encode().unwrap();
    for want in [
        r#"weir_refusals_total{limit="weir-max-samples",mode="shadow",reason="limit_exceeded",tenant="a"} 1"#,
        r#"weir_estimated_cost_sum{dimension="series"} 300"#,
        r#"weir_actual_cost_sum{dimension="series"} 100"#,
        r#"weir_estimate_ratio_sum{dimension="samples",known="exact"} 1"#,
        r#"weir_estimate_ratio_bucket{dimension="series",known="upper_bound",le="2"} 0"#,
        r#"weir_estimate_ratio_bucket{dimension="series",known="upper_bound",le="4"} 1"#,
        r#"weir_queue_length{backend="main"} 7"#,
        r#"weir_budget_used{backend="main",resource="memory_bytes"} 5"#,
        r#"weir_budget_capacity{backend="main",resource="memory_bytes"} 10"#,
        r#"weir_probes_total{backend="main",result="refused"} 1"#,
        r#"weir_probe_bytes_total{backend="main"} 400"#,
        r#"weir_probe_seconds_count{backend="main"} 1"#,
        r#"weir_probe_cache_total{result="hit"} 1"#,
        r#"weir_divided_queries_total{backend="main",outcome="joined"} 1"#,
        r#"weir_upstream_responses_total{backend="main",status="2xx"} 1"#,
        r#"weir_upstream_responses_total{backend="main",status="error"} 1"#,
        r#"weir_answers_total{backend="main",outcome="cut_off"} 1"#,
        r#"weir_answer_bytes_total{backend="main"} 1000"#,
        "weir_learned_entries 12",
        r#"weir_label_table_timestamp_seconds{backend="main"} 1700000000"#,
        r#"weir_config_reloads_total{result="failure"} 1"#,
        "weir_config_last_reload_successful 0",
        "weir_config_last_reload_success_timestamp_seconds 1700000001",
        "weir_overhead_seconds_count 1",
    ] {
        assert!(text.lines().any(|line| line == want), "no `{want}` in:\n{text}");
    }
    assert_eq!(lines(&text, "weir_build_info{").len(), 1);
    metrics.forget_backend("main", ["light"], ["memory"]);
    metrics.forget_backend("never-seen", ["light"], ["memory"]);
    let text = metrics.encode().unwrap();
    assert!(lines(&text, "weir_budget_").is_empty() && lines(&text, "weir_queue_length").is_empty());
}

#[test]
fn every_name_has_the_prefix_or_is_the_process() {
    let text = Metrics::new(1).unwrap().encode().unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("weir_") || line.starts_with("process_"), "{line}");
    }
    #[cfg(target_os = "linux")]
    assert_eq!(lines(&text, "process_resident_memory_bytes ").len(), 1);
}
