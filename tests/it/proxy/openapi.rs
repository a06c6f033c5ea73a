//! The OpenAPI documents say what the routers do: every path answers, every parameter is taken, and no other.

use std::collections::HashSet;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;

use crate::{
    proxy::forward::{VECTOR, before},
    support::{
        fake_upstream::Act,
        weir::{Answer, Weir},
    },
};

/// Method, path and parameters of each operation.
fn operations(document: &Value) -> Vec<(String, String, Vec<Value>)> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().unwrap().clone();
            all.push((method.to_ascii_uppercase(), path.clone(), parameters));
        }
    }
    all
}

fn check(document: &Value) {
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = HashSet::new();
    for (_, path, parameters) in operations(document) {
        let declared = |name: &str| {
            parameters.iter().any(|one| one["name"] == name && one["in"] == "path" && one["required"] == true)
        };
        for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
            assert!(declared(part.trim_end_matches('}')), "{path}");
        }
    }
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "{}",
                operation["operationId"]
            );
            assert!(operation["summary"].as_str().unwrap().len() > 3);
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

/// A value that a parameter takes.
fn example(parameter: &Value) -> &str {
    let first = parameter["schema"]["enum"][0].as_str();
    first.unwrap_or(match parameter["name"].as_str().unwrap() {
        "query" | "match[]" => "small",
        "start" => "1700000000",
        "end" | "time" => "1700003600",
        "step" => "60",
        "timeout" => "5s",
        _ => "7",
    })
}

fn target(path: &str, parameters: &[Value], except: Option<&str>) -> String {
    let (mut path, mut query) = (path.to_owned(), form_urlencoded::Serializer::new(String::new()));
    for parameter in parameters {
        let name = parameter["name"].as_str().unwrap();
        if parameter["in"] == "path" {
            path = path.replace(&format!("{{{name}}}"), example(parameter));
        } else if except != Some(name) {
            query.append_pair(name, example(parameter));
        }
    }
    format!("{path}?{}", query.finish())
}

async fn ask(weir: &Weir, method: &str, url: String) -> Answer {
    let method: Method = method.parse().unwrap();
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "application/x-www-form-urlencoded");
    weir.ask(request.body(Full::<Bytes>::default()).unwrap()).await
}

#[tokio::test]
async fn the_query_api_is_as_it_is_described() {
    let (_upstream, weir) = before(|_| Act::json(VECTOR), "").await;
    let document = weir.get("/api/v1/openapi.json").await.json();
    check(&document);
    let all = operations(&document);
    assert!(all.len() > 40, "{} operations", all.len());
    for (method, path, parameters) in &all {
        let answer = ask(&weir, method, weir.url(&target(path, parameters, None))).await;
        let is_read = path.ends_with("/read");
        assert!(
            answer.status.is_success() || is_read && answer.status == 400,
            "{method} {path}: {} {}",
            answer.status,
            answer.body
        );
        for required in parameters.iter().filter(|one| one["required"] == true && one["in"] == "query") {
            let name = required["name"].as_str().unwrap();
            let answer = ask(&weir, method, weir.url(&target(path, parameters, Some(name)))).await;
            assert_eq!(answer.status, 400, "{method} {path} without {name}: {}", answer.body);
        }
        let other = ask(&weir, "DELETE", weir.url(&target(path, parameters, None))).await;
        assert!(other.status.is_client_error(), "DELETE {path}: {}", other.status);
        for other in
            ["GET", "POST"].into_iter().filter(|other| !all.iter().any(|(m, p, _)| m == other && p == path))
        {
            let answer = ask(&weir, other, weir.url(&target(path, parameters, None))).await;
            assert!(answer.status.is_client_error(), "{other} {path} is not described: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn the_admin_api_is_as_it_is_described() {
    let (_upstream, weir) = before(|_| Act::json(VECTOR), "").await;
    let admin = weir.admin().await;
    let url = |target: &str| format!("http://{admin}{target}");
    let document = ask(&weir, "GET", url("/api/v1/openapi.json")).await.json();
    check(&document);
    let listed = ask(&weir, "GET", url("/endpoints")).await.body;
    let all = operations(&document);
    assert!(all.len() >= 15, "{} operations", all.len());
    for (method, path, parameters) in &all {
        let answer = ask(&weir, method, url(&target(path, parameters, None))).await;
        assert!(answer.status != 405 && !answer.body.is_empty(), "{method} {path}: {}", answer.status);
        assert!(!answer.body.contains("there is no parameter"), "{method} {path}: {}", answer.body);
        if path.starts_with("/api/v1/admin/") {
            let answer = ask(&weir, method, url(&(target(path, parameters, None) + "&nosuch=1"))).await;
            assert_eq!(answer.status, 400, "{method} {path}: {}", answer.body);
        }
        assert!(listed.contains(&format!("{method:6} {path}")), "{method} {path} is not listed:\n{listed}");
    }
}
