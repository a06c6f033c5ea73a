//! Writes that are malformed, absurd or too much: each is refused in words, and earlier samples stay.

use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt as _, Full};
use tokio::net::TcpListener;
use weir::node::{
    db::{Db, Options},
    http::{Node, Settings, serve},
};

use crate::{
    support::real::data::{field, timeseries, varint},
    support::sockets::client,
};

const NOW: i64 = 1_700_000_000_000;

/// A remote write of one series.
fn written(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let series = timeseries(labels, samples.iter().copied());
    let mut request = Vec::new();
    field(&mut request, 1, &series);
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

fn packed(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

#[tokio::test]
async fn bad_writes_are_refused_with_words_and_nothing_is_lost() {
    let options = Options { clock: || NOW, max_series: 2, ..Options::default() };
    let settings = Settings { write_bytes: 2 << 20, ..Settings::default() };
    let db = Arc::new(Db::in_memory(options));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Node::new(Arc::clone(&db), settings).unwrap(), std::future::pending()));
    let (large, up) = ("x".repeat(1 << 20), [("__name__", "up")]);
    let many: Vec<(String, String)> = (0..200).map(|i| (format!("l{i}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let mut bomb = Vec::new();
    varint(&mut bomb, 1 << 31);
    bomb.extend([0, b'a']);
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("a good one", written(&up, &[(NOW - 5, 1.0)]), 204, ""),
        ("the same again", written(&up, &[(NOW - 5, 1.0)]), 204, ""),
        ("another value at the same time", written(&up, &[(NOW - 5, 2.0)]), 400, "duplicate"),
        ("a stale marker", written(&up, &[(NOW - 4, stale)]), 204, ""),
        ("a NaN with a payload", written(&up, &[(NOW - 3, f64::from_bits(0x7ff8_dead_beef_0001))]), 204, ""),
        ("infinities", written(&up, &[(NOW - 2, f64::INFINITY), (NOW - 1, f64::NEG_INFINITY)]), 204, ""),
        ("the end of time", written(&up, &[(i64::MAX, 1.0)]), 400, "9223372036854775807"),
        ("the beginning of time", written(&up, &[(i64::MIN, 1.0)]), 400, "-9223372036854775808"),
        ("too late", written(&up, &[(NOW - 7_200_000, 1.0)]), 400, "up"),
        ("no labels", written(&[], &[(NOW, 1.0)]), 400, "no metric name"),
        ("an empty name", written(&[("", "a")], &[(NOW, 1.0)]), 400, "empty name"),
        ("a name twice", written(&[("a", "1"), ("a", "2")], &[(NOW, 1.0)]), 400, "not unique"),
        ("a large value", written(&[("a", &large)], &[(NOW, 1.0)]), 400, "too long"),
        ("a large name", written(&[(&large, "a")], &[(NOW, 1.0)]), 400, "too long"),
        ("many labels", written(&many, &[(NOW, 1.0)]), 400, "too many"),
        ("a second series", written(&[("__name__", "b")], &[(NOW, 1.0)]), 204, ""),
        ("a series too many", written(&[("__name__", "c")], &[(NOW, 1.0)]), 429, "c"),
        ("an old series when full", written(&up, &[(NOW, 3.0)]), 204, ""),
        ("no snappy", b"plainly not packed".to_vec(), 400, "snappy"),
        ("nothing", Vec::new(), 400, "snappy"),
        ("a bomb", bomb, 400, "are allowed"),
        ("more than allowed once unpacked", packed(&vec![0; 3 << 20]), 400, "are allowed"),
        ("a cut field", packed(&[0x0a, 0x7f, 1]), 400, "longer than its message"),
        ("a wrong type", packed(&[0x08, 1]), 400, "wrong wire type"),
        ("native histograms", packed(&[0x0a, 2, 0x22, 0]), 400, "native histograms"),
        ("a label that is not UTF-8", packed(&[0x0a, 7, 0x0a, 3, 0x0a, 1, 0xff, 0x12, 0]), 400, "UTF-8"),
    ];
    for (name, body, status, part) in cases {
        let request = Request::post(format!("http://{address}/api/v1/write")).body(Full::from(body)).unwrap();
        let response = client().request(request).await.unwrap();
        let got = response.status().as_u16();
        let said = response.into_body().collect().await.unwrap().to_bytes();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(got, status, "{name}: {said}");
        assert!(said.contains(part), "{name}: {said}");
        assert!(said.len() < 1_000, "{name}: an error of {} bytes", said.len());
    }
    assert_eq!((db.stats().series, db.stats().samples_appended), (2, 7));
}

#[tokio::test]
async fn what_is_sound_of_a_write_is_stored() {
    let db = Arc::new(Db::in_memory(Options { clock: || NOW, ..Options::default() }));
    let node = Node::new(Arc::clone(&db), Settings::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, node, std::future::pending()));
    let long = "x".repeat(20_000);
    let all: [&[(&str, &str)]; 4] = [
        &[("__name__", "first")],
        &[("__name__", "bad"), ("a", &long)],
        &[("__name__", "bad"), ("a", "1"), ("a", "1")],
        &[("__name__", "last")],
    ];
    let mut request = Vec::new();
    for labels in all {
        field(&mut request, 1, &timeseries(labels, [(NOW, 1.0), (NOW + 1, 2.0)].into_iter()));
    }
    let lines: Vec<_> = (0..5_000).map(|i| format!("text {i} {}\n", NOW - 5_000 + i)).collect();
    let cases = [
        ("write", packed(&request), "4 samples were written, 4 refused; the first: the value of label"),
        (
            "import/prometheus",
            format!("{}text one\n", lines.concat()).into_bytes(),
            "line 5001: \\\"one\\\" is not a number; before it 5000 samples were written, 0 refused",
        ),
    ];
    for (target, body, part) in cases {
        let request = Request::post(format!("http://{address}/api/v1/{target}")).body(Full::from(body));
        let response = client().request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 400);
        let said = response.into_body().collect().await.unwrap().to_bytes();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(part), "{said}");
    }
    let stats = db.stats();
    assert_eq!((stats.series, stats.samples_appended, stats.samples_refused), (3, 5_004, 4));
}
