//! Differences between kinds of databases: endpoints, parameters, tenants in paths, limits that are handed down.

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen},
        weir::Weir,
    },
};

async fn before(kind: &str, path: &str, yaml: &str) -> (FakeUpstream, Weir) {
    let upstream = FakeUpstream::start(database).await;
    let url = format!("{}{path}", upstream.url());
    let weir =
        Weir::start(&format!("backends: [{{name: main, kind: {kind}, urls: [\"{url}\"]}}]\n{yaml}")).await;
    (upstream, weir)
}

/// An m3dbnode of May 2026: it refuses by the ceiling in this header, in these words.
fn m3_with_a_ceiling(seen: &Seen) -> Act {
    let (limit, matched) = (seen.header("m3-limit-max-series").unwrap_or("1000"), seen.params("query"));
    if !matched.iter().any(|query| query.contains("grown")) {
        return database(seen);
    }
    let error = format!(
        "unable to satisfy consistency requirements, shards=16: failed to meet consistency level unstrict_majority with 0/1 \
         success, 1 nodes responded, errors: [error fetching tagged from host m3db_local: Error({{Type:BAD_REQUEST \
         Message:query exceeded limit: require_exhaustive=true, series_limit={limit}, series_matched={limit}, \
         docs_limit=0, docs_matched=8256 Flags:1}})]"
    );
    let body = serde_json::json!({"status": "error", "error": error}).to_string();
    Act::answer(400, &[("content-type", "application/json")], body.as_bytes())
}

/// M11: a refusal by M3 for Weir's limits has Weir's id, and one for its own or the client's limits has none.
#[tokio::test]
async fn a_limit_that_m3_enforces_for_weir_has_weirs_id() {
    let ours: [(&str, &[(&str, &str)], u16, Option<&str>); 3] = [
        ("push_down: true", &[], 422, Some("weir-max-series; max=500; observed=501; known=at_least")),
        ("push_down: true", &[("m3-limit-max-series", "100")], 400, None),
        ("push_down: false", &[], 400, None),
    ];
    for (push_down, headers, status, limit) in ours {
        let upstream = FakeUpstream::start(m3_with_a_ceiling).await;
        let weir = Weir::start(&format!(
            "backends: [{{name: m, kind: m3, {push_down}, unknown: allow, urls: [\"{}\"]}}]\n\
             limits: {{default: {{per_query: {{series: 500}}}}}}",
            upstream.url()
        ))
        .await;
        let answer = weir.get_as("/api/v1/query?query=grown", headers).await;
        assert_eq!(answer.status.as_u16(), status, "{push_down} {headers:?}: {}", answer.body);
        let named = answer.headers.get("weir-limit").map(|value| value.to_str().unwrap());
        assert_eq!(named, limit, "{push_down} {headers:?}");
        let error = answer.error();
        assert_eq!(
            error.contains("(weir-max-series, err-mimir-max-series-per-query)"),
            limit.is_some(),
            "{error}"
        );
        assert_eq!(error.contains("query exceeded limit"), limit.is_none(), "{error}");
    }
}

/// Who is not to choose a tenant cannot do so by a path either.
#[tokio::test]
async fn a_path_names_no_tenant() {
    let (upstream, weir) = before("victoriametrics", "/select/7/prometheus", "").await;
    let own = "/api/v1/query?query=small";
    assert_eq!(weir.get(own).await.status, 200);
    for start in [
        "/select/8/prometheus",
        "/select/8:1/prometheus",
        "/select/multitenant/prometheus",
        "/select/7/prometheus",
        "/prometheus/select/8/prometheus",
        "/%73elect/8/prometheus",
        "//select/8/prometheus",
        "/./select/8/prometheus",
        "/api/v1/../../../8/prometheus",
        "/..%2f..%2f8/prometheus",
        "/insert/8/prometheus",
        "/delete/8/prometheus",
    ] {
        for target in [
            own,
            "/api/v1/query_range?query=small&start=0&end=60&step=15",
            "/api/v1/labels",
            "/api/v1/metadata",
        ] {
            for answer in [
                weir.get(&format!("{start}{target}")).await,
                weir.post(&format!("{start}{target}"), "a=b").await,
            ] {
                assert!(matches!(answer.status.as_u16(), 403 | 404), "{start}{target}: {}", answer.body);
            }
        }
    }
    let answer = weir.get("/select/8/prometheus/api/v1/query?query=small").await;
    assert!(
        answer.error().contains("only Weir does") && answer.error().contains("routes[]"),
        "{}",
        answer.body
    );
    let strays: Vec<_> = upstream
        .seen()
        .into_iter()
        .map(|seen| seen.target)
        .filter(|target| target.contains("/8") || target.contains("multitenant") || target.contains("insert"))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
}

