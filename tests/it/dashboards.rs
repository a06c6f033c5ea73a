//! The dashboards and alert rules speak of metrics that exist, by labels that these have, in PromQL that parses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use prometheus::{IntGauge, Registry};
use serde_json::Value;
use tokio::net::TcpListener;
use weir::{
    node::{
        db::{Db, Options},
        http::{Node, Settings, serve, store_metrics},
        pool::PoolMetrics,
    },
    promql::{ast::Expr, parse},
    telemetry::metrics::Metrics,
};

use crate::{
    proxy::forward::{VECTOR, before},
    support::{fake_upstream::Act, real::installed, sockets::client},
};

/// Labels that the scraper adds.
const ADDED: [&str; 2] = ["instance", "job"];

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn dashboard(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(file("dashboards").join(name)).unwrap()).unwrap()
}

fn rules() -> Vec<Value> {
    let text = fs::read_to_string(file("dashboards/alerts.yaml")).unwrap();
    let groups: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = groups["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn dashboards() -> [Value; 2] {
    ["weir.json", "weir-node.json"].map(dashboard)
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().unwrap()
}

/// Every expression, with Grafana's variables replaced, and its place.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
                found.push((format!("{}: {}", dashboard["title"], panel["title"]), text));
            }
        }
    }
    for rule in rules() {
        let named = format!("alert {}", rule["alert"].as_str().unwrap());
        found.push((named, rule["expr"].as_str().unwrap().to_owned()));
    }
    found
}

/// Every metric of proxy and node with its labels, those of the scraper included.
struct Known {
    labels: BTreeMap<String, BTreeSet<String>>,
    pools: Registry,
}

impl Known {
    fn new() -> Self {
        let mut labels = BTreeMap::new();
        for metric in Metrics::new(1).unwrap().described() {
            let mut own: BTreeSet<String> = metric.labels.iter().cloned().collect();
            own.extend(ADDED.map(str::to_owned));
            labels.insert(metric.name.clone(), own.clone());
            for part in ["_sum", "_count", "_bucket"] {
                if part == "_bucket" {
                    own.insert("le".to_owned());
                }
                labels.insert(format!("{}{part}", metric.name), own.clone());
            }
        }
        let node = Node::new(Arc::new(Db::in_memory(Options::default())), Settings::default()).unwrap();
        let text = node.metrics_text().unwrap();
        for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = name.split(' ').next().unwrap();
            labels.entry(name.to_owned()).or_insert_with(|| ADDED.map(str::to_owned).into());
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, rest)) = line.split_once('{') else { continue };
            let own = rest.split(',').filter_map(|label| label.split_once("=\""));
            let Some(all) = labels.get_mut(name) else { continue };
            all.extend(own.map(|(label, _)| label.to_owned()));
        }
        let pools = Registry::new();
        PoolMetrics::register(&pools).unwrap();
        Self { labels, pools }
    }

    /// The labels of a metric, if there is such a metric.
    fn labels_of(&self, name: &str) -> Option<BTreeSet<String>> {
        if !name.starts_with("weir_pool_") {
            return self.labels.get(name).cloned();
        }
        // A registry shows nothing without a value, but takes no name twice.
        let taken = IntGauge::new(name, "again").and_then(|gauge| self.pools.register(Box::new(gauge)));
        let own = ["instance", "job", "pool", "bucket"].map(str::to_owned).into();
        taken.is_err().then_some(own)
    }
}

