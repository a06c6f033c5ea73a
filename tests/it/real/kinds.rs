//! Each kind of database for real, whole and with everything that Weir does to it: answers, probes, limits, health,
//! tenants.
//!
//! Each test is skipped, by name, where its database is not there (`support/real/kinds.rs` says how it is found).

use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    real::prometheus::{QUERIES, SELECTORS},
    support::{
        real::{
            encode,
            kinds::{Running, Setup},
        },
        weir::{Answer, Weir},
    },
};

/// How often a database is asked again for another order of its rows, or another sum of the same values.
const OTHER_ORDERS: usize = 10;
/// Longest wait for a database that was started again.
const BACK: Duration = Duration::from_secs(90);

#[tokio::test]
async fn prometheus_of_debian() {
    tried(Setup::Prometheus, "prometheus_of_debian").await;
}

#[tokio::test]
async fn prometheus_3() {
    tried(Setup::Prometheus3, "prometheus_3").await;
}

#[tokio::test]
async fn victoria_metrics_of_debian() {
    tried(Setup::VictoriaMetrics, "victoria_metrics_of_debian").await;
}

#[tokio::test]
async fn victoria_metrics_head() {
    tried(Setup::VictoriaMetricsHead, "victoria_metrics_head").await;
}

#[tokio::test]
async fn thanos_over_sidecars() {
    tried(Setup::ThanosSidecar, "thanos_over_sidecars").await;
}

#[tokio::test]
async fn thanos_over_a_store_gateway() {
    tried(Setup::ThanosStore, "thanos_over_a_store_gateway").await;
}

#[tokio::test]
async fn cortex() {
    tried(Setup::Cortex, "cortex").await;
}

#[tokio::test]
async fn m3() {
    tried(Setup::M3, "m3").await;
}

#[tokio::test]
async fn the_storage_node() {
    tried(Setup::Node, "the_storage_node").await;
}

/// Every cell of the README's table but the incident, which `weir-bench incident` runs.
async fn tried(setup: Setup, test: &str) {
    let Some(mut database) = setup.start(test).await else { return };
    whole_answers_are_its_own(&database).await;
    merged_answers_are_those_of_the_whole(&database).await;
    probes_count_what_a_query_counts(&database).await;
    limits_say_whose_they_are(&database).await;
    tenants_are_named_by_weir(&database).await;
    is_down_while_it_is_down(&mut database).await;
}

async fn before(database: &Running, backend: &str, more: &str) -> Weir {
    let (kind, url) = (database.setup.kind(), &database.url);
    let weir = Weir::start(&format!(
        "backends: [{{name: main, kind: {kind}, urls: [\"{url}\"], scrape_interval: 30s, {backend}}}]\n{more}"
    ))
    .await;
    weir.proxy.warm().await;
    weir
}

const NO_RATE: &str = "limits: {default: {rate: {queries: unlimited}, per_query: {memory: unlimited}, \
                       in_flight: {memory: unlimited}}}";
const BUDGET: &str = "budget: {memory: 8GiB}";

/// The content of an answer, whatever the order of its rows and without the statistics of its own run.
fn said(status: u16, body: &[u8]) -> (u16, Value) {
    let mut json: Value = serde_json::from_slice(body).unwrap_or_default();
    if let Some(fields) = json.as_object_mut() {
        fields.retain(|name, _| matches!(name.as_str(), "status" | "data" | "error"));
    }
    if let Some(fields) = json["data"].as_object_mut() {
        fields.retain(|name, _| matches!(name.as_str(), "resultType" | "result"));
    }
    let rows = if json["data"].is_array() { &mut json["data"] } else { &mut json["data"]["result"] };
    if let Some(rows) = rows.as_array_mut() {
        rows.sort_by_key(Value::to_string);
    }
    (status, json)
}

async fn same(database: &Running, weir: &Weir, target: &str) -> Answer {
    let answer = weir.get(target).await;
    let through = said(answer.status.as_u16(), answer.body.as_bytes());
    let mut direct = (0, Value::Null);
    for _ in 0..OTHER_ORDERS {
        let (status, body) = database.ask(target).await;
        direct = said(status, &body);
        if direct == through {
            return answer;
        }
    }
    panic!("{:?} {target}\n direct  {direct:?}\n through {through:?}", database.setup);
}

