//! The node and a real Prometheus asked the same random questions over the same data. Skipped, by name, where Prometheus
//! is not installed; `WEIR_TEST_PROMETHEUS` names another build of it.

mod confined;
mod data;
mod exact;
mod generate;

use std::{collections::BTreeMap, num::NonZero, sync::Arc};

use futures_util::{StreamExt as _, stream};
use http::Method;
use serde_json::Value;
use tokio::net::TcpListener;
use weir::node::{
    db::{Db, Options},
    http::{Node, Settings, serve},
};

use crate::{
    support::real::{empty_prometheus, encode, raw, write},
    support::sockets::{HttpClient, client},
};
use generate::{Asked, EXCLUDED, Generator};

const QUERIES: usize = 4_000;
const AT_ONCE: usize = 4;
/// Differences that are shown.
const SHOWN: usize = 25;

/// Relative difference of two values that are the same.
const TOLERANCE: f64 = 1e-9;
/// The rounding error of values around a hundred that cancel out.
const NOTHING: f64 = 1e-13;

/// The answer of a database.
enum Said {
    Value(Value),
    /// With a status other than 200.
    Error(String),
}

async fn ask(client: &HttpClient, url: &str, asked: &Asked) -> Said {
    let query = encode(&asked.query);
    let target = if asked.step == 0 {
        format!("{url}/api/v1/query?query={query}&time={}", asked.end)
    } else {
        let Asked { start, end, step, .. } = asked;
        format!("{url}/api/v1/query_range?query={query}&start={start}&end={end}&step={step}")
    };
    let answer = raw(client, Method::GET, &target, "", false).await;
    let json = answer.json();
    if answer.status == 200 {
        Said::Value(json["data"].clone())
    } else {
        Said::Error(format!("{} {}", answer.status, json["error"].as_str().unwrap_or("?")))
    }
}

/// Why two answers are not the same.
fn difference(asked: &Asked, node: &Said, truth: &Said) -> Option<String> {
    match (node, truth) {
        (Said::Error(_), Said::Error(_)) => None,
        (Said::Error(error), Said::Value(value)) => {
            Some(format!("node: {error}; Prometheus: {}", short(value)))
        }
        (Said::Value(value), Said::Error(error)) => {
            Some(format!("node: {}; Prometheus: {error}", short(value)))
        }
        (Said::Value(node), Said::Value(truth)) => {
            if node["resultType"] != truth["resultType"] {
                return Some(format!("{} is not {}", node["resultType"], truth["resultType"]));
            }
            if node["resultType"] == "scalar" {
                let same = same_point(&node["result"], &truth["result"]);
                return (!same).then(|| format!("{} is not {}", node["result"], truth["result"]));
            }
            rows_differ(asked, node["result"].as_array()?, truth["result"].as_array()?)
        }
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(900).collect()
}

fn rows_differ(asked: &Asked, node: &[Value], truth: &[Value]) -> Option<String> {
    let by_metric = |rows: &[Value]| -> BTreeMap<String, Value> {
        rows.iter().map(|row| (row["metric"].to_string(), row.clone())).collect()
    };
    let (ours, theirs) = (by_metric(node), by_metric(truth));
    if ours.len() != node.len() {
        return Some("a series comes twice".to_owned());
    }
    for (metric, row) in &theirs {
        let Some(own) = ours.get(metric) else {
            return Some(format!("{metric} is missing, Prometheus: {}", short(row)));
        };
        if !same_row(own, row) {
            return Some(format!(
                "{metric}: node {}\n    {}\n    {}",
                first_difference(own, row),
                short(own),
                short(row)
            ));
        }
    }
    if let Some((metric, row)) = ours.iter().find(|(metric, _)| !theirs.contains_key(*metric)) {
        return Some(format!("Prometheus has {} rows, none is {metric}: {}", theirs.len(), short(row)));
    }
    let ordered = ["sort", "topk(", "bottomk("].iter().any(|start| asked.query.starts_with(start));
    // Equal values may change places.
    let in_order = node.iter().zip(truth).all(|(a, b)| same_point(&a["value"], &b["value"]));
    (ordered && asked.step == 0 && !in_order).then(|| "the rows are in another order".to_owned())
}

fn points(row: &Value) -> Vec<Value> {
    match row["values"].as_array() {
        Some(points) => points.clone(),
        None => vec![row["value"].clone()],
    }
}

fn same_row(a: &Value, b: &Value) -> bool {
    let (a, b) = (points(a), points(b));
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| same_point(a, b))
}

