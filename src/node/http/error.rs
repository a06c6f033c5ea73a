//! The errors of the node, in Prometheus' shape.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    base::{ErrorKind, error, params::ParamError},
    node::{db::WriteError, engine::EvalError, index::BadMatcher, ingest::BadInput, pool::PoolExhausted},
    promql::{ParseError, Reason},
};

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    /// When to come again, where that may help.
    pub(super) retry_after: Duration,
    /// The memory that there was not, where that is the reason.
    pub(super) exhausted: Option<PoolExhausted>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: Duration::from_secs(1), exhausted: None }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Written by hand for the order of the keys: Grafana and people read the first ones.
        let text = |s: &str| serde_json::Value::from(s).to_string();
        let (kind, message) = (text(self.kind.error_type()), text(&self.message));
        let body = format!(r#"{{"status":"error","errorType":{kind},"error":{message}}}"#);
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(error::WEIR_ERROR, HeaderValue::from_static(self.kind.label()));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(self.kind, ErrorKind::QueueFull | ErrorKind::BackendSick | ErrorKind::RateLimited) {
            let seconds = self.retry_after.as_millis().div_ceil(1_000).max(1);
            headers
                .insert(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        response
    }
}

impl From<ParamError> for Failure {
    fn from(error: ParamError) -> Self {
        Self::new(ErrorKind::BadData, error.to_string())
    }
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        let kind = match error.reason {
            Reason::Limit(..) => ErrorKind::LimitExceeded,
            Reason::Malformed | Reason::UnknownFunction => ErrorKind::BadData,
        };
        Self::new(kind, format!("invalid parameter \"query\": {error}"))
    }
}

impl From<BadMatcher> for Failure {
    fn from(error: BadMatcher) -> Self {
        Self::new(ErrorKind::BadData, error.0)
    }
}

impl From<BadInput> for Failure {
    fn from(error: BadInput) -> Self {
        Self::new(ErrorKind::BadData, error.to_string())
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::DiskFull | WriteError::ReadOnly | WriteError::Deleted(_) => ErrorKind::BackendSick,
            WriteError::Log(_) => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        let kind = match &error {
            EvalError::Execution(_) | EvalError::Limit { .. } | EvalError::NativeHistogram { .. } => {
                ErrorKind::LimitExceeded
            }
            EvalError::Exhausted(_) => ErrorKind::BackendSick,
            EvalError::Stopped(_) => ErrorKind::RateLimited,
            EvalError::Canceled => ErrorKind::QueueTimeout,
            EvalError::Storage(_) => ErrorKind::Internal,
        };
        let exhausted = if let EvalError::Exhausted(exhausted) = &error { Some(*exhausted) } else { None };
        Self { exhausted, ..Self::new(kind, error.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_asks_to_come_again() {
        let response = Failure::from(WriteError::DiskFull).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
