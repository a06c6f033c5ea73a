//! Small answers in Prometheus' shape.

use axum::{
    http::header,
    response::{IntoResponse as _, Response},
};

/// A JSON answer that is small enough to be made in one piece.
pub(super) fn success(data: serde_json::Value, warnings: &[String]) -> Response {
    success_text(&data.to_string(), warnings)
}

/// The same with data that are JSON already.
pub(super) fn success_text(data: &str, warnings: &[String]) -> Response {
    // By hand for the order of the keys, which people read.
    let warnings = match warnings {
        [] => String::new(),
        texts => format!(r#","warnings":{}"#, serde_json::json!(texts)),
    };
    let body = format!(r#"{{"status":"success","data":{data}{warnings}}}"#);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
