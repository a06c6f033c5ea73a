//! Spans of queries, as a scripted collector gets them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};
use weir::telemetry::{metrics::Metrics, otlp};

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream},
        weir::Weir,
    },
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

struct Traced {
    upstream: FakeUpstream,
    weir: Weir,
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    exporting: JoinHandle<()>,
}

/// A proxy whose spans go to `collector`.
async fn traced(collector: &str) -> Traced {
    let upstream = FakeUpstream::start(database).await;
    let yaml = format!(
        "backends: [{{name: main, urls: [\"{}\"]}}]\nlimits: {{default: {{per_query: {{series: 10_000}}}}}}",
        upstream.url()
    );
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    let metrics = Arc::new(Metrics::new(1).unwrap());
    let endpoint = otlp::endpoint(collector).unwrap();
    let (sender, exporter) = otlp::Exporter::new(endpoint, Arc::clone(&metrics));
    weir.proxy.trace_to(sender);
    let (stop, stopped) = oneshot::channel();
    let exporting = tokio::spawn(exporter.run(async move { drop(stopped.await) }));
    Traced { upstream, weir, metrics, stop, exporting }
}

impl Traced {
    /// Sends the rest.
    async fn flush(self) -> String {
        self.weir.until_idle().await;
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.exporting).await.unwrap().unwrap();
        self.metrics.encode().unwrap()
    }
}

fn spans(collector: &FakeUpstream) -> Vec<Value> {
    let mut all = Vec::new();
    for seen in collector.seen() {
        assert_eq!((seen.method.as_str(), &*seen.target), ("POST", "/v1/traces"));
        assert_eq!(seen.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        let resource = &body["resourceSpans"][0];
        assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "weir");
        all.extend(resource["scopeSpans"][0]["spans"].as_array().unwrap().clone());
    }
    all
}

fn attribute(span: &Value, key: &str) -> Value {
    let all = span["attributes"].as_array().unwrap();
    let found = all.iter().find(|attribute| attribute["key"] == key);
    found.map_or(Value::Null, |attribute| {
        attribute["value"].as_object().unwrap().values().next().unwrap().clone()
    })
}

#[tokio::test]
async fn every_query_leaves_a_span_that_the_backend_is_told_of() {
    let collector = FakeUpstream::start(|_| Act::json("{}")).await;
    let traced = traced(&collector.url()).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "a=b"), ("x-scope-orgid", "team")];
    assert_eq!(traced.weir.get_as("/api/v1/query?query=sum(small)", &headers).await.status, 200);
    assert_eq!(traced.weir.get("/api/v1/query?query=rate(big[5m])").await.status, 422);
    let unsampled = parent.replace("-01", "-00");
    let quiet = [("traceparent", unsampled.as_str())];
    assert_eq!(traced.weir.get_as("/api/v1/query?query=small", &quiet).await.status, 200);
    assert_eq!(traced.weir.get("/api/v1/status/buildinfo").await.status, 200);

    let sent = traced.upstream.seen();
    let told = |query: &str| {
        let seen = sent.iter().find(|seen| seen.params("query").contains(&query.to_owned())).unwrap();
        (seen.header("traceparent").unwrap().to_owned(), seen.header("tracestate").map(str::to_owned))
    };
    let metrics = traced.flush().await;
    assert!(metrics.contains("weir_trace_spans_total{result=\"sent\"} 2"), "{metrics}");
    let spans = spans(&collector);
    let [ran, refused] = &spans[..] else { panic!("{spans:?}") };

    assert_eq!((&ran["traceId"], &ran["parentSpanId"]), (&TRACE.into(), &"00f067aa0ba902b7".into()));
    let ours = format!("00-{TRACE}-{}-01", ran["spanId"].as_str().unwrap());
    assert_eq!(told("sum(small)"), (ours, Some("a=b".to_owned())));
    assert_eq!(told("small"), (unsampled, None));
    assert_eq!(
        (&ran["name"], &ran["kind"], &ran["status"]),
        (&"query".into(), &2.into(), &serde_json::json!({}))
    );
    for (key, value) in [
        ("weir.tenant", "team"),
        ("weir.verdict", "admitted"),
        ("weir.outcome", "complete"),
        ("weir.estimate.series", "10"),
        ("weir.estimate.known", "upper_bound"),
        ("weir.wait_ms", "0"),
        ("weir.answer.series", "1"),
        ("http.response.status_code", "200"),
        ("db.query.text", "sum(small)"),
    ] {
        assert_eq!(attribute(ran, key), value, "{key}");
    }
    assert_eq!(attribute(ran, "weir.fingerprint").as_str().unwrap().len(), 16);
    let time = |key: &str| ran[key].as_str().unwrap().parse::<u64>().unwrap();
    assert!(time("startTimeUnixNano") > 1_600_000_000_000_000_000);
    assert!(time("endTimeUnixNano") > time("startTimeUnixNano"));

    assert_eq!(attribute(refused, "weir.verdict"), "weir-max-series");
    assert_eq!(attribute(refused, "http.response.status_code"), "422");
    assert!(refused["parentSpanId"].is_null() && refused["traceId"] != TRACE);
}

#[tokio::test]
async fn a_dead_collector_costs_a_metric_and_one_that_hangs_no_time() {
    let nobody = FakeUpstream::nobody();
    let traced = traced(&nobody).await;
    for _ in 0..5 {
        assert_eq!(traced.weir.get("/api/v1/query?query=small").await.status, 200);
    }
    let metrics = traced.flush().await;
    assert!(metrics.contains("weir_trace_spans_total{result=\"failed\"} 5"), "{metrics}");

    let hangs = FakeUpstream::start(|_| Act::hang()).await;
    let traced = self::traced(&hangs.url()).await;
    for _ in 0..5 {
        assert_eq!(traced.weir.get("/api/v1/query?query=small").await.status, 200);
    }
    traced.exporting.abort();
    traced.weir.until_idle().await;
}

#[tokio::test]
async fn a_collector_that_comes_back_is_used_again() {
    let up = Arc::new(AtomicBool::new(false));
    let seen_up = Arc::clone(&up);
    let answer =
        move |_: &_| if seen_up.load(Relaxed) { Act::json("{}") } else { Act::answer(503, &[], b"no") };
    let collector = FakeUpstream::start(answer).await;
    let traced = traced(&collector.url()).await;
    assert_eq!(traced.weir.get("/api/v1/query?query=small").await.status, 200);
    // The first batch is on its way within two seconds.
    collector.received(1).await;
    up.store(true, Relaxed);
    assert_eq!(traced.weir.get("/api/v1/query?query=small").await.status, 200);
    let metrics = traced.flush().await;
    for result in ["failed", "sent"] {
        assert!(metrics.contains(&format!("weir_trace_spans_total{{result=\"{result}\"}} 1")), "{metrics}");
    }
}
