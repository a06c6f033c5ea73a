//! Programs that ask on behalf of a language model: lower ceilings, and refusals that say which query passes.

use serde_json::Value;

use crate::{
    proxy::forward::{VECTOR, before},
    support::{
        fake_upstream::{Act, FakeUpstream},
        weir::{Answer, Weir},
    },
};

const AGENT: (&str, &str) = ("User-Agent", "mcp-grafana/0.7");
/// Strangers: no header of theirs is believed.
const STRANGERS: &str = "server: {trusted_proxies: [192.0.2.0/24]}\nlimits: {tenants: {anonymous: {per_query: {selectors: 2}}}}\n";

async fn weir(more: &str) -> (FakeUpstream, Weir) {
    before(|_| Act::json(VECTOR), more).await
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The parameters of a fix, for the same endpoint.
fn target(fix: &Value) -> String {
    let text = |name: &str| fix[name].as_str();
    let query = encoded(text("query").expect("a query"));
    match (text("start"), text("end"), text("step")) {
        (Some(start), Some(end), Some(step)) => {
            format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}")
        }
        _ => format!("/api/v1/query?query={query}"),
    }
}

async fn refused(weir: &Weir, target: &str, limit: &str) -> Answer {
    let answer = weir.get_as(target, &[AGENT]).await;
    assert_eq!(answer.status, 422, "{target}: {}", answer.body);
    assert!(answer.error().contains(limit), "{target}: {}", answer.body);
    answer
}

fn range(query: &str, hours: u64, step: u64) -> String {
    let end = 1_700_000_000;
    format!(
        "/api/v1/query_range?query={}&start={}&end={end}&step={step}",
        encoded(query),
        end - hours * 3_600
    )
}

#[tokio::test]
async fn a_fix_passes_and_is_the_least_change() {
    let (_upstream, weir) = weir(STRANGERS).await;
    for (target_, limit, query, times) in [
        (range("small", 100, 15), "weir-max-steps", "small", Some((100, "1800"))),
        (
            range("rate(small[5m])", 24 * 30, 3_600),
            "weir-max-range",
            "rate(small[5m])",
            Some((24 * 7, "3600")),
        ),
        (
            range("max_over_time(small[30d])", 1, 60),
            "weir-max-range",
            "max_over_time(small[7d])",
            Some((1, "60")),
        ),
        (
            format!("/api/v1/query?query={}", encoded("sum(increase(small[10d]))")),
            "weir-max-range",
            "sum(increase(small[7d]))",
            None,
        ),
    ] {
        let answer = refused(&weir, &target_, limit).await;
        let fix = &answer.json()["fix"];
        assert_eq!(fix["query"], query, "{}", answer.body);
        let got = fix["start"].as_str().map(|start| {
            let [start, end] = [start, fix["end"].as_str().unwrap()].map(|time| time.parse::<u64>().unwrap());
            ((end - start) / 3_600, fix["step"].as_str().unwrap())
        });
        assert_eq!(got, times, "{}", answer.body);
        // Clients that show nothing but the message have it, too.
        assert!(answer.error().contains(&format!("This passes: query={query}")), "{}", answer.body);
        let passed = weir.get_as(&target(fix), &[AGENT]).await;
        assert_eq!(passed.status, 200, "{fix}: {}", passed.body);
    }
}

#[tokio::test]
async fn points_and_memory_are_saved_by_a_longer_step_or_one_series() {
    let limits = "classes: [{name: robots, match: {any_header: {User-Agent: \"*mcp*\"}}, fix: true, ceilings: {points: 1_000}}]";
    let (_upstream, weir) = weir(limits).await;
    // 2 series, as the database counts, at 1,441 instants, and at 145.
    let answer = refused(&weir, &range("rate(small[5m])", 24, 60), "weir-max-points").await;
    let fix = &answer.json()["fix"];
    assert_eq!((&fix["query"], &fix["step"]), (&"rate(small[5m])".into(), &"600".into()));
    assert_eq!(weir.get_as(&target(fix), &[AGENT]).await.status, 200);
}

#[tokio::test]
async fn who_is_no_agent_meets_no_ceiling_and_gets_no_fix() {
    let (_upstream, weir) = weir(STRANGERS).await;
    let many = range("small", 100, 60);
    for headers in [&[("User-Agent", "Grafana/12")][..], &[]] {
        assert_eq!(weir.get_as(&many, headers).await.status, 200);
    }
    for headers in [[AGENT], [("Weir-Agent", "mine")]] {
        let answer = weir.get_as(&many, &headers).await;
        assert!(answer.error().contains("class `agents` is 1,000"), "{}", answer.body);
    }
    let answer = weir.get(&range("small", 24 * 60, 3_600)).await;
    assert!(answer.status == 422 && answer.json()["fix"].is_null(), "{}", answer.body);
    // Nobody gains by saying so: the tenant's own limit is lower.
    refused(&weir, "/api/v1/query?query=small%2Bsmall%2Bsmall", "weir-max-selectors").await;
    let metrics = weir.metrics();
    assert!(metrics.contains("weir_refusals_total"), "{metrics}");
}

