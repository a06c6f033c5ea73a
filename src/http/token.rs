//! Tokens that open an address: the requests that need one, and the holder.

use std::{fmt, sync::Arc};

use axum::{
    body::Body,
    http::{Method, Request, Response, StatusCode, header},
};
use ring::digest::{SHA256, digest};
use tower::Layer;

use super::{
    client_certificate::ClientCertificate,
    guard::{Check, Guarded},
};

/// Paths that are answered without a token: load balancers and containers have none.
const HEALTH_PATHS: [&str; 2] = ["/-/healthy", "/-/ready"];

/// Those who may use an address: the holders of tokens, and of client certificates. Without any, every request is let through.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Name and SHA-256 of the token.
    holders: Arc<[(Arc<str>, [u8; 32])]>,
    /// Names in client certificates; `*` is any.
    certificates: Arc<[String]>,
    guards_reads: bool,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.holders.iter().map(|(name, _)| name))
            .entries(&*self.certificates)
            .finish()
    }
}

/// The holder of the token that the request carries, or of the certificate that its client showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder(pub Arc<str>);

impl Tokens {
    /// These tokens, by the names of their holders. They are needed to write, and with `guards_reads` to read as well.
    pub fn new<'a>(tokens: impl IntoIterator<Item = (&'a str, &'a str)>, guards_reads: bool) -> Self {
        let holders = tokens.into_iter().map(|(name, token)| (name.into(), hash(token)));
        Self { holders: holders.collect(), certificates: Arc::default(), guards_reads }
    }

    /// The same for clients whose certificates have one of these names; `*` is any.
    #[must_use]
    pub fn with_certificates(self, names: &[String]) -> Self {
        Self { certificates: names.into(), ..self }
    }

    /// Whose certificate it is, if that is one of ours.
    fn certified(&self, certificate: &ClientCertificate) -> Option<Holder> {
        let is_ours = |name: &String| name == "*" || certificate.has_name(name);
        certificate
            .name()
            .filter(|_| self.certificates.iter().any(is_ours))
            .map(|name| Holder(Arc::clone(name)))
    }

    /// The holder of a token. Hashes are compared, so that the time that it takes says nothing about a token.
    fn holder(&self, token: &str) -> Option<Holder> {
        let presented = hash(token);
        let (name, _) = self.holders.iter().find(|(_, known)| *known == presented)?;
        Some(Holder(Arc::clone(name)))
    }

    /// The holder, if the request carries a token; an error where it must and does not.
    fn check<B>(&self, request: &Request<B>) -> Result<Option<Holder>, Denied> {
        let is_open = self.holders.is_empty() && self.certificates.is_empty();
        if is_open || HEALTH_PATHS.contains(&request.uri().path()) {
            return Ok(None);
        }
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let credentials = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = credentials.and_then(|text| text.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let certificate = request.extensions().get::<Arc<ClientCertificate>>();
        let certified = || certificate.and_then(|certificate| self.certified(certificate));
        match token.and_then(|(_, token)| self.holder(token.trim())).or_else(certified) {
            Some(holder) => Ok(Some(holder)),
            None if is_read && !self.guards_reads => Ok(None),
            None => Err(Denied),
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    // A SHA-256 digest is 32 bytes long.
    digest(&SHA256, token.as_bytes()).as_ref().first_chunk().copied().unwrap_or_default()
}

/// A request that needs a token or certificate has none, or one that nobody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Denied;

/// Lets requests through that need no token or have one, with their [`Holder`] as an extension.
#[derive(Clone, Debug)]
pub struct TokenGuard<T>(T);

impl<T: Fn() -> Tokens> TokenGuard<T> {
    /// A guard that asks for the tokens of the moment.
    pub const fn new(tokens: T) -> Self {
        Self(tokens)
    }
}

impl<S, T: Clone> Layer<S> for TokenGuard<T> {
    type Service = Guarded<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded::new(inner, self.clone())
    }
}

impl<T: Fn() -> Tokens> Check for TokenGuard<T> {
    fn refuse<B>(&self, request: &mut Request<B>) -> Option<Response<Body>> {
        match (self.0)().check(request) {
            Ok(None) => None,
            Ok(Some(holder)) => {
                request.extensions_mut().insert(holder);
                None
            }
            Err(Denied) => Some(denied()),
        }
    }
}

fn denied() -> Response<Body> {
    let body = r#"{"status":"error","errorType":"unauthorized","error":"this needs a token of server.admin_auth (Authorization: Bearer TOKEN), or a certificate that it names"}"#;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer realm=\"weir\""));
    response
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceBuilder, ServiceExt as _, service_fn};

    use super::*;

    async fn asked(guards_reads: bool, method: &str, path: &str, token: Option<&str>) -> Result<String, u16> {
        let tokens = move || Tokens::new([("alice", "secret-a"), ("ci", "secret-b")], guards_reads);
        let answer = service_fn(async |request: Request<()>| {
            let name =
                request.extensions().get::<Holder>().map_or("nobody".into(), |Holder(name)| name.to_string());
            Ok::<_, Infallible>(Response::new(Body::from(name)))
        });
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let guarded = ServiceBuilder::new().layer(TokenGuard::new(tokens)).service(answer);
        let response = guarded.oneshot(request.body(()).unwrap()).await.unwrap();
        if response.status() != StatusCode::OK {
            assert!(response.headers().contains_key("www-authenticate"));
            return Err(response.status().as_u16());
        }
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn writing_needs_a_token_and_reading_where_that_is_wanted() {
        let name = |name: &str| Ok(name.to_owned());
        for (reads, method, path, token, want) in [
            (false, "GET", "/status", None, name("nobody")),
            (false, "GET", "/status", Some("Bearer secret-a"), name("alice")),
            (false, "DELETE", "/api/v1/admin/queries/1", None, Err(401)),
            (false, "DELETE", "/api/v1/admin/queries/1", Some("Bearer secret-b"), name("ci")),
            (false, "DELETE", "/api/v1/admin/queries/1", Some("bearer  secret-b"), name("ci")),
            (false, "POST", "/-/reload", Some("Bearer secret"), Err(401)),
            (false, "POST", "/-/reload", Some("Basic secret-a"), Err(401)),
            (false, "POST", "/-/reload", Some("Bearer "), Err(401)),
            (true, "GET", "/metrics", None, Err(401)),
            (true, "GET", "/metrics", Some("Bearer secret-a"), name("alice")),
            (true, "GET", "/-/healthy", None, name("nobody")),
        ] {
            assert_eq!(asked(reads, method, path, token).await, want, "{method} {path} {token:?}");
        }
    }

    #[test]
    fn tokens_are_never_shown() {
        let tokens = Tokens::new([("alice", "secret")], false);
        assert_eq!(format!("{tokens:?}"), "[\"alice\"]");
    }
}
