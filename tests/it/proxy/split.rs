//! Range queries that are sent in parts of their time.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::support::{
    fake_upstream::{Act, FakeUpstream, Seen},
    weir::{Answer, Weir},
};

/// A database whose only series is, at each step, the time; and which counts 20,000 series in all that it is asked
/// about.
fn database(seen: &Seen) -> Act {
    if !seen.path().ends_with("/query_range") {
        return crate::proxy::forward::database(seen);
    }
    let number = |name| first(seen, name).unwrap();
    let (start, end, step) = (number("start"), number("end"), number("step"));
    let count = ((end - start) / step).floor() as u64 + 1;
    let values: Vec<Value> =
        (0..count).map(|n| start + n as f64 * step).map(|time| json!([time, time.to_string()])).collect();
    Act::json(
        &json!({"status": "success", "data": {"resultType": "matrix", "result": [
            {"metric": {"job": "a"}, "values": values},
        ]}})
        .to_string(),
    )
}

/// The value that counts: the first, and the form's before the URL's.
fn first(seen: &Seen, name: &str) -> Option<f64> {
    let form =
        form_urlencoded::parse(&seen.body).find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
    let text = form.or_else(|| seen.params(name).first().cloned())?;
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().ok().map(|ms: f64| ms / 1e3),
        None => text.parse().ok(),
    }
}

async fn before(act: impl Fn(&Seen) -> Act + Send + Sync + 'static, kind: &str) -> (FakeUpstream, Weir) {
    let upstream = FakeUpstream::start(act).await;
    let yaml = format!(
        "backends: [{{name: main, kind: {kind}, urls: [\"{}\"], budget: {{memory: 1GiB, unproven: 100%}}}}]\n\
         limits: {{default: {{per_query: {{memory: 512MiB, series: 50_000, samples: 100M, points: 100M}}}}}}",
        upstream.url()
    );
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    (upstream, weir)
}

fn ranges(upstream: &FakeUpstream) -> Vec<Seen> {
    upstream.seen().into_iter().filter(|seen| seen.path().ends_with("/query_range")).collect()
}

const RANGE: &str = "start=1700000000.5&end=1700021600&step=15";

fn estimate(answer: &Answer) -> &str {
    answer.headers["weir-estimate"].to_str().unwrap()
}

