use super::*;
use crate::base::TimeRange;

fn read(endpoint: Endpoint, query: &str) -> Result<ParsedQuery, String> {
    read_as(endpoint, query, TimeDialect::Prometheus)
}

fn read_as(endpoint: Endpoint, query: &str, dialect: TimeDialect) -> Result<ParsedQuery, String> {
    let cache = promql::Cache::new(16);
    let on_unparsable = OnUnparsable::UnknownFunctions;
    let kind = match dialect {
        TimeDialect::Prometheus => Kind::Prometheus,
        TimeDialect::VictoriaMetrics => Kind::VictoriaMetrics,
        TimeDialect::M3 => Kind::M3,
    };
    let reading = QueryParser { now_ms: 1_000_000, dialect, kind, on_unparsable, cache: &cache };
    let params = Params::parse(query, "").unwrap();
    reading.read(endpoint, &params).map_err(|error| error.to_string())
}

#[test]
fn queries_read_their_times() {
    let parsed = read(Endpoint::Query, "query=up&timeout=5s").unwrap();
    assert_eq!(parsed.timeout, Some(Duration::from_secs(5)));
    assert_eq!(parsed.shape.selectors[0].window.end, 1_000_000);
    assert!(!parsed.free && !parsed.listing);
    let parsed = read(Endpoint::QueryRange, "query=rate(a[5m])&start=0&end=600&step=1m").unwrap();
    assert_eq!(parsed.shape.steps, 11);
    assert!(read_as(Endpoint::QueryRange, "query=up", TimeDialect::VictoriaMetrics).is_ok());
}

#[test]
fn what_reads_nothing_is_free_unless_it_multiplies_work() {
    for (query, free) in [
        ("1%2B1", true),
        ("vector(1)", true),
        ("up", false),
        ("sum_over_time(vector(1)[100d:1ms])", false),
        (&*vec!["1"; 40].join("%2B"), true),
        (&*vec!["1"; 400].join("%2B"), false),
    ] {
        assert_eq!(read(Endpoint::Query, &format!("query={query}")).unwrap().free, free, "{query}");
    }
}

#[test]
fn listings_read_selectors_only() {
    let parsed = read(Endpoint::Series, "match[]=up&match[]={job=\"a\"}&start=0&end=600").unwrap();
    assert!(parsed.listing);
    assert_eq!(parsed.shape.selectors.len(), 2);
    assert!((600..=601).contains(&parsed.shape.range_seconds));
    assert!(read(Endpoint::Series, "match[]={__name__!=\"\"}").unwrap().shape.selectors[0].match_all);
    assert!(read(Endpoint::Labels, "").unwrap().shape.selectors.is_empty());
}

#[test]
fn selectors_of_a_dialect_are_read_as_its_queries_are() {
    let cache = promql::Cache::new(16);
    let read = |on_unparsable, query: &str| {
        let reading = QueryParser {
            now_ms: 1_000_000,
            dialect: TimeDialect::VictoriaMetrics,
            kind: Kind::VictoriaMetrics,
            on_unparsable,
            cache: &cache,
        };
        reading.read(Endpoint::Series, &Params::parse(query, "").unwrap())
    };
    let dialect = "match[]=up{job=\"a\" or job=\"b\"}&match[]=down&start=0&end=600";
    let error = read(OnUnparsable::Refuse, dialect).unwrap_err().to_string();
    assert!(error.starts_with("invalid parameter \"match[]\": 1:"), "{error}");

    let parsed = read(OnUnparsable::EstimateFromText, dialect).unwrap();
    let texts: Vec<_> = parsed.shape.selectors.iter().map(|selector| &*selector.text).collect();
    assert_eq!((texts, parsed.opaque), (vec!["up", "down"], false));
    assert!(parsed.listing && (600..=601).contains(&parsed.shape.range_seconds), "{parsed:?}");

    let parsed = read(OnUnparsable::Forward, dialect).unwrap();
    assert!(parsed.opaque && parsed.listing && parsed.shape.selectors[0].match_all);
    // Nothing to be found in it: it may list anything.
    let parsed = read(OnUnparsable::EstimateFromText, "match[]=~").unwrap();
    assert!(parsed.opaque && parsed.shape.selectors[0].match_all);
    // No dialect takes PromQL that is no selector for one.
    assert!(read(OnUnparsable::Forward, "match[]=rate(a[5m])").is_err());
}