async fn whole_answers_are_its_own(database: &Running) {
    let weir = before(database, BUDGET, NO_RATE).await;
    let end = database.end;
    for query in QUERIES {
        let query = encode(query);
        same(database, &weir, &format!("/api/v1/query?query={query}&time={end}")).await;
        let times = format!("start={}&end={end}&step=30", end - 900);
        same(database, &weir, &format!("/api/v1/query_range?query={query}&{times}")).await;
    }
    let times = format!("start={}&end={end}", end - 600);
    for target in [
        format!("/api/v1/labels?{times}"),
        format!("/api/v1/labels?match[]=level_0&{times}"),
        format!("/api/v1/label/job/values?{times}"),
        format!("/api/v1/label/__name__/values?{times}"),
        format!("/api/v1/series?match[]=level_0&match[]=latency_bucket&{times}"),
    ] {
        let answer = same(database, &weir, &target).await;
        assert_eq!(answer.status, 200, "{:?} {target}: {}", database.setup, answer.body);
    }
    weir.until_idle().await;
}

/// Thanos deduplicates by where a query starts: only with all replicas is a part the same as in the whole.
async fn merged_answers_are_those_of_the_whole(database: &Running) {
    let weir = before(database, "budget: {memory: 256MiB, split_above: 1%, unproven: 100%}", NO_RATE).await;
    let (end, all_replicas) =
        (database.end, if database.setup.kind() == "thanos" { "&dedup=false" } else { "" });
    let mut split = 0;
    for query in QUERIES {
        let times = format!("start={}&end={end}&step=5", end - 7_200);
        let target = format!("/api/v1/query_range?query={}&{times}{all_replicas}", encode(query));
        let answer = same(database, &weir, &target).await;
        let estimate = answer.headers.get("weir-estimate").and_then(|estimate| estimate.to_str().ok());
        split += usize::from(estimate.is_some_and(|estimate| estimate.contains("pieces=")));
    }
    println!("{:?}: {split} of {} queries were split", database.setup, QUERIES.len());
    // The memory of the others does not grow with the steps, or not enough for parts to hold less.
    let holds_steps = matches!(database.setup.kind(), "prometheus" | "thanos" | "cortex");
    assert!(split > 3 || !holds_steps, "{:?}: {split}", database.setup);
    weir.until_idle().await;
}

