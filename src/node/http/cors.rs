//! What browsers ask before and of a request to another host, answered as Prometheus does.

use axum::{
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

const ALLOWED: [(header::HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
];

/// Answers OPTIONS, and lets scripts from anywhere read what the node says. It keeps no cookies and knows no logins, so
/// that nothing is given away that a plain request would not get.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let from_elsewhere = request.headers().contains_key(header::ORIGIN);
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if from_elsewhere {
        for (name, value) in ALLOWED {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}