#[test]
fn times_are_read_as_the_backend_reads_them() {
    use TimeDialect::{M3, Prometheus, VictoriaMetrics};
    for (dialect, endpoint, query, end) in [
        (VictoriaMetrics, Endpoint::Query, "query=up&time=-5m", Some(700_000)),
        (VictoriaMetrics, Endpoint::Query, "query=up&time=1700000000000", Some(1_700_000_000_000)),
        (VictoriaMetrics, Endpoint::QueryRange, "query=up&start=-1h&end=now&step=1.5m", Some(1_000_000)),
        (M3, Endpoint::Query, "query=up&time=now", Some(1_000_000)),
        (M3, Endpoint::QueryRange, "query=up&start=0&end=900&step=1.5m", Some(900_000)),
        (Prometheus, Endpoint::Query, "query=up&time=9999-12-31T23:59:59Z", Some(253_402_300_799_000)),
        (Prometheus, Endpoint::Query, "query=up&time=-5m", None),
        (Prometheus, Endpoint::QueryRange, "query=up&start=0&end=900&step=1.5m", None),
    ] {
        let got = read_as(endpoint, query, dialect).ok().map(|parsed| parsed.shape.selectors[0].window.end);
        assert_eq!(got, end, "{dialect:?} {query}");
    }
}

/// Parameters that a database fills in or ignores are neither refused nor priced at less than they read.
#[test]
fn what_a_kind_fills_in_is_read_as_it_fills_it_in() {
    let cache = promql::Cache::new(16);
    let of = |kind, dialect, query: &str| {
        let on_unparsable = OnUnparsable::UnknownFunctions;
        let reading = QueryParser { now_ms: 1_000_000, dialect, kind, on_unparsable, cache: &cache };
        let parsed = reading.read(Endpoint::QueryRange, &Params::parse(query, "").unwrap()).ok()?;
        let times = parsed.times?;
        Some((times.start, times.end, times.step, parsed.split.is_some()))
    };
    let victoria = |query| of(Kind::VictoriaMetrics, TimeDialect::VictoriaMetrics, query);
    let thanos = |query| of(Kind::Thanos, TimeDialect::Prometheus, query);
    let open = "query=sum(up)&start=0&end=86400&dedup=false";
    assert_eq!(thanos(open), Some((0, 86_400_000, 345_600, false)));
    assert_eq!(thanos("query=sum(up)&start=0&end=60"), Some((0, 60_000, 1_000, false)));
    assert!(thanos(&format!("{open}&step=60")).is_some_and(|(.., splits)| splits));
    assert_eq!(of(Kind::Cortex, TimeDialect::Prometheus, open), None);
    // VictoriaMetrics takes an end before the start for five minutes, and no time for no limit.
    assert_eq!(
        victoria("query=up&start=600&end=300&step=15&timeout=0"),
        Some((600_000, 900_000, 15_000, true))
    );
    assert_eq!(of(Kind::Prometheus, TimeDialect::Prometheus, "query=up&start=600&end=300&step=15"), None);
    let parsed = read_as(Endpoint::Query, "query=up&timeout=0", TimeDialect::VictoriaMetrics).unwrap();
    assert_eq!(parsed.timeout, None);
    assert!(read(Endpoint::Query, "query=up&timeout=0").is_err());
}

#[test]
fn a_graph_spans_its_own_time_whatever_it_reads_at_each_step() {
    let month = "start=0&end=2678400&step=3600";
    for (query, days) in [
        ("up", 31),
        ("rate(up[45m])", 31),
        ("max_over_time(rate(up[5m])[1h:1m])", 31),
        ("up offset 1w", 31),
        ("rate(up[40d])", 40),
        ("max_over_time(rate(up[1d])[44d:1h])", 45),
    ] {
        let parsed = read(Endpoint::QueryRange, &format!("query={query}&{month}")).unwrap();
        assert_eq!(parsed.shape.range_seconds, days * 86_400, "{query}");
    }
    assert_eq!(read(Endpoint::Query, "query=up").unwrap().shape.range_seconds, 0);
}

#[test]
fn functions_that_only_the_database_knows_are_weighed_by_their_arguments() {
    let parsed = read(Endpoint::Query, "query=sum(new_rate(a[5m], b, \"x\")) / 2").unwrap();
    let texts: Vec<_> = parsed.shape.selectors.iter().map(|selector| &*selector.text).collect();
    assert_eq!((texts, parsed.opaque, parsed.free), (vec!["a", "b"], false, false));
    assert!(parsed.shape.functions.contains(&"unknown function"));
    // Any other mistake stays.
    for query in ["new_rate(a[5m)", "new_rate(a) +", "sum(a) frobnicate (b)"] {
        assert!(read(Endpoint::Query, &format!("query={}", query.replace('+', "%2B"))).is_err(), "{query}");
    }
}

