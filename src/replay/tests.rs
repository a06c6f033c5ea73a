//! Lines of other programs' logs, and limits suggested from a generated week.

use std::{io::Cursor, sync::Arc};

use super::{
    import::{Format, Importer},
    report,
    suggest::{Observed, yaml},
    *,
};
use crate::{
    base::{Confidence, Estimate, QueryCost, time::EvalTimes},
    config,
    cost::{Model, SampleType, Source},
    journal::{Actual, Basis, Priced, Record, SplitMode},
    limit::LimitName,
    promql::{self, shape::Shape},
    proxy::replay::{Replay, Verdict},
};

fn replay(yaml: &str) -> Replay {
    let loaded = config::load_text("test.yaml", yaml, &|_| None).unwrap_or_else(|report| panic!("{report}"));
    Replay::new(config::resolve(&loaded.raw).unwrap())
}

fn one(format: Format, line: &str) -> Record {
    let mut importer = Importer::new(format, Cursor::new(format!("no query\n\n{line}\n")));
    let record = importer.next().unwrap().unwrap();
    assert!(importer.next().is_none());
    assert_eq!(importer.skipped(), 1, "a line about something else is counted");
    record
}

const RANGE: EvalTimes = EvalTimes { start: 1_700_000_000_000, end: 1_700_003_600_000, step: 15_000 };

#[test]
fn every_format_gives_what_its_lines_hold_and_nothing_else() {
    let prometheus = r#"{"time":"2023-11-14T23:13:21.5Z","level":"INFO","source":"x","msg":"promql query logged","params":{"query":"sum(up{a=\"b\"})","start":"2023-11-14T22:13:20.000Z","end":"2023-11-14T23:13:20.000Z","step":15},"stats":{"timings":{"evalTotalTime":0.4,"execQueueTime":0.001,"execTotalTime":0.5},"samples":{"totalQueryableSamples":900,"peakSamples":20,"samplesRead":450}},"httpRequest":{"clientIP":"10.0.0.7","method":"POST","path":"/api/v1/query_range"}}"#;
    let mimir = r#"ts=2023-11-14T23:13:21.5Z caller=handler.go:1 level=info msg="query stats" component=query-frontend user=team-a method=POST path=/prometheus/api/v1/query_range user_agent="Grafana/12.0" status_code=200 response_time=500ms response_size_bytes=2048 query_wall_time_seconds=0.4 fetched_series_count=12 fetched_chunk_bytes=9 queue_time_seconds=0.001 samples_processed=900 param_query="sum(up{a=\"b\"})" param_start=2023-11-14T22:13:20Z param_end=2023-11-14T23:13:20Z param_step=15000 length=1h0m0s status=success err="#;
    let cortex = r#"level=info ts=2023-11-14T23:13:21.5Z msg="query stats" component=query-frontend user=team-a method=GET path=/prometheus/api/v1/query_range response_time=500ms query_wall_time_seconds=0.4 fetched_series_count=12 fetched_samples_count=450 fetched_data_bytes=9 status_code=200 user_agent=Grafana/12.0 dashboard_uid=d1 panel_id=3 param_query="sum(up{a=\"b\"})" param_start=1700000000 param_end=1700003600 param_step=15"#;
    let thanos = r#"ts=2023-11-14T23:13:21.5Z level=info msg="slow query detected" method=GET path=/api/v1/query_range remote_user=ann remote_addr=10.0.0.7:999 time_taken_ms=500 grafana_dashboard_uid=d1 grafana_panel_id=3 fetched_series_count=12 param_query="sum(up{a=\"b\"})" param_start=1700000000 param_end=1700003600 param_step=15s peak_samples=20 total_samples_loaded=900"#;
    let victoria = "2023-11-14T23:13:21.500Z\twarn\tvmselect/main.go:1\tslow query according to -search.logSlowQueryDuration=5s: remoteAddr=\"10.0.0.7:999\", duration=0.500 seconds; requestURI: \"/select/7/prometheus/api/v1/query_range?query=sum%28up%7Ba%3D%22b%22%7D%29&start=1700000000&end=1700003600&step=15s\"";
    let statistics = r#"2023-11-14T23:13:21.500Z info vm_slow_query_stats type=range query="sum(up{a=\"b\"})" query_hash=1 start_ms=1700000000000 end_ms=1700003600000 step_ms=15000 range_ms=3600000 tenant="7" execution_duration_ms=500 series_fetched=12 samples_fetched=450 bytes=9 memory_estimated_bytes=7"#;
    let actual = |series_read, samples_read| Actual { series_read, samples_read, ..Actual::default() };
    let cases = [
        (Format::Prometheus, prometheus, "", "", actual(None, Some(450))),
        (Format::Mimir, mimir, "team-a", "", Actual { answer_bytes: Some(2048), ..actual(Some(12), None) }),
        (Format::Cortex, cortex, "team-a", "d1", actual(Some(12), Some(450))),
        (Format::Thanos, thanos, "", "d1", actual(Some(12), None)),
        (Format::VictoriaMetrics, victoria, "7", "", actual(None, None)),
        (Format::VictoriaMetrics, statistics, "7", "", actual(Some(12), Some(450))),
    ];
    for (format, line, tenant, dashboard, actual) in cases {
        let record = one(format, line);
        assert_eq!(&*record.query, "sum(up{a=\"b\"})", "{format:?}");
        assert_eq!((&*record.endpoint, record.times), ("query_range", Some(RANGE)), "{format:?}");
        assert_eq!((record.at_ms, record.took_ms), (1_700_003_601_000, Some(500)), "{format:?}");
        assert_eq!((&*record.tenant, &*record.dashboard), (tenant, dashboard), "{format:?}");
        assert_eq!(record.actual, actual, "{format:?}");
        assert!(record.ran());
        assert_eq!(record.priced, None, "nobody else prices");
    }
    let rule = r#"{"ts":"2023-11-14T23:13:20Z","params":{"query":"up","start":"2023-11-14T23:13:20Z","end":"2023-11-14T23:13:20Z","step":0},"error":"too many","ruleGroup":{"file":"r.yaml","name":"g"}}"#;
    let rule = one(Format::Prometheus, rule);
    assert_eq!((&*rule.rule, &*rule.endpoint, rule.ran()), ("g", "query", false));
    assert_eq!(rule.times, Some(EvalTimes::instant(RANGE.end)));
}

