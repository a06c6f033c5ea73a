//! The accepted forms of an import or a remote write, and the node's answers to the rest.

use std::{io::Write as _, sync::Arc};

use axum::body::Body;
use flate2::{Compression, write::GzEncoder};
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use weir::node::{
    db::{Db, Options},
    http::{Node, Settings, router},
};

/// The node's clock, seconds.
const NOW: i64 = 1_700_000_000;
const IMPORT: &str = "/api/v1/import/prometheus";

struct Tried(Arc<Node>);

impl Tried {
    fn new() -> Self {
        let db = Db::in_memory(Options { clock: || NOW * 1_000, ..Options::default() });
        Self(Node::new(Arc::new(db), Settings::default()).unwrap())
    }

    async fn send(&self, request: http::request::Builder, body: impl Into<Body>) -> (u16, String) {
        let request = request.body(body.into()).unwrap();
        let response = router(Arc::clone(&self.0)).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(&self, target: &str) -> Value {
        let (status, body) = self.send(Request::get(target), Body::empty()).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn post(&self, target: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> (u16, String) {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, body).await
    }

    /// The rows of a query over the last two minutes.
    async fn rows(&self, query: &str) -> Value {
        self.get(&format!("/api/v1/query?query={query}[2m]&time={NOW}")).await["data"]["result"].take()
    }
}

/// Names of series are remembered as they were sent; one that is gone by age is made anew.
#[tokio::test]
async fn a_series_that_is_sent_again_is_the_same_one_until_it_is_removed() {
    let options = Options { clock: || NOW * 1_000, retention_ms: 30_000, ..Options::default() };
    let tried = Tried(Node::new(Arc::new(Db::in_memory(options)), Settings::default()).unwrap());
    let send = async |name: &str, second: i64| {
        let text = format!("{name}{{a=\"1\",b=\"{{ \\\" }}\"}} {second} {}\n", (NOW + second) * 1_000);
        assert_eq!(tried.post(IMPORT, &[], text).await, (204, String::new()));
    };
    let (db, labels) = (Arc::clone(tried.0.db()), "{a=\"1\", b=\"{ \\\" }\"}");
    for second in [-50, -45, -40] {
        send("up", second).await;
    }
    assert_eq!(db.stats().series, 1);
    // With another label beside it, it is another series.
    assert_eq!(tried.post(&format!("{IMPORT}?extra_label=b=2"), &[], format!("up{labels} 1\n")).await.0, 204);
    assert_eq!(db.stats().series, 2);
    db.maintain().unwrap();
    assert_eq!(db.stats().series, 1, "the other one is at the present");
    send("up", -10).await;
    let rows = tried.get(&format!("/api/v1/query?query=count_over_time(up[2m])&time={}", NOW + 60)).await;
    let rows = rows["data"]["result"].as_array().unwrap().len();
    assert_eq!((db.stats().series, rows), (2, 2));
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

#[tokio::test]
async fn an_import_takes_time_and_labels_from_its_url() {
    let node = Tried::new();
    let time = (NOW - 60) * 1_000;
    let target = format!("{IMPORT}?timestamp={time}&extra_label=job=extra&extra_label=z=a=b");
    let text = format!("a{{job=\"own\"}} 1\na 2 {}\n", (NOW - 30) * 1_000);
    assert_eq!(node.post(&target, &[], text).await, (204, String::new()));
    let labels = json!({"__name__": "a", "job": "extra", "z": "a=b"});
    assert_eq!(
        node.rows("a").await,
        json!([{"metric": labels, "values": [[NOW - 60, "1"], [NOW - 30, "2"]]}])
    );
    for (query, part) in
        [("timestamp=now", "timestamp"), ("extra_label=x", "name=value"), ("extra_label=%3Dx", "name=value")]
    {
        let (status, said) = node.post(&format!("{IMPORT}?{query}"), &[], "a 1").await;
        assert!(status == 400 && said.contains(part), "{query}: {said}");
    }
}

#[tokio::test]
async fn bodies_are_read_by_their_headers_in_any_case() {
    let node = Tried::new();
    let om = ("Content-Type", "Application/OpenMetrics-Text; version=1.0.0; charset=utf-8");
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 0];
    let cases: [(&[(&str, &str)], Vec<u8>, u16, &str); 10] = [
        (&[om], format!("a 1 {}\n# EOF\n", NOW - 20).into(), 204, ""),
        (&[om], format!("a 2 {}\n", NOW - 10).into(), 400, "# EOF"),
        (&[om, ("content-encoding", "GZIP")], gzip(&format!("a 3 {NOW}\n# EOF")), 204, ""),
        (&[("content-encoding", "gzip")], gzip("b 1"), 204, ""),
        (&[("content-encoding", "identity")], b"b 1".to_vec(), 204, ""),
        (&[("content-encoding", "gzip")], b"b 1".to_vec(), 400, "cannot be read as such"),
        (&[], gzip("b 1"), 400, "compressed with gzip, and no Content-Encoding says so"),
        (&[("content-encoding", "zstd")], zstd.to_vec(), 415, "not with zstd"),
        (&[("content-encoding", "gzip")], gzip(&"# a comment\n".repeat(6 << 20)), 413, "larger than"),
        (
            &[],
            b"c 1 # {trace_id=\"x\"} 1\n".to_vec(),
            400,
            "1 samples were written, 0 refused; 1 exemplars were refused",
        ),
    ];
    for (headers, body, status, part) in cases {
        let got = node.post(IMPORT, headers, body).await;
        assert!(got.0 == status && got.1.contains(part), "{headers:?}: {got:?}");
    }
    let values = json!([[NOW - 20, "1"], [NOW - 10, "2"], [NOW, "3"]]);
    assert_eq!(node.rows("a").await[0]["values"], values, "a text that is cut off is kept as far as it goes");
}

fn packed(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

/// A field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// A series with a sample of now.
fn series(labels: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        out.extend(field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat()));
    }
    let mut sample = vec![1 << 3 | 1];
    sample.extend_from_slice(&1f64.to_le_bytes());
    sample.push(2 << 3);
    let mut time = (NOW * 1_000) as u64;
    while time >= 0x80 {
        sample.push(time as u8 | 0x80);
        time >>= 7;
    }
    sample.push(time as u8);
    out.extend(field(2, &sample));
    out
}

#[tokio::test]
async fn remote_write_is_told_by_its_headers_from_everything_else() {
    let node = Tried::new();
    let up = packed(&field(1, &series(&[("__name__", "up")])));
    let protobuf = ("content-type", "Application/X-Protobuf");
    let exemplar = field(3, b"\x12\x01a");
    let with_exemplar = packed(&field(1, &[series(&[("__name__", "x")]), exemplar].concat()));
    let cases: [(&[(&str, &str)], Vec<u8>, u16, &str); 9] = [
        (&[protobuf, ("content-encoding", "Snappy")], up.clone(), 204, ""),
        (&[], up.clone(), 204, ""),
        (&[("content-type", "application/x-protobuf;proto=prometheus.WriteRequest")], up.clone(), 204, ""),
        (
            &[("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")],
            up.clone(),
            415,
            "2.0",
        ),
        (&[("content-type", "application/json")], up.clone(), 415, "not application/json"),
        (&[protobuf, ("content-encoding", "zstd")], up, 415, "not with zstd"),
        (&[protobuf], vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 0xff], 400, "compressed with zstd"),
        (&[protobuf], packed(&field(1, &series(&[("job", "a")]))), 400, "no metric name"),
        (&[protobuf], with_exemplar, 400, "1 samples were written, 0 refused; 1 exemplars were refused"),
    ];
    for (headers, body, status, part) in cases {
        let got = node.post("/api/v1/write", headers, body).await;
        assert!(got.0 == status && got.1.contains(part), "{headers:?}: {got:?}");
    }
}

#[tokio::test]
async fn metadata_are_stored() {
    let node = Tried::new();
    let text = "# HELP a_total What a\\nis.\n# TYPE a_total counter\n# UNIT b_seconds seconds\na_total 1\n";
    assert_eq!(node.post(IMPORT, &[], text).await.0, 204);
    let said =
        [vec![1 << 3, 2], field(2, b"c"), field(4, b"From remote write."), field(5, b"bytes")].concat();
    assert_eq!(node.post("/api/v1/write", &[], packed(&field(3, &said))).await, (204, String::new()));
    assert_eq!(
        node.get("/api/v1/metadata").await["data"],
        json!({
            "a_total": [{"type": "counter", "help": "What a\nis.", "unit": ""}],
            "b_seconds": [{"type": "unknown", "help": "", "unit": "seconds"}],
            "c": [{"type": "gauge", "help": "From remote write.", "unit": "bytes"}],
        })
    );
    let one = node.get("/api/v1/metadata?metric=c&limit=5").await;
    assert_eq!(one["data"].as_object().unwrap().keys().collect::<Vec<_>>(), ["c"]);
    assert_eq!(node.get("/api/v1/metadata?limit=1").await["data"].as_object().unwrap().len(), 1);
}