#[test]
fn expressions_parse_and_speak_of_metrics_that_exist() {
    let known = Known::new();
    let mut wrong = Vec::new();
    let all = expressions();
    assert!(all.len() > 70, "{} expressions", all.len());
    for (place, text) in &all {
        let ast = match parse(text) {
            Ok(ast) => ast,
            Err(error) => {
                wrong.push(format!("{place}: {error}: {text}"));
                continue;
            }
        };
        let mut has = BTreeSet::new();
        for node in &ast.nodes {
            let Expr::Selector(selector) = &node.expr else { continue };
            let name = &*selector.matchers[0].value;
            let Some(labels) = known.labels_of(name) else {
                wrong.push(format!("{place}: no metric `{name}`"));
                continue;
            };
            for matcher in &selector.matchers[1..] {
                if !labels.contains(&*matcher.name) {
                    wrong.push(format!("{place}: `{name}` has no label `{}`", matcher.name));
                }
            }
            has.extend(labels);
        }
        for node in &ast.nodes {
            let labels = match &node.expr {
                Expr::Aggregate { grouping, .. } => &grouping.labels,
                Expr::Binary { matching: Some(matching), .. } => &matching.labels,
                _ => continue,
            };
            for label in labels.iter().filter(|label| !has.contains(&***label)) {
                wrong.push(format!("{place}: nothing here has the label `{label}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(known.labels_of("weir_no_such_total"), None);
    assert_eq!(known.labels_of("weir_pool_no_such_total"), None);
}

#[test]
fn the_reference_has_every_metric_and_no_other() {
    let known = Known::new();
    let page = fs::read_to_string(file("docs/metrics.md")).unwrap();
    let named: BTreeSet<&str> =
        page.split('`').skip(1).step_by(2).filter(|name| name.starts_with("weir_")).collect();
    let parts = ["_sum", "_count", "_bucket"];
    for name in known.labels.keys().filter(|name| name.starts_with("weir_")) {
        let is_part = parts
            .iter()
            .any(|part| name.strip_suffix(part).is_some_and(|whole| known.labels.contains_key(whole)));
        assert!(is_part || named.contains(name.as_str()), "docs/metrics.md has no `{name}`");
    }
    for name in named {
        assert!(known.labels_of(name).is_some(), "docs/metrics.md has `{name}`, which is no metric");
    }
}

/// The time of the samples that panels are evaluated over, milliseconds.
const NOW_MS: i64 = 1_700_000_000_000;

#[tokio::test]
async fn every_panel_is_evaluated_over_the_metrics_that_weir_and_its_node_give() {
    let (_upstream, weir) = before(|_| Act::json(VECTOR), "").await;
    for query in ["small", "sum(small)", "rate(big[5m])", ")"] {
        weir.get(&format!("/api/v1/query?query={query}")).await;
    }
    let db = Db::in_memory(Options { clock: || NOW_MS, ..Options::default() });
    let node = Node::new(Arc::new(db), Settings::default()).unwrap();
    for ago in [120_000, 60_000, 0] {
        let texts = [("weir", weir.metrics()), ("node", node.metrics_text().unwrap())];
        for (instance, text) in texts {
            store_metrics(node.db(), &text, NOW_MS - ago, &[("instance", instance), ("job", "weir")])
                .unwrap();
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { serve(listener, node, std::future::pending()).await });
    let (client, all) = (client(), expressions());
    let mut empty = Vec::new();
    for (place, expression) in &all {
        let variables = ["$instance", "$backend", "$pool", "$tenant"];
        let query = variables.iter().fold(expression.clone(), |query, name| query.replace(name, ".+"));
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let url = format!("http://{address}/api/v1/query?time={}&query={query}", NOW_MS / 1_000);
        let (head, body) = client
            .request(Request::get(url).body(Full::<Bytes>::default()).unwrap())
            .await
            .unwrap()
            .into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert!(head.status.is_success() && json["status"] == "success", "{place}: {expression}: {json}");
        if json["data"]["result"].as_array().is_none_or(Vec::is_empty) {
            empty.push(place);
        }
    }
    serving.abort();
    // Some show what is wrong, and others what no query here did.
    assert!(empty.len() * 2 < all.len(), "{} of {} show nothing: {empty:#?}", empty.len(), all.len());
}

#[test]
fn every_metric_of_the_proxy_is_on_its_dashboard() {
    // Metrics that repeat another, or are for alerts and for reading by hand.
    let left_out = [
        "weir_config_last_reload_success_timestamp_seconds",
        "weir_request_body_bytes",
        "weir_request_body_bytes_max",
    ];
    let used: String = expressions().into_iter().map(|(_, text)| text + "\n").collect();
    for metric in Metrics::new(1).unwrap().described() {
        let shown = used.contains(&metric.name) || left_out.contains(&&*metric.name);
        assert!(shown || !metric.name.starts_with("weir_"), "`{}` is on no panel", metric.name);
    }
}

#[test]
fn panels_are_complete_and_do_not_overlap() {
    for dashboard in dashboards() {
        let title = &dashboard["title"];
        assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 38, "Grafana 10 or later");
        assert!(dashboard["id"].is_null() && dashboard["uid"].is_string());
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        assert_eq!(variables[0]["type"], "datasource");
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in panels(&dashboard) {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: an id twice");
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{title}: {}", panel["title"]);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(cells.insert((x, y)), "{title}: {} overlaps", panel["title"]);
                }
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}: {}", panel["title"]);
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
            assert!(!panel["targets"].as_array().unwrap().is_empty());
        }
    }
}

#[test]
fn alerts_say_what_is_wrong_and_what_to_do() {
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap().to_owned();
        for part in ["summary", "description", "runbook"] {
            let text = rule["annotations"][part].as_str().unwrap_or_default();
            assert!(text.len() > 20, "{name}: {part}");
        }
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        assert!(names.insert(name), "a name twice");
    }
}

#[test]
fn prometheus_takes_the_alerts_and_they_fire_when_they_should() {
    if !installed("prometheus_takes_the_alerts_and_they_fire_when_they_should", &["promtool"]) {
        return;
    }
    for (what, name) in [("check", "dashboards/alerts.yaml"), ("test", "tests/dashboards/alerts.test.yaml")] {
        let ran = Command::new("promtool").args([what, "rules"]).arg(file(name)).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "promtool {what} rules {name}: {said}");
    }
}
