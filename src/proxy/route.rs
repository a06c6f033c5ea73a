//! The table of endpoints: queries, requests that are forwarded uncounted, and requests that are refused.

use http::Method;

use crate::{backend::Kind, base::spelling::closest};

/// The endpoint of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    /// `query`: one instant.
    Query,
    /// `query_range`: a graph.
    QueryRange,
    /// `query_exemplars`: traces beside a graph.
    QueryExemplars,
    /// `series`: label sets behind selectors.
    Series,
    /// `labels`: label names.
    Labels,
    /// `label/…/values`: values of one label.
    LabelValues,
    /// `read`: raw samples by protobuf.
    RemoteRead,
    /// `query_cost`: the cost of an instant query; answered here.
    QueryCost,
    /// `query_range_cost`: the cost of a range query; answered here.
    QueryRangeCost,
    /// `search/…`: names and values that look like something; a listing in lines of JSON.
    Search,
    /// Answered by the backend from memory: build information, metadata, rules, alerts, formatting.
    Light,
    /// `/-/healthy`: whether the process answers; answered here.
    Healthy,
    /// `/-/ready`: whether it takes queries; answered here.
    Ready,
    /// `/llms.txt`: how to ask well; answered here.
    Guide,
    /// `openapi.json`: this API; answered here.
    Description,
}

impl Endpoint {
    /// The word for metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::QueryRange => "query_range",
            Self::QueryExemplars => "query_exemplars",
            Self::Series => "series",
            Self::Labels => "labels",
            Self::LabelValues => "label_values",
            Self::RemoteRead => "read",
            Self::QueryCost => "query_cost",
            Self::QueryRangeCost => "query_range_cost",
            Self::Search => "search",
            Self::Light => "light",
            Self::Healthy => "healthy",
            Self::Ready => "ready",
            Self::Guide => "guide",
            Self::Description => "description",
        }
    }
}

impl Endpoint {
    /// Those whose requests are counted from the start.
    pub(super) const COUNTED: [Self; 8] = [
        Self::Query,
        Self::QueryRange,
        Self::QueryExemplars,
        Self::Series,
        Self::Labels,
        Self::LabelValues,
        Self::RemoteRead,
        Self::Light,
    ];

    /// Answered here: the price of a query.
    pub(super) const fn is_explained(self) -> bool {
        matches!(self, Self::QueryCost | Self::QueryRangeCost)
    }

    /// Every database has it: one that answers 404 there is not where the configuration says.
    pub(super) const fn is_everywhere(self) -> bool {
        matches!(self, Self::Query | Self::QueryRange) || self.is_listing()
    }

    /// Lists label sets, names or values.
    pub(super) const fn is_listing(self) -> bool {
        matches!(self, Self::Series | Self::Labels | Self::LabelValues)
    }
}

/// A request that has a place to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Routed<'a> {
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// The path at the backend, from `/api/v1/` on.
    pub path: &'a str,
}

/// Where M3 serves remote reads.
const M3_READ: &str = "/api/v1/prom/remote/read";

impl Routed<'_> {
    /// The same at a database of this kind, which may serve it elsewhere.
    pub(super) fn at(self, kind: Kind) -> Self {
        match (self.endpoint, kind) {
            (Endpoint::RemoteRead, Kind::M3) => Self { path: M3_READ, ..self },
            (Endpoint::RemoteRead, _) => Self { path: "/api/v1/read", ..self },
            _ => self,
        }
    }
}

