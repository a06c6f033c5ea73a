//! The requests of a user's first week: long variables, whole histories, addresses with a slash too many, new
//! functions.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen},
        process::NodeProcess,
        weir::Weir,
    },
};

const DAY: i64 = 86_400;

async fn before(kind: &str, yaml: &str) -> (FakeUpstream, Weir) {
    let upstream = FakeUpstream::start(database).await;
    let backend = format!("backends: [{{name: main, kind: {kind}, urls: [\"{}\"]}}]", upstream.url());
    let weir = Weir::start(&format!("{backend}\n{yaml}")).await;
    (upstream, weir)
}

fn asked(upstream: &FakeUpstream, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
    upstream.seen().into_iter().filter(|seen| wanted(seen)).collect()
}

/// Grafana's text for "All" in a variable of that number of hosts.
fn all_hosts(count: usize) -> String {
    let hosts: Vec<_> = (0..count).map(|n| format!(r"web-{n:05}\\.example\\.com")).collect();
    hosts.join("|")
}

fn form(query: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish()
}

#[tokio::test]
async fn any_variable_of_a_dashboard_passes() {
    let (upstream, weir) = before("prometheus", "").await;
    let query = format!("sum(small{{host=~\"({})\"}})", all_hosts(10_000));
    let answer = weir.post("/api/v1/query", &form(&query)).await;
    assert_eq!(answer.status, 200, "{}", answer.body.get(..300).unwrap_or(&answer.body));
    let seen = asked(&upstream, |seen| seen.body.len() > 250_000 && seen.path() == "/api/v1/query");
    assert!(!seen.is_empty());
}

#[tokio::test]
async fn the_node_takes_what_the_limits_on_text_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), "").await;
    let backend = format!("backends: [{{name: node, kind: weir, urls: [\"http://{}\"]}}]", node.address);
    let weir = Weir::start(&backend).await;
    for pattern in [format!("({})", all_hosts(10_000)), format!("({}):9100.*", all_hosts(2_500))] {
        let answer = weir.post("/api/v1/query", &form(&format!("up{{instance=~\"{pattern}\"}}"))).await;
        assert_eq!(answer.status, 200, "{}", answer.body.get(..300).unwrap_or(&answer.body));
    }
}

#[tokio::test]
async fn limits_on_text_have_names_and_modes() {
    let wide = format!("small{{host=~\"{}\"}}", all_hosts(100));
    let narrow = r#"small{a="b",c="d"}"#.to_owned();
    let nested = format!("{}small{}", "(".repeat(20), ")".repeat(20));
    let long_sum = vec!["small"; 30].join("+");
    for (limit, id, query) in [
        ("text: 1KiB", "weir-max-text", &wide),
        ("regex: 1KiB", "weir-max-regex", &wide),
        ("depth: 10", "weir-max-depth", &nested),
        ("nodes: 40", "weir-max-nodes", &long_sum),
        ("matchers: 1", "weir-max-matchers", &narrow),
    ] {
        for (mode, status) in [("enforce", 422), ("shadow", 200), ("off", 200)] {
            let limits = format!("limits: {{default: {{mode: {mode}, per_query: {{{limit}}}}}}}");
            let (_upstream, weir) = before("prometheus", &limits).await;
            let answer = weir.post("/api/v1/query", &form(query)).await;
            assert_eq!(answer.status.as_u16(), status, "{limit} {mode}: {}", answer.body);
            if status == 422 {
                assert!(answer.error().contains(id), "{}", answer.body);
                let named = answer.headers["weir-limit"].to_str().unwrap();
                assert!(named.starts_with(id), "{named}");
            }
        }
    }
    // More than is ever parsed has the same id, whatever the mode.
    let (_upstream, weir) = before("prometheus", "limits: {default: {mode: off}}").await;
    let answer = weir.post("/api/v1/query", &form(&format!("{}1{}", "(".repeat(500), ")".repeat(500)))).await;
    assert_eq!(answer.status, 422);
    assert!(answer.error().ends_with("(weir-max-depth)"), "{}", answer.body);
}

#[tokio::test]
async fn listings_look_through_all_of_time_and_graphs_through_a_whole_month() {
    let (_upstream, weir) = before("prometheus", "").await;
    let now = crate::support::weir::now_ms() / 1_000;
    let (month, quarter, long) = (now - 31 * DAY, now - 90 * DAY, now - 833 * DAY);
    for target in [
        "/api/v1/series?match[]=small&start=0".to_owned(),
        format!("/api/v1/series?match[]=small&start={long}&end={now}"),
        format!("/api/v1/label/job/values?match[]=small&start={quarter}&end={now}"),
        "/api/v1/labels?start=-292273086-05-16T16:47:06Z&end=292277025-08-18T07:12:54.999999999Z".to_owned(),
        format!("/api/v1/query_range?query=small&start={month}&end={now}&step=3600"),
        format!("/api/v1/query_range?query=rate(small[45m])&start={month}&end={now}&step=2700"),
    ] {
        let answer = weir.get(&target).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
    }
    for (target, id) in [
        (
            format!("/api/v1/query_range?query=small&start={}&end={now}&step=3600", month - 1),
            "weir-max-range",
        ),
        ("/api/v1/query?query=rate(small[32d])".to_owned(), "weir-max-range"),
    ] {
        let answer = weir.get(&target).await;
        assert_eq!(answer.status, 422, "{target}: {}", answer.body);
        assert!(answer.error().contains(id), "{}", answer.body);
    }
    let (_upstream, weir) = before("prometheus", "limits: {default: {per_query: {listing_range: 7d}}}").await;
    let answer = weir.get(&format!("/api/v1/series?match[]=small&start={month}&end={now}")).await;
    assert!(answer.error().contains("weir-max-listing-range"), "{}", answer.body);
}

