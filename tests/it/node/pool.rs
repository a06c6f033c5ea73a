//! The node's pools over the wire: the memory that a query decides is lent, bounded, and given back.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use weir::{
    base::time::EvalTimes,
    http::Served,
    node::{
        db::{Db, Options},
        engine::{self, EvalError},
        http::{Node, PoolSettings, Settings, serve},
        pool::Claim,
    },
    promql,
};

use crate::{
    support::sockets::{HttpClient, client},
    support::{pools::pools, weir::Weir},
};

const NOW: i64 = 1_700_000_000;
const SERIES: usize = 1_000;
/// All series over an hour: 241 values each, so that a row takes 2 KiB of a bucket of 256.
const HEAVY: &str = "/api/v1/query_range?query=wide&start=1699996400&end=1700000000&step=15";

struct Pooled {
    address: SocketAddr,
    client: HttpClient,
    node: Arc<Node>,
    serving: JoinHandle<Served>,
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Pooled {
    async fn start(pool: PoolSettings) -> Self {
        let db = Db::in_memory(Options { clock: || NOW * 1_000, ..Options::default() });
        let node = Node::new(Arc::new(db), Settings { pool, ..Settings::default() }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::clone(&node);
        let serving = tokio::spawn(async move { serve(listener, served, std::future::pending()).await });
        let pooled = Self { address, client: client(), node, serving };
        let mut text = String::new();
        for number in 0..SERIES {
            for minute in 0..4 {
                let time = (NOW - 240 + minute * 60) * 1_000;
                writeln!(text, "wide{{number=\"{number}\"}} {number} {time}").unwrap();
            }
        }
        let request = Request::post(format!("http://{address}/api/v1/import/prometheus"));
        assert_eq!(pooled.send(request, text).await.0, 204);
        pooled
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> (StatusCode, HeaderMap, String) {
        let response = self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(&self, target: &str) -> (StatusCode, HeaderMap, String) {
        self.send(Request::get(format!("http://{}{target}", self.address)), "").await
    }

    /// The sum over all series of a metric whose labels hold `part`.
    async fn metric(&self, name: &str, part: &str) -> f64 {
        let (_, _, page) = self.get("/metrics").await;
        let of = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.contains(part).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        page.lines().filter_map(of).sum()
    }
}

fn bounded(memory: u64) -> PoolSettings {
    // Without refills, which may or may not keep up, all can be counted.
    let refill_per_second = Some(0);
    PoolSettings { memory: Some(memory), wait: Duration::ZERO, refill_per_second, ..PoolSettings::default() }
}

#[tokio::test]
async fn what_a_query_takes_is_lent_and_comes_back() {
    let node = Pooled::start(bounded(64 << 20)).await;
    assert_eq!(node.metric("weir_pool_cap_bytes", "").await, f64::from(56 << 20));
    let (status, _, body) = node.get(HEAVY).await;
    assert_eq!((status, body.matches("\"metric\"").count()), (StatusCode::OK, SERIES));
    // A thousand rows of 256 numbers, and all else.
    let peak = node.metric("weir_pool_peak_bytes", "").await;
    let rows = (SERIES * 256 * 8) as f64;
    assert!(peak > rows && peak < 1.5 * rows, "{peak} where rows take {rows}");
    assert!(node.metric("weir_pool_get_on_empty_total", "bucket=\"256\",pool=\"numbers\"").await >= 744.0);
    assert!(node.metric("weir_pool_put_on_full_total", "bucket=\"256\",pool=\"numbers\"").await >= 744.0);
    for target in [
        "/api/v1/query?query=wide[5m]&time=1700000000",
        "/api/v1/query?query=sum(rate(wide[5m]))&time=1700000000",
        "/api/v1/query?query=quantile(0.5,wide)%2Btopk(3,wide)&time=1700000000",
        "/api/v1/query?query=max_over_time(wide[5m:1m])&time=1700000000",
        "/api/v1/series?match[]=wide",
    ] {
        assert_eq!(node.get(target).await.0, 200, "{target}");
    }
    assert_eq!(node.metric("weir_pool_outstanding_bytes", "pool=\"numbers\"").await, 0.0);
    assert_eq!(node.metric("weir_pool_outstanding_bytes", "pool=\"samples\"").await, 0.0);
    assert_eq!(node.metric("weir_pool_outstanding_bytes", "pool=\"working\"").await, 0.0);
    assert!(node.metric("process_resident_memory_anon_bytes", "").await > 0.0);
}

#[tokio::test]
async fn at_the_cap_a_query_fails_with_a_reason_and_the_next_one_runs() {
    let node = Pooled::start(bounded(1 << 20)).await;
    let (status, headers, body) = node.get(HEAVY).await;
    // Nobody else holds anything.
    assert_eq!(status, 422, "{body}");
    assert!(!headers.contains_key("retry-after"));
    assert!(
        body.starts_with(r#"{"status":"error","errorType":"execution","error":"the query needs more memory"#),
        "{body}"
    );
    assert!(body.contains("917504 bytes (7/8 of pool.memory)") && body.contains("fewer series"), "{body}");
    assert!(node.metric("weir_pool_exhausted_total", "").await >= 1.0);
    assert!(node.metric("weir_pool_peak_bytes", "").await <= f64::from(1 << 20));
    // A streaming query needs little.
    assert_eq!(node.get(&HEAVY.replace("wide", "sum(wide)")).await.0, 200);
    assert!(node.node.check_pools());
}

#[tokio::test]
async fn unbounded_it_grows_as_m3dbnode_does() {
    let node = Pooled::start(PoolSettings { bounded: false, ..bounded(1) }).await;
    assert_eq!(node.get(HEAVY).await.0, 200);
    assert_eq!(node.metric("weir_pool_cap_bytes", "").await, 0.0);
    assert!(node.metric("weir_pool_peak_bytes", "").await > f64::from(1 << 20));
}

#[test]
fn a_query_that_is_given_up_waits_no_longer_at_the_cap() {
    let (pools, cap) = pools(1 << 20);
    let db = Db::in_memory(Options::default());
    let mut others = pools.working.loan();
    others.grow(1 << 20, Claim::until(&|| false)).unwrap();
    let ast = promql::parse("vector(1)+vector(2)").unwrap();
    let canceled = AtomicBool::new(false);
    let options = engine::Options { pools: Some(pools.clone()), ..engine::Options::default() };
    std::thread::scope(|scope| {
        let query =
            scope.spawn(|| engine::evaluate(&ast, EvalTimes::instant(0), &db, &options, &canceled).err());
        while cap.waiting() == 0 {
            std::thread::yield_now();
        }
        let given_up = Instant::now();
        canceled.store(true, Relaxed);
        assert_eq!(query.join().unwrap(), Some(EvalError::Canceled));
        assert!(given_up.elapsed() < Duration::from_secs(30));
    });
    drop(others);
    assert_eq!(
        engine::evaluate(&ast, EvalTimes::instant(0), &db, &options, &AtomicBool::new(false)).err(),
        None
    );
    assert_eq!(cap.lent(), 0);
}

/// Each query takes about a third of the memory lent: together none of them can end.
#[tokio::test]
async fn a_crowd_that_fills_the_pool_is_answered_a_few_at_a_time() {
    let wait = Duration::from_millis(20);
    let node = Pooled::start(PoolSettings { wait, ..bounded(9 << 20) }).await;
    let target = format!("{HEAVY}&limit=1");
    let answers = futures_util::future::join_all((0..24).map(|_| node.get(&target))).await;
    for (status, _, body) in answers {
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    assert!(node.metric("weir_node_reads_again_total", "").await > 0.0);
    assert!(node.node.check_pools());
}

/// Every answer but those of queries; each with the most bytes that it takes of the pool beside its buffers.
const LISTS: [(&str, usize); 8] = [
    ("/api/v1/series?match[]=wide", SERIES * 16),
    ("/api/v1/labels", 16 * 16),
    ("/api/v1/label/number/values", SERIES * 16),
    ("/api/v1/metadata", 0),
    ("/api/v1/status/tsdb?limit=1000", 12 * SERIES * 40),
    ("/api/v1/query_cost?query=wide%2Bwide", 8 << 10),
    ("/api/v1/parse_query?query=sum(rate(wide[5m]))", 16 << 10),
    ("/api/v1/format_query?query=sum(rate(wide[5m]))", 4 << 10),
];
/// Two pieces of an answer, and sets of series.
const BESIDE_LIST: usize = (128 << 10) + 4 * (8 << 10);

/// A thousand descriptions of a kilobyte each.
fn descriptions() -> String {
    let help = "h".repeat(1_000);
    let lines: Vec<_> = (0..1_000).map(|number| format!("# HELP described_{number} {help}\n")).collect();
    lines.concat()
}

#[tokio::test]
async fn a_list_is_lent_and_a_crowd_of_lists_stays_within_the_pool() {
    let cap = (1 << 20) / 8 * 7;
    let node = Pooled::start(PoolSettings { wait: Duration::from_millis(20), ..bounded(1 << 20) }).await;
    let request = Request::post(format!("http://{}/api/v1/import/prometheus", node.address));
    assert_eq!(node.send(request, descriptions()).await.0, 204);
    for (target, entries) in LISTS {
        let own = Pooled::start(bounded(4 << 20)).await;
        assert_eq!(own.get(target).await.0, StatusCode::OK, "{target}");
        let peak = own.metric("weir_pool_peak_bytes", "").await as usize;
        assert!((128 << 10..=BESIDE_LIST + entries).contains(&peak), "{target}: {peak}");

        let answers = futures_util::future::join_all((0..24).map(|_| node.get(target))).await;
        let (well, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.0 == StatusCode::OK);
        assert!(!well.is_empty(), "{target}");
        for (status, _, body) in refused {
            assert_eq!(*status, StatusCode::SERVICE_UNAVAILABLE, "{target}");
            assert!(body.contains("memory pool is exhausted"), "{target}: {body}");
        }
        assert!(well.iter().all(|answer| answer.2 == well[0].2), "{target}");
        let peak = node.metric("weir_pool_peak_bytes", "").await as usize;
        assert!(peak <= cap, "{target}: {peak}");
    }
    let (_, _, body) = node.get("/api/v1/metadata").await;
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["data"].as_object().unwrap().len(), 1_000);
    assert_eq!(json["data"]["described_7"][0]["help"].as_str().unwrap().len(), 1_000);
    assert!(node.node.check_pools());
}

/// Asks a node too much until all of these signals show its distress.
async fn distress_of(pool: PoolSettings, runs: bool, signals: &[&str]) {
    let node = Pooled::start(pool).await;
    let url = format!("http://{}", node.address);
    let weir = Weir::start(&format!("backends: [{{name: main, kind: weir, urls: [\"{url}\"]}}]")).await;
    let shows = |metrics: &str, signal: &str| {
        let series = format!("weir_backend_pressure{{backend=\"main\",signal=\"{signal}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(series.as_str())?.parse::<f64>().ok())
    };
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        // With 422 or, beside a read of the proxy, with 503.
        assert_eq!(node.get(HEAVY).await.0.is_success(), runs);
        let all: Vec<_> = signals.iter().map(|signal| shows(&weir.metrics(), signal)).collect();
        if all.iter().all(|pressure| pressure.is_some_and(|pressure| pressure > 0.0)) {
            return;
        }
        assert!(Instant::now() < end, "{signals:?}: {all:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_proxy_sees_the_pools_of_its_node() {
    distress_of(bounded(1 << 20), false, &["pools"]).await;
    distress_of(PoolSettings { bounded: false, ..bounded(1) }, true, &["pools"]).await;
}