fn first_difference(a: &Value, b: &Value) -> String {
    let (a, b) = (points(a), points(b));
    let differs = a.iter().zip(&b).find(|(a, b)| !same_point(a, b));
    differs.map_or(format!("{} points for {}", a.len(), b.len()), |(a, b)| format!("{a} for {b}"))
}

/// Time and value.
fn same_point(a: &Value, b: &Value) -> bool {
    let number = |point: &Value| -> Option<f64> {
        match point[1].as_str()? {
            "+Inf" => Some(f64::INFINITY),
            "-Inf" => Some(f64::NEG_INFINITY),
            text => text.parse().ok(),
        }
    };
    let (Some(x), Some(y)) = (number(a), number(b)) else { return false };
    let near = (x - y).abs() <= (TOLERANCE * x.abs().max(y.abs())).max(NOTHING);
    a[0] == b[0] && (x == y || near || (x.is_nan() && y.is_nan()))
}

/// `$WEIR_TEST_SEED` asks other questions.
fn seed() -> u64 {
    let seed = std::env::var_os("WEIR_TEST_SEED");
    seed.map_or(1, |seed| seed.to_string_lossy().parse().unwrap())
}

/// A node whose queries use this number of threads.
async fn node_with(query_threads: usize) -> String {
    let db = Db::in_memory(Options { clock: || data::END * 1_000, ..Options::default() });
    let query_threads = NonZero::new(query_threads).unwrap();
    let settings = Settings { query_threads, ..Settings::default() };
    let node = Node::new(Arc::new(db), settings).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the runtime of the test.
    tokio::spawn(async move { serve(listener, node, std::future::pending()).await });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_queries_have_the_answers_of_prometheus() {
    let test = "random_queries_have_the_answers_of_prometheus";
    let Some(prometheus) = empty_prometheus(test).await else { return };
    let node = node_with(1).await;
    for body in data::writes() {
        write(&prometheus.url, body.clone()).await;
        write(&node, body).await;
    }
    let mut generator = Generator::new(seed());
    let asked: Vec<Asked> = (0..QUERIES).map(|_| generator.asked()).collect();
    let client = client();
    let (client, node, truth) = (&client, &node, &prometheus.url);
    let answers = stream::iter(&asked).map(|asked| async move {
        let (ours, truth) = tokio::join!(ask(client, node, asked), ask(client, truth, asked));
        let error = matches!(truth, Said::Error(_));
        let empty = matches!(&truth, Said::Value(v) if v["result"].as_array().is_some_and(Vec::is_empty));
        (difference(asked, &ours, &truth).map(|why| format!("{asked:?}\n    {why}")), error, empty)
    });
    let answers: Vec<_> = answers.buffered(AT_ONCE).collect().await;
    let count =
        |which: fn(&(Option<String>, bool, bool)) -> bool| answers.iter().filter(|a| which(a)).count();
    let (errors, empty) = (count(|a| a.1), count(|a| a.2));
    println!("{QUERIES} queries, of which {errors} are errors and {empty} empty in Prometheus; left out:");
    for (what, why) in EXCLUDED {
        println!("  {what}: {why}");
    }
    assert!(errors + empty < QUERIES / 3, "too many questions say nothing");
    let different: Vec<_> = answers.into_iter().filter_map(|answer| answer.0).collect();
    let shown = different.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(different.is_empty(), "{} of {QUERIES} differ:\n{shown}", different.len());
}
