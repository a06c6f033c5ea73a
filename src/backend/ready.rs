//! Whether a replica answers queries: its own readiness endpoint, and a query that reads nothing. No I/O.

use http::StatusCode;
use serde::Deserialize;

use super::{Kind, endpoint::Place};

/// A query that costs nothing, and that a database of this kind answers only if it answers others.
pub(super) const fn query(kind: Kind) -> &'static str {
    match kind {
        // It answers a query without a selector while it has no namespace, and before its index can be read.
        Kind::M3 => "/api/v1/query?query=absent(weir_health_check)",
        _ => "/api/v1/query?query=vector(1)",
    }
}

/// The paths at which a replica of this kind reports whether it is ready. The root in front of it may belong to another
/// program, so that a kind whose paths all move with its prefix is asked there first.
pub(super) const fn own_word(kind: Kind) -> (&'static str, Place) {
    match kind {
        Kind::Prometheus | Kind::Thanos => ("/-/ready", Place::Prefix),
        // A node that refuses writes is not ready, and answers queries.
        Kind::Weir => ("/-/healthy", Place::Prefix),
        Kind::VictoriaMetrics => ("/health", Place::Prefix),
        Kind::Mimir | Kind::Cortex => ("/ready", Place::Root),
        // Its /health is 200 always (measured, 2026): it answers while every query is 500.
        Kind::M3 => ("/ready", Place::Root),
    }
}

/// Where a replica of this kind has its metrics.
pub(super) const fn metrics(kind: Kind) -> (&'static str, Place) {
    let (_, place) = own_word(kind);
    ("/metrics", place)
}

/// Whether an answer says that there is no such endpoint.
pub(super) const fn is_missing(status: u16) -> bool {
    matches!(status, 404 | 405)
}

/// The error message of a database, where its answer has one.
#[derive(Deserialize)]
struct Said {
    status: String,
    #[serde(default)]
    error: String,
}

/// Judges the answer to [`query`].
///
/// # Errors
/// A sentence about the program that answered instead of a database.
pub(super) fn judge(status: StatusCode, body: &[u8]) -> Result<(), String> {
    let said = serde_json::from_slice::<Said>(body).ok();
    let code = status.as_u16();
    match (status, said) {
        (StatusCode::OK, Some(said)) if said.status == "success" => Ok(()),
        (StatusCode::OK, _) => {
            Err("answers a query with 200 and something that no database of PromQL says: does \
                                    `urls` name the query API?"
                .to_owned())
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            Err(format!("answers {code} to a query of Weir's own: set its credentials in `headers`"))
        }
        (StatusCode::NOT_FOUND, _) => {
            Err("answers 404 to a query: is the path of its URL in `urls` the one before /api/v1?".to_owned())
        }
        (_, Some(said)) if !said.error.is_empty() => {
            Err(format!("answers {code} to a query: {}", said.error))
        }
        _ => Err(format!("answers {code} to a query")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_is_ready() {
        let success = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(judge(StatusCode::OK, success), Ok(()));
        for (status, body, said) in [
            (200, "<html>login</html>", "no database of PromQL"),
            (200, r#"{"status":"up"}"#, "no database of PromQL"),
            (401, r#"{"status":"error","error":"no org id"}"#, "set its credentials in `headers`"),
            (403, "", "answers 403"),
            (404, "404 page not found", "the path of its URL"),
            (500, r#"{"status":"error","error":"session not initialized"}"#, "500 to a query: session not"),
            (503, "Service Unavailable", "answers 503 to a query"),
        ] {
            let why = judge(StatusCode::from_u16(status).unwrap(), body.as_bytes()).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
    }
}
