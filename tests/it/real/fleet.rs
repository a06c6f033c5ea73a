//! The set-ups of `docs/fleet.md` with processes and real databases: each is skipped, by name, where its programs are not
//! there.
//!
//! Every proxy sees the memory that the queries of the others take. What one cannot explain by its own queries must not shut
//! out its clients: after a burst at both, a heavy query is answered at each at once.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    proxy::forward,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen},
        process::{NodeProcess, ProxyProcess},
        real::{
            Database,
            data::timeseries,
            empty_prometheus, encode,
            kinds::{Running, Setup},
            redis_server::Server,
            write,
        },
        sockets::client,
        weir::{Weir, now_ms},
    },
};

/// The time in which a heavy query is admitted once the burst is over.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Longest wait for an answer.
const ANSWERED: Duration = Duration::from_secs(90);
/// Heavy queries that each proxy gets at once.
const BURST: usize = 6;
/// Series of the heavy query, and samples of each: not more than an hour, which Prometheus takes in any order.
const SERIES: usize = 400;
const SAMPLES: i64 = 100;
const INTERVAL: i64 = 30;
const QUERY: &str = "rate(load_total[5m])";

/// A database, and the query that is heavy there.
struct Target {
    url: String,
    kind: &'static str,
    query: &'static str,
    end: i64,
}

impl Target {
    /// A range query over forty minutes, another one for each number.
    fn heavy(&self, number: usize) -> String {
        let (query, end) = (encode(&format!("{} + {number}", self.query)), self.end);
        format!("query={query}&start={}&end={end}&step=10", end - 2_400)
    }

    /// The bytes that a heavy query is estimated to hold.
    async fn weight(&self) -> u64 {
        let weir = Weir::before(&self.url, self.kind).await;
        weir.proxy.warm().await;
        let cost = weir.get(&format!("/api/v1/query_range_cost?{}", self.heavy(0))).await.json();
        cost["data"]["estimate"]["memoryBytes"].as_u64().unwrap_or_else(|| panic!("{cost}"))
    }

    /// A proxy before it with this budget.
    async fn proxy(&self, backend: &str, budget: u64, fleet: &str) -> Proxy {
        self.proxy_with(backend, budget, fleet, "60s").await
    }

    /// The same, whose queries take no longer than this.
    async fn proxy_with(&self, backend: &str, budget: u64, fleet: &str, timeout: &str) -> Proxy {
        let (url, kind) = (&self.url, self.kind);
        let yaml = format!(
            "backends: [{{name: {backend}, kind: {kind}, urls: [\"{url}\"], scrape_interval: {INTERVAL}s, \
               budget: {{memory: {budget}, queries: 16, split_above: 100%}}, pressure: {{memory_limit: 4GiB}}}}]\n\
             limits: {{default: {{queue: {{wait: 60s}}, rate: {{queries: unlimited}}, in_flight: {{memory: unlimited}}, \
               per_query: {{memory: unlimited, timeout: {timeout}}}}}}}\n\
             fleet: {{{fleet}}}\n"
        );
        Proxy { process: ProxyProcess::start(&yaml).await }
    }
}

struct Proxy {
    process: ProxyProcess,
}

impl Proxy {
    async fn get(&self, target: &str) -> (u16, String) {
        let request = Request::get(format!("http://{}{target}", self.process.queries));
        ask(request.body(Full::default()).unwrap()).await
    }

    async fn heavy(&self, target: &Target, number: usize) -> (u16, String) {
        self.get(&format!("/api/v1/query_range?{}", target.heavy(number))).await
    }