/// Why a request has no place to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RouteError {
    /// No such endpoint.
    Unknown,
    /// No such endpoint; this path is one, and like it.
    Misspelt(&'static str),
    /// A page of some database's web interface.
    WebInterface,
    /// The path has slashes or dots too many; this is the one that is meant.
    Moved(String),
    /// The endpoint takes these methods only.
    Method(&'static str),
    /// Writes and the database's own administration do not go through Weir.
    Closed,
    /// The path names a tenant, as those of VictoriaMetrics' cluster do. Weir alone names tenants.
    TenantInPath,
}

impl RouteError {
    /// The same for a path with this query behind it.
    pub(super) fn with(self, query: Option<&str>) -> Self {
        match (self, query) {
            (Self::Moved(path), Some(query)) => Self::Moved(format!("{path}?{query}")),
            (error, _) => error,
        }
    }
}

const GET: &str = "GET";
const POST: &str = "POST";
const GET_POST: &str = "GET, POST";

/// Paths below `/api/v1/`, without the label values: endpoint, methods, and purpose.
pub(super) const TABLE: &[(&str, Endpoint, &str, &str)] = &[
    ("query", Endpoint::Query, GET_POST, "evaluates a query at one instant"),
    ("query_range", Endpoint::QueryRange, GET_POST, "evaluates a query over a time"),
    ("query_exemplars", Endpoint::QueryExemplars, GET_POST, "traces beside a graph"),
    ("series", Endpoint::Series, GET_POST, "label sets behind selectors"),
    ("labels", Endpoint::Labels, GET_POST, "label names"),
    ("read", Endpoint::RemoteRead, POST, "remote read: raw samples by protobuf"),
    ("prom/remote/read", Endpoint::RemoteRead, POST, "the same, where M3 has it"),
    ("search/metric_names", Endpoint::Search, GET_POST, "names of metrics that look like something"),
    ("search/label_names", Endpoint::Search, GET_POST, "label names that look like something"),
    ("search/label_values", Endpoint::Search, GET_POST, "label values that look like something"),
    (
        "query_cost",
        Endpoint::QueryCost,
        GET_POST,
        "what an instant query would cost, and whether it would be admitted",
    ),
    (
        "query_range_cost",
        Endpoint::QueryRangeCost,
        GET_POST,
        "what a range query would cost, and whether it would be admitted",
    ),
    ("metadata", Endpoint::Light, GET, "types and descriptions of metrics"),
    ("rules", Endpoint::Light, GET, "rules of the database"),
    ("alerts", Endpoint::Light, GET, "alerts of the database"),
    ("format_query", Endpoint::Light, GET_POST, "a query in the canonical layout"),
    ("parse_query", Endpoint::Light, GET_POST, "the syntax tree of a query"),
    ("status/buildinfo", Endpoint::Light, GET, "the build of the database"),
    ("status/runtimeinfo", Endpoint::Light, GET, "the state of the database"),
    ("status/flags", Endpoint::Light, GET, "the command line of the database"),
    ("status/self_metrics", Endpoint::Light, GET, "metrics of the database"),
    ("features", Endpoint::Light, GET, "features of the database"),
    ("openapi.yaml", Endpoint::Light, GET, "the database's own description"),
    ("scrape_pools", Endpoint::Light, GET, "scrape pools of the database"),
    ("stores", Endpoint::Light, GET, "stores behind Thanos"),
    ("query_explain", Endpoint::Light, GET_POST, "the plan of an instant query, by Thanos"),
    ("query_range_explain", Endpoint::Light, GET_POST, "the plan of a range query, by Thanos"),
    ("openapi.json", Endpoint::Description, GET, "this API in OpenAPI 3.1"),
];

/// Light ones that take a query, which is read here first.
pub(super) const PARSED: [&str; 4] = ["format_query", "parse_query", "query_explain", "query_range_explain"];

/// Paths at the root, which are read.
pub(super) const ROOT: &[(&str, Endpoint, &str)] = &[
    ("/-/healthy", Endpoint::Healthy, "whether the process answers"),
    ("/-/ready", Endpoint::Ready, "whether it takes queries"),
    ("/llms.txt", Endpoint::Guide, "how to ask well, for language models"),
];

/// Prefixes of the API: of Mimir and Cortex, and of older Cortex.
const PREFIXES: &[&str] = &["/prometheus", "/api/prom"];

/// Where the web interfaces of the databases live; each with everything below it.
const WEB: &[&str] = &[
    "/graph",
    "/query",
    "/alerts",
    "/targets",
    "/rules",
    "/config",
    "/flags",
    "/status",
    "/tsdb-status",
    "/new",
    "/service-discovery",
    "/alertmanager-discovery",
    "/classic",
    "/consoles",
    "/static",
    "/assets",
    "/ui",
    "/vmui",
    "/stores",
    "/blocks",
    "/loaded",
    "/favicon.ico",
    "/favicon.svg",
];

/// Closed endpoints: below `/api/v1/`, or at the root.
const CLOSED: &[&str] = &[
    "write",
    "admin/",
    "import",
    "export",
    "otlp/",
    "push",
    "status/config",
    "status/tsdb",
    "status/tsdb/blocks",
    "status/walreplay",
    "targets",
    "targets/metadata",
    "targets/relabel_steps",
    "alertmanagers",
    "notifications",
    "notifications/live",
    "prom/remote/",
    "json/write",
];

/// Finds the endpoint of a path. A prefix such as Mimir's is taken off: the backend's own URL has its prefix.
pub(super) fn route<'a>(method: &Method, path: &'a str) -> Result<Routed<'a>, RouteError> {
    let moved = |error| match cleaned(path).filter(|clean| find(method, clean).is_ok()) {
        Some(clean) => RouteError::Moved(clean),
        None => error,
    };
    find(method, path).map_err(moved)
}