#[test]
fn lines_that_are_no_log_never_panic() {
    let mut random = fastrand::Rng::with_seed(5);
    let formats = ["prometheus", "mimir", "cortex", "thanos", "victoriametrics"].map(|f| f.parse().unwrap());
    let words = [
        "param_query=",
        "\"",
        "slow query according to -search.logSlowQueryDuration",
        "vm_slow_query_stats",
        "requestURI: \"",
        "?query=",
        "{\"params\":{",
        "=",
        " ",
        "\\",
        "start=-1e300",
        "param_step=1e300",
        "é",
        "\n",
    ];
    for _ in 0..5_000 {
        let line: String = (0..random.usize(..12)).map(|_| words[random.usize(..words.len())]).collect();
        for format in formats {
            let format: Format = format;
            let _ = format.record(&line);
        }
    }
    let long = format!("param_query={}\n", "x".repeat(2 << 20));
    let mut importer = Importer::new(Format::Mimir, Cursor::new(long));
    assert!(importer.next().is_none() && importer.skipped() == 1, "a line without end is skipped");
}

/// A query of this number of series of a tenant, as the journal has it.
fn record(tenant: &'static str, dashboard: &str, series: u64, known: Confidence) -> Record {
    let query = format!("sum(m{{d={}}})", serde_json::Value::from(dashboard));
    let ast = Arc::new(promql::parse(&query).unwrap());
    let cost = QueryCost {
        text: Shape::of(&ast, RANGE, 300_000).size,
        series: Estimate::new(series, known),
        samples: Estimate::new(series * 240, known),
        points: Estimate::new(series * 240, known),
        memory: Estimate::new(series << 12, known),
        range_seconds: 3_600,
        steps: RANGE.steps(),
        selectors: 1,
        ..QueryCost::NOTHING
    };
    let basis =
        Basis { model: Model::default(), split_above: None, split_mode: SplitMode::No, lookback_ms: 300_000 };
    Record {
        at_ms: RANGE.end,
        tenant: tenant.into(),
        dashboard: dashboard.to_owned().into(),
        class: "adhoc".into(),
        endpoint: "query_range".into(),
        query: query.into(),
        times: Some(RANGE),
        verdict: "admitted".into(),
        outcome: "complete".into(),
        status: Some(200),
        priced: Some(Priced {
            cost,
            parts: 1,
            whole_memory: cost.memory,
            counts: smallvec::smallvec![crate::journal::SelectorCount {
                series: cost.series,
                source: Source::Probe,
                sample_type: SampleType::Float,
            }],
            basis,
        }),
        actual: Actual { answer_bytes: Some(series * 100), ..Actual::default() },
        ..Record::default()
    }
}

