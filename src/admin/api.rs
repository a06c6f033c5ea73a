//! The table of the admin API: the router, the list for people and the OpenAPI document are made of it.

use std::fmt::Write as _;

use axum::{
    Router,
    body::Body,
    extract::RawQuery,
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};

use super::{
    limits, queries, reply,
    routes::{metrics_text, ready, reload_now, status_json},
    rules,
    state::Admin,
    top,
};
use crate::{
    http::openapi::{self, Form, JSON, Operation, Parameter, TEXT, optional, required},
    telemetry::profile::{What, respond},
};

const ID: Parameter = required("id", Form::Number, "the number of a query");
const NAME: Parameter = required("name", Form::Text, "the name of a rule");
const REASON: Parameter = optional("reason", Form::Text, "why; clients and the audit log read it");
const BY: Parameter = optional("by", Form::Text, "who acts, for clients and the audit log");
const SECONDS: Parameter = optional("seconds", Form::Number, "how long to measure; 60 at most");
const FORMAT: Parameter =
    optional("format", Form::OneOf(&["pprof", "svg"]), "for programs, or a flame graph for a browser");
const WHICH: &[Parameter] = &[
    optional("tenant", Form::Text, "queries of this tenant; of several parameters all must match"),
    optional("dashboard", Form::Text, "queries of the dashboard with this UID"),
    optional("user", Form::Text, "queries of this user of Grafana"),
    optional("fingerprint", Form::Text, "queries with this fingerprint"),
    REASON,
    BY,
];
const RANKING: &[Parameter] = &[
    optional("window", Form::OneOf(&["5m", "1h", "24h"]), "how far back"),
    optional(
        "by",
        Form::OneOf(&["fingerprint", "dashboard", "user", "rule", "tenant", "client"]),
        "the kind of key",
    ),
    optional(
        "sort",
        Form::OneOf(&["memory", "count", "samples", "seconds", "refused", "shadow_refused"]),
        "the number by which to rank",
    ),
    optional("limit", Form::Number, "rows, 1 to 50; 20 where it is missing"),
];

const LIMITS: &[Parameter] = &[
    required("tenant", Form::Text, "the tenant"),
    optional(
        "suggest",
        Form::OneOf(&["false", "true"]),
        "whether to suggest limits from the journal; takes seconds",
    ),
];

/// An operation, and the function that answers it.
type Route = (Operation, fn() -> MethodRouter<Admin>);

const fn route(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    parameters: &'static [Parameter],
    answer: &'static str,
    serve: fn() -> MethodRouter<Admin>,
) -> Route {
    (Operation { method, path, summary, parameters, body: None, answer }, serve)
}

/// Everything that machines may ask for.
const ROUTES: &[Route] = &[
    route(
        "get",
        "/status.json",
        "what happens now: findings, backends, queries, refusals",
        &[],
        JSON,
        || get(status_json),
    ),
    route("get", "/metrics", "metrics of Weir, in Prometheus' text format", &[], TEXT, || get(metrics_text)),
    route("get", "/-/healthy", "whether the process answers", &[], TEXT, || {
        get(|| async { "Weir is healthy.\n" })
    }),
    route("get", "/-/ready", "whether it takes queries, and which backends answer", &[], TEXT, || get(ready)),
    route("post", "/-/reload", "reads the configuration file again", &[], TEXT, || post(reload_now)),
    route("put", "/-/reload", "the same", &[], TEXT, || put(reload_now)),
    route(
        "get",
        "/api/v1/admin/queries",
        "the queries in the proxy: those that are priced, wait or run; the oldest first",
        &[],
        JSON,
        || get(queries::list),
    ),
    route(
        "delete",
        "/api/v1/admin/queries",
        "stops the queries that match everything that is given",
        WHICH,
        JSON,
        || delete(queries::kill_matching),
    ),
    route("delete", "/api/v1/admin/queries/{id}", "stops one query", &[ID, REASON, BY], JSON, || {
        delete(queries::kill_one)
    }),
    route("get", "/api/v1/admin/top", "who asks for most", RANKING, JSON, || get(top::rank)),
    route("get", "/api/v1/admin/rules", "the rules against single queries", &[], JSON, || get(rules::list)),
    (
        Operation {
            method: "post",
            path: "/api/v1/admin/rules",
            summary: "sets a rule before all others",
            parameters: &[BY],
            body: Some(JSON),
            answer: JSON,
        },
        || post(rules::add),
    ),
    route(
        "delete",
        "/api/v1/admin/rules/{name}",
        "takes away a rule that was set here",
        &[NAME, BY],
        JSON,
        || delete(rules::remove),
    ),
    route(
        "get",
        "/api/v1/admin/limits",
        "the limits of a tenant, and where each is written",
        LIMITS,
        JSON,
        || get(limits::limits),
    ),
    route(
        "get",
        "/debug/pprof/profile",
        "where the CPU spends its time, if telemetry.profiling is enabled",
        &[SECONDS, FORMAT],
        "application/octet-stream",
        || get(async |RawQuery(asked)| respond(What::Cpu, asked).await.map(Body::from)),
    ),
    route(
        "get",
        "/debug/pprof/heap",
        "what holds memory, likewise",
        &[SECONDS, FORMAT],
        "application/octet-stream",
        || get(async |RawQuery(asked)| respond(What::Heap, asked).await.map(Body::from)),
    ),
];

/// Beside the page, which guards it: it asks the database in the name of its caller.
const EXPLAIN: Operation = Operation {
    method: "get",
    path: "/api/v1/admin/explain",
    summary: "the cost of each part of a query, and whether it would run",
    parameters: &[
        required("query", Form::Text, "PromQL"),
        optional(
            "range",
            Form::Duration,
            "the time that its graph shows, up to now; without it the query is evaluated once",
        ),
        optional("step", Form::Duration, "between two instants of the graph"),
        optional("tenant", Form::Text, "whose limits apply; the default tenant's where it is missing"),
    ],
    body: None,
    answer: JSON,
};

/// The document of all of it, itself among it.
const DESCRIPTION: Operation = Operation {
    method: "get",
    path: "/api/v1/openapi.json",
    summary: "this API in OpenAPI 3.1",
    parameters: &[],
    body: None,
    answer: JSON,
};

fn operations() -> impl Iterator<Item = Operation> {
    ROUTES.iter().map(|(operation, _)| *operation).chain([EXPLAIN, DESCRIPTION])
}

/// All of it.
pub(super) fn router() -> Router<Admin> {
    let router = Router::new().route(DESCRIPTION.path, get(async || description()));
    ROUTES.iter().fold(router, |router, (operation, serve)| router.route(operation.path, serve()))
}

/// A line for each operation.
pub(super) fn text() -> String {
    let mut text = "Weir's admin API. Queries go to the other address (server.listen).\n".to_owned();
    for Operation { method, path, summary, parameters, .. } in operations() {
        let names = parameters
            .iter()
            .map(|parameter| parameter.name)
            .filter(|name| !path.contains(&format!("{{{name}}}")));
        let names = names.collect::<Vec<_>>().join("=&");
        let query = if names.is_empty() { String::new() } else { format!("?{names}=") };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:6} {path}{query}\n       {summary}", method.to_ascii_uppercase());
    }
    text
}

fn description() -> Response {
    let about = "Reads the state of Weir, stops queries, sets rules. Where server.admin_auth has tokens, whatever writes needs `Authorization: Bearer TOKEN`.";
    (reply::HEADERS, openapi::document("Weir's admin API", about, operations()).to_string()).into_response()
}