#[test]
fn durations_that_do_not_compute_are_malformed() {
    let error = read(Endpoint::Query, "query=rate(a[2m/range()])").unwrap_err();
    assert!(error.ends_with("parse error: division by zero"), "{error}");
}

#[test]
fn strings_may_hold_any_bytes() {
    let parsed = read(Endpoint::Query, "query=a{b=\"\\xff\\xc3\\xa9\"}").unwrap();
    assert_eq!(&*parsed.shape.selectors[0].text, "a{b=\"\\xffé\"}");
}

#[test]
fn a_dialects_subqueries_are_counted() {
    let cache = promql::Cache::new(16);
    let on_unparsable = OnUnparsable::EstimateFromText;
    let reading = QueryParser {
        now_ms: 1_000_000,
        dialect: TimeDialect::VictoriaMetrics,
        kind: Kind::VictoriaMetrics,
        on_unparsable,
        cache: &cache,
    };
    let query = "query=max_over_time(rate(a[5m])[1d:10s]) default 0";
    let parsed = reading.read(Endpoint::Query, &Params::parse(query, "").unwrap()).unwrap();
    assert_eq!(parsed.shape.selectors[0].evaluations, 8_640);
}

#[test]
fn mistakes_read_as_those_of_prometheus() {
    for (endpoint, query, want) in [
        (Endpoint::Query, "", "invalid parameter \"query\": it is missing"),
        (
            Endpoint::Query,
            "query=up&time=x",
            "invalid parameter \"time\": cannot parse \"x\" to a valid timestamp",
        ),
        (Endpoint::QueryRange, "query=up&end=1&step=1", "invalid parameter \"start\": it is missing"),
        (
            Endpoint::QueryRange,
            "query=up&start=2&end=1&step=1",
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        (Endpoint::Series, "", "no match[] parameter provided"),
        (
            Endpoint::Series,
            "match[]=rate(a[5m])",
            "invalid parameter \"match[]\": \"rate(a[5m])\" is not a series selector",
        ),
        (
            Endpoint::Query,
            "query=up&timeout=-1",
            "invalid parameter \"timeout\": it must be longer than nothing",
        ),
    ] {
        assert_eq!(read(endpoint, query).unwrap_err(), want);
    }
    let backwards = read(Endpoint::Series, "match[]=up&start=2000&end=1000").unwrap();
    assert_eq!(backwards.shape.selectors[0].window, TimeRange { start: 1_000_000, end: 2_000_000 });
    let zero = read(Endpoint::QueryRange, "query=up&start=0&end=1&step=0").unwrap_err();
    assert!(zero.contains("zero or negative query resolution"), "{zero}");
    assert!(read(Endpoint::Query, "query=up{").unwrap_err().starts_with("invalid parameter \"query\": 1:"));
}

#[test]
fn what_victoria_expands_and_looks_back_on_is_read() {
    let read = |query: &str| read_as(Endpoint::Query, query, TimeDialect::VictoriaMetrics);
    let parsed = read("query=WITH (x%3Drate(a[5m])) x%2Bx%2Bx").unwrap();
    assert_eq!((parsed.shape.selectors.len(), &*parsed.text), (3, "WITH (x=rate(a[5m])) x+x+x"));
    let doubling: Vec<String> = (1..25).map(|n| format!(", a{n}%3Da{}%2Ba{}", n - 1, n - 1)).collect();
    let doubling = doubling.concat();
    assert!(read(&format!("query=WITH (a0%3Dx{doubling}) a24")).is_err());
    let window = |query| read(query).unwrap().shape.selectors[0].window.len_ms();
    assert!(window("query=up&step=30d") >= 30 * 86_400_000 - 1);
    assert!(window("query=up") < 600_000);
}

/// `/series?match[]=churn` was priced by the series that exist now, and took 188 MiB.
#[test]
fn a_listing_without_a_start_looks_through_all_of_time() {
    for (dialect, start) in [(TimeDialect::Prometheus, 0), (TimeDialect::VictoriaMetrics, 700_000)] {
        let parsed = read_as(Endpoint::Series, "match[]=churn", dialect).unwrap();
        assert_eq!(parsed.shape.selectors[0].window.start, start, "{dialect:?}");
    }
}

/// Twenty selectors that one of them holds were counted one after the other for a minute, and then refused.
#[test]
fn a_listing_reads_the_widest_of_its_selectors() {
    let narrow: Vec<_> = (0..20).map(|n| format!("&match[]=wide{{job!=\"x{n}\"}}")).collect();
    let narrow = narrow.concat();
    let parsed =
        read(Endpoint::Series, &format!("match[]=wide{{job!=\"x1\"}}{narrow}&match[]=wide&match[]=other"))
            .unwrap();
    let texts: Vec<_> = parsed.shape.selectors.iter().map(|selector| &*selector.text).collect();
    assert_eq!(texts, ["wide", "other"]);
    let labels = read(Endpoint::Labels, "match[]={a=\"b\"}&match[]={a=\"c\"}").unwrap();
    assert_eq!(labels.shape.selectors.len(), 2);
}

#[test]
fn the_label_of_a_path_is_read() {
    for (path, label) in [
        ("/api/v1/label/job/values", "job"),
        ("/api/v1/label/a%2Eb/values", "a.b"),
        ("/api/v1/label/U__a_2e_b/values", ""),
    ] {
        assert_eq!(&*super::listing::label_of(path), label, "{path}");
    }
}

/// An escaped name was priced as nothing, and a quote in a comment hid what came behind it: VictoriaMetrics read both.
#[test]
fn victoriametrics_gets_the_text_that_was_priced() {
    let cache = promql::Cache::new(16);
    let read = |endpoint, name: &str, text: &str| {
        let (dialect, kind) = (TimeDialect::VictoriaMetrics, Kind::VictoriaMetrics);
        let on_unparsable = OnUnparsable::EstimateFromText;
        let reading = QueryParser { now_ms: 1_000_000, dialect, kind, on_unparsable, cache: &cache };
        let query = form_urlencoded::Serializer::new(String::new()).append_pair(name, text).finish();
        let read = reading.read(endpoint, &Params::parse(&query, "").unwrap())?;
        let selectors = read.shape.selectors.iter().map(|selector| selector.text.to_string()).collect();
        Ok::<(Vec<String>, Vec<String>), QueryError>((selectors, read.sent))
    };
    for (text, selectors, sent) in [
        ("sum(load_total)", vec!["load_total"], vec![]),
        (r"sum(load\_total)", vec!["load_total"], vec!["sum(load_total)"]),
        (r"sum(load\x5ftotal) default 0", vec!["load_total"], vec!["sum(load_total) default 0"]),
        ("sum(cpu.load)", vec![r#"{__name__="cpu.load"}"#], vec![]),
        (r"WITH (a\b = load_total) sum(ab)", vec!["load_total"], vec!["sum((load_total))"]),
        ("WITH (sum(q) = load_total) SUM(h)", vec!["load_total"], vec!["(load_total)"]),
        (
            "sum(h{job=\"x\" # \"\n} or load_total) default 0 #\"",
            vec![r#"h{job="x"}"#, "load_total"],
            vec!["sum(h{job=\"x\"  \n} or load_total) default 0  "],
        ),
    ] {
        let read = read(Endpoint::Query, "query", text).unwrap();
        let selectors: Vec<String> = selectors.into_iter().map(str::to_owned).collect();
        assert_eq!(read, (selectors, sent.into_iter().map(str::to_owned).collect()), "{text}");
    }
    let (_, sent) = read(Endpoint::Series, "match[]", r"load\_total").unwrap();
    assert_eq!(sent, ["load_total"]);
    for text in [r#"count(h_\"b or load_total) default 0 #""#, "load_total[1M]", "\"a\" + (b)"] {
        assert!(read(Endpoint::Query, "query", text).is_err(), "{text}");
    }
}

/// A function that Weir does not know left the query without times: rules on its step did not match.
#[test]
fn a_query_with_an_unknown_function_has_times() {
    let parsed = read(Endpoint::QueryRange, "query=of_tomorrow(up)&start=0&end=600&step=60").unwrap();
    assert_eq!(parsed.times, Some(EvalTimes { start: 0, end: 600_000, step: 60_000 }));
    assert_eq!(parsed.lookback_ms, DEFAULT_LOOKBACK_MS);
}

/// `SUM BY (job) (RATE(up[5m]))` had another fingerprint, and passed rules by it.
#[test]
fn functions_of_metricsql_have_no_case() {
    let fingerprint =
        |query: &str| read_as(Endpoint::Query, query, TimeDialect::VictoriaMetrics).unwrap().fingerprint;
    assert_eq!(
        fingerprint("query=SUM BY (job) (RATE(up[5m]))"),
        fingerprint("query=sum by (job) (rate(up[5m]))")
    );
}