/// A week of five tenants, and whether each query is abusive.
fn week() -> Vec<(Record, bool)> {
    let mut random = fastrand::Rng::with_seed(11);
    let tenants = ["checkout", "search", "infra", "data", "mobile"];
    let mut week = Vec::new();
    for (tenant, usual) in tenants.into_iter().zip([20_u64, 200, 3_000, 700, 50]) {
        for i in 0..4_000 {
            // Log-normal, about: sums of even numbers in the exponent.
            let spread = (0..6).map(|_| random.f64() - 0.5).sum::<f64>() * 1.2;
            let series = (usual as f64 * spread.exp()).ceil() as u64;
            week.push((record(tenant, &format!("{tenant}-{}", i % 12), series, Confidence::Exact), false));
        }
        for _ in 0..12 {
            let series = usual * random.u64(60..400);
            week.push((record(tenant, "abuse", series, Confidence::Exact), true));
        }
    }
    random.shuffle(&mut week);
    for (at, (record, _)) in (0..).zip(&mut week) {
        record.at_ms += at * 30_000;
    }
    week
}

#[test]
fn suggested_limits_refuse_all_that_is_abusive_and_nothing_that_is_ordinary() {
    let week = week();
    let mut observed = Observed::default();
    for (record, _) in &week {
        observed.add(record);
    }
    let mut suggested = observed.limits(1.5);
    for (record, _) in &week {
        suggested.look_back(record);
    }
    let patch = yaml(&suggested, 1.5, "");
    assert!(
        patch.contains("# would have refused 12: dashboard abuse (12); the heaviest that stays: "),
        "{patch}"
    );
    // The patch is a configuration, and refuses the queries that its comments name.
    let mut replay = replay(&patch);
    let mut summary = Summary::default();
    for (record, abusive) in &week {
        let replayed = replay.replay(record);
        let refused = matches!(replayed.verdict, Verdict::Refused(_));
        assert_eq!(refused, *abusive, "{record:?} {replayed:?}\n{patch}");
        summary.add(record, &replayed);
    }
    assert_eq!((summary.total.queries, summary.total.newly_refused), (20_060, 60));
    assert_eq!(summary.tenants.sorted().len(), 5);
    assert_eq!(summary.dashboards.sorted()[0].0, "abuse");
}

#[test]
fn a_tenant_with_few_queries_or_an_odd_name_gets_no_limits() {
    let mut observed = Observed::default();
    for _ in 0..200 {
        observed.add(&record("team-*", "d", 5, Confidence::Exact));
        observed.add(&record("a: b\n\"c", "d", 5, Confidence::Exact));
    }
    observed.add(&record("few", "d", 5, Confidence::Exact));
    let patch = yaml(&observed.limits(1.5), 1.5, "");
    assert!(!patch.contains("few") && !patch.contains("per_query"), "{patch}");
    assert!(patch.contains("# \"team-*\" has no form in a configuration"), "{patch}");
}

const STRICT: &str = "limits: {default: {per_query: {series: 100}}}";

