//! What the page is made of, without a browser.

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use super::{load, started};
use crate::support::weir::{Answer, Weir};

async fn get(weir: &Weir, url: String, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    weir.ask(request.body(Full::default()).unwrap()).await
}

#[tokio::test]
async fn every_view_reads_without_scripts() {
    let (_upstream, weir, admin) = started("").await;
    let asked = load(&weir).await;
    for (path, parts) in [
        (
            "/",
            &["8 queries of dashboard kube-capacity, tenant payments", "tenant queries 4", "&lt;script&gt;"]
                [..],
        ),
        ("/status", &["Who holds the budget", "http-equiv=\"refresh\" content=\"5\""]),
        ("/status?refresh=2", &["content=\"2\""]),
        ("/top", &["<h1>Top</h1>"]),
        ("/refused", &["Latest refusals"]),
        (
            "/explain?query=sum(small)&range=1h&step=15s",
            &["It would run.", "<code>sum</code>", "<code>small</code>"],
        ),
        ("/explain?query=sum(", &["critical", "parse"]),
        ("/explain?query=small&range=never", &["range:"]),
        (
            "/limits?tenant=payments",
            &["limits.tenants.payments", "limits.default", "built in", "rate.queries"],
        ),
        ("/limits?tenant=data-a", &["limits.tenants.data-*", "7d"]),
        ("/rules", &["no-federation", "use the recording rules", "from the configuration file"]),
    ] {
        let page = get(&weir, format!("{admin}{path}"), &[]).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.body);
        for part in parts {
            assert!(page.body.contains(part), "{path}: {part} is missing: {}", page.body);
        }
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert!(!page.body.contains("style=") && !page.body.contains("<script>"), "{path}");
    }
    let still = get(&weir, format!("{admin}/status?refresh=0"), &[]).await;
    assert!(!still.body.contains("http-equiv"), "{}", still.body);
    assert_eq!(get(&weir, format!("{admin}/refused?x=1"), &[]).await.status, StatusCode::BAD_REQUEST);
    for name in ["page.css", "page.js", "act.js", "ask.js", "live.js", "morph.js", "icon.svg"] {
        let file = get(&weir, format!("{admin}/assets/{name}"), &[]).await;
        assert_eq!(
            (file.status, &file.headers["x-content-type-options"]),
            (StatusCode::OK, &"nosniff".parse().unwrap())
        );
    }
    assert_eq!(get(&weir, format!("{admin}/assets/../Cargo.toml"), &[]).await.status, StatusCode::NOT_FOUND);
    let lost = get(&weir, format!("{admin}/api/v1/query?query=up"), &[]).await;
    assert_eq!(
        (lost.status, &lost.headers["weir-error"]),
        (StatusCode::NOT_FOUND, &"not_found".parse().unwrap())
    );
    assert!(lost.error().contains("server.listen"), "{}", lost.body);
    let posted = Request::post(format!("{admin}/status.json")).body(Full::default()).unwrap();
    let posted = weir.ask(posted).await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(posted.error().contains("does not take POST; queries go to"), "{}", posted.body);
    for asked in asked {
        asked.abort();
    }
}

/// The next event of a stream, as the markup that it carries.
async fn event(body: &mut hyper::body::Incoming) -> String {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let frame = body.frame().await.expect("another event").unwrap();
        text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap()));
    }
    text.lines().filter_map(|line| line.strip_prefix("data: ")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn viewers_share_events_and_are_bounded() {
    let (_upstream, weir, admin) = started("").await;
    let open = async |view: &str| {
        let request = Request::get(format!("{admin}/events?view={view}")).body(Full::default()).unwrap();
        weir.send(request).await
    };
    assert_eq!(open("/explain").await.status(), StatusCode::BAD_REQUEST);
    let mut watching = Vec::new();
    for _ in 0..16 {
        let response = open("/").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        watching.push(response.into_body());
    }
    let refused = get(&weir, format!("{admin}/events?view=/"), &[]).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.error().contains("too many"), "{}", refused.body);
    let asked = load(&weir).await;
    let mut seen = String::new();
    while !seen.contains("kube-capacity") {
        seen = event(&mut watching[0]).await;
    }
    assert!(!seen.contains("<script>") && !seen.contains("<html"), "{seen}");
    // One leaves, another one may come.
    watching.truncate(15);
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while open("/rules").await.status() != StatusCode::OK {
        assert!(tokio::time::Instant::now() < end, "no place became free");
    }
    for asked in asked {
        asked.abort();
    }
}