fn find<'a>(method: &Method, path: &'a str) -> Result<Routed<'a>, RouteError> {
    let below = |prefix: &&str| path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'));
    let path = PREFIXES.iter().find_map(below).unwrap_or(path);
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let Some(name) = path.strip_prefix("/api/v1/") else {
        if let Some((_, endpoint, _)) = ROOT.iter().find(|(known, ..)| is_read && *known == path) {
            return Ok(Routed { endpoint: *endpoint, path });
        }
        return match path {
            _ if is_lifecycle(path) => Err(RouteError::Closed),
            _ if names_tenant(path) => Err(RouteError::TenantInPath),
            _ if is_read && is_web(path) => Err(RouteError::WebInterface),
            _ => Err(RouteError::Unknown),
        };
    };
    let found =
        TABLE.iter().find(|(known, ..)| *known == name).map(|&(_, endpoint, methods, _)| (endpoint, methods));
    // VictoriaMetrics takes a form, too; the others say themselves that they do not.
    let found = found.or_else(|| is_label_values(name).then_some((Endpoint::LabelValues, GET_POST)));
    let Some((endpoint, methods)) = found else {
        let closed = CLOSED.iter().any(|c| name == *c || (c.ends_with('/') && name.starts_with(c)));
        let meant = closest(name, TABLE.iter().map(|(known, ..)| *known));
        return Err(match meant {
            _ if closed => RouteError::Closed,
            Some(meant) => RouteError::Misspelt(meant),
            None => RouteError::Unknown,
        });
    };
    if !methods.split(", ").any(|m| m == method.as_str()) {
        return Err(RouteError::Method(methods));
    }
    Ok(Routed { endpoint, path })
}

