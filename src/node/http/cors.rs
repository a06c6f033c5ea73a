//! CORS, as Prometheus answers it.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::base::cors::TO_SCRIPTS;

/// Answers OPTIONS, and lets scripts from anywhere read the node's answers.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let from_elsewhere = request.headers().contains_key(header::ORIGIN);
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if from_elsewhere {
        for (name, value) in TO_SCRIPTS {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}
