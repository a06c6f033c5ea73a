//! Labels that a tenant is confined to: whatever it writes, and wherever it writes it, the database is asked for its own
//! series alone.

use std::time::UNIX_EPOCH;

use http::{Request, header};
use weir::promql::{
    self, Limits, ParseError,
    ast::{Ast, Expr},
};

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen},
        real::data::{field, varint},
        weir::{Answer, Weir},
    },
};

const OWN: &str = r#"ns=~"a|b""#;

async fn start(kind: &str, more: &str) -> (FakeUpstream, Weir) {
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, kind: {kind}, urls: [\"{}\"]}}]\n\
         limits: {{tenants: {{\"t*\": {{enforce: {{ns: [a, b]}}{more}}}, \"free\": {{}}}}}}",
        upstream.url()
    ))
    .await;
    weir.proxy.warm().await;
    (upstream, weir)
}

async fn get(weir: &Weir, target: &str) -> Answer {
    weir.get_as(target, &[("x-scope-orgid", "t1")]).await
}

async fn post(weir: &Weir, target: &str, content_type: &str, body: &str) -> Answer {
    let request = Request::post(weir.url(target)).header("x-scope-orgid", "t1");
    weir.ask(request.header(header::CONTENT_TYPE, content_type).body(body.to_owned().into()).unwrap()).await
}

/// The texts that select series in a request as the database got it, wherever they stand.
fn texts(seen: &Seen) -> Vec<String> {
    let body = String::from_utf8_lossy(&seen.body);
    let form = form_urlencoded::parse(body.as_bytes()).filter(|(name, _)| is_text(name));
    let url = seen.target.split_once('?').map_or("", |(_, query)| query);
    let url = form_urlencoded::parse(url.as_bytes()).filter(|(name, _)| is_text(name));
    form.chain(url).map(|(_, value)| value.into_owned()).collect()
}

fn is_text(name: &str) -> bool {
    matches!(name, "query" | "match[]" | "selector" | "extra_filters[]" | "extra_filters" | "extra_label")
}

/// Requests about series, without those that Weir makes for itself about no series of anybody.
fn asked(upstream: &FakeUpstream) -> Vec<Seen> {
    let about_none = |seen: &Seen| {
        seen.path().contains("/status/")
            || seen.path().contains("metadata")
            || texts(seen).iter().all(|text| is_free(text)) && !seen.path().contains("label")
    };
    upstream.seen().into_iter().filter(|seen| !about_none(seen)).collect()
}

/// VictoriaMetrics gets functions that Weir does not know.
fn parse(text: &str) -> Result<Ast, ParseError> {
    promql::parse_with(text, &Limits { unknown_functions: true, ..Limits::default() })
}

fn is_free(text: &str) -> bool {
    let ast = parse(text).unwrap();
    !ast.nodes.iter().any(|node| matches!(node.expr, Expr::Selector(_)))
}

/// Every selector in every request that the database got is confined.
fn assert_confined(upstream: &FakeUpstream, what: &str) {
    let seen = asked(upstream);
    assert!(!seen.is_empty(), "{what}: nothing was asked");
    for one in seen {
        let texts = texts(&one);
        assert!(!texts.is_empty(), "{what}: {one:?}");
        for text in &texts {
            let ast = parse(text).unwrap_or_else(|error| panic!("{what}: {text}: {error}"));
            for node in &ast.nodes {
                let Expr::Selector(selector) = &node.expr else { continue };
                let confined = selector.matchers.iter().any(|m| &*m.name == "ns" && &*m.value == "a|b");
                assert!(confined, "{what}: {text}");
                // What was to get around it is never asked for.
                assert!(
                    !selector.matchers.iter().any(|m| m.name.contains("evil") || m.value.contains("evil")),
                    "{text}"
                );
            }
        }
        assert!(one.header("m3-restrict-by-tags-json").is_none(), "{what}");
    }
}

#[tokio::test]
async fn each_endpoint_asks_for_the_tenants_own_series() {
    for kind in ["prometheus", "victoriametrics", "mimir", "cortex", "thanos", "m3", "weir"] {
        for target in [
            "/api/v1/query?query=small&time=5",
            "/api/v1/query?query=sum(small)%2bon()%20small%7Bns%3D%22c%22%7D",
            "/prometheus/api/v1/query?query=%7B__name__%3D~%22.%2B%22%7D",
            "/api/v1/query_range?query=rate(small%5B5m%5D)&start=0&end=60&step=15",
            "/api/v1/query_exemplars?query=small&start=0&end=60",
            "/api/v1/series?match[]=small&match%5B%5D=other%7Bjob%3D%22x%22%7D",
            "/api/v1/labels",
            "/api/v1/labels?match[]=small",
            "/api/v1/label/ns/values",
            "/api/v1/label/__name__/values?match[]=small",
            "/api/v1/label/U__a_2e_b/values?start=0",
        ] {
            let (upstream, weir) = start(kind, "").await;
            let answer = get(&weir, target).await;
            assert_eq!(answer.status, 200, "{kind} {target}: {}", answer.body);
            assert_confined(&upstream, &format!("{kind} {target}"));
        }
    }
}