#[test]
fn what_is_only_bounded_is_unknown_and_what_was_counted_is_refused() {
    let mut replay = replay(STRICT);
    let mut loose = record("a", "d", 500, Confidence::UpperBound);
    loose.priced.as_mut().unwrap().counts[0].source = Source::LabelTable;
    let limit = |verdict: &Verdict| match verdict {
        Verdict::Admitted => ("admitted", None),
        Verdict::Refused(refusal) => ("refused", Some(refusal.limit)),
        Verdict::Unknown(refusal) => ("unknown", refusal.as_ref().map(|refusal| refusal.limit)),
    };
    let max = Some(LimitName::MaxSeries);
    assert_eq!(limit(&replay.replay(&loose).verdict), ("unknown", max));
    // Where the bound had refused it then, nothing better was known.
    let refused = Record { verdict: "weir-max-series".into(), outcome: "refused".into(), ..loose.clone() };
    assert_eq!(limit(&replay.replay(&refused).verdict), ("refused", max));
    for (read, verdict) in [(50, ("admitted", None)), (400, ("refused", max))] {
        let counted =
            Record { actual: Actual { series_read: Some(read), ..Actual::default() }, ..loose.clone() };
        assert_eq!(limit(&replay.replay(&counted).verdict), verdict);
    }
    assert_eq!(limit(&replay.replay(&record("a", "d", 500, Confidence::Exact)).verdict), ("refused", max));
    // A log without counts leaves the series unknown; a limit on the text alone refuses all the same.
    let foreign = Record { priced: None, ..record("a", "d", 0, Confidence::Exact) };
    assert_eq!(limit(&replay.replay(&foreign).verdict).0, "unknown");
    let long = EvalTimes { start: 0, ..RANGE };
    let long = Record { times: Some(long), ..foreign.clone() };
    assert_eq!(limit(&replay.replay(&long).verdict), ("refused", Some(LimitName::MaxSteps)));
    let nothing = Record { query: "".into(), ..foreign };
    assert_eq!(replay.replay(&nothing).verdict, Verdict::Unknown(None));
}

#[test]
fn another_interval_prices_anew_from_the_text_and_the_recorded_counts() {
    let samples = |interval: &str| {
        let yaml = format!("backends: [{{urls: [\"http://127.0.0.1:1\"], scrape_interval: {interval}}}]");
        replay(&yaml).replay(&record("a", "d", 100, Confidence::Exact)).cost.unwrap().samples.value
    };
    assert_eq!(samples("15s"), 24_000, "the same formulas: the recorded cost");
    // An hour and the five minutes before it, twelve a minute.
    assert_eq!(samples("5s"), 100 * 65 * 12);
}

#[test]
fn reports_show_what_is_lost_and_keep_texts_harmless() {
    let mut replay = replay(STRICT);
    let mut summary = Summary::default();
    let evil = "<script>alert(1)</script>\x1b[2J";
    for _ in 0..3 {
        let record = record("a", evil, 500, Confidence::Exact);
        let replayed = replay.replay(&record);
        summary.add(&record, &replayed);
    }
    let busy = Record {
        verdict: "weir-queue-full".into(),
        outcome: "refused".into(),
        ..record("a", "d", 1, Confidence::Exact)
    };
    let replayed = replay.replay(&busy);
    summary.add(&busy, &replayed);
    let text = report::text(&summary);
    assert!(
        text.starts_with("Of 4 queries 1 would be admitted and 3 refused, 3 of which were answered before"),
        "{text}"
    );
    assert!(text.contains("weir-max-series: 500 series (exact), the limit is 100; 3 of 3 times"), "{text}");
    assert!(text.contains("weir-queue-full") && !text.contains('\x1b'), "{text}");
    let html = report::html(&summary);
    assert!(html.contains("&lt;script&gt;") && !html.contains("<script") && !html.contains('\x1b'));
    let json = report::json(&summary);
    assert_eq!(json["total"]["newlyRefused"], 3);
    assert_eq!(json["tenants"][0]["name"], "a");
    assert_eq!(json["notReplayed"][0]["name"], "weir-queue-full");
    assert_eq!(json["worst"][0]["observed"], 500);
}

#[test]
fn a_million_names_take_bounded_memory() {
    let mut replay = replay(STRICT);
    let mut summary = Summary::default();
    for i in 0..20_000 {
        let record = record("a", &i.to_string(), 500, Confidence::Exact);
        let record = Record { at_ms: RANGE.end + i * 100, ..record };
        let replayed = replay.replay(&record);
        summary.add(&record, &replayed);
    }
    let rows: u64 = summary.dashboards.sorted().iter().map(|(_, tally)| tally.queries).sum();
    assert_eq!((rows, summary.dashboards.others.queries), (1_000, 19_000));
    assert_eq!(summary.worst().len(), 10);
}