async fn probes_count_what_a_query_counts(database: &Running) {
    let in_doubt =
        "limits: {default: {modes: {samples: shadow}, per_query: {samples: 1}, rate: {queries: unlimited}}}";
    let weir = before(database, BUDGET, in_doubt).await;
    let (end, mut wrong) = (database.end, Vec::new());
    for selector in SELECTORS {
        let window = format!("{selector}[10m]");
        let query = encode(&format!("last_over_time({window})"));
        let cost = weir.get(&format!("/api/v1/query_cost?query={query}&time={end}")).await.json();
        let estimated = cost["data"]["estimate"]["seriesTouched"].as_u64();
        // The storage nodes of a database with replicas give all of them.
        let all = if database.setup.kind() == "thanos" { "&dedup=false" } else { "" };
        let count = encode(&format!("count(last_over_time({window}))"));
        let (status, body) = database.ask(&format!("/api/v1/query?query={count}&time={end}{all}")).await;
        assert_eq!(status, 200, "{:?} {selector}: {body:?}", database.setup);
        let counted =
            said(200, &body).1["data"]["result"][0]["value"][1].as_str().map_or(0, |n| n.parse().unwrap());
        if !is_true(database.setup, estimated.unwrap_or(u64::MAX), counted) {
            wrong.push(format!(
                "{selector}: {estimated:?} estimated, {counted} counted: {}",
                cost["data"]["selectors"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{:?}\n{}", database.setup, wrong.join("\n"));
}

/// Every kind counts exactly, but Thanos, whose replicas are counted once or each.
fn is_true(setup: Setup, estimated: u64, counted: u64) -> bool {
    match setup.kind() {
        "thanos" => estimated == counted || estimated * 2 == counted,
        _ => estimated == counted,
    }
}

/// A limit of Weir's has its id; the database's own arrives in its own words, in a shape that every client reads.
async fn limits_say_whose_they_are(database: &Running) {
    let (end, all) = (database.end, encode("count({job=~\".+\"})"));
    let target = format!("/api/v1/query?query={all}&time={end}");
    let weir = before(database, BUDGET, "limits: {default: {per_query: {series: 100}}}").await;
    let answer = weir.get(&target).await;
    assert_eq!(answer.status, 422, "{:?}: {}", database.setup, answer.body);
    assert_eq!(answer.headers["weir-error"], "weir-max-series", "{:?}", database.setup);

    let weir = before(database, BUDGET, "limits: {default: {mode: off}}").await;
    // Prometheus has no limit of series, but one of samples held.
    let times = format!("start={}&end={end}&step=1", end - 900);
    // Else Thanos answers with the series of the reachable stores, and a warning.
    let whole = if database.setup.kind() == "thanos" { "&partial_response=false" } else { "" };
    let target = format!("/api/v1/query_range?query={all}&{times}{whole}");
    let (status, direct) = database.ask(&target).await;
    assert!(status >= 400, "{:?} has no limit of its own: {direct:?}", database.setup);
    let answer = weir.get(&target).await;
    let (direct, json) = (serde_json::from_slice::<Value>(&direct).unwrap_or_default(), answer.json());
    assert_eq!(answer.status.as_u16(), status, "{:?}: {}", database.setup, answer.body);
    assert_eq!(json["status"], "error", "{:?}: {}", database.setup, answer.body);
    assert!(
        json["errorType"].as_str().is_some_and(|kind| !kind.is_empty()),
        "{:?}: {}",
        database.setup,
        answer.body
    );
    assert!(!answer.headers.contains_key("weir-limit"), "{:?}: {}", database.setup, answer.body);
    let own = direct["error"].as_str().unwrap_or_default();
    // Where a limit was reached first differs from run to run.
    let start: String = own.chars().take_while(|c| !c.is_ascii_digit()).collect();
    assert!(
        answer.error().contains(&start) && !own.is_empty(),
        "{:?}: {own}\n{}",
        database.setup,
        answer.body
    );
}

/// Whatever a stranger writes, the database sees the tenant that pays; a trusted proxy names it.
async fn tenants_are_named_by_weir(database: &Running) {
    let target = format!("/api/v1/query?query=count(level_0)&time={}", database.end);
    let forged =
        [("x-scope-orgid", "nobody"), ("thanos-tenant", "nobody"), ("accountid", "7"), ("projectid", "7")];
    let stranger = before(database, BUDGET, "server: {trusted_proxies: [192.0.2.0/24]}").await;
    let trusted = before(database, BUDGET, "").await;
    let count = |answer: &Answer| answer.json()["data"]["result"][0]["value"][1].as_str().map(str::to_owned);
    let answer = stranger.get_as(&target, &forged).await;
    assert_eq!((answer.status, count(&answer).as_deref()), (StatusCode::OK, Some("200")), "{}", answer.body);
    if database.setup != Setup::Cortex {
        return;
    }
    for (tenant, want) in
        [("anonymous", Some("200")), ("t1", Some("200")), ("t1|anonymous", Some("400")), ("nobody", None)]
    {
        let answer = trusted.get_as(&target, &[("x-scope-orgid", tenant)]).await;
        assert_eq!(
            (answer.status, count(&answer).as_deref()),
            (StatusCode::OK, want),
            "{tenant}: {}",
            answer.body
        );
    }
    // Cortex refuses whom nobody names; through Weir somebody always is.
    let request =
        Request::get(format!("{}{target}", database.url)).body(Full::<bytes::Bytes>::default()).unwrap();
    assert_eq!(trusted.client.request(request).await.unwrap().status(), 401);
}

/// A dead database is an error that says so, at once; one that is back answers without anybody's help.
async fn is_down_while_it_is_down(database: &mut Running) {
    let target = format!("/api/v1/query?query=count(level_0)&time={}", database.end);
    let weir = before(database, BUDGET, "").await;
    assert_eq!(weir.get(&target).await.status, 200);
    database.main.kill();
    let end = Instant::now() + BACK;
    let mut down = 0;
    while down < 3 {
        let began = Instant::now();
        let answer = weir.get(&target).await;
        if answer.status == 200 {
            // It was not dead yet.
            assert!(Instant::now() < end, "{:?} does not die", database.setup);
            continue;
        }
        assert!(matches!(answer.status.as_u16(), 502 | 503), "{:?}: {}", database.setup, answer.body);
        assert_eq!(answer.json()["errorType"], "unavailable", "{:?}: {}", database.setup, answer.body);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", database.setup);
        down += 1;
    }
    database.main.start_again();
    loop {
        let answer = weir.get(&target).await;
        if answer.status == 200 && answer.body.contains("\"200\"") {
            break;
        }
        assert!(Instant::now() < end, "{:?} is not back: {}", database.setup, answer.body);
        sleep(Duration::from_millis(100)).await;
    }
    weir.until_idle().await;
}
