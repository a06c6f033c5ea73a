//! Rules against single queries, soft limits and the slow lane, from the client's side.

use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::{
    fake_upstream::{Act, FakeUpstream, Seen},
    logs::Logs,
    weir::{Answer, Weir},
};

const EMPTY: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;

fn database(seen: &Seen) -> Act {
    let is_range = seen.path().ends_with("/query_range");
    if is_range { Act::json(EMPTY) } else { crate::proxy::forward::database(seen) }
}

async fn before(yaml: &str) -> (FakeUpstream, Weir) {
    let upstream = FakeUpstream::start(database).await;
    let yaml = format!("backends: [{{name: main, urls: [\"{}\"]}}]\n{yaml}", upstream.url());
    let weir = Weir::start_here(&yaml).await;
    weir.proxy.warm().await;
    (upstream, weir)
}

async fn rules(weir: &Weir, method: Method, url: String, rule: &Value) -> Answer {
    let body = if rule.is_null() { String::new() } else { rule.to_string() };
    weir.ask(Request::builder().method(method).uri(url).body(Full::from(body)).unwrap()).await
}

fn asked(upstream: &FakeUpstream, path: &str) -> Vec<Seen> {
    upstream.seen().into_iter().filter(|seen| seen.path().ends_with(path)).collect()
}

#[test]
fn a_rule_is_set_met_shown_and_taken_away() {
    let logs = Logs::catch();
    // The rules are written to a disk, and so on record, on a thread that may block.
    logs.runtime().block_on(set_met_shown_and_taken_away(&logs));
}

