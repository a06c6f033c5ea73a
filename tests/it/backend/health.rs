//! The readiness of backends: which count as ready, how soon they are back, and the text about them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout};
use weir::{
    admin::Snapshot,
    backend::{Backend, BaseUrl, Days, Kind, Settings},
};

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen},
        weir::Weir,
    },
};

const SUCCESS: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
const SOON: Duration = Duration::from_secs(10);

fn backend(kind: Kind, url: &str) -> Arc<Backend> {
    Backend::new(Settings::new("main", kind, vec![BaseUrl::parse(url).unwrap()]))
}

/// Whether two checks in a row leave it ready, and the reason why not.
async fn checked(backend: &Backend) -> (bool, Option<String>) {
    for _ in 0..2 {
        backend.check_all().await;
    }
    (backend.ready(), backend.snapshot().replicas[0].last_error.clone())
}

#[tokio::test]
async fn what_answers_like_no_database_is_not_ready() {
    let error = br#"{"status":"error","errorType":"execution","error":"session not initialized"}"#;
    for (what, act, said) in [
        ("404 to everything", Act::answer(404, &[], b"404 page not found"), "answers 404 to a query"),
        ("401 to everything", Act::answer(401, &[], b"no org id"), "set its credentials in `headers`"),
        ("a login page", Act::answer(200, &[], b"<html>login</html>"), "no database of PromQL"),
        ("another API", Act::json(r#"{"ok":true}"#), "no database of PromQL"),
        ("500 to everything", Act::answer(500, &[], error), "says 500 at"),
    ] {
        for kind in Kind::ALL {
            let act = act.clone();
            let upstream = FakeUpstream::start_checked(move |_| act.clone()).await;
            let (ready, why) = checked(&backend(kind, &upstream.url())).await;
            assert!(!ready, "{what}, {kind:?}");
            assert!(why.as_deref().unwrap_or_default().contains(said), "{what}, {kind:?}: {why:?}");
        }
    }
    // Where clients bring their own credentials, Weir's question without any says nothing.
    let upstream = FakeUpstream::start_checked(|_| Act::answer(401, &[], b"who are you?")).await;
    let mut settings =
        Settings::new("main", Kind::Prometheus, vec![BaseUrl::parse(&upstream.url()).unwrap()]);
    settings.tenancy.forward_credentials = true;
    assert!(checked(&Backend::new(settings)).await.0);
    let (ready, why) = checked(&backend(Kind::Prometheus, &FakeUpstream::nobody())).await;
    assert!(!ready && why.unwrap().starts_with("could not be reached"));
}

#[tokio::test]
async fn its_own_word_is_asked_at_both_places_and_a_query_decides() {
    // M3 says 200 at /health always; /ready counts, or the query where there is none.
    for (kind, prefix, paths) in [
        (Kind::Prometheus, "/prom", ["/prom/-/ready", "/-/ready"]),
        (Kind::Mimir, "/prometheus", ["/ready", "/prometheus/ready"]),
        (Kind::VictoriaMetrics, "/select/0/prometheus", ["/select/0/prometheus/health", "/health"]),
        (Kind::M3, "", ["/ready", "/ready"]),
    ] {
        for place in [Some(paths[0]), Some(paths[1]), None] {
            let upstream = FakeUpstream::start_checked(move |seen: &Seen| match seen.path() {
                path if path.ends_with("/api/v1/query") => Act::json(SUCCESS),
                path if Some(path) == place => Act::answer(200, &[], b"ready"),
                _ => Act::answer(404, &[], b""),
            })
            .await;
            let backend = backend(kind, &format!("{}{prefix}", upstream.url()));
            assert!(checked(&backend).await.0, "{kind:?} {place:?}");
            let words = upstream.seen().iter().filter(|seen| !seen.path().ends_with("query")).count();
            // Where it is not, it is asked once.
            assert!(words <= 3, "{kind:?} {place:?}: {words}");
            let queries: Vec<_> =
                upstream.seen().into_iter().filter(|seen| seen.path().ends_with("query")).collect();
            let asked = if kind == Kind::M3 { "absent(weir_health_check)" } else { "vector(1)" };
            assert_eq!(queries[0].target, format!("{prefix}/api/v1/query?query={asked}"));
            assert_eq!(queries[0].header("x-scope-orgid").is_some(), kind == Kind::Mimir);
        }
    }
}

/// An m3dbnode without a namespace reports that it is ready, and answers queries that read nothing.
#[tokio::test]
async fn m3_is_ready_when_it_answers_what_reads_its_index() {
    let upstream = FakeUpstream::start_checked(|seen: &Seen| {
        if seen.path() != "/api/v1/query" || seen.target.contains("vector") {
            return Act::json(SUCCESS);
        }
        let error = r#"{"status":"error","error":"unaggregated namespace is not yet initialized"}"#;
        Act::answer(500, &[("content-type", "application/json")], error.as_bytes())
    })
    .await;
    let (ready, why) = checked(&backend(Kind::M3, &upstream.url())).await;
    assert!(!ready && why.as_ref().is_some_and(|why| why.contains("not yet initialized")), "{why:?}");
}

#[tokio::test]
async fn a_full_backend_is_not_a_sick_one() {
    let upstream = FakeUpstream::start_checked(|seen: &Seen| match seen.path() {
        "/-/ready" => Act::answer(200, &[], b"ready"),
        _ => Act::hang(),
    })
    .await;
    let url = BaseUrl::parse(&upstream.url()).unwrap();
    let mut settings = Settings::new("main", Kind::Prometheus, vec![url]);
    settings.health.timeout = Duration::from_millis(50);
    let backend = Backend::new(settings);
    assert_eq!(checked(&backend).await, (true, None), "its query only waits behind others");
}

#[tokio::test]
async fn metrics_are_found_at_the_root_or_below_the_path_and_missed_once() {
    let page = "process_resident_memory_bytes 5\n";
    for (kind, prefix, at, asked) in [
        (Kind::Cortex, "/prometheus", Some("/metrics"), 1),
        (Kind::Cortex, "/prometheus", Some("/prometheus/metrics"), 2),
        (Kind::Thanos, "/thanos", Some("/thanos/metrics"), 1),
        (Kind::Thanos, "/thanos", Some("/metrics"), 2),
        (Kind::Thanos, "/thanos", None, 2),
    ] {
        let upstream = FakeUpstream::start(move |seen: &Seen| match seen.path() {
            path if Some(path) == at => Act::answer(200, &[], page.as_bytes()),
            path if path.ends_with("/metrics") => Act::answer(404, &[], b""),
            _ => Act::answer(200, &[], b"<html>a page for people</html>"),
        })
        .await;
        let backend = backend(kind, &format!("{}{prefix}", upstream.url()));
        for round in 0..3 {
            let pages = backend.metrics_pages(Instant::now() + SOON).await;
            assert_eq!(pages[0].as_deref(), at.map(|_| page.as_bytes()), "{kind:?} {at:?}");
            let more = if at.is_some() { round } else { 0 };
            assert_eq!(upstream.seen().len(), asked + more, "{kind:?} {at:?}");
        }
        assert_eq!(backend.snapshot().replicas[0].metrics_missing, at.is_none());
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_is_asked_for_once() {
    let upstream = FakeUpstream::start(|_| Act::answer(404, &[], b"")).await;
    let backend = backend(Kind::M3, &upstream.url());
    let first = backend.tsdb_status(10, Days::Latest).await.unwrap_err().message();
    let then = backend.tsdb_status(10, Days::Latest).await.unwrap_err().message();
    assert!(first.contains("status 404") && then.contains("has no /api/v1/status/tsdb"), "{first}; {then}");
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_backend_that_is_back_is_used_within_a_second_and_does_not_flap_before() {
    let alive = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&alive);
    let upstream = FakeUpstream::start_checked(move |seen: &Seen| match told.load(SeqCst) {
        false => Act::answer(404, &[], b"404 page not found"),
        true if seen.target.contains("vector(1)") => Act::json(SUCCESS),
        true => database(seen),
    })
    .await;
    // The interval of the defaults: the doubt hurries the check.
    let weir =
        Weir::start(&format!("backends: [{{name: main, kind: mimir, urls: [\"{}\"]}}]", upstream.url()))
            .await;
    let small = "/api/v1/query?query=small";
    weir.until_answer(small, 200).await;
    alive.store(false, SeqCst);
    // A check every five seconds finds it down at the second one.
    let deadline = Instant::now() + Duration::from_secs(20);
    while weir.get(small).await.status != 503 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..100 {
        assert_eq!(weir.get(small).await.status, 503, "it does not flap");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = Snapshot::take(&weir.proxy);
    let findings: Vec<_> = status.findings().into_iter().map(|finding| finding.text).collect();
    let down = format!(
        "backend main is down: none of its replicas answers: {} answers 404 to a query",
        upstream.url()
    );
    assert!(findings.iter().any(|text| text.starts_with(&down)), "{findings:?}");
    alive.store(true, SeqCst);
    timeout(Duration::from_secs(3), weir.until_answer(small, 200)).await.expect("back at once");
}