#[tokio::test]
async fn pages_of_other_sites_get_and_do_nothing() {
    let (_upstream, weir, admin) = started("").await;
    let explain = format!("{admin}/explain?query=small");
    for (site, dest, want) in [
        ("same-origin", "empty", 200),
        ("none", "document", 200),
        ("cross-site", "document", 200),
        ("cross-site", "image", 403),
        ("cross-site", "iframe", 403),
        ("same-site", "empty", 403),
    ] {
        let headers = [("sec-fetch-site", site), ("sec-fetch-dest", dest)];
        for url in [explain.clone(), format!("{admin}/api/v1/admin/explain?query=small")] {
            assert_eq!(get(&weir, url, &headers).await.status, want, "{site} {dest}");
        }
    }
    let write = Request::builder()
        .method(Method::DELETE)
        .uri(format!("{admin}/api/v1/admin/queries?tenant=payments"))
        .header("sec-fetch-site", "cross-site");
    assert_eq!(weir.ask(write.body(Full::default()).unwrap()).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_is_guarded_is_not_shown_without_a_token() {
    let auth = ", admin_auth: {tokens: {alice: wonderland-0123456789}, protect: everything}";
    let (_upstream, weir, admin) = started(auth).await;
    let browser = ("accept", "text/html,application/xhtml+xml");
    for path in ["/", "/limits?tenant=payments", "/explain?query=small"] {
        let page = get(&weir, format!("{admin}{path}"), &[browser]).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert!(page.body.contains("data-sign-in") && !page.body.contains("backend"), "{}", page.body);
        let signed = [browser, ("authorization", "Bearer wonderland-0123456789")];
        assert_eq!(get(&weir, format!("{admin}{path}"), &signed).await.status, StatusCode::OK);
    }
    for path in ["/events?view=/", "/api/v1/admin/explain?query=small", "/api/v1/admin/limits?tenant=a"] {
        assert_eq!(
            get(&weir, format!("{admin}{path}"), &[]).await.status,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    assert_eq!(get(&weir, format!("{admin}/assets/page.js"), &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_query_is_explained_node_by_node_as_it_would_be_priced() {
    let (_upstream, weir, admin) = started("").await;
    let query = "sum by (job) (rate(big[5m])) / sum(small)";
    let encoded: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let url = format!("{admin}/api/v1/admin/explain?query={encoded}&range=6h&step=1m&tenant=payments");
    let data = get(&weir, url, &[]).await.json()["data"].clone();
    let nodes: Vec<_> = data["tree"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["depth"].as_u64().unwrap(), node["node"].clone()))
        .collect();
    let want = [(0, "/"), (1, "sum by (job)"), (2, "rate"), (3, "big[5m]"), (1, "sum"), (2, "small")];
    assert_eq!(nodes, want.map(|(depth, name)| (depth, Value::from(name))));
    let number = |at: usize, key: &str| data["tree"][at][key].as_u64().unwrap();
    assert_eq!((number(3, "series"), number(5, "series")), (20_000, 2));
    // Whoever is above holds at least as much, and the root nearly all of the whole.
    assert!(
        number(0, "memoryBytes") >= number(1, "memoryBytes")
            && number(1, "memoryBytes") >= number(2, "memoryBytes")
    );
    let whole = data["estimate"]["memoryBytes"].as_u64().unwrap();
    assert!(number(0, "memoryBytes") <= whole && number(0, "memoryBytes") > whole / 2, "{data}");
    assert_eq!(data["verdict"], json!({"admitted": true}));

    // In the tenant's name, and on nobody's account.
    let url = format!("{admin}/api/v1/admin/explain?query=small&range=30d&step=1h&tenant=data-science");
    let refused = get(&weir, url, &[]).await.json();
    assert_eq!(refused["data"]["verdict"]["limit"], "weir-max-range", "{refused}");
    let wrong = get(&weir, format!("{admin}/api/v1/admin/explain?query=sum(&tenant=payments"), &[]).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.error().contains("parse error"), "{}", wrong.body);
}

#[tokio::test]
async fn limits_say_where_they_come_from() {
    let (_upstream, weir, admin) = started("").await;
    let asked = load(&weir).await;
    let of = async |tenant: &str| {
        let url = format!("{admin}/api/v1/admin/limits?tenant={tenant}&suggest=true");
        get(&weir, url, &[]).await.json()["data"].clone()
    };
    let payments = of("payments").await;
    let find = |data: &Value, key: &str| {
        let limits = data["limits"].as_array().unwrap();
        limits.iter().find(|limit| limit["key"] == key && limit["class"].is_null()).cloned().unwrap()
    };
    assert_eq!(
        find(&payments, "in_flight.queries"),
        json!({"class": null, "key": "in_flight.queries", "value": "4", "mode": "enforce", "source": "limits.tenants.payments"})
    );
    assert_eq!(find(&payments, "per_query.series")["source"], "limits.default");
    assert_eq!(find(&payments, "per_query.steps")["mode"], "shadow");
    assert_eq!(find(&payments, "per_query.steps")["source"], Value::Null);
    assert_eq!((&payments["running"], &payments["waiting"]), (&4.into(), &4.into()));
    assert_eq!(payments["suggestion"], json!({"none": "no journal is kept here"}));
    let data = of("data-science").await;
    assert_eq!(find(&data, "per_query.range")["source"], "limits.tenants.data-*");
    for asked in asked {
        asked.abort();
    }
}