#[tokio::test]
async fn what_cannot_be_mended_has_no_fix_and_who_asks_for_the_price_gets_it() {
    let (upstream, weir) = weir("").await;
    let before = upstream.seen().len();
    let answer = refused(&weir, "/api/v1/query?query=big", "weir-max-series").await;
    assert!(answer.json()["fix"].is_null(), "as many series are read in any form: {}", answer.body);
    assert!(upstream.seen().len() - before < 20, "the search asks little of the database");
    let costly = range("small", 24 * 60, 60).replace("query_range", "query_range_cost");
    let verdict = weir.get(&costly).await.json()["data"]["verdict"].take();
    assert_eq!(verdict["admitted"], false, "{verdict}");
    assert_eq!(weir.get(&target(&verdict["fix"])).await.status, 200, "{verdict}");
}

#[tokio::test]
async fn a_fix_is_not_what_a_rule_refuses() {
    let rules = "rules: [{name: none, match: {step: {longer_than: 5m}}, reason: too coarse}]";
    let (_upstream, weir) = weir(rules).await;
    let answer = refused(&weir, &range("small", 100, 15), "weir-max-steps").await;
    let fix = &answer.json()["fix"];
    assert!(fix["step"].as_str().is_none_or(|step| step.parse::<u64>().unwrap() <= 300), "{}", answer.body);
    assert_eq!(weir.get_as(&target(fix), &[AGENT]).await.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn the_guide_is_short() {
    let (_upstream, weir) = weir("").await;
    let guide = weir.get("/llms.txt").await;
    assert_eq!(
        (guide.status.as_u16(), &guide.headers["content-type"]),
        (200, &"text/plain; charset=utf-8".parse().unwrap())
    );
    assert!(guide.body.lines().count() <= 40 && guide.body.starts_with("# Weir\n"), "{}", guide.body);
}

#[tokio::test]
async fn a_text_that_is_too_large_by_itself_is_tidied_covered_or_taken_in_part() {
    let range = "start=1700000000&end=1700003600&step=60";
    for (limit, id, query, fix, is_part) in [
        (
            "text: 40B",
            "weir-max-text",
            "sum(small) # the comment alone is longer than that",
            "sum(small)",
            false,
        ),
        (
            "text: 40B",
            "weir-max-text",
            "sum(rate(small[5m])) or count(small{job!=\"api\"})",
            "count(small{job!=\"api\"})",
            true,
        ),
        ("nodes: 2", "weir-max-nodes", "sum(small) or min(small{a!=\"1\"})", "min(small{a!=\"1\"})", true),
        ("depth: 2", "weir-max-depth", "sum((((small))))", "sum(small)", false),
        ("matchers: 2", "weir-max-matchers", "small{a=\"1\",a=\"1\",b=~\".*\"}", "small{a=\"1\"}", false),
        (
            "regex: 10B",
            "weir-max-regex",
            "small{pod=~\"web-1|web-2|web-3\"}",
            "small{pod=~\"web-.*\"}",
            false,
        ),
        ("regex: 10B", "weir-max-regex", "small{pod=~\"eleven|letters\"} or small", "small", true),
        ("selectors: 2", "weir-max-selectors", "small + small - small", "small + small", true),
    ] {
        let limits = format!("limits: {{default: {{per_query: {{{limit}}}}}}}");
        let (_upstream, weir) = weir(&limits).await;
        let refusal = format!("/api/v1/query_range?query={}&{range}", encoded(query));
        let answer = refused(&weir, &refusal, id).await;
        let found = &answer.json()["fix"];
        assert_eq!((&found["query"], found["part"] == true), (&fix.into(), is_part), "{}", answer.body);
        let said = if is_part { "This passes: a part of it, query=" } else { "This passes: query=" };
        assert!(answer.error().contains(said), "{}", answer.body);
        assert_eq!(weir.get_as(&target(found), &[AGENT]).await.status, 200, "{found}");
    }
    let (_upstream, weir) = weir("limits: {default: {per_query: {listing_range: 24h}}}").await;
    let listing = |start: &str| format!("/api/v1/series?match[]=small&start={start}&end=1700000000");
    let answer = refused(&weir, &listing("1690000000"), "weir-max-listing-range").await;
    let fix = &answer.json()["fix"];
    assert_eq!(*fix, serde_json::json!({"start": "1699913600", "end": "1700000000"}), "{}", answer.body);
    assert_eq!(weir.get_as(&listing(fix["start"].as_str().unwrap()), &[AGENT]).await.status, 200);
}
