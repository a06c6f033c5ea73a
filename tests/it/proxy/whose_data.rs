//! The tenant whose data a request reads is the one that pays: whatever a client writes, the database sees the charged
//! tenant.

use http::{Method, Request};
use http_body_util::Full;

use crate::{
    proxy::forward::database,
    support::sockets::client,
    support::{fake_upstream::FakeUpstream, process::NodeProcess, weir::Weir},
};

const FORGED: [(&str, &str); 4] =
    [("x-scope-orgid", "victim"), ("thanos-tenant", "victim"), ("accountid", "7"), ("projectid", "7")];

/// Each kind of source beside forged headers: queries, listings, light requests and probes carry the tenant that pays.
#[tokio::test]
async fn the_database_sees_the_tenant_that_pays() {
    for (source, own, paid) in [
        ("{bearer: {robots: s3cret}}", ("authorization", "Bearer s3cret"), "robots"),
        ("{basic_auth: user}", ("authorization", "Basic YWxpY2U6cHc="), "alice"),
        ("{header: X-Team}", ("x-team", "blue"), "blue"),
    ] {
        for (kind, header) in [
            ("mimir", Some("x-scope-orgid")),
            ("cortex", Some("x-scope-orgid")),
            ("thanos", Some("thanos-tenant")),
            ("prometheus", None),
            ("victoriametrics", None),
        ] {
            let upstream = FakeUpstream::start(database).await;
            let backend = format!("backends: [{{name: main, kind: {kind}, urls: [\"{}\"]}}]", upstream.url());
            let weir = Weir::start(&format!("{backend}\ntenancy: {{sources: [{source}]}}")).await;
            let headers: Vec<_> = FORGED.into_iter().chain([own]).collect();
            for target in
                ["/api/v1/query?query=unknown", "/api/v1/series?match[]=unknown", "/api/v1/metadata"]
            {
                assert_eq!(weir.get_as(target, &headers).await.status, 200, "{source} {kind} {target}");
            }
            let client_made =
                ["/api/v1/query", "/api/v1/series", "/api/v1/metadata", "/api/v1/cardinality/label_values"];
            let seen = upstream.seen();
            let seen: Vec<_> = seen
                .iter()
                .filter(|seen| {
                    client_made.contains(&seen.path()) && !seen.target.contains("limit_per_metric")
                })
                .collect();
            assert!(seen.len() >= 3, "{source} {kind}");
            for one in seen {
                for (name, _) in FORGED.iter().chain([&own]) {
                    // Health is asked for in nobody's name.
                    let wanted = (Some(*name) == header).then_some(paid);
                    let got = one.header(name);
                    assert!(
                        got == wanted || got == Some("anonymous"),
                        "{source} {kind} {}: {name} {got:?}",
                        one.target
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn credentials_go_on_only_where_that_is_configured() {
    for (configured, sent) in [("", None), (", forward_authorization: true", Some("Basic YWxpY2U6cHc="))] {
        let upstream = FakeUpstream::start(database).await;
        let weir =
            Weir::start(&format!("backends: [{{name: main, urls: [\"{}\"]{configured}}}]", upstream.url()))
                .await;
        weir.get_as(
            "/api/v1/query?query=small",
            &[("authorization", "Basic YWxpY2U6cHc="), ("cookie", "a=b")],
        )
        .await;
        let seen = upstream.seen().into_iter().find(|seen| seen.params("query") == ["small"]).unwrap();
        assert_eq!(seen.header("authorization"), sent);
        assert_eq!(seen.header("cookie").is_some(), sent.is_some());
    }
}

#[tokio::test]
async fn a_group_of_tenants_has_the_limits_of_its_pattern() {
    let upstream = FakeUpstream::start(database).await;
    let limits = r#"{"team-*": {per_query: {series: 1}}, "team-a*": {per_query: {series: 500}}, team-ab: {per_query: {series: 1}}}"#;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, urls: [\"{}\"]}}]\nlimits: {{tenants: {limits}}}",
        upstream.url()
    ))
    .await;
    weir.proxy.warm().await;
    for (tenant, status) in
        // One run teaches the cost for all, since this database knows no tenants.
        [("team-x", 422), ("team-", 422), ("team-ab", 422), ("team-a1", 200), ("other", 200)]
    {
        let answer = weir.get_as("/api/v1/query?query=small", &[("x-scope-orgid", tenant)]).await;
        assert_eq!(answer.status.as_u16(), status, "{tenant}: {}", answer.body);
    }
}

/// Mimir and Cortex read the data of `a|b` as both tenants'.
#[tokio::test]
async fn several_tenants_at_once_have_the_limits_of_each() {
    let upstream = FakeUpstream::start(database).await;
    let url = upstream.url();
    let weir = Weir::start(&format!(
        "backends: [{{name: main, kind: mimir, urls: [\"{url}\"]}}, {{name: plain, urls: [\"{url}\"]}}]\n\
         routes: [{{tenants: [p1, p2, \"p1|p2\"], backend: plain}}]\n\
         limits: {{tenants: {{t2: {{per_query: {{series: 1}}}}, p2: {{per_query: {{series: 1}}}}}}}}"
    ))
    .await;
    weir.proxy.warm().await;
    for (tenant, status) in [
        ("t1", 200),
        ("t2", 422),
        ("t2|t2", 422),
        ("t2|", 422),
        ("|t2", 422),
        ("t1|t2", 422),
        ("t3|t1", 200),
        ("t1|t3|t1", 200),
        // Two databases, of which one would not know the other's tenant.
        ("t1|p1", 400),
        // To Prometheus it is a name like any other.
        ("p1|p2", 200),
        ("|", 401),
    ] {
        let answer = weir.get_as("/api/v1/query?query=small", &[("x-scope-orgid", tenant)]).await;
        assert_eq!(answer.status.as_u16(), status, "{tenant}: {}", answer.body);
    }
    let names: Vec<_> = upstream
        .seen()
        .iter()
        .filter(|seen| seen.params("query") == ["small"])
        .map(|seen| seen.header("x-scope-orgid").map(str::to_owned))
        .collect();
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(names, [some("t1"), some("t1|t3"), some("t1|t3"), None]);
}

async fn status(method: Method, url: String, headers: &[(&str, &str)]) -> u16 {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::<bytes::Bytes>::default();
    client().request(request.body(body).unwrap()).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn pages_of_other_sites_write_neither_to_the_admin_address_nor_to_the_node() {
    let upstream = FakeUpstream::start(database).await;
    let yaml = format!(
        "backends: [{{name: main, urls: [\"{}\"]}}]\nserver: {{admin_hosts: [weir.example]}}",
        upstream.url()
    );
    let weir = Weir::start(&yaml).await;
    let admin = weir.admin().await;
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), "").await;
    let elsewhere = [("origin", "http://evil.example")];
    let cross_site = [("sec-fetch-site", "cross-site")];
    for page in [&elsewhere[..], &cross_site[..]] {
        assert_eq!(status(Method::POST, format!("http://{admin}/-/reload"), page).await, 403);
        for path in ["write", "import/prometheus"] {
            let url = format!("http://{}/api/v1/{path}", node.address);
            assert_eq!(status(Method::POST, url, page).await, 403, "{path}");
        }
        // Grafana reads from browsers.
        let url = format!("http://{}/api/v1/query?query=1", node.address);
        assert_eq!(status(Method::POST, url, page).await, 200);
    }
    // Without a file there is nothing to read again; the request itself is fine.
    assert_eq!(status(Method::POST, format!("http://{admin}/-/reload"), &[]).await, 400);
    for (host, want) in [("weir.example:9098", 200), ("localhost", 200), ("evil.example", 403)] {
        for path in ["/metrics", "/status.json", "/-/healthy"] {
            let got = status(Method::GET, format!("http://{admin}{path}"), &[("host", host)]).await;
            // Health is answered by the connection itself, before anybody looks at names.
            assert!(got == want || path == "/-/healthy", "{host} {path}: {got}");
        }
    }
}

/// Cortex can be set up to read `.*` as all tenants; limits and charges would be those of one that does not exist.
#[tokio::test]
async fn patterns_of_tenants_are_no_tenant_for_cortex() {
    for (kind, tenant, status) in [
        ("cortex", "team-a", 200),
        ("cortex", "a.b", 200),
        ("cortex", ".*", 400),
        ("cortex", "team-[ab]", 400),
        ("cortex", "a|b.+", 400),
        ("mimir", "a*", 200),
    ] {
        let upstream = FakeUpstream::start(database).await;
        let weir =
            Weir::start(&format!("backends: [{{name: main, kind: {kind}, urls: [\"{}\"]}}]", upstream.url()))
                .await;
        let answer = weir.get_as("/api/v1/query?query=small", &[("x-scope-orgid", tenant)]).await;
        assert_eq!(answer.status.as_u16(), status, "{kind} {tenant}: {}", answer.body);
    }
}