async fn set_met_shown_and_taken_away(logs: &Logs) {
    let (upstream, weir) = before("").await;
    let url = format!("http://{}/api/v1/admin/rules", weir.admin().await);
    let rule = json!({
        "name": "no-small", "match": {"metric": "small"}, "reason": "drowns the database", "owner": "ann", "expires": "2h"
    });
    let set = rules(&weir, Method::POST, format!("{url}?by=ann"), &rule).await;
    assert_eq!(set.status, 200, "{}", set.body);
    let expires = set.json()["data"]["expires"].as_str().unwrap().to_owned();
    assert!(expires.ends_with('Z'), "{expires}");
    for target in [
        "/api/v1/query?query=sum(small)",
        "/api/v1/query?query=%7B__name__%3D~%22small%7Cx%22%7D",
        "/api/v1/query_range?query=max_over_time(rate(small[1m])[5m:1m])&start=1&end=60&step=1",
        "/api/v1/series?match[]=small",
        "/api/v1/label/job/values?match[]=small",
    ] {
        let answer = weir.get(target).await;
        assert_eq!(answer.status, 422, "{target}: {}", answer.body);
        assert_eq!(answer.headers["weir-limit"], "weir-blocked; rule=no-small");
        let want = format!(
            "blocked by rule `no-small` (drowns the database; owner: ann; expires at {expires}) (weir-blocked)"
        );
        assert_eq!(answer.error(), want);
    }
    assert_eq!(weir.get("/api/v1/query?query=other").await.status, 200);
    let cost = weir.get("/api/v1/query_cost?query=small").await.json();
    assert_eq!(cost["data"]["verdict"]["limit"], "weir-blocked", "{cost}");
    let reads_it =
        |seen: &Seen| seen.target.contains("small") || String::from_utf8_lossy(&seen.body).contains("small");
    assert!(
        !upstream.seen().iter().any(reads_it),
        "neither a refused query nor a probe for it reaches the database"
    );
    let listed = rules(&weir, Method::GET, url.clone(), &Value::Null).await.json();
    let shown = &listed["data"]["rules"][0];
    assert_eq!(
        (&shown["name"], &shown["hits"], &shown["source"]),
        (&"no-small".into(), &5.into(), &"api".into())
    );
    assert!(weir.metrics().contains(r#"weir_rule_hits_total{action="refuse",rule="no-small"} 5"#));
    let removed = rules(&weir, Method::DELETE, format!("{url}/no-small?by=bob"), &Value::Null).await;
    assert_eq!(removed.status, 200, "{}", removed.body);
    assert_eq!(rules(&weir, Method::DELETE, format!("{url}/no-small"), &Value::Null).await.status, 404);
    assert_eq!(weir.get("/api/v1/query?query=sum(small)").await.status, 200);
    let acts = logs.of("weir::audit");
    let acts: Vec<_> =
        acts.iter().map(|line| (line["action"].as_str().unwrap(), line["by"].as_str().unwrap())).collect();
    assert_eq!(acts, [("add", "ann"), ("remove", "bob")]);
}

#[tokio::test]
async fn a_rule_that_cannot_be_meant_is_refused_with_its_key() {
    let (_upstream, weir) =
        before("rules: [{name: file, match: {metric: m}, action: shadow, reason: x}]").await;
    let url = format!("http://{}/api/v1/admin/rules", weir.admin().await);
    let with = |change: Value| {
        let mut rule = json!({"name": "r", "match": {"metric": "m"}, "reason": "x", "expires": "1h"});
        rule.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        rule
    };
    for (rule, part) in [
        (with(json!({"expires": null})), "expires"),
        (with(json!({"match": {}})), "match"),
        (with(json!({"match": {"metrik": "m"}})), "metrik"),
        (with(json!({"name": "file"})), "configuration"),
        (json!([]), "rule"),
    ] {
        let answer = rules(&weir, Method::POST, url.clone(), &rule).await;
        assert_eq!(answer.status, 400, "{rule}");
        assert!(answer.error().contains(part), "{}", answer.error());
    }
    let removed = rules(&weir, Method::DELETE, format!("{url}/file"), &Value::Null).await;
    assert_eq!(removed.status, 404);
}

#[tokio::test]
async fn what_is_clamped_runs_with_a_warning() {
    let (upstream, weir) = before(
        "rules:\n\
         - {name: month, match: {metric: small}, action: clamp, clamp: {range: 1h, step: 1m}, reason: too long, owner: ann}\n\
         - {name: names, match: {endpoint: label_values}, action: clamp, clamp: {limit: 5}, reason: too many}",
    )
    .await;
    let target = "/api/v1/query_range?query=small&start=1700000000&end=1700086400&step=15";
    let form = "query=small&start=1700000000&end=1700086400&step=15";
    for answer in [weir.get(target).await, weir.post("/api/v1/query_range", form).await] {
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.starts_with(r#"{"status":"success","data""#), "{}", answer.body);
        assert_eq!(
            answer.json()["warnings"],
            json!([
                "the time was cut from 1d to its last 1h, the step was raised from 15s to 1m by rule `month` \
                    (too long; owner: ann; expires never)"
            ])
        );
    }
    let seen = asked(&upstream, "/query_range");
    assert_eq!(
        (seen[0].params("start"), seen[0].params("step")),
        (vec!["1700082800.000".to_owned()], vec!["60.000".to_owned()])
    );
    assert!(String::from_utf8_lossy(&seen[1].body).contains("start=1700082800"));
    assert!(seen.iter().all(|seen| seen.header("accept-encoding") == Some("identity")));
    let within = weir.get("/api/v1/query_range?query=small&start=1700000000&end=1700003600&step=60").await;
    assert_eq!(within.body, EMPTY, "what is within is left as it is");
    let reach = weir.get("/api/v1/query?query=max_over_time(small[1d])").await;
    assert_eq!(reach.status, 422);
    assert!(reach.error().starts_with("one evaluation of it reaches further back"), "{}", reach.error());
    weir.get("/api/v1/label/job/values?limit=50").await;
    weir.get("/api/v1/label/job/values?limit=3").await;
    let limits: Vec<_> =
        asked(&upstream, "/label/job/values").iter().map(|seen| seen.params("limit")).collect();
    assert_eq!(limits, [["5"], ["3"]]);
}

#[tokio::test]
async fn shadow_and_slow_rules_let_a_query_run() {
    let logs = Logs::catch();
    let (_upstream, weir) = before(
        "rules:\n\
         - {name: watched, match: {query: \"sum(small)\"}, action: shadow, reason: is it used}\n\
         - {name: slow, match: {metric: small}, action: slow, reason: rather slow, owner: ann}",
    )
    .await;
    let answer = weir.get("/api/v1/query?query=sum(%20small%20)").await;
    assert!(answer.status == 200 && answer.json()["warnings"].is_null(), "{}", answer.body);
    assert!(weir.metrics().contains(r#"limit="weir-blocked",mode="shadow""#));
    assert_eq!(logs.of("weir::shadow")[0]["limit"], "weir-blocked");
    let answer = weir.get("/api/v1/query?query=small").await;
    assert_eq!(answer.status, 200);
    let warning = answer.json()["warnings"][0].as_str().unwrap().to_owned();
    assert_eq!(
        warning,
        "this query runs in the slow lane by rule `slow` (rather slow; owner: ann; expires never)"
    );
}

/// A dashboard that is blocked and opened all the time costs its tenant's others nothing, and its client reads why.
#[tokio::test]
async fn refusals_by_a_rule_use_up_no_rate() {
    let (_upstream, weir) = before(
        "rules: [{name: no-small, match: {metric: small}, action: refuse, reason: is it used}]\n\
         limits: {default: {rate: {queries: 10/h}}}",
    )
    .await;
    for _ in 0..8 {
        assert_eq!(weir.get("/api/v1/query?query=sum(small)").await.status, 422);
    }
    for _ in 0..10 {
        assert_eq!(weir.get("/api/v1/query?query=other").await.status, 200);
    }
    let answer = weir.get("/api/v1/query?query=other").await;
    assert_eq!(answer.status, 429, "{}", answer.body);
}

#[tokio::test]
async fn over_a_soft_limit_an_answer_carries_a_warning_and_else_it_stays_as_it_is() {
    let (_upstream, weir) =
        before("limits: {default: {soft: {series: 1}, per_query: {series: 50_000}}}").await;
    // Before the query, whose answer shows that it touches no more than 1; its count is remembered.
    let cost = weir.get("/api/v1/query_cost?query=small").await.json();
    assert_eq!(cost["data"]["verdict"]["slow"], true, "{cost}");
    let answer = weir.get("/api/v1/query?query=small").await;
    assert_eq!(answer.status, 200);
    let warning = answer.json()["warnings"][0].as_str().unwrap().to_owned();
    let want = "this query needs 2 series (learned), over the soft limit of tenant `anonymous`, 1: it runs in the slow lane. \
                Over 50,000 it will be refused. (weir-max-series) To stay below it: ";
    assert!(warning.starts_with(want), "{warning}");
    assert!(!answer.headers.contains_key("content-length"));
    assert!(weir.metrics().contains(
        r#"weir_soft_limit_queries_total{limit="weir-max-series",mode="enforce",tenant="anonymous"} 1"#
    ));
    let (_other, plain) = before("").await;
    let direct = plain.get("/api/v1/query?query=small").await;
    assert!(!direct.body.contains("warnings") && direct.headers.contains_key("content-length"));
    weir.until_idle().await;
}

/// Debited by its estimate, settled by the samples that were read; then the slow lane, 429, and the sight of it everywhere.
#[tokio::test]
async fn a_quota_of_samples_is_settled_shown_and_ends_in_429() {
    // Its samples as they are, more than it was expected to read.
    let samples: Vec<_> = (0..4_999).map(|second| format!("[{second},\"1\"]")).collect();
    let raw = format!(
        r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{}},"values":[{}]}}]}}}}"#,
        samples.join(",")
    );
    let answer = move |seen: &Seen| {
        let is_raw = seen.params("query").iter().any(|query| query == "small[5m]");
        if is_raw { Act::json(&raw) } else { database(seen) }
    };
    let (_upstream, weir) =
        crate::proxy::forward::before(answer, "limits: {default: {quota: {samples: 10_000/d}}}").await;
    let admin = format!("http://{}", weir.admin().await);
    let show = async |path: &str| {
        weir.ask(Request::get(format!("{admin}{path}")).body(Full::default()).unwrap()).await
    };
    let used = || {
        let metrics = weir.metrics();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(r#"weir_quota_used{quota="samples",tenant="anonymous"} "#));
        line.map_or(0, |used| used.parse::<u64>().unwrap())
    };
    for (slow, want) in [(false, 4_999), (false, 9_998), (true, 14_997)] {
        let answer = weir.get("/api/v1/query?query=small[5m]").await;
        let warning = answer.json()["warnings"][0].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (answer.status.as_u16(), warning.contains("weir-quota-samples")),
            (200, slow),
            "{warning}"
        );
        weir.until_idle().await;
        assert_eq!(used(), want, "as the answer has it, and not as it was estimated");
    }
    assert!(weir.metrics().contains(r#"weir_quota_limit{quota="samples",tenant="anonymous"} 10000"#));
    let refused = weir.get("/api/v1/query?query=small[5m]").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["weir-error"]),
        (429, &"weir-quota-samples".parse().unwrap())
    );
    let (message, after) =
        (refused.error(), refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap());
    assert!(message.contains("tenant `anonymous` has used its quota of 10,000 samples"), "{message}");
    assert!((1..=86_400).contains(&after) && message.contains("(weir-quota-samples)"), "{message}");
    // More than all of it is no matter of time.
    let never = weir.get("/api/v1/query?query=sum_over_time(small[30d])").await;
    assert!(never.status == 422 && never.error().contains("more than the whole quota"), "{}", never.body);
    let status = show("/status.json").await.json();
    let quota = &status["quotas"][0];
    assert_eq!(
        (quota["used"].as_u64(), quota["of"].as_u64(), quota["left"].as_u64()),
        (Some(used()), Some(10_000), Some(0))
    );
    let page = show("/").await.body;
    assert!(
        page.contains("<h2>Quotas</h2>")
            && page.contains("tenant anonymous has used 14,997 of its quota of 10,000 samples"),
        "{page}"
    );
    let limits = show("/api/v1/admin/limits?tenant=anonymous").await.json();
    assert_eq!(limits["data"]["quotas_used"]["samples"].as_u64(), Some(used()));
}