/// The tenant that pays chooses the backend, and with it the account in the path.
#[tokio::test]
async fn a_tenant_of_victoria_metrics_cluster_is_a_backend() {
    let upstream = FakeUpstream::start(database).await;
    let backend = |name: &str, account: u32| {
        format!(
            "{{name: {name}, kind: victoriametrics, urls: [\"{}/select/{account}/prometheus\"]}}",
            upstream.url()
        )
    };
    let weir = Weir::start(&format!(
        "backends: [{}, {}]\nroutes: [{{tenants: [blue], backend: blue}}]",
        backend("rest", 0),
        backend("blue", 7)
    ))
    .await;
    for (tenant, path) in
        [("blue", "/select/7/prometheus/api/v1/query"), ("red", "/select/0/prometheus/api/v1/query")]
    {
        assert_eq!(weir.get_as("/api/v1/query?query=small", &[("x-scope-orgid", tenant)]).await.status, 200);
        let seen = upstream.seen().into_iter().rfind(|seen| seen.params("query") == ["small"]).unwrap();
        assert_eq!(seen.path(), path, "{tenant}");
    }
}

/// Endpoints of some kinds are not found at the others, and are no fault of the client's login or of the database.
#[tokio::test]
async fn an_endpoint_that_a_kind_lacks_is_not_found() {
    let upstream = FakeUpstream::start(|seen| match seen.path() {
        "/api/v1/query" | "/api/v1/status/tsdb" => database(seen),
        _ => Act::answer(404, &[("content-type", "text/plain")], b"404 page not found\n"),
    })
    .await;
    let weir = Weir::before(&upstream.url(), "cortex").await;
    for (target, status) in [
        ("/api/v1/status/buildinfo", 404),
        ("/api/v1/metadata", 404),
        ("/api/v1/rules", 404),
        ("/api/v1/query_exemplars?query=small&start=0&end=60", 404),
        ("/api/v1/labels", 502),
    ] {
        let answer = weir.get(target).await;
        assert_eq!(answer.status.as_u16(), status, "{target}: {}", answer.body);
        assert!(answer.error().contains("404 page not found"), "{}", answer.body);
    }
}

/// Exemplars without a start are looked for in all of time, as series are.
#[tokio::test]
async fn exemplars_are_looked_for_in_all_of_time() {
    for kind in ["prometheus", "thanos", "cortex"] {
        let (_upstream, weir) = before(kind, "", "").await;
        for times in ["", "&start=0", "&start=1000&end=9000000000"] {
            let answer = weir.get(&format!("/api/v1/query_exemplars?query=small{times}")).await;
            assert_eq!(answer.status, 200, "{kind} {times}: {}", answer.body);
        }
    }
}

/// A query that Thanos would take long to parse is parsed here first.
#[tokio::test]
async fn what_is_explained_by_the_database_is_read_here_first() {
    let (upstream, weir) = before("thanos", "", "").await;
    let nested = format!("{}1{}", "(".repeat(4_000), ")".repeat(4_000));
    for name in ["format_query", "parse_query", "query_explain", "query_range_explain"] {
        let answer = weir.post(&format!("/api/v1/{name}"), &format!("query={nested}")).await;
        assert_eq!(answer.status, 422, "{name}: {}", answer.body);
    }
    assert!(upstream.seen().iter().all(|seen| !seen.path().ends_with("explain")));
}

/// Parameters by which a kind reads more or otherwise stay here, on free requests as well.
#[tokio::test]
async fn headers_of_a_kind_are_filtered_on_every_way() {
    for (kind, header) in [
        ("mimir", "x-mimir-force-prometheus-engine"),
        ("thanos", "thanos-debug"),
        ("m3", "m3-related-queries"),
    ] {
        let (upstream, weir) = before(kind, "", "").await;
        for target in
            ["/api/v1/metadata", "/api/v1/query?query=1%2B1", "/api/v1/query?query=small", "/api/v1/labels"]
        {
            assert_eq!(
                weir.get_as(target, &[(header, "1"), ("x-plain", "1")]).await.status,
                200,
                "{kind} {target}"
            );
        }
        let seen: Vec<_> =
            upstream.seen().into_iter().filter(|seen| seen.header("x-plain").is_some()).collect();
        assert_eq!(seen.len(), 4, "{kind}");
        assert!(seen.iter().all(|seen| seen.header(header).is_none()), "{kind}");
    }
}
