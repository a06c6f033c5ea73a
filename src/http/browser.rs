//! Protection against pages in a browser: cross-site writes and DNS rebinding.
//!
//! Browsers say for which site a request is made (`Sec-Fetch-Site`, `Origin`); other clients say neither and are let
//! through. A name that an attacker points at this address gives his page the rights of its own site: so only names that
//! nobody else can own are answered where that matters.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, Response, StatusCode, header},
};
use tower::Layer;

use super::guard::{Check, Guarded};

/// Names by which this address may be asked, beside IP addresses and `localhost`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(Arc<[String]>);

impl HostNames {
    /// `name`, `*.suffix`, or `*` for every name.
    pub fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether a `Host` header, with or without a port, is one of them.
    fn has(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let is_local = name == "localhost" || name.ends_with(".localhost");
        is_local || address.parse::<IpAddr>().is_ok() || self.0.iter().any(|known| covers(known, &name))
    }
}

fn covers(known: &str, name: &str) -> bool {
    match known.strip_prefix('*') {
        Some(suffix) => name.ends_with(suffix),
        None => name == known,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Guards a service against requests of other sites' pages.
#[derive(Clone, Debug)]
pub struct BrowserGuard<N> {
    names: N,
    checks_host: bool,
}

impl<N: Fn() -> HostNames> BrowserGuard<N> {
    /// Refuses writes for other sites, and every request under a name that is not one of `names`.
    pub const fn hosts_and_writes(names: N) -> Self {
        Self { names, checks_host: true }
    }

    /// Refuses writes for other sites.
    pub const fn writes(names: N) -> Self {
        Self { names, checks_host: false }
    }
}

impl<S, N: Clone> Layer<S> for BrowserGuard<N> {
    type Service = Guarded<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded::new(inner, self.clone())
    }
}

impl<N: Fn() -> HostNames> Check for BrowserGuard<N> {
    fn refuse<B>(&self, request: &mut Request<B>) -> Option<Response<Body>> {
        self.fault(request).map(refusal)
    }
}

impl<N: Fn() -> HostNames> BrowserGuard<N> {
    /// Says why a request is refused.
    fn fault<B>(&self, request: &Request<B>) -> Option<&'static str> {
        let headers = request.headers();
        let host = text(headers, header::HOST).or_else(|| request.uri().host()).unwrap_or_default();
        let names = (self.names)();
        if self.checks_host && !host.is_empty() && !names.has(host) {
            let why =
                "this address is not asked under that name; if it is yours, add it to server.admin_hosts";
            return Some(why);
        }
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if writes && is_for_another_site(headers, host, &names) {
            return Some("a page of another site may not write here");
        }
        None
    }
}

/// Whether a browser says that the request is made for a page of another site, or of one that it cannot know.
fn is_for_another_site(headers: &HeaderMap, host: &str, names: &HostNames) -> bool {
    let site = text(headers, header::HeaderName::from_static("sec-fetch-site"));
    let origin = text(headers, header::ORIGIN);
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    let own =
        |origin: &str| origin.split_once("://").is_some_and(|(_, name)| name == host && names.has(host));
    origin.is_some_and(|origin| !own(origin))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn refusal(why: &'static str) -> Response<Body> {
    let body = format!(r#"{{"status":"error","errorType":"forbidden","error":"{why}"}}"#);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::FORBIDDEN;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceBuilder, ServiceExt as _, service_fn};

    use super::*;

    async fn status(checks_host: bool, method: &str, headers: &[(&str, &str)]) -> u16 {
        let names = || HostNames::new(&["weir.example".to_owned(), "*.svc".to_owned()]);
        let guard = BrowserGuard { names, checks_host };
        let answer = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let mut request = Request::builder().method(method).uri("/-/reload");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let guarded = ServiceBuilder::new().layer(guard).service(answer);
        guarded.oneshot(request.body(()).unwrap()).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn pages_of_other_sites_do_not_write() {
        const HOST: (&str, &str) = ("host", "127.0.0.1:9098");
        for (method, said, want) in [
            ("POST", &[][..], 200),
            ("POST", &[("sec-fetch-site", "cross-site")], 403),
            // Another port of this machine is the same site.
            ("POST", &[("sec-fetch-site", "same-site")], 403),
            ("POST", &[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:9098")], 200),
            ("POST", &[("sec-fetch-site", "none")], 200),
            ("POST", &[("origin", "http://evil.example")], 403),
            ("POST", &[("origin", "null")], 403),
            ("PUT", &[("origin", "http://127.0.0.1:3000")], 403),
            ("DELETE", &[("sec-fetch-site", "cross-site")], 403),
            ("GET", &[("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")], 200),
        ] {
            for checks_host in [true, false] {
                let headers: Vec<_> = said.iter().copied().chain([HOST]).collect();
                assert_eq!(status(checks_host, method, &headers).await, want, "{method} {said:?}");
            }
        }
        // Its own name, pointed here: the same origin to the browser, and nobody's name to us.
        let rebound = [("host", "evil.example:9097"), ("origin", "http://evil.example:9097")];
        assert_eq!(status(false, "POST", &rebound).await, 403);
    }

    #[tokio::test]
    async fn hosts_are_names_that_nobody_else_can_own() {
        for (host, want) in [
            ("127.0.0.1:9098", 200),
            ("[::1]:9098", 200),
            ("10.1.2.3:9098", 200),
            ("localhost", 200),
            ("LocalHost:9098", 200),
            ("weir.localhost:9098", 200),
            ("weir.example:9098", 200),
            ("weir.ns.svc:9098", 200),
            ("evil.example:9098", 403),
            ("xweir.example", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
        ] {
            assert_eq!(status(true, "GET", &[("host", host)]).await, want, "{host}");
            assert_eq!(status(false, "GET", &[("host", host)]).await, 200, "{host}");
        }
    }
}
