//! The query API in OpenAPI 3.1, from the table of its routes.

use std::sync::LazyLock;

use super::route::{Endpoint, PARSED, ROOT, TABLE};
use crate::http::openapi::{self, Form, JSON, Operation, Parameter, TEXT, optional, required};

const QUERY: Parameter = required("query", Form::Text, "PromQL");
const TIMEOUT: Parameter =
    optional("timeout", Form::Duration, "how long to wait; the lower of this and the limit holds");
const START: Parameter = optional("start", Form::Time, "the beginning of the time that is looked at");
const END: Parameter = optional("end", Form::Time, "its end; now where it is missing");
const LIMIT: Parameter = optional("limit", Form::Number, "series, names or values at most; 0 is no limit");
const MATCH: Parameter = optional("match[]", Form::Texts, "selectors");
const INSTANT: &[Parameter] =
    &[QUERY, optional("time", Form::Time, "the instant; now where it is missing"), TIMEOUT, LIMIT];
const RANGE: &[Parameter] = &[
    QUERY,
    required("start", Form::Time, "the first instant"),
    required("end", Form::Time, "the last instant at most"),
    required("step", Form::Duration, "between two instants"),
    TIMEOUT,
    LIMIT,
];
const FORMATTED: &[Parameter] = &[QUERY];
const EXEMPLARS: &[Parameter] = &[QUERY, START, END];
const SERIES: &[Parameter] = &[required("match[]", Form::Texts, "selectors"), START, END, LIMIT];
const LISTING: &[Parameter] = &[MATCH, START, END, LIMIT];
const VALUES: &[Parameter] = &[required("name", Form::Text, "the label"), MATCH, START, END, LIMIT];

impl Endpoint {
    const fn parameters(self) -> &'static [Parameter] {
        match self {
            Self::Query | Self::QueryCost => INSTANT,
            Self::QueryRange | Self::QueryRangeCost => RANGE,
            Self::QueryExemplars => EXEMPLARS,
            Self::Series => SERIES,
            Self::Labels => LISTING,
            Self::LabelValues => VALUES,
            // Those of the database, which Weir does not read.
            Self::RemoteRead
            | Self::Search
            | Self::Light
            | Self::Healthy
            | Self::Ready
            | Self::Guide
            | Self::Description => &[],
        }
    }
}

/// Each operation of the query API.
pub fn operations() -> Vec<Operation> {
    static PATHS: LazyLock<Vec<String>> =
        LazyLock::new(|| TABLE.iter().map(|(name, ..)| format!("/api/v1/{name}")).collect());
    let operation = |method, path, endpoint: Endpoint, summary| Operation {
        method,
        path,
        summary,
        parameters: endpoint.parameters(),
        body: (endpoint == Endpoint::RemoteRead).then_some("application/x-protobuf"),
        answer: if endpoint == Endpoint::RemoteRead { "application/x-protobuf" } else { JSON },
    };
    let mut all = Vec::new();
    for (path, (name, endpoint, methods, summary)) in PATHS.iter().zip(TABLE) {
        for (word, method) in [("GET", "get"), ("POST", "post")] {
            if methods.split(", ").any(|known| known == word) {
                let operation = operation(method, path.as_str(), *endpoint, *summary);
                let parameters = if PARSED.contains(name) { FORMATTED } else { operation.parameters };
                all.push(Operation { parameters, ..operation });
            }
        }
    }
    for method in ["get", "post"] {
        all.push(operation(
            method,
            "/api/v1/label/{name}/values",
            Endpoint::LabelValues,
            "the values of a label",
        ));
    }
    for (path, endpoint, summary) in ROOT {
        all.push(Operation { answer: TEXT, ..operation("get", *path, *endpoint, *summary) });
    }
    all
}

/// The document.
pub(super) fn description() -> &'static str {
    static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
        let about = "Prometheus' query API, each query weighed before it runs. Writes and the database's own administration are closed. /llms.txt says how to ask well.";
        openapi::document("Weir's query API", about, operations()).to_string()
    });
    &DESCRIPTION
}
