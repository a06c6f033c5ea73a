//! Which requests are queries, which merely pass, and which stay outside.

use http::Method;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Endpoint {
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
    /// `query_cost`: what an instant query would cost; answered here.
    QueryCost,
    /// `query_range_cost`: what a graph would cost; answered here.
    QueryRangeCost,
    /// Answered by the backend from memory: build information, metadata, rules, alerts, formatting.
    Light,
}

impl Endpoint {
    /// The word for metrics and logs.
    pub(super) const fn as_str(self) -> &'static str {
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
            Self::Light => "light",
        }
    }
}

impl Endpoint {
    /// Answered here: the price of a query.
    pub(super) const fn is_explained(self) -> bool {
        matches!(self, Self::QueryCost | Self::QueryRangeCost)
    }

    /// Lists label sets, names or values.
    pub(super) const fn is_listing(self) -> bool {
        matches!(self, Self::Series | Self::Labels | Self::LabelValues)
    }
}

/// A request that has a place to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Routed<'a> {
    /// What it asks for.
    pub endpoint: Endpoint,
    /// The path at the backend, from `/api/v1/` on.
    pub path: &'a str,
}

/// Why a request has no place to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteError {
    /// No such endpoint.
    Unknown,
    /// The endpoint takes these methods only.
    Method(&'static str),
    /// Writes and the database's own administration do not go through Weir.
    Closed,
}

const GET: &str = "GET";
const POST: &str = "POST";
const GET_POST: &str = "GET, POST";

/// Paths below `/api/v1/`, without the label values.
const TABLE: &[(&str, Endpoint, &str)] = &[
    ("query", Endpoint::Query, GET_POST),
    ("query_range", Endpoint::QueryRange, GET_POST),
    ("query_exemplars", Endpoint::QueryExemplars, GET_POST),
    ("series", Endpoint::Series, GET_POST),
    ("labels", Endpoint::Labels, GET_POST),
    ("read", Endpoint::RemoteRead, POST),
    ("query_cost", Endpoint::QueryCost, GET_POST),
    ("query_range_cost", Endpoint::QueryRangeCost, GET_POST),
    ("metadata", Endpoint::Light, GET),
    ("rules", Endpoint::Light, GET),
    ("alerts", Endpoint::Light, GET),
    ("format_query", Endpoint::Light, GET_POST),
    ("parse_query", Endpoint::Light, GET_POST),
    ("status/buildinfo", Endpoint::Light, GET),
    ("status/runtimeinfo", Endpoint::Light, GET),
    ("status/flags", Endpoint::Light, GET),
];

/// What the database keeps for itself: below `/api/v1/`, or at the root.
const CLOSED: &[&str] = &[
    "write",
    "admin/",
    "import",
    "export",
    "otlp/",
    "push",
    "status/config",
    "status/tsdb",
    "status/walreplay",
    "targets",
    "targets/metadata",
    "alertmanagers",
    "notifications",
    "prom/remote/",
    "json/write",
];

/// Finds the endpoint of a path. A Mimir-style `/prometheus` before it is taken off: the backend's own URL says what
/// belongs there.
pub(super) fn route<'a>(method: &Method, path: &'a str) -> Result<Routed<'a>, RouteError> {
    let path = path.strip_prefix("/prometheus").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let Some(name) = path.strip_prefix("/api/v1/") else {
        return Err(if is_lifecycle(path) { RouteError::Closed } else { RouteError::Unknown });
    };
    let found =
        TABLE.iter().find(|(known, ..)| *known == name).map(|&(_, endpoint, methods)| (endpoint, methods));
    let found = found.or_else(|| is_label_values(name).then_some((Endpoint::LabelValues, GET)));
    let Some((endpoint, methods)) = found else {
        let closed = CLOSED.iter().any(|c| name == *c || (c.ends_with('/') && name.starts_with(c)));
        return Err(if closed { RouteError::Closed } else { RouteError::Unknown });
    };
    if !methods.split(", ").any(|m| m == method.as_str()) {
        return Err(RouteError::Method(methods));
    }
    Ok(Routed { endpoint, path })
}

/// `label/NAME/values`; the name may hold escapes, but none that stands for a way to somewhere else: what normalises paths
/// on the way to the backend would take it.
fn is_label_values(name: &str) -> bool {
    let inner = name.strip_prefix("label/").and_then(|rest| rest.strip_suffix("/values"));
    inner.is_some_and(|label| {
        let escaped = label.to_ascii_lowercase();
        let plain = escaped.replace("%2e", ".");
        !matches!(&*plain, "" | "." | "..")
            && !["/", "\\", "%2f", "%5c"].iter().any(|way| escaped.contains(way))
    })
}

fn is_lifecycle(path: &str) -> bool {
    path.starts_with("/-/") || path.starts_with("/debug/") || path == "/metrics"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods() {
        use Endpoint::{LabelValues, Labels, Light, Query, QueryRange, RemoteRead};
        let cases: &[(&str, &str, Result<Endpoint, RouteError>)] = &[
            ("GET", "/api/v1/query", Ok(Query)),
            ("POST", "/api/v1/query", Ok(Query)),
            ("POST", "/prometheus/api/v1/query_range", Ok(QueryRange)),
            ("GET", "/api/v1/labels", Ok(Labels)),
            ("GET", "/api/v1/label/job/values", Ok(LabelValues)),
            ("GET", "/api/v1/label/U__a_2e_b/values", Ok(LabelValues)),
            ("POST", "/api/v1/label/job/values", Err(RouteError::Method("GET"))),
            ("POST", "/api/v1/status/buildinfo", Err(RouteError::Method("GET"))),
            ("DELETE", "/api/v1/series", Err(RouteError::Method("GET, POST"))),
            ("GET", "/api/v1/read", Err(RouteError::Method("POST"))),
            ("POST", "/api/v1/read", Ok(RemoteRead)),
            ("GET", "/api/v1/status/buildinfo", Ok(Light)),
            ("POST", "/api/v1/write", Err(RouteError::Closed)),
            ("POST", "/api/v1/admin/tsdb/delete_series", Err(RouteError::Closed)),
            ("POST", "/-/quit", Err(RouteError::Closed)),
            ("GET", "/api/v1/label//values", Err(RouteError::Unknown)),
            ("GET", "/api/v1/label/a/b/values", Err(RouteError::Unknown)),
            ("GET", "/api/v1/label/..%2F..%2fjob/values", Err(RouteError::Unknown)),
            ("GET", "/api/v1/label/%2E./values", Err(RouteError::Unknown)),
            ("GET", "/api/v1/label/a%2Eb/values", Ok(LabelValues)),
            ("GET", "/api/v1/../v1/query", Err(RouteError::Unknown)),
            ("GET", "/api/v1/query/", Err(RouteError::Unknown)),
            ("GET", "/prometheusapi/v1/query", Err(RouteError::Unknown)),
            ("GET", "/", Err(RouteError::Unknown)),
        ];
        for (method, path, want) in cases {
            let got = route(&method.parse().unwrap(), path);
            assert_eq!(got.map(|routed| routed.endpoint), *want, "{method} {path}");
            if let Ok(routed) = got {
                assert!(routed.path.starts_with("/api/v1/"));
            }
        }
    }
}
