//! The storage node beside a real Prometheus with the same data. Skipped, by name, where it is not installed.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::net::TcpListener;
use weir::node::{
    db::{Db, Options},
    http::{Node, Settings, serve},
};

use crate::{
    support::sockets::client,
    support::{
        real::{
            data::{field, timeseries},
            empty_prometheus, encode, prometheus_with, raw,
        },
        weir::now_ms,
    },
};

const VALUES: [&str; 8] = ["api", "API", "a.b", "axb", "apé", "web-1", "12", "\u{212a}"];

/// Patterns in which Go's dialect and others differ. None meets a newline: Prometheus 2 has `.` not match one, 3 has.
const PATTERNS: [&str; 19] = [
    "a.b",
    "\\Qa.b\\E",
    "(?i)api",
    "(?i:A)PI",
    "(?i)K",
    ".+",
    "a.*",
    "ap[^\\w]",
    "[[:alpha:]]+",
    "[[:^digit:]].*",
    "api|",
    "web-\\d",
    "\\d+",
    "\\x61pi",
    "a{,2}|12",
    "^api$",
    "(?U)a.+",
    "\\pL+",
    "\\w+",
];

/// A remote write of eight series that differ in one label, and one other.
fn body(now: i64) -> Vec<u8> {
    let mut request = Vec::new();
    for (i, value) in VALUES.iter().enumerate() {
        let samples = (0..20).map(|k| (now - 600_000 + k * 30_000, (k * i as i64) as f64 / 4.0));
        field(&mut request, 1, &timeseries(&[("__name__", "m"), ("job", "a"), ("v", value)], samples));
    }
    field(&mut request, 1, &timeseries(&[("__name__", "up"), ("job", "b")], [(now - 60_000, 1.0)]));
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

async fn node() -> SocketAddr {
    let node = Node::new(Arc::new(Db::in_memory(Options::default())), Settings::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, node, std::future::pending()));
    address
}

async fn write(url: &str, body: Vec<u8>) {
    let request = Request::post(format!("{url}/api/v1/write"))
        .header("content-encoding", "snappy")
        .header("content-type", "application/x-protobuf")
        .body(Full::from(body));
    let response = client().request(request.unwrap()).await.unwrap();
    let status = response.status();
    let said = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(status, 204, "{said:?}");
}

async fn get(url: &str, target: &str) -> (u16, Value) {
    let answer = raw(&client(), Method::GET, &format!("{url}{target}"), "", false).await;
    (answer.status, answer.json())
}

/// The rows of an answer, in no order.
fn rows(answer: &Value) -> BTreeSet<String> {
    let data = &answer["data"];
    let rows = data.get("result").unwrap_or(data).as_array();
    rows.unwrap_or_else(|| panic!("{answer}")).iter().map(Value::to_string).collect()
}

#[tokio::test]
async fn patterns_match_what_prometheus_matches() {
    let Some(prometheus) = empty_prometheus("patterns_match_what_prometheus_matches").await else {
        return;
    };
    let (node, now) = (format!("http://{}", node().await), now_ms());
    for url in [&node, &prometheus.url] {
        write(url, body(now)).await;
    }
    for pattern in PATTERNS {
        for op in ["=~", "!~"] {
            let selector = encode(&format!("m{{v{op}{pattern:?}}}"));
            for target in [
                format!("/api/v1/query?query={selector}&time={}", now / 1_000),
                format!("/api/v1/series?match[]={selector}"),
                format!("/api/v1/label/v/values?match[]={selector}"),
            ] {
                let (ours, theirs) = (get(&node, &target).await, get(&prometheus.url, &target).await);
                assert_eq!(rows(&ours.1), rows(&theirs.1), "{pattern} {op}");
            }
        }
    }
}

#[tokio::test]
async fn prometheus_reads_from_the_node() {
    let node = format!("http://{}", node().await);
    let config = format!("remote_read: [{{url: \"{node}/api/v1/read\", read_recent: true}}]\n");
    let Some(prometheus) = prometheus_with("prometheus_reads_from_the_node", &config).await else { return };
    let now = now_ms();
    write(&node, body(now)).await;
    let (start, end) = (now / 1_000 - 700, now / 1_000);
    for query in [
        "m",
        "m{v=~\"a.*\"}",
        "m{v!=\"api\"} offset 1m",
        "max(sum_over_time(m[2m]))",
        "count(up)",
        "nothing",
        "m[3m]",
    ] {
        let query = encode(query);
        let instant = format!("/api/v1/query?query={query}&time={end}");
        let range = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=30");
        for target in [instant, range] {
            let (ours, theirs) = (get(&node, &target).await, get(&prometheus.url, &target).await);
            if theirs.0 == 200 {
                assert_eq!(rows(&ours.1), rows(&theirs.1), "{target}");
            }
            assert_eq!(ours.1["status"], theirs.1["status"], "{target}");
        }
    }
    // Names and values of labels are not asked for over this protocol.
    let target = "/api/v1/series?match[]=m";
    let (ours, theirs) = (get(&node, target).await, get(&prometheus.url, target).await);
    assert_eq!(rows(&ours.1), rows(&theirs.1), "{target}");
}
