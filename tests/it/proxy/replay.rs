//! The verdict of a replay is that of a live run under the same configuration, query by query.

use std::path::Path;

use serde_json::json;
use weir::{
    journal::{Journal, Reader, Record, Settings, TextKept},
    proxy::replay::{Replay, Verdict},
    top::Top,
};

use crate::support::{
    fake_upstream::{Act, FakeUpstream, Seen},
    weir::{Weir, settings},
};

/// Metrics are called `t50` or `p50`, by their number of series: the table doubles that of `t…` and does not know `p…`.
const SIZES: [u64; 6] = [5, 50, 400, 900, 5_000, 30_000];

fn database(seen: &Seen) -> Act {
    if seen.path().ends_with("/status/tsdb") {
        let names = SIZES.map(|n| json!({"name": format!("t{n}"), "value": n * 2}));
        return Act::json(
            &json!({"status": "success", "data": {
                "headStats": {"numSeries": 100_000, "minTime": -1_000_000_000_000_i64},
                "seriesCountByMetricName": names,
                "seriesCountByLabelValuePair": [],
            }})
            .to_string(),
        );
    }
    let text = format!("{}{}", seen.target, String::from_utf8_lossy(&seen.body));
    let series = text.split(['t', 'p']).filter_map(|word| {
        let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().filter(|n| SIZES.contains(n))
    });
    let series: u64 = series.max().unwrap_or(1);
    if seen.path().ends_with("/api/v1/series") {
        let all = vec![r#"{"__name__":"a"}"#; series as usize].join(",");
        return Act::json(&format!(r#"{{"status":"success","data":[{all}]}}"#));
    }
    let query = seen.params("query");
    let is_count = query.iter().any(|query| query.starts_with("count("));
    let value = if is_count { series } else { 1 };
    if seen.path().ends_with("query_range") {
        let start = seen.params("start").first().cloned().unwrap_or_default();
        return Act::json(&format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{}},"values":[[{start},"{value}"]]}}]}}}}"#
        ));
    }
    Act::json(&format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{value}"]}}]}}}}"#
    ))
}

/// A request, and its headers.
fn request(random: &mut fastrand::Rng) -> (String, [(&'static str, &'static str); 2]) {
    let size = SIZES[random.usize(..SIZES.len())];
    let metric = format!("{}{size}", random.choice(["t", "p"]).unwrap());
    let shapes =
        ["{}", "sum({})", "rate({}[5m])", "sum by (job) (rate({}[1h]))", "{} / {}", "topk(3, {})", "1+1"];
    let query = random.choice(shapes).unwrap().replace("{}", &metric);
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let hours = random.choice([1, 6, 48, 200]).unwrap();
    let end = 1_700_000_000;
    let start = end - hours * 3_600;
    let step = random.choice([15, 60, 300]).unwrap();
    let target = match random.u8(..4) {
        0 => format!("query?query={query}&time={end}"),
        1 => format!("series?match[]={metric}&start={start}&end={end}"),
        _ => format!("query_range?query={query}&start={start}&end={end}&step={step}"),
    };
    let tenant = random.choice(["a", "b", "strict"]).unwrap();
    let alert = random.choice(["true", "false"]).unwrap();
    (format!("/api/v1/{target}"), [("X-Scope-OrgID", tenant), ("FromAlert", alert)])
}

/// Sends the requests one after the other, and gives the records that they leave.
async fn run(yaml: &str, folder: &Path) -> Vec<Record> {
    let settings = Settings { folder: Some(folder.to_owned()), size: 64 << 20, text: TextKept::Full };
    let (journal, writer) = Journal::start(settings, Top::open(None, 0)).unwrap();
    let weir = Weir::start(yaml).await;
    weir.proxy.journal_to(journal);
    weir.proxy.warm().await;
    let mut random = fastrand::Rng::with_seed(41);
    for _ in 0..150 {
        let (target, headers) = request(&mut random);
        weir.get_as(&target, &headers).await;
    }
    weir.stop().await;
    drop(writer);
    Reader::open(folder).unwrap().map(Result::unwrap).collect()
}

/// The live verdict on a query, and that of a replay; `None` where that is unknown.
fn verdicts(record: &Record, replay: &mut Replay) -> (String, Option<String>) {
    let live = record.limit.known().unwrap_or(&record.verdict);
    let live = if live == "free" { "admitted" } else { live };
    let replayed = match replay.replay(record).verdict {
        Verdict::Admitted => Some("admitted".to_owned()),
        Verdict::Refused(refusal) => Some(refusal.id().to_owned()),
        Verdict::Unknown(_) => None,
    };
    (live.to_owned(), replayed)
}