#[tokio::test]
async fn pieces_are_one_answer() {
    let (upstream, weir) = before(database, "prometheus").await;
    let whole = format!("/api/v1/query_range?query=small&{RANGE}");
    let want = weir.get(&whole).await;
    assert!(!estimate(&want).contains("pieces"), "{}", estimate(&want));
    let target = format!("/api/v1/query_range?query=sum(big)&{RANGE}");
    let gets = weir.get(&target).await;
    let posts = weir.post("/api/v1/query_range", &format!("query=sum(big)&{RANGE}")).await;
    for answer in [gets, posts] {
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(estimate(&answer).ends_with("pieces=6"), "{}", estimate(&answer));
        let json = |answer: &Answer| serde_json::from_str::<Value>(&answer.body).unwrap();
        assert_eq!(json(&answer), json(&want));
        let told = answer.headers["weir-cost"].to_str().unwrap();
        assert!(told.starts_with("answer_series=1; answer_samples=1440;"), "{told}");
    }
    let seen = ranges(&upstream);
    assert_eq!(seen.len(), 1 + 2 * 6);
    assert!(seen[1..].iter().all(|seen| seen.header("accept-encoding") == Some("identity")));
    assert!(weir.metrics().contains(r#"weir_divided_queries_total{backend="main",outcome="joined"} 2"#));
    weir.until_idle().await;
}

#[tokio::test]
async fn only_what_runs_prometheus_engine_gets_pieces_and_only_of_plain_queries() {
    let (upstream, weir) = before(database, "victoriametrics").await;
    let sum = format!("/api/v1/query_range?query=sum(big)&{RANGE}");
    // Its formula gives less; the point is that nothing is split.
    assert!(!weir.get(&sum).await.headers["weir-estimate"].to_str().unwrap().contains("pieces"));
    assert_eq!(ranges(&upstream).len(), 1);
    // Which replica Thanos takes depends on where a query starts, unless it gives all of them.
    let (upstream, weir) = before(database, "thanos").await;
    assert_eq!((weir.get(&sum).await.status.as_u16(), ranges(&upstream).len()), (422, 0));
    assert_eq!(weir.get(&format!("{sum}&dedup=false")).await.status, 200);
    let (upstream, weir) = before(database, "cortex").await;
    let refused = weir.get(&format!("{sum}&stats=all")).await;
    assert_eq!((refused.status.as_u16(), ranges(&upstream).len()), (422, 0));
    assert!(refused.error().contains("weir-max-memory"), "{}", refused.body);
    assert_eq!(weir.get(&sum).await.status, 200);
    let explained = weir.get(&sum.replace("query_range", "query_range_cost")).await;
    let explained: Value = serde_json::from_str(&explained.body).unwrap();
    assert_eq!(explained["data"]["estimate"]["pieces"], 6);
    let text = explained["data"]["text"].as_str().unwrap();
    assert!(text.contains("in 6 parts of its time, one after the other"), "{text}");
}

#[tokio::test]
async fn an_error_of_a_later_piece_is_the_answer() {
    let error = r#"{"status":"error","errorType":"execution","error":"query timed out"}"#;
    let act = move |seen: &Seen| match first(seen, "start") {
        Some(start) if seen.path().ends_with("/query_range") && 1_700_010_000.0 < start => {
            Act::answer(503, &[("content-type", "application/json")], error.as_bytes())
        }
        _ => database(seen),
    };
    let (upstream, weir) = before(act, "mimir").await;
    let answer = weir.get(&format!("/api/v1/query_range?query=sum(big)&{RANGE}")).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (503, error));
    assert_eq!(ranges(&upstream).len(), 4, "nothing is asked after it");
    weir.until_idle().await;
}

#[tokio::test]
async fn what_is_too_long_to_be_put_together_is_asked_for_as_a_whole_and_remembered() {
    let long = |seen: &Seen| {
        if seen.path().ends_with("/query_range") {
            return Act::json(&format!(r#"{{"status":"success","warnings":["{}"]}}"#, "x".repeat(2 << 20)));
        }
        database(seen)
    };
    let upstream = FakeUpstream::start(long).await;
    let yaml = format!(
        "backends: [{{name: main, urls: [\"{}\"], budget: {{memory: 2GiB, unproven: 100%}}}}]\n\
         limits: {{default: {{per_query: {{memory: 2GiB, series: 50_000, samples: 100M, points: 100M}}}}}}",
        upstream.url()
    );
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    let target = format!("/api/v1/query_range?query=sum(big)&{RANGE}");
    for times in [2, 3] {
        let answer = weir.get(&target).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.ends_with("xx\"]}") && !estimate(&answer).contains("pieces"));
        assert_eq!(ranges(&upstream).len(), times);
    }
    assert!(weir.metrics().contains(r#"weir_divided_queries_total{backend="main",outcome="whole"} 1"#));
    weir.until_idle().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_parts() {
    let slow = |seen: &Seen| match database(seen) {
        Act::Raw(raw) if seen.path().ends_with("/query_range") => {
            Act::Slow(vec![raw], Duration::from_millis(50))
        }
        act => act,
    };
    let (upstream, weir) = before(slow, "prometheus").await;
    let target = format!("/api/v1/query_range?query=sum(big)&{RANGE}");
    let answer = tokio::time::timeout(Duration::from_millis(120), weir.get(&target)).await;
    assert!(answer.is_err());
    weir.until_idle().await;
    let asked = ranges(&upstream).len();
    assert!((1..6).contains(&asked), "{asked}");
}

#[tokio::test]
async fn what_odd_answers_of_pieces_become() {
    // Status and body of the third part; the status that the client gets, and how often the backend was asked.
    let whole = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"job":"a"},"values":[[1700000000.5,"1"]]}]}}"#;
    for (status, body, want, asked) in [
        (200, whole, 422, 3),
        (203, whole, 422, 3),
        (200, "<html>", 422, 3),
        (302, "", 422, 3),
        (422, r#"{"status":"error","errorType":"execution","error":"many-to-many"}"#, 422, 3),
    ] {
        let act = move |seen: &Seen| match first(seen, "start") {
            Some(start) if seen.path().ends_with("/query_range") && start > 1_700_005_000.0 => {
                Act::answer(status, &[("content-type", "application/json")], body.as_bytes())
            }
            _ => database(seen),
        };
        let (upstream, weir) = before(act, "prometheus").await;
        let answer = weir.get(&format!("/api/v1/query_range?query=sum(big)&{RANGE}")).await;
        assert_eq!(
            (answer.status.as_u16(), ranges(&upstream).len()),
            (want, asked),
            "{status} {body}: {}",
            answer.body
        );
        // As a whole it is more than a query may be; nothing but that says no.
        assert!(
            answer.body.contains(if status == 422 { "many-to-many" } else { "weir-max-memory" }),
            "{}",
            answer.body
        );
        weir.until_idle().await;
    }
}

/// B13.
#[tokio::test]
async fn an_answer_merged_from_parts_is_compressed_as_asked() {
    let (_upstream, weir) = before(database, "prometheus").await;
    let target = format!("/api/v1/query_range?query=sum(big)&{RANGE}");
    let plain = weir.get(&target).await;
    assert!(estimate(&plain).ends_with("pieces=6"), "{}", estimate(&plain));
    let request = http::Request::get(weir.url(&target)).header("accept-encoding", "gzip");
    let response = weir.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).unwrap();
    assert_eq!(text, plain.body);
    assert!(bytes.len() < text.len() / 2, "{} of {}", bytes.len(), text.len());
}
