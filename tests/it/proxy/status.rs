//! The page *Now* of a whole proxy, over its admin listener.

use std::sync::Arc;

use http::Request;
use http_body_util::Full;
use tokio::net::TcpListener;
use weir::admin::serve_admin;

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen},
        weir::{Answer, Weir},
    },
};

const LIMITS: &str =
    "limits: {default: {per_query: {series: 10_000}, in_flight: {queries: 1}, queue: {wait: 30s}}}";

/// A proxy before a backend that never answers a query, and where its admin API listens.
async fn started() -> (FakeUpstream, Weir, String) {
    let upstream =
        FakeUpstream::start(
            |seen: &Seen| {
                if seen.path() == "/api/v1/query" { Act::hang() } else { database(seen) }
            },
        )
        .await;
    let yaml = format!("backends: [{{name: main, urls: [\"{}\"]}}]\n{LIMITS}", upstream.url());
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve_admin(listener, Arc::clone(&weir.proxy), None, std::future::pending()));
    (upstream, weir, admin)
}

async fn get(weir: &Weir, url: String) -> Answer {
    weir.ask(Request::get(url).body(Full::default()).unwrap()).await
}

#[tokio::test]
async fn queries_are_seen_while_they_run_and_wait_and_when_they_are_refused() {
    let (_upstream, weir, admin) = started().await;
    let ask = |query: &str| {
        let target = format!("/api/v1/query?query={query}");
        let request = Request::get(weir.url(&target)).header("x-scope-orgid", "a<b");
        tokio::spawn(weir.client.request(request.body(Full::default()).unwrap()))
    };
    let running = ask("small%7Bx%3D%22%3Cscript%3E%22%7D");
    weir.until_load(1, 0).await;
    let waiting = ask("sum(small)");
    weir.until_load(1, 1).await;
    for _ in 0..3 {
        assert_eq!(weir.get("/api/v1/query?query=rate(big[5m])").await.status, 422);
    }
    assert_eq!(weir.get("/api/v1/query?query=)").await.status, 400);

    let json = get(&weir, format!("{admin}/status.json")).await.json();
    let shown = |of: &str| json[of]["shown"][0].clone();
    assert_eq!(shown("running")["text"], "small{x=\"<script>\"}");
    assert_eq!(shown("waiting")["series"], serde_json::json!({"value": 10, "known": "upper_bound"}));
    assert_eq!(shown("waiting")["text"], "sum(small)");
    assert_eq!(shown("waiting")["tenant"], "a<b");
    let backend = &json["backends"][0];
    assert_eq!((&backend["queries"]["used"], &backend["waiting"]), (&1.into(), &1.into()));
    assert_eq!(backend["budget"], 4_u64 << 30);
    let open = "open of 4GiB (unproven: opens as heavy queries complete)";
    assert_eq!(backend["open_of"], open);
    assert!(get(&weir, format!("{admin}/")).await.body.contains(open));
    assert_eq!(
        json["refusals"].as_array().unwrap().len(),
        1,
        "malformed ones are their askers' affair: {json}"
    );
    assert_eq!(json["refusals"][0]["reason"], "weir-max-series");
    assert_eq!(json["refusals"][0]["times"], 3);
    assert_eq!(json["tenants_by_refusals"][0]["refused"][0], serde_json::json!(["weir-max-series", 3]));
    assert_eq!(json["tenants_by_cost"][0]["tenant"], "a<b");

    running.abort();
    waiting.abort();
    weir.until_idle().await;
    let json = get(&weir, format!("{admin}/status.json")).await.json();
    assert_eq!((&json["running"]["total"], &json["waiting"]["total"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn a_query_that_timed_out_in_the_queue_learns_whose_queries_hold_the_memory() {
    let act = |seen: &Seen| if seen.path() == "/api/v1/query" { Act::hang() } else { database(seen) };
    let upstream = FakeUpstream::start(act).await;
    let budget = "budget: {queries: 1, unproven: 100%}";
    let limits = "limits: {default: {queue: {wait: 100ms}}}";
    let weir = Weir::start(&format!(
        "backends: [{{name: main, urls: [\"{}\"], {budget}}}]\n{limits}",
        upstream.url()
    ))
    .await;
    weir.proxy.warm().await;
    let headers = [("x-scope-orgid", "a"), ("x-dashboard-uid", "abc")];
    let holds = weir.get_as("/api/v1/query?query=small", &headers);
    let wait = async {
        weir.until_load(1, 0).await;
        for (tenant, holder) in [("a", "1 query of dashboard abc ("), ("b", "1 query of other tenants (")] {
            let answer = weir.get_as("/api/v1/query?query=sum(small)", &[("x-scope-orgid", tenant)]).await;
            let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
            assert!(error.contains("weir-queue-timeout") && error.contains(holder), "{error}");
        }
    };
    tokio::select! {
        _ = holds => unreachable!("the backend never answers"),
        () = wait => {}
    }
}

#[tokio::test]
async fn a_bad_reload_stays_on_the_page_until_a_good_one() {
    let (_upstream, weir, admin) = started().await;
    weir.proxy.note_reload(Some("weir.yaml:1:1: server.lisen: unknown key <b>"));
    let page = get(&weir, format!("{admin}/status")).await.body;
    assert!(page.contains("<pre>weir.yaml:1:1: server.lisen: unknown key &lt;b&gt;</pre>"), "{page}");
    weir.proxy.note_reload(None);
    assert!(!get(&weir, format!("{admin}/status")).await.body.contains("lisen"));
}