    async fn admin(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.process.admin));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        serde_json::from_str(&ask(request.body(Full::from(body)).unwrap()).await.1).unwrap()
    }

    /// Waits until the store has learned, and knows this number of proxies.
    async fn until_shared(&self, proxies: u64) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let fleet = self.admin(Method::GET, "/status.json", &Value::Null).await["fleet"].clone();
            if fleet["connected"] == true && fleet["learning"] == false && fleet["proxies"] == proxies {
                return;
            }
            assert!(Instant::now() < end, "{fleet}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn ask(request: Request<Full<Bytes>>) -> (u16, String) {
    let answered = async {
        let response = client().request(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    };
    let (status, body) = timeout(ANSWERED, answered).await.expect("an answer in time");
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// Writes the series of the heavy query.
async fn fill(url: &str) -> i64 {
    let end = now_ms() / 1_000 / INTERVAL * INTERVAL;
    let numbers: Vec<_> = (0..SERIES).collect();
    for some in numbers.chunks(100) {
        let mut request = Vec::new();
        for number in some {
            let labels = [
                ("__name__", "load_total"),
                ("instance", &*format!("10.0.0.{number}:9100")),
                ("shard", ["a", "b"][number % 2]),
            ];
            let samples =
                (0..SAMPLES).map(|at| ((end - (SAMPLES - 1 - at) * INTERVAL) * 1_000, (at * 7) as f64));
            crate::support::real::data::field(&mut request, 1, &timeseries(&labels, samples));
        }
        write(url, snap::raw::Encoder::new().compress_vec(&request).unwrap()).await;
    }
    end
}

async fn filled_prometheus(test: &str) -> Option<(Database, Target)> {
    let database = empty_prometheus(test).await?;
    let end = fill(&database.url).await;
    let url = database.url.clone();
    Some((database, Target { url, kind: "prometheus", query: QUERY, end }))
}

/// A burst at every proxy before its target, and then one heavy query after another at each: all are answered, those after
/// the burst at once.
async fn a_burst_shuts_nobody_out(proxies: &[(&Proxy, &Target)]) {
    let burst = proxies.iter().flat_map(|(proxy, target)| (0..BURST).map(|n| proxy.heavy(target, n)));
    for (status, body) in join_all(burst).await {
        assert_eq!(status, 200, "in the burst: {body}");
    }
    for round in 0..3 {
        for (at, (proxy, target)) in proxies.iter().enumerate() {
            let began = Instant::now();
            let (status, body) = proxy.heavy(target, BURST + round).await;
            let took = began.elapsed();
            assert!(
                status == 200 && took < AT_ONCE,
                "proxy {at}, round {round}: {status} after {took:?}: {body}"
            );
        }
    }
}

/// Two proxies before one database: without a store a heavy query fits in the half of each; with one it needs the pool.
async fn two_before_one(target: &Target, test: &str) {
    let weight = target.weight().await;
    let alone = "replicas_max: 2";
    let [a, b] =
        [target.proxy("main", weight * 5, alone).await, target.proxy("main", weight * 5, alone).await];
    a_burst_shuts_nobody_out(&[(&a, target), (&b, target)]).await;
    drop((a, b));

    let Some(server) = Server::start(test) else { return };
    let shared = format!("replicas_max: 2, store: \"{}\"", server.url());
    // A proxy's own part is 7/8 of the query, and the pool 7/4.
    let budget = weight * 32 / 31 * 7 / 2;
    let [a, b] = [target.proxy("main", budget, &shared).await, target.proxy("main", budget, &shared).await];
    a.until_shared(2).await;
    b.until_shared(2).await;
    a_burst_shuts_nobody_out(&[(&a, target), (&b, target)]).await;
}

#[tokio::test]
async fn two_proxies_before_one_prometheus() {
    let test = "two_proxies_before_one_prometheus";
    let Some((_database, target)) = filled_prometheus(test).await else { return };
    two_before_one(&target, test).await;
}

#[tokio::test]
async fn two_proxies_before_one_node() {
    let data = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(data.path(), "").await;
    let url = format!("http://{}", node.address);
    let end = fill(&url).await;
    let target = Target { url, kind: "weir", query: QUERY, end };
    two_before_one(&target, "two_proxies_before_one_node").await;
}

/// Each querier has a budget of its own, as its memory is its own; the store shares kills and rules.
async fn one_for_each(targets: [&Target; 2], test: &str) {
    let weight = targets[0].weight().await.max(targets[1].weight().await);
    let [a, b] = [targets[0].proxy("a", weight * 3, "").await, targets[1].proxy("b", weight * 3, "").await];
    a_burst_shuts_nobody_out(&[(&a, targets[0]), (&b, targets[1])]).await;
    drop((a, b));

    let Some(server) = Server::start(test) else { return };
    let shared = format!("replicas_max: 2, store: \"{}\"", server.url());
    let [a, b] =
        [targets[0].proxy("a", weight * 3, &shared).await, targets[1].proxy("b", weight * 3, &shared).await];
    a.until_shared(2).await;
    b.until_shared(2).await;
    a_burst_shuts_nobody_out(&[(&a, targets[0]), (&b, targets[1])]).await;
    let rule = json!({"name": "drill", "match": {"regex": "blocked"}, "reason": "drill", "expires": "1h"});
    let added = a.admin(Method::POST, "/api/v1/admin/rules", &rule).await;
    assert_eq!(added["data"]["fleet"]["passed_on"], true, "{added}");
    let began = Instant::now();
    while b.get("/api/v1/query?query=blocked").await.0 != 422 {
        assert!(began.elapsed() < Duration::from_secs(3), "the rule is not at the other proxy");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_proxy_for_each_of_two_prometheus() {
    let test = "a_proxy_for_each_of_two_prometheus";
    let Some((_one, first)) = filled_prometheus(test).await else { return };
    let Some((_two, second)) = filled_prometheus(test).await else { return };
    one_for_each([&first, &second], test).await;
}

#[tokio::test]
async fn a_proxy_for_each_of_two_thanos_queriers() {
    let test = "a_proxy_for_each_of_two_thanos_queriers";
    let Some(first) = Setup::ThanosSidecar.start(test).await else { return };
    let second = first.another_querier().await;
    let target = |running: &Running| Target {
        url: running.url.clone(),
        kind: "thanos",
        query: "sum by (job, instance) (rate(requests_0_total[5m]))",
        end: running.end,
    };
    one_for_each([&target(&first), &target(&second)], test).await;
}

/// Longest time of a query, its wait included, where a proxy is killed.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// From the last renewal of a proxy that is killed until others may use its lease: 7 s, that, and 3 s.
const LEASE_OVER: Duration = Duration::from_secs(7 + QUERY_TIMEOUT.as_secs() + 3);

/// From its end until then. It was renewed a second before at most.
const LEASE_KEPT: Duration = Duration::from_secs(LEASE_OVER.as_secs() - 1);

/// A database whose query of 20,000 series never ends.
fn database(seen: &Seen) -> Act {
    if is_heavy(seen) { Act::hang() } else { forward::database(seen) }
}

fn is_heavy(seen: &Seen) -> bool {
    let asked = format!("{}{}", seen.target, String::from_utf8_lossy(&seen.body));
    seen.path().ends_with("/query_range") && asked.contains("big")
}

/// Bytes that the queries of a proxy hold of its budget.
async fn booked(proxy: &Proxy) -> u64 {
    let status = proxy.admin(Method::GET, "/status.json", &Value::Null).await;
    status["backends"][0]["memory"]["used"].as_u64().unwrap_or_else(|| panic!("{status}"))
}

#[tokio::test]
async fn the_lease_of_a_proxy_that_is_killed_is_anothers_after_the_documented_time() {
    let test = "the_lease_of_a_proxy_that_is_killed_is_anothers_after_the_documented_time";
    let Some(server) = Server::start(test) else { return };
    let upstream = FakeUpstream::start(database).await;
    let target = Target { url: upstream.url(), kind: "prometheus", query: "big", end: now_ms() / 1_000 };
    let weight = target.weight().await;
    // One of them fits, and not two.
    let budget = weight * 32 / 31 * 13 / 10;
    let fleet = format!("replicas_max: 2, store: \"{}\"", server.url());
    let start = || target.proxy_with("main", budget, &fleet, "2s");
    let (mut doomed, other) = (start().await, start().await);
    doomed.until_shared(2).await;
    other.until_shared(2).await;
    let heavy = || upstream.seen().iter().filter(|seen| is_heavy(seen)).count();
    let url = format!("http://{}/api/v1/query_range?{}", doomed.process.queries, target.heavy(0));
    let client = tokio::spawn(ask(Request::get(url).body(Full::default()).unwrap()));
    upstream.has_seen(is_heavy).await;
    doomed.process.kill();
    let killed = Instant::now();
    client.abort();
    let successor = start().await;
    let light = async {
        let mut light = 0;
        while heavy() == 1 {
            for proxy in [&other, &successor] {
                let (status, body) = proxy.get("/api/v1/query?query=up").await;
                assert_eq!(status, 200, "a light query: {body}");
                light += 1;
            }
            let of_the_dead = if killed.elapsed() < LEASE_KEPT { weight } else { 0 };
            let sum = of_the_dead + booked(&other).await + booked(&successor).await;
            assert!(sum <= budget, "{sum} of {budget} after {:?}", killed.elapsed());
            sleep(Duration::from_millis(50)).await;
        }
        light
    };
    let asks = async {
        // Each waits for the lease until its own time is over.
        while heavy() == 1 {
            let (status, body) = other.heavy(&target, 1).await;
            assert!(heavy() > 1 || status == 503 && body.contains("lease"), "{status} {body}");
            assert!(killed.elapsed() < 2 * LEASE_OVER, "the lease of the dead is lost");
        }
    };
    let runs = async {
        while heavy() == 1 {
            sleep(Duration::from_millis(5)).await;
        }
        killed.elapsed()
    };
    let (took, light, ()) = tokio::join!(runs, light, asks);
    assert!(took > LEASE_KEPT && took < LEASE_OVER + QUERY_TIMEOUT, "used by another after {took:?}");
    assert!(light > 50, "{light}");
}