/// The path without empty segments and dots, as Go's servers redirect to it; `None` when there is nothing to clean.
fn cleaned(path: &str) -> Option<String> {
    let is_clean = |segment: &str| !matches!(segment, "" | "." | "..");
    let inner = path.strip_prefix('/')?;
    if inner.split('/').all(is_clean) {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in inner.split('/') {
        match segment {
            "" | "." => {}
            ".." => _ = kept.pop(),
            segment => kept.push(segment),
        }
    }
    Some(format!("/{}", kept.join("/")))
}

fn is_web(path: &str) -> bool {
    let below =
        |page: &&str| path.strip_prefix(*page).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path == "/" || WEB.iter().any(below)
}

/// `label/NAME/values`; the name may hold escapes, but none that changes the path: a program that normalises paths on
/// the way to the backend would follow it.
fn is_label_values(name: &str) -> bool {
    let inner = name.strip_prefix("label/").and_then(|rest| rest.strip_suffix("/values"));
    inner.is_some_and(|label| {
        let plain = label.to_ascii_lowercase().replace("%2e", ".").replace("%5c", "\\");
        let is_way = |segment: &str| matches!(segment, "." | "..");
        // A backslash may be part of a name; a program that takes it for a slash must not be led elsewhere.
        !plain.is_empty() && !plain.contains('/') && !plain.contains("%2f") && !plain.split('\\').any(is_way)
    })
}

fn is_lifecycle(path: &str) -> bool {
    path.starts_with("/-/") || path.starts_with("/debug/") || matches!(path, "/metrics" | "/federate")
}

/// `/select/7:1/prometheus/api/v1/query`.
fn names_tenant(path: &str) -> bool {
    ["/select/", "/insert/", "/delete/"].iter().any(|start| path.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::too_many_lines, reason = "a table, a line for each case")]
    fn cases() -> Vec<(&'static str, &'static str, Result<Endpoint, RouteError>)> {
        use Endpoint::{LabelValues, Labels, Light, Query, QueryRange, RemoteRead};
        vec![
            ("GET", "/api/v1/query", Ok(Query)),
            ("POST", "/api/v1/query", Ok(Query)),
            ("POST", "/prometheus/api/v1/query_range", Ok(QueryRange)),
            ("GET", "/api/v1/labels", Ok(Labels)),
            ("GET", "/api/v1/label/job/values", Ok(LabelValues)),
            ("GET", "/api/v1/label/U__a_2e_b/values", Ok(LabelValues)),
            ("POST", "/api/v1/label/job/values", Ok(LabelValues)),
            ("DELETE", "/api/v1/label/job/values", Err(RouteError::Method("GET, POST"))),
            ("GET", "/api/v1/label/a%5Cb/values", Ok(LabelValues)),
            ("GET", "/api/v1/label/..%5C..%5Cjob/values", Err(RouteError::Unknown)),
            ("POST", "/api/v1/prom/remote/read", Ok(RemoteRead)),
            ("POST", "/api/v1/prom/remote/write", Err(RouteError::Closed)),
            ("POST", "/api/prom/api/v1/query", Ok(Query)),
            ("GET", "/api/prom/graph", Err(RouteError::WebInterface)),
            ("GET", "/api/v1/features", Ok(Light)),
            ("GET", "/api/v1/openapi.yaml", Ok(Light)),
            ("GET", "/api/v1/scrape_pools", Ok(Light)),
            ("GET", "/api/v1/stores", Ok(Light)),
            ("GET", "/api/v1/query_explain", Ok(Light)),
            ("GET", "/api/v1/status/self_metrics", Ok(Light)),
            ("GET", "/api/v1/search/metric_names", Ok(Endpoint::Search)),
            ("GET", "/api/v1/notifications/live", Err(RouteError::Closed)),
            ("GET", "/api/v1/status/tsdb/blocks", Err(RouteError::Closed)),
            ("GET", "/api/v1/targets/relabel_steps", Err(RouteError::Closed)),
            ("GET", "/-/healthy", Ok(Endpoint::Healthy)),
            ("HEAD", "/-/ready", Ok(Endpoint::Ready)),
            ("GET", "/llms.txt", Ok(Endpoint::Guide)),
            ("POST", "/llms.txt", Err(RouteError::Unknown)),
            ("GET", "/api/v1/openapi.json", Ok(Endpoint::Description)),
            ("POST", "/-/ready", Err(RouteError::Closed)),
            ("POST", "/api/v1/status/buildinfo", Err(RouteError::Method("GET"))),
            ("DELETE", "/api/v1/series", Err(RouteError::Method("GET, POST"))),
            ("GET", "/api/v1/read", Err(RouteError::Method("POST"))),
            ("POST", "/api/v1/read", Ok(RemoteRead)),
            ("GET", "/api/v1/status/buildinfo", Ok(Light)),
            ("POST", "/api/v1/write", Err(RouteError::Closed)),
            ("GET", "/api/v1/querry", Err(RouteError::Misspelt("query"))),
            ("GET", "/api/v1/what", Err(RouteError::Unknown)),
            ("POST", "/api/v1/admin/tsdb/delete_series", Err(RouteError::Closed)),
            ("POST", "/-/quit", Err(RouteError::Closed)),
            ("GET", "/api/v1/label//values", Err(RouteError::Unknown)),
            ("GET", "/api/v1/label/a/b/values", Err(RouteError::Unknown)),
            ("GET", "/api/v1/label/..%2F..%2fjob/values", Err(RouteError::Unknown)),
            ("GET", "/api/v1/label/%2E./values", Err(RouteError::Unknown)),
            ("GET", "/api/v1/label/a%2Eb/values", Ok(LabelValues)),
            ("GET", "/api/v1/../v1/query", Err(RouteError::Moved("/api/v1/query".to_owned()))),
            ("GET", "//api/v1/query", Err(RouteError::Moved("/api/v1/query".to_owned()))),
            (
                "GET",
                "/prometheus//api/v1//query",
                Err(RouteError::Moved("/prometheus/api/v1/query".to_owned())),
            ),
            ("GET", "//evil.example/api/v1/query", Err(RouteError::Unknown)),
            ("POST", "//api/v1/write", Err(RouteError::Unknown)),
            ("GET", "/api/v1/query/", Err(RouteError::Moved("/api/v1/query".to_owned()))),
            ("GET", "/prometheusapi/v1/query", Err(RouteError::Unknown)),
            ("GET", "/", Err(RouteError::WebInterface)),
            ("GET", "/graph", Err(RouteError::WebInterface)),
            ("GET", "/vmui/index.html", Err(RouteError::WebInterface)),
            ("POST", "/graph", Err(RouteError::Unknown)),
            ("GET", "/graphite", Err(RouteError::Unknown)),
            ("GET", "/federate", Err(RouteError::Closed)),
            ("GET", "/select/0/prometheus/api/v1/query", Err(RouteError::TenantInPath)),
            ("POST", "/select/7:1/prometheus/api/v1/query_range", Err(RouteError::TenantInPath)),
            ("GET", "/select/multitenant/prometheus/api/v1/labels", Err(RouteError::TenantInPath)),
            ("POST", "/delete/7/prometheus/api/v1/admin/tsdb/delete_series", Err(RouteError::TenantInPath)),
            ("GET", "/prometheus/select/7/prometheus/api/v1/query", Err(RouteError::TenantInPath)),
            ("GET", "/%73elect/7/prometheus/api/v1/query", Err(RouteError::Unknown)),
            ("GET", "/api/v1/../../select/7/prometheus/api/v1/query", Err(RouteError::Unknown)),
            ("GET", "//select/7/prometheus/api/v1/query", Err(RouteError::Unknown)),
        ]
    }

    #[test]
    fn paths_and_methods() {
        for (method, path, want) in cases() {
            let got = route(&method.parse().unwrap(), path);
            assert_eq!(got.clone().map(|routed| routed.endpoint), want, "{method} {path}");
            if let Ok(routed) = got {
                assert!(
                    routed.path.starts_with("/api/v1/") || ROOT.iter().any(|(path, ..)| *path == routed.path)
                );
            }
        }
    }

    #[test]
    fn remote_reads_go_where_the_database_has_them() {
        for path in ["/api/v1/read", "/api/v1/prom/remote/read"] {
            let routed = route(&Method::POST, path).unwrap();
            assert_eq!(routed.at(Kind::M3).path, "/api/v1/prom/remote/read");
            assert_eq!(routed.at(Kind::Prometheus).path, "/api/v1/read");
        }
    }
}
