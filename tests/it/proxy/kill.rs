//! Active queries over the admin API, and an end to them.

use std::time::{Duration, Instant};

use fastrand::Rng;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::{
    fake_upstream::{Act, FakeUpstream, Seen, chunk, head},
    logs::Logs,
    sockets::HttpClient,
    weir::{Answer, Weir},
};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Longest wait for something that is about to happen.
const SOON: Duration = Duration::from_secs(10);

/// A database whose answers stay away, break off after their beginning, or come for the first parts of a query only.
fn database(seen: &Seen) -> Act {
    if hangs(seen) {
        return Act::hang();
    }
    let query = param(seen, "query");
    if query.contains("stream") && !query.starts_with("count(") {
        let mut raw = head(200, JSON, None);
        raw.extend(chunk(br#"{"status":"success","data":{"resultType":"vector","result":["#));
        return Act::ThenHang(raw);
    }
    if seen.path().ends_with("/query_range") {
        return Act::json(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#);
    }
    crate::proxy::forward::database(seen)
}

fn hangs(seen: &Seen) -> bool {
    if seen.path().ends_with("/query_range") {
        return param(seen, "start").parse::<f64>().unwrap() > 1_700_010_000.0;
    }
    let query = param(seen, "query");
    query.contains("hang") && !query.starts_with("count(")
}

fn param(seen: &Seen, name: &str) -> String {
    seen.params(name).first().cloned().unwrap_or_default()
}

async fn started(more: &str) -> (FakeUpstream, Weir, String) {
    let upstream = FakeUpstream::start(database).await;
    let yaml = format!(
        "server: {{trusted_proxies: [127.0.0.0/8]{more}}}\n\
         backends: [{{name: main, urls: [\"{}\"], budget: {{memory: 64GiB, queries: 300, unproven: 100%}}}}]\n\
         limits:\n  \
           default: {{in_flight: {{queries: 200, memory: 64GiB}}, queue: {{wait: 1m, length: 300}}, rate: {{queries: unlimited}},\n    \
             per_query: {{memory: 512MiB, samples: 100M, points: 100M}}}}\n  \
           tenants: {{narrow: {{in_flight: {{queries: 1}}}}}}",
        upstream.url()
    );
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    let admin = format!("http://{}", weir.admin().await);
    (upstream, weir, admin)
}

async fn admin(weir: &Weir, method: Method, url: String, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    weir.ask(request.body(Full::default()).unwrap()).await
}

async fn listed(weir: &Weir, address: &str) -> Vec<Value> {
    let answer = admin(weir, Method::GET, format!("{address}/api/v1/admin/queries"), &[]).await;
    answer.json()["data"]["queries"].as_array().unwrap().clone()
}

/// The view of a client: the status, the limit in the headers, and its answer if that was whole.
type Client = JoinHandle<(StatusCode, Option<String>, Option<String>)>;

fn ask(weir: &Weir, target: &str, headers: &[(&str, &str)]) -> Client {
    let mut request = Request::get(weir.url(target));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let running = weir.client.request(request.body(Full::default()).unwrap());
    tokio::spawn(async move {
        let (head, body) = running.await.unwrap().into_parts();
        let limit = head.headers.get("weir-limit").map(|value| value.to_str().unwrap().to_owned());
        let body = body.collect().await.ok().map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap());
        (head.status, limit, body)
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Queued,
    Running,
    Streaming,
    Split,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Queued, Self::Running, Self::Streaming, Self::Split];

    /// A query that stays in this state, by its number. Not `n="1"`: the label table knows that there is no such series.
    fn target(self, n: usize) -> String {
        match self {
            Self::Queued | Self::Running => {
                format!("/api/v1/query?query=small%7Bn!%3D%22{n}%22,k%3D%22hang%22%7D")
            }
            Self::Streaming => format!("/api/v1/query?query=small%7Bn!%3D%22{n}%22,k%3D%22stream%22%7D"),
            Self::Split => format!(
                "/api/v1/query_range?query=sum(big%7Bn!%3D%22{n}%22%7D)&start=1700000000.5&end=1700021600&step=15"
            ),
        }
    }

    fn tenant(self) -> &'static str {
        if self == Self::Queued { "narrow" } else { "wide" }
    }

    fn is_there(self, query: &Value) -> bool {
        match self {
            Self::Queued => query["state"] == "queued" && query["reason"] == "tenant_queries",
            Self::Running => query["state"] == "running",
            Self::Streaming => query["state"] == "streaming" && query["bytes"].as_u64() > Some(0),
            Self::Split => query["state"] == "running" && query["part"].as_u64() > Some(1),
        }
    }
}

/// Waits until the query with this number is in its state, and gives its id.
async fn id_of(weir: &Weir, address: &str, kind: Kind, n: usize) -> u64 {
    let (mark, end) = (format!("n!=\"{n}\""), Instant::now() + SOON);
    loop {
        let queries = listed(weir, address).await;
        let found = queries.iter().find(|query| query["text"].as_str().unwrap().contains(&mark));
        if let Some(query) = found.filter(|query| kind.is_there(query)) {
            return query["id"].as_u64().unwrap();
        }
        assert!(Instant::now() < end, "{kind:?} {n}: {found:?}");
        tokio::task::yield_now().await;
    }
}

/// Asks the same over and over, and is answered each time.
async fn ask_on_and_on(client: HttpClient, url: String) {
    let mut answered = 0_u64;
    loop {
        let request = Request::get(&url).header("x-scope-orgid", "light").body(Full::default()).unwrap();
        let answer = client.request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
        answered += 1;
        if answered.is_multiple_of(8) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Its cost is no reason for it to hang unseen: its client may wait for it, and it has one of few connections.
#[tokio::test]
async fn a_request_that_costs_nothing_is_listed_and_can_be_stopped() {
    let upstream = FakeUpstream::start(|seen: &Seen| match seen.path() {
        "/api/v1/alerts" => Act::hang(),
        "/api/v1/rules" => {
            let mut raw = head(200, JSON, None);
            raw.extend(chunk(br#"{"status":"success","data":{"#));
            Act::ThenHang(raw)
        }
        _ => database(seen),
    })
    .await;
    let weir = Weir::before(&upstream.url(), "prometheus").await;
    let address = format!("http://{}", weir.admin().await);
    for (n, (path, status)) in [("/api/v1/alerts", 422), ("/api/v1/rules", 200)].into_iter().enumerate() {
        let asking = weir.client.request(Request::get(weir.url(path)).body(Full::default()).unwrap());
        let mut asking = Box::pin(asking);
        // Of the second the head comes.
        let begun = if status == 200 { Some((&mut asking).await.unwrap()) } else { None };
        let asking = tokio::spawn(async move {
            let answer = match begun {
                Some(answer) => answer,
                None => asking.await.unwrap(),
            };
            let (head, body) = answer.into_parts();
            (head.status.as_u16(), head.headers.contains_key("weir-limit"), body.collect().await.is_ok())
        });
        upstream.has_seen(|seen| seen.path() == path).await;
        let all = listed(&weir, &address).await;
        let seen: Vec<_> = all.iter().map(|one| (one["text"].as_str(), one["state"].as_str())).collect();
        assert_eq!(seen, [(Some(path), Some("running"))]);
        let url = format!("{address}/api/v1/admin/queries/{}?reason=drill", all[0]["id"]);
        assert_eq!(admin(&weir, Method::DELETE, url, &[]).await.status, 200);
        // Refused before its first byte, and else broken off.
        let is_refused = status == 422;
        assert_eq!(asking.await.unwrap(), (status, is_refused, is_refused), "{path}");
        upstream.abandoned(n + 1).await;
        let ends = async {
            while !listed(&weir, &address).await.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, ends).await.expect("it is listed no more");
    }
}

#[tokio::test]
async fn two_hundred_random_kills_take_what_they_hit_and_nothing_else() {
    let (upstream, weir, address) = started("").await;
    let mut rng = Rng::with_seed(7);
    // The narrow tenant's only place is taken.
    let blocker = ask(&weir, &Kind::Running.target(9_999), &[("x-scope-orgid", "narrow")]);
    let blocker_id = id_of(&weir, &address, Kind::Running, 9_999).await;
    // Others go on meanwhile.
    let (client, url) = (weir.client.clone(), weir.url("/api/v1/query?query=sum(small)"));
    let load = tokio::spawn(ask_on_and_on(client, url));
    let mut active: Vec<(Kind, u64, Client)> = Vec::new();
    let (mut closed, mut times) = (0, Vec::new());
    for n in 0..200 {
        let kind = Kind::ALL[rng.usize(0..4)];
        let client = ask(&weir, &kind.target(n), &[("x-scope-orgid", kind.tenant())]);
        active.push((kind, id_of(&weir, &address, kind, n).await, client));
        if matches!(kind, Kind::Running | Kind::Split) {
            // It is running before its request is written, and a split one is also between two parts.
            let mark = format!("%22{n}%22");
            upstream.has_seen(|seen| seen.target.contains(&mark) && hangs(seen)).await;
        }
        if active.len() < 6 && n < 194 {
            continue;
        }
        let (kind, id, client) = active.swap_remove(rng.usize(0..active.len()));
        let began = Instant::now();
        let url = format!("{address}/api/v1/admin/queries/{id}?reason=drill&by=ann");
        let killing = tokio::spawn(
            weir.client.request(Request::delete(url).body(Full::<bytes::Bytes>::default()).unwrap()),
        );
        if kind != Kind::Queued {
            closed += 1;
            upstream.abandoned(closed).await;
            times.push(began.elapsed());
        }
        assert_eq!(killing.await.unwrap().unwrap().status(), 200, "{kind:?}");
        let (status, limit, body) = client.await.unwrap();
        if kind == Kind::Streaming {
            assert_eq!((status.as_u16(), body), (200, None), "what was cut is never taken for whole");
        } else {
            assert_eq!((status.as_u16(), limit.as_deref()), (422, Some("weir-killed")), "{kind:?} {body:?}");
            assert!(body.unwrap().contains("ann stopped the query: drill (weir-killed)"));
        }
    }
    assert_eq!(upstream.gone(), closed, "no connection but those of killed queries was closed");
    load.abort();
    assert!(load.await.unwrap_err().is_cancelled(), "others were answered all the time");
    for (tenant, left) in
        [("wide", active.iter().filter(|(kind, ..)| *kind != Kind::Queued).count()), ("narrow", 0)]
    {
        let url = format!("{address}/api/v1/admin/queries?tenant={tenant}&reason=end");
        let answer = admin(&weir, Method::DELETE, url, &[]).await.json();
        let killed = answer["data"]["killed"].as_array().unwrap().len();
        assert!(killed >= left, "{tenant}: {killed}");
    }
    assert_eq!(blocker.await.unwrap().0, 422, "{blocker_id}");
    for (.., client) in active {
        client.await.unwrap();
    }
    assert_eq!(listed(&weir, &address).await, [] as [Value; 0]);
    weir.until_idle().await;
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!(
        "kill to closed connection: median {:?}, p99 {p99:?}, of {}",
        times[times.len() / 2],
        times.len()
    );
    assert!(p99 < Duration::from_millis(50), "{p99:?}");
}

#[tokio::test]
async fn a_list_says_whose_query_it_is_and_what_it_costs() {
    let (_upstream, weir, address) = started("").await;
    let headers = [
        ("x-scope-orgid", "a"),
        ("x-dashboard-uid", "dash"),
        ("x-panel-id", "4"),
        ("x-grafana-user", "bob"),
        ("x-rule-uid", "rule"),
        ("user-agent", "Grafana/12"),
        ("fromalert", "true"),
    ];
    let client = ask(&weir, &Kind::Split.target(1), &headers);
    let id = id_of(&weir, &address, Kind::Split, 1).await;
    let query = &listed(&weir, &address).await[0];
    for (key, want) in [
        ("tenant", "a"),
        ("class", "rules"),
        ("dashboard", "dash"),
        ("panel", "4"),
        ("user", "bob"),
        ("rule", "rule"),
        ("user_agent", "Grafana/12"),
        ("client", "127.0.0.1"),
        ("endpoint", "query_range"),
        ("text", "sum(big{n!=\"1\"})"),
        ("backend", "main"),
        ("actor", "rule:rule"),
    ] {
        assert_eq!(query[key], want, "{key} of {query}");
    }
    for (key, want) in
        [("start_ms", 1_700_000_000_500_u64), ("end_ms", 1_700_021_600_000), ("step_ms", 15_000)]
    {
        assert_eq!(query[key], want, "{key}");
    }
    assert_eq!(query["series"]["value"], 20_000, "{query}");
    for key in ["samples", "blocks", "points", "memory"] {
        assert!(query[key]["value"].as_u64() > Some(0), "{key}: {query}");
    }
    assert!(query["parts"].as_u64() > query["part"].as_u64(), "{query}");
    let gone = admin(&weir, Method::DELETE, format!("{address}/api/v1/admin/queries/{}", id + 1), &[]).await;
    assert_eq!(gone.status, 404);
    let metrics = weir.metrics();
    let oldest = metrics.lines().find(|line| {
        line.starts_with("weir_oldest_query_age_seconds")
            && line.contains("running")
            && line.contains("\"rules\"")
    });
    assert!(oldest.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    let url = format!("{address}/api/v1/admin/queries/{id}");
    assert_eq!(admin(&weir, Method::DELETE, url, &[]).await.status, 200);
    assert_eq!(client.await.unwrap().0, 422);
    weir.until_idle().await;
}

#[tokio::test]
async fn an_order_that_is_not_understood_stops_nothing() {
    let (_upstream, weir, address) = started("").await;
    let client = ask(&weir, &Kind::Running.target(1), &[("x-scope-orgid", "a"), ("x-dashboard-uid", "dash")]);
    let id = id_of(&weir, &address, Kind::Running, 1).await;
    let fingerprint = listed(&weir, &address).await[0]["fingerprint"].as_str().unwrap().to_owned();
    let kill = async |rest: &str, headers: &[(&str, &str)]| {
        admin(&weir, Method::DELETE, format!("{address}/api/v1/admin/queries{rest}"), headers).await
    };
    for (rest, status) in [
        ("", 400),
        ("?", 400),
        ("?tenant=", 400),
        ("?tennant=a", 400),
        ("?tenant=a&tenant=b", 400),
        ("?tenant=a&dashbord=x", 400),
        ("/x", 400),
        ("/999999", 404),
        (&*format!("/{id}?tenant=a"), 400),
    ] {
        let answer = kill(rest, &[]).await;
        assert_eq!(answer.status, status, "{rest}: {}", answer.body);
        assert!(!answer.error().is_empty());
    }
    assert_eq!(kill("?tenant=a", &[("sec-fetch-site", "cross-site")]).await.status, 403);
    for rest in ["?tenant=b", "?tenant=a&dashboard=other", "?user=bob", "?fingerprint=0123456789abcdef"] {
        let answer = kill(rest, &[]).await;
        assert_eq!(answer.json()["data"]["killed"], serde_json::json!([]), "{rest}");
    }
    assert_eq!(listed(&weir, &address).await.len(), 1);
    let answer = kill(&format!("?tenant=a&dashboard=dash&fingerprint={fingerprint}"), &[]).await.json();
    assert_eq!(answer["data"]["killed"][0]["id"], id);
    let (status, _, body) = client.await.unwrap();
    assert_eq!(status, 422);
    assert!(body.unwrap().contains("an operator stopped the query: no reason given (weir-killed)"));
    weir.until_idle().await;
}

#[tokio::test]
async fn writing_needs_the_token_and_leaves_a_line_with_its_holder() {
    let logs = Logs::catch();
    let upstream = FakeUpstream::start(database).await;
    let yaml = format!(
        "server: {{admin_auth: {{tokens: {{alice: correct-horse-battery}}}}}}\n\
         backends: [{{name: main, urls: [\"{}\"]}}]",
        upstream.url()
    );
    let weir = Weir::start_here(&yaml).await;
    weir.proxy.warm().await;
    let address = format!("http://{}", weir.admin().await);
    let client = ask(&weir, &Kind::Running.target(1), &[]);
    let id = id_of(&weir, &address, Kind::Running, 1).await;
    let url = format!("{address}/api/v1/admin/queries/{id}?reason=drill&by=bob");
    for token in [&[][..], &[("authorization", "Bearer wrong-horse-battery")]] {
        let answer = admin(&weir, Method::DELETE, url.clone(), token).await;
        assert_eq!(answer.status, 401, "{}", answer.body);
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    assert_eq!(admin(&weir, Method::POST, format!("{address}/-/reload"), &[]).await.status, 401);
    let token = [("authorization", "Bearer correct-horse-battery")];
    assert_eq!(admin(&weir, Method::DELETE, url, &token).await.status, 200);
    let (_, _, body) = client.await.unwrap();
    assert!(body.unwrap().contains("bob (token of alice) stopped the query: drill"));
    let query = logs.queries(1).await.remove(0);
    let audit = logs.of("weir::audit").remove(0);
    for (key, want) in [
        ("action", Value::from("kill")),
        ("by", "bob (token of alice)".into()),
        ("reason", "drill".into()),
        ("killed", 1.into()),
        ("ids", id.to_string().into()),
        ("level", "WARN".into()),
    ] {
        assert_eq!(audit[key], want, "{key} of {audit}");
    }
    assert!(audit["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!((&query["verdict"], &query["limit"]), (&"admitted".into(), &"weir-killed".into()), "{query}");
}

fn is_silent_probe(seen: &Seen) -> bool {
    let asked = format!("{}{}", seen.target, String::from_utf8_lossy(&seen.body));
    let is_probe = seen.path().ends_with("/series") || param(seen, "query").starts_with("count(");
    is_probe && asked.contains("silent")
}

#[tokio::test]
async fn a_query_is_listed_while_it_is_priced_and_a_kill_cancels_its_probe() {
    let upstream = FakeUpstream::start(|seen: &Seen| {
        if is_silent_probe(seen) { Act::hang() } else { crate::proxy::forward::database(seen) }
    })
    .await;
    let yaml = format!(
        "backends: [{{name: main, urls: [\"{}\"], probe: {{deadline: 1h, concurrency: 1}}, response_timeout: 1h}}]\n\
         limits: {{default: {{per_query: {{series: 7_000}}}}}}",
        upstream.url()
    );
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    let address = format!("http://{}", weir.admin().await);
    // Where explanations are asked for, the backend is asked as well.
    for (n, endpoint) in ["query", "query_cost"].into_iter().enumerate() {
        let target = format!("/api/v1/{endpoint}?query=sum(%7Bjob%3D%22api%22,k%3D%22silent{n}%22%7D)");
        let client = ask(&weir, &target, &[("x-scope-orgid", "a")]);
        upstream
            .has_seen(|seen| is_silent_probe(seen) && format!("{seen:?}").contains(&format!("silent{n}")))
            .await;
        let queries = listed(&weir, &address).await;
        let [query] = &queries[..] else { panic!("{queries:?}") };
        for (key, want) in [("state", "probing"), ("tenant", "a"), ("endpoint", endpoint)] {
            assert_eq!(query[key], want, "{query}");
        }
        assert_eq!(query["memory"], serde_json::json!({"value": null, "known": "unknown"}), "{query}");
        let status = admin(&weir, Method::GET, format!("{address}/status.json"), &[]).await.json();
        assert_eq!((&status["probing"]["total"], &status["waiting"]["total"]), (&1.into(), &0.into()));
        let page = admin(&weir, Method::GET, format!("{address}/"), &[]).await.body;
        assert!(page.contains("Probing") && page.contains(&format!("silent{n}")), "{page}");
        let oldest = "weir_oldest_query_age_seconds{class=\"adhoc\",state=\"probing\"} ";
        let metrics = weir.metrics();
        assert!(metrics.lines().any(|line| line.starts_with(oldest) && !line.ends_with(" 0")), "{metrics}");
        let url = format!("{address}/api/v1/admin/queries?tenant=a&reason=drill&by=ann");
        let killed = admin(&weir, Method::DELETE, url, &[]).await.json();
        assert_eq!(killed["data"]["killed"][0]["id"], query["id"], "{killed}");
        upstream.abandoned(n + 1).await;
        let (status, limit, body) = client.await.unwrap();
        assert_eq!((status.as_u16(), limit.as_deref()), (422, Some("weir-killed")), "{body:?}");
        assert!(body.unwrap().contains("ann stopped the query: drill (weir-killed)"));
        assert_eq!(listed(&weir, &address).await, [] as [Value; 0]);
    }
    // The place of the probes came back: there is one.
    assert_eq!(weir.get("/api/v1/query?query=sum(%7Bjob%3D%22api%22,k%3D%22other%22%7D)").await.status, 200);
    weir.until_idle().await;
}