#[tokio::test]
async fn over_a_quota_an_answer_carries_a_warning_and_then_queries_are_429_until_the_next_day() {
    let (_upstream, weir) = before("limits: {default: {quota: {queries: 10/d}}}").await;
    for _ in 0..10 {
        let answer = weir.get("/api/v1/query?query=small").await;
        assert!(answer.status == 200 && answer.json()["warnings"].is_null(), "{}", answer.body);
    }
    let slow = weir.get("/api/v1/query?query=small").await;
    let warning = slow.json()["warnings"][0].as_str().unwrap().to_owned();
    let want = "tenant `anonymous` has used 11 queries, over its quota of 10: its queries run in the slow lane. Over 11 they are \
                refused. (weir-quota-queries) To stay below it: ask less often";
    assert!(slow.status == 200 && warning.starts_with(want), "{warning}");
    let refused = weir.get("/api/v1/query?query=small").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["weir-error"]),
        (429, &"weir-quota-queries".parse().unwrap())
    );
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 86_400);
    assert!(
        refused.error().contains("tenant `anonymous` has used its quota of 10 queries"),
        "{}",
        refused.body
    );
    assert!(weir.metrics().contains(r#"weir_quota_used{quota="queries",tenant="anonymous"} 11"#));
    weir.until_idle().await;
}