#[tokio::test]
async fn a_limit_of_series_is_not_one_of_names() {
    let names: Vec<String> = (0..40).map(|n| format!("metric_{n}")).collect();
    let list = json!({"status": "success", "data": names}).to_string();
    let upstream = FakeUpstream::start(move |_| Act::json(&list)).await;
    let backend = format!("backends: [{{name: main, kind: m3, urls: [\"{}\"]}}]", upstream.url());
    let weir = Weir::start(&format!("{backend}\nlimits: {{default: {{per_query: {{series: 20}}}}}}")).await;
    for target in ["/api/v1/label/__name__/values", "/api/v1/labels"] {
        let answer = weir.get(target).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        assert_eq!(answer.json()["data"].as_array().unwrap().len(), 40);
    }
}

#[tokio::test]
async fn addresses_lead_where_they_are_meant_to() {
    let (upstream, weir) = before("victoriametrics", "").await;
    for (target, status, location) in [
        ("//api/v1/query?query=small", 301, Some("/api/v1/query?query=small")),
        ("/api//v1/query?query=small", 301, Some("/api/v1/query?query=small")),
        ("//evil.example/api/v1/query", 404, None),
        ("/-/healthy", 200, None),
        ("/-/ready", 200, None),
        ("/api/v1/label/a%5Cb/values", 200, None),
        ("/api/prom/api/v1/query?query=small", 200, None),
        ("/api/v1/features", 200, None),
    ] {
        let answer = weir.get(target).await;
        assert_eq!(answer.status.as_u16(), status, "{target}: {}", answer.body);
        let led = answer.headers.get("location").map(|value| value.to_str().unwrap());
        assert_eq!(led, location, "{target}");
    }
    let answer = weir.get("/graph").await;
    assert!(answer.error().contains("no web interface") && answer.error().contains("admin_listen"));
    let answer = weir.post("/api/v1/label/job/values", "match[]=small").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seen = asked(&upstream, |seen| seen.path() == "/api/v1/label/job/values");
    assert_eq!((seen[0].method.as_str(), &*seen[0].body), ("POST", &b"match[]=small"[..]));
}

#[tokio::test]
async fn parameters_in_the_url_count_whatever_the_body_is() {
    let (_upstream, weir) = before("prometheus", "").await;
    let request =
        Request::post(weir.url("/api/v1/query?query=small")).header("content-type", "application/json");
    let answer = weir.ask(request.body(Full::from(Bytes::from_static(b"{}"))).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn m3_gets_remote_reads_where_it_serves_them() {
    let (upstream, weir) = before("m3", "").await;
    // One query, of `up`, from 1 s to 61 s.
    let request = b"\x0a\x17\x08\xe8\x07\x10\xc8\xdc\x03\x1a\x0e\x12\x08__name__\x1a\x02up";
    let body = snap::raw::Encoder::new().compress_vec(request).unwrap();
    for path in ["/api/v1/read", "/api/v1/prom/remote/read"] {
        let post = Request::post(weir.url(path))
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
            .body(Full::from(body.clone()))
            .unwrap();
        let answer = weir.ask(post).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    let seen = asked(&upstream, |seen| seen.path().ends_with("/read"));
    let paths: Vec<_> = seen.iter().map(Seen::path).collect();
    assert_eq!(paths, ["/api/v1/prom/remote/read"; 2]);
}

#[tokio::test]
async fn a_function_that_only_the_database_knows_is_asked_of_it() {
    let target = "/api/v1/query?query=sum(next_years_rate(small[5m]))";
    let (upstream, weir) = before("prometheus", "").await;
    assert_eq!(weir.get(target).await.status, 200);
    assert_eq!(asked(&upstream, |seen| seen.target.contains("next_years_rate")).len(), 1);
    let cost = weir.get("/api/v1/query_cost?query=sum(next_years_rate(small[5m]))").await.json();
    let warning = cost["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("not known to Weir"), "{cost}");
    let upstream = FakeUpstream::start(database).await;
    let url = upstream.url();
    let weir =
        Weir::start(&format!("backends: [{{name: main, on_unparsable: refuse, urls: [\"{url}\"]}}]")).await;
    let answer = weir.get(target).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("unknown function"), "{}", answer.body);
}

#[tokio::test]
async fn what_matches_everything_is_said_not_to_be_counted() {
    let upstream = FakeUpstream::start(|_| Act::answer(404, &[], b"no table")).await;
    let weir =
        Weir::start(&format!("backends: [{{name: main, kind: m3, urls: [\"{}\"]}}]", upstream.url())).await;
    let answer = weir.get("/api/v1/query?query=%7B__name__%3D~%22.%2B%22%7D").await;
    assert_eq!(
        answer.status,
        422,
        "{}",
        weir.get("/api/v1/query_cost?query=%7B__name__%3D~%22.%2B%22%7D").await.body
    );
    let error = answer.error();
    assert!(
        error.contains("nobody has counted") && error.contains("it matches everything, which is not counted"),
        "{error}"
    );
    assert!(error.contains("To fix it: name a metric or a label value in"), "{error}");
}

/// Thanos and Cortex name the error of a query without the name of its parameter.
#[tokio::test]
async fn parse_errors_begin_as_those_of_the_database() {
    for (kind, start) in [
        ("prometheus", "invalid parameter \"query\": 1:"),
        ("mimir", "invalid parameter \"query\": 1:"),
        ("thanos", "1:"),
        ("cortex", "1:"),
    ] {
        let (_upstream, weir) = before(kind, "").await;
        let answer = weir.get("/api/v1/query?query=sum(").await;
        assert_eq!(answer.status, 400);
        assert!(answer.error().starts_with(start), "{kind}: {}", answer.body);
    }
}