#[tokio::test]
async fn a_replay_agrees_with_a_live_run_under_the_same_configuration() {
    let upstream = FakeUpstream::start(database).await;
    let backend = |more: &str| format!("backends: [{{name: main, urls: [\"{}\"]{more}}}]\n", upstream.url());
    let generous = backend("");
    let strict = backend(", budget: {memory: 256MiB}, scrape_interval: 15s")
        + "
limits:
  default: {per_query: {series: 4_000, samples: 20M, range: 100h, steps: 6_000}, modes: {steps: shadow}}
  tenants: {strict: {per_query: {series: 600, memory: 20MiB, listing_range: 24h}}}
classes:
  - {name: rules, match: {header: {FromAlert: \"true\"}}, per_query: {series: 450}}
";
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [before, live] = [run(&generous, folders[0].path()).await, run(&strict, folders[1].path()).await];
    assert_eq!((before.len(), live.len()), (150, 150));

    // Each under its own configuration: nothing that was counted is unknown.
    for (yaml, records) in [(&generous, &before), (&strict, &live)] {
        let mut replay = Replay::new(settings(yaml));
        for record in records {
            let (said, replayed) = verdicts(record, &mut replay);
            // Of an answer that was stopped before its first byte nobody recorded the length.
            let is_uncounted = replayed.is_none() && record.limit.known().is_some();
            assert!(
                is_uncounted || replayed.as_deref() == Some(&*said),
                "{replayed:?}, not {said}: {record:#?}"
            );
        }
    }
    // Queries that ran under the one, judged by the other: as live when that was in force.
    let mut replay = Replay::new(settings(&strict));
    let mut counts = [0; 3];
    for (record, live) in before.iter().zip(&live) {
        assert_eq!((&record.query, &record.times, &record.tenant), (&live.query, &live.times, &live.tenant));
        let (said, _) = verdicts(live, &mut replay);
        let (_, replayed) = verdicts(record, &mut replay);
        match replayed {
            None => counts[2] += 1,
            // Which of several limits refuses may depend on where counting stopped.
            Some(replayed) => {
                let [said, replayed] = [said, replayed].map(|verdict| verdict != "admitted");
                assert_eq!(replayed, said, "{record:#?}\n{live:#?}");
                counts[usize::from(said)] += 1;
            }
        }
    }
    let [admitted, refused, unknown] = counts;
    assert!(admitted > 40 && refused > 30 && unknown < 50, "{counts:?}");
}

#[tokio::test]
async fn a_replay_knows_rates_rules_and_lanes_as_a_live_run_does() {
    let upstream = FakeUpstream::start(database).await;
    // Rates so slow that nothing of them comes back while the test runs.
    let yaml = format!(
        "backends: [{{name: main, urls: [\"{}\"]}}]
limits: {{default: {{rate: {{queries: 40/h, samples: 40M/h}}, soft: {{series: 300}}, modes: {{rate_queries: MODE}}}}}}
rules:
  - {{name: no-topk, match: {{regex: topk}}, reason: sorts everything}}
  - {{name: watch, match: {{regex: t5, endpoint: series}}, action: shadow, reason: to see who asks}}
  - {{name: shorter, match: {{endpoint: query_range, range: {{longer_than: 100h}}}}, action: clamp,
     clamp: {{range: 24h, step: 1m}}, reason: nobody looks further back}}
  - {{name: aside, match: {{metric: p50, endpoint: query_range}}, action: slow, reason: less urgent}}
",
        upstream.url()
    );
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for mode in ["enforce", "shadow"] {
        let (folder, yaml) = (tempfile::tempdir().unwrap(), yaml.replace("MODE", mode));
        let records = run(&yaml, folder.path()).await;
        let mut replay = Replay::new(settings(&yaml));
        for record in &records {
            let live = record.limit.known().unwrap_or(&record.verdict);
            let replayed = replay.replay(record);
            let (said, rule) = match &replayed.verdict {
                Verdict::Admitted if live == "free" => ("free", &replayed.rule),
                Verdict::Admitted => ("admitted", &replayed.rule),
                Verdict::Refused(refusal) => (refusal.id(), &replayed.rule),
                Verdict::Unknown(_) => ("unknown", &None),
            };
            assert_eq!(said, live, "{replayed:?}, of {record:#?}");
            if said != "weir-rate-queries" {
                let shadowed: Vec<_> = replayed.shadowed.iter().map(weir::limit::Refusal::id).collect();
                assert_eq!(shadowed.join(","), *record.shadowed, "{record:#?}");
            }
            *seen.entry(said.to_owned()).or_default() += 1;
            let marks = [(replayed.slow, "slow"), (replayed.clamped, "clamped")];
            for (_, mark) in marks.into_iter().filter(|(is, _)| *is) {
                *seen.entry(mark.to_owned()).or_default() += 1;
            }
            let reason = rule.as_ref().map(|rule| &*rule.spec.reason);
            assert_eq!(said == "weir-blocked", reason == Some("sorts everything"), "{record:#?}");
            *seen.entry(record.shadowed.to_string()).or_default() += 1;
        }
    }
    for what in [
        "admitted",
        "free",
        "weir-rate-queries",
        "weir-rate-samples",
        "weir-blocked",
        "slow",
        "clamped",
        "weir-rate-queries,weir-blocked",
    ] {
        assert!(seen.contains_key(what), "{what}: {seen:?}");
    }
    // Without the rule, the query that it cut is priced by its own times.
    let long = |of: &Record| of.times.is_some_and(|times| times.end - times.start > 100 * 3_600_000);
    let folder = tempfile::tempdir().unwrap();
    let cut = run(&yaml.replace("MODE", "off"), folder.path()).await;
    let mut free = Replay::new(settings("backends: [{name: main, urls: [\"http://127.0.0.1:1\"]}]"));
    let steps = |record: &Record, cost: weir::base::QueryCost| cost.steps == record.times.unwrap().steps();
    let costs = cut.iter().filter(|record| &*record.endpoint == "query_range" && long(record));
    let costs: Vec<_> = costs.filter_map(|record| Some(steps(record, free.replay(record).cost?))).collect();
    assert!(costs.len() > 5 && costs.iter().all(|is_own| *is_own), "{costs:?}");
}

#[tokio::test]
async fn the_journal_holds_who_asked_and_what_became_of_it() {
    let upstream = FakeUpstream::start(database).await;
    let folder = tempfile::tempdir().unwrap();
    let kept = Settings { folder: Some(folder.path().to_owned()), size: 1 << 20, text: TextKept::Full };
    let (journal, writer) = Journal::start(kept, Top::open(None, 0)).unwrap();
    let weir = Weir::before(&upstream.url(), "prometheus").await;
    weir.proxy.journal_to(journal);
    weir.proxy.warm().await;
    let headers =
        [("X-Dashboard-Uid", "d1"), ("X-Panel-Id", "7"), ("X-Grafana-User", "ann"), ("X-Scope-OrgID", "a")];
    weir.get_as("/api/v1/query?query=sum(t5)&time=100", &headers).await;
    weir.get_as("/api/v1/query?query=t5%7B&time=100", &headers).await;
    weir.get_as("/api/v1/query_cost?query=t5&time=100", &headers).await;
    weir.get_as("/api/v1/status/buildinfo", &headers).await;
    let long = format!("sum(t5{{a!=\"{}\"}})", "x".repeat(20_000));
    weir.post_as("/api/v1/query", &format!("query={long}&time=100"), &headers).await;
    let text = weir.metrics();
    assert!(text.contains("weir_journal_records_total{result=\"dropped\"} 0"), "{text}");
    weir.stop().await;
    drop(writer);
    let records: Vec<Record> = Reader::open(folder.path()).unwrap().map(Result::unwrap).collect();
    let [good, malformed, long] = &records[..] else { panic!("{records:#?}") };
    assert_eq!((&*good.tenant, &*good.dashboard, &*good.panel, &*good.user), ("a", "d1", "7", "ann"));
    assert_eq!(
        (&*good.verdict, &*good.outcome, good.status, good.ran()),
        ("admitted", "complete", Some(200), true)
    );
    let priced = good.priced.as_ref().unwrap();
    assert_eq!((priced.cost.series.value, priced.counts.len(), &*good.query), (10, 1, "sum(t5)"));
    assert_eq!(good.actual.answer_series, Some(1));
    assert_eq!((&*malformed.verdict, malformed.status, &malformed.priced), ("bad_data", Some(400), &None));
    assert_eq!((long.query.len(), long.query_is_cut), (weir::journal::TEXT_BYTES_MAX, true));
}