/// Ways around it: each is refused or confined.
#[tokio::test]
async fn there_is_no_way_around() {
    const FORM: &str = "application/x-www-form-urlencoded";
    const EVIL: &str = "evil%7Bns%3D%22c%22%7D";
    for kind in ["prometheus", "victoriametrics", "m3", "thanos", "cortex"] {
        let (upstream, weir) = start(kind, "").await;
        for target in [
            // Twice, encoded, in other letters.
            format!("/api/v1/query?query=small&query={EVIL}"),
            format!("/api/v1/query?query=small&quer%79={EVIL}"),
            format!("/api/v1/query?query=small;query={EVIL}"),
            format!("/api/v1/series?match[]=small&match[]={EVIL}%7B"),
            // Matchers beside the query.
            "/api/v1/query?query=small&extra_label=evil=1".to_owned(),
            "/api/v1/query?query=small&extra_filters[]=%7Bevil%3D%221%22%7D".to_owned(),
            "/api/v1/query?query=small&extra%5Ffilters%5B%5D=%7Bevil%3D%221%22%7D".to_owned(),
            "/api/v1/label/a/values?extra_filters=%7Bevil%3D%221%22%7D&match[]=small".to_owned(),
            // Of no use to the endpoint, but perhaps to the database.
            format!("/api/v1/series?match[]=small&query={EVIL}"),
            format!("/api/v1/query?query=small&match[]={EVIL}"),
            // Comments and raw strings end elsewhere for others.
            "/api/v1/query?query=small%20%23%20%0d%20%2b%20label_replace(small,%22a%22,%60%0a)%20or%20evil%20%23%60,%22b%22,%22c%22)".to_owned(),
            "/api/v1/query?query=label_replace(small,%22a%22,%60%5C%60,%22b%22,%60)%20or%20evil%20or%20x(%60)".to_owned(),
            // No PromQL: dialects, templates that hide a name, alternatives of matchers.
            "/api/v1/query?query=evil%20default%200".to_owned(),
            "/api/v1/query?query=small%7Bns%3D%22a%22%20or%20ns%3D%22evil%22%7D".to_owned(),
            "/api/v1/query?query=WITH(x%3D%7Bevil%3D%221%22%7D)small%7Bx%7D".to_owned(),
            "/api/v1/series?match[]=evil%20or%20evil".to_owned(),
            "/api/v1/series?match[]=".to_owned(),
            "/api/v1/query?query=info(small)".to_owned(),
            "/api/v1/query?query=evil(small)".to_owned(),
        ] {
            let _ = get(&weir, &target).await;
        }
        for (target, content_type, body) in [
            ("/api/v1/query?query=small", FORM, format!("query={EVIL}")),
            ("/api/v1/series", FORM, "match[]=small&match[]=%7Bns%3D%22evil".to_owned()),
            ("/api/v1/query?query=small", "application/json", format!("{{\"query\":\"{EVIL}\"}}")),
            ("/api/v1/query?query=small", "APPLICATION/JSON; charset=utf-8", format!("query={EVIL}")),
            ("/api/v1/query", "multipart/form-data; boundary=x", format!("query={EVIL}")),
            ("/api/v1/labels", "text/plain", format!("match[]={EVIL}")),
            ("/api/v1/label/a/values", FORM, "match[]=small&extra_label=evil=1".to_owned()),
        ] {
            let _ = post(&weir, target, content_type, &body).await;
        }
        // A form in a GET, which a database does not look at: it lists all if nothing stands in the URL.
        let request = Request::get(weir.url("/api/v1/labels")).header("x-scope-orgid", "t1");
        let request = request.header(header::CONTENT_TYPE, FORM).header("m3-restrict-by-tags-json", "{}");
        weir.ask(request.body("match[]=small".into()).unwrap()).await;
        let restrict = [
            ("x-scope-orgid", "t1"),
            ("m3-restrict-by-tags-json", r#"{"match":[{"name":"ns","type":"REGEXP","value":".*"}]}"#),
        ];
        assert_eq!(weir.get_as("/api/v1/query?query=small", &restrict).await.status, 200);
        assert_confined(&upstream, kind);
    }
}

#[tokio::test]
async fn what_answers_about_all_series_is_closed() {
    let (upstream, weir) = start("prometheus", "").await;
    for target in [
        "metadata",
        "rules",
        "alerts",
        "scrape_pools",
        "stores",
        "status/runtimeinfo",
        "status/flags",
        "status/self_metrics",
        "status/tsdb",
        "targets",
        "export",
        "search/metric_names?search=a",
        "search/label_values?label=a",
        "query_explain?query=up",
    ] {
        let answer = get(&weir, &format!("/api/v1/{target}")).await;
        assert_eq!(answer.status, 403, "{target}: {}", answer.body);
        let path = format!("/api/v1/{target}");
        assert!(!upstream.seen().iter().any(|seen| seen.target == path), "{target}");
        let free = weir.get_as(&format!("/api/v1/{target}"), &[("x-scope-orgid", "free")]).await;
        let is_closed_to_all = ["status/tsdb", "targets", "export"].contains(&target);
        assert_eq!(free.status == 403, is_closed_to_all, "{target}: {}", free.body);
    }
    let answer = get(&weir, "/api/v1/metadata").await;
    assert_eq!(answer.headers["weir-error"], "weir-label-enforcement");
    for open in ["status/buildinfo", "format_query?query=up", "query?query=1%2B1", "query?query=vector(1)"] {
        assert_eq!(get(&weir, &format!("/api/v1/{open}")).await.status, 200, "{open}");
    }
    // What Weir cannot read of a query for a formatter is refused as ever.
    assert_eq!(get(&weir, "/api/v1/format_query?query=((").await.status, 400);
}

#[tokio::test]
async fn a_conflict_matches_nothing_or_is_refused() {
    let conflict = "/api/v1/query?query=small%7Bns%3D%22c%22%7D";
    let (upstream, weir) = start("prometheus", "").await;
    assert_eq!(get(&weir, conflict).await.status, 200);
    assert_confined(&upstream, conflict);
    let (upstream, weir) = start("prometheus", ", enforce_conflict: refuse").await;
    for target in [conflict, "/api/v1/series?match[]=small&match[]=x%7Bns%3D%22%22%7D"] {
        let answer = get(&weir, target).await;
        assert_eq!(answer.status, 403, "{}", answer.body);
        assert!(answer.error().contains("`ns`"), "{}", answer.body);
    }
    assert_eq!(get(&weir, "/api/v1/query?query=small%7Bns%3D~%22b.*%22%7D").await.status, 200);
    assert_confined(&upstream, "narrower");
    let counted = weir.proxy.metrics_text().unwrap();
    assert!(
        counted.contains("weir_label_enforcement_total{outcome=\"confined\",tenant=\"t1\"} 1"),
        "{counted}"
    );
    assert!(
        counted.contains("weir_label_enforcement_total{outcome=\"refused\",tenant=\"t1\"} 2"),
        "{counted}"
    );
}

/// Explained, it is priced as what would run; nothing says how many series others have.
#[tokio::test]
async fn an_explained_query_is_the_confined_one() {
    let (upstream, weir) = start("prometheus", "").await;
    // The database's table has 20,000 series of this name, everybody's: that is no news for one tenant.
    let answer = get(&weir, "/api/v1/query_cost?query=big").await;
    assert!(answer.status == 200 && !answer.body.contains("label_table"), "{}", answer.body);
    let answer = get(&weir, "/api/v1/query_cost?query=small%7Bns%3D%22c%22%7D").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains(r#"ns=~\"a|b\""#), "{}", answer.body);
    for seen in asked(&upstream) {
        assert!(texts(&seen).iter().all(|text| text.contains(OWN)), "{seen:?}");
    }
    let answer = get(&weir, "/api/v1/query_range_cost?query=small&start=0&end=60&step=15").await;
    assert!(answer.body.contains(r#"ns=~\"a|b\""#), "{}", answer.body);
}

/// People see the client's own text, and that it was confined.
#[tokio::test]
async fn the_clients_text_is_shown() {
    let upstream = FakeUpstream::start(|seen: &Seen| {
        let query = texts(seen).concat();
        if query.contains("slow") && !query.contains("count(") {
            crate::support::fake_upstream::Act::hang()
        } else {
            database(seen)
        }
    })
    .await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, urls: [\"{}\"]}}]\nlimits: {{default: {{enforce: {{ns: [a, b]}}}}}}",
        upstream.url()
    ))
    .await;
    weir.proxy.warm().await;
    let (client, request) = (weir.client.clone(), weir.request("/api/v1/query?query=slow%20%2B%20slow"));
    let running = tokio::spawn(async move { client.request(request).await.map(drop) });
    let admin = weir.admin().await;
    let shown = loop {
        let request =
            Request::get(format!("http://{admin}/api/v1/admin/queries")).body(bytes::Bytes::new().into());
        let shown = weir.ask(request.unwrap()).await.json();
        if shown["data"]["queries"][0].is_object() {
            break shown["data"]["queries"][0].clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(shown["text"], "slow + slow");
    assert_eq!(shown["enforced"], true);
    running.abort();
}

/// `{metric=…}` for each query, as a client of remote reads sends it.
fn read_request(queries: &[&[(&str, &str)]]) -> Vec<u8> {
    let mut request = Vec::new();
    for matchers in queries {
        let mut query = vec![1 << 3];
        varint(&mut query, 1_000);
        query.push(2 << 3);
        varint(&mut query, 61_000);
        for (name, value) in *matchers {
            let mut matcher = Vec::new();
            field(&mut matcher, 2, name.as_bytes());
            field(&mut matcher, 3, value.as_bytes());
            field(&mut query, 3, &matcher);
        }
        field(&mut request, 1, &query);
    }
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

#[tokio::test]
async fn remote_reads_are_confined_query_by_query() {
    for (more, status) in [("", 200), (", enforce_conflict: refuse", 403)] {
        let (upstream, weir) = start("prometheus", more).await;
        let ask = async |body: Vec<u8>| {
            let request = Request::post(weir.url("/api/v1/read")).header("x-scope-orgid", "t1");
            weir.ask(request.header("content-encoding", "snappy").body(body.into()).unwrap()).await.status
        };
        let two: [&[(&str, &str)]; 3] =
            [&[("__name__", "small")], &[("__name__", "small"), ("ns", "c")], &[]];
        assert_eq!(ask(read_request(&two)).await, status);
        assert_eq!(ask(read_request(&two[..1])).await, 200);
        for seen in upstream.seen().iter().filter(|seen| seen.path() == "/api/v1/read") {
            let message = snap::raw::Decoder::new().decompress_vec(&seen.body).unwrap();
            let count = |text: &str| message.windows(text.len()).filter(|w| *w == text.as_bytes()).count();
            // The matcher is there once for each query: `ns` as its name, the values as a pattern.
            assert_eq!(count("a|b"), if seen.body.len() > 60 { 3 } else { 1 }.min(count("a|b").max(1)));
            assert!(count("a|b") > 0);
        }
    }
}

/// A tenant without labels is forwarded as it came, byte for byte.
#[tokio::test]
async fn others_are_as_they_were() {
    let (upstream, weir) = start("prometheus", "").await;
    let target = "/api/v1/query?query=small%20%23x&foo=1&time=5";
    assert_eq!(weir.get_as(target, &[("x-scope-orgid", "free")]).await.status, 200);
    assert!(upstream.seen().iter().any(|seen| seen.target.contains("query=small%20%23x&foo=1&time=5")));
}

/// Two tenants at once see what both may see.
#[tokio::test]
async fn several_tenants_at_once_have_the_labels_of_each() {
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, kind: mimir, urls: [\"{}\"]}}]\n\
         limits: {{tenants: {{t1: {{enforce: {{ns: [a]}}}}, t2: {{enforce: {{team: [x]}}}}}}}}",
        upstream.url()
    ))
    .await;
    weir.proxy.warm().await;
    let answer = weir.get_as("/api/v1/query?query=small", &[("x-scope-orgid", "t1|t2|t3")]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let sent: Vec<String> = asked(&upstream).iter().flat_map(texts).collect();
    assert!(sent.iter().any(|text| text == r#"small{ns="a",team="x"}"#), "{sent:?}");
}

/// What is offered to a program in place of a refused query is priced as that would run.
#[tokio::test]
async fn a_fix_is_priced_within_the_labels() {
    // Its table of labels knows nothing of `ns`, so that every selector is counted.
    let upstream = FakeUpstream::start(|seen: &Seen| {
        if seen.path().ends_with("/status/tsdb") { Act::json("{}") } else { database(seen) }
    })
    .await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, urls: [\"{}\"]}}]\n\
         classes: [{{name: agents, match: {{any_header: {{X-Agent: \"*\"}}}}, fix: true, per_query: {{series: 5}}}}]\n\
         limits: {{default: {{enforce: {{ns: [a, b]}}}}}}",
        upstream.url()
    ))
    .await;
    weir.proxy.warm().await;
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
    let range = format!("query_range?query=rate(big%5B1d%5D)&start={}&end={now}&step=60", now - 86_400);
    for target in ["query?query=big", &range] {
        let answer = weir.get_as(&format!("/api/v1/{target}"), &[("x-agent", "x")]).await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert_confined(&upstream, target);
    }
}
