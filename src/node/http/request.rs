//! Requests: parameters from URL and form, with the memory of the form.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, Method, header},
};

use super::{Node, connections::Peer, error::Failure};
use crate::{
    base::{ErrorKind, params::Params},
    node::{engine::EvalError, pool::Loan},
};

/// The largest form that is read, bytes; the proxy has the same limit.
pub(super) const FORM_BYTES_MAX: usize = 4 << 20;
/// Longest wait for one.
const FORM_WAIT: Duration = Duration::from_secs(10);

/// The parameters of a request, from its URL and its form, and its source.
pub(super) struct RequestParams {
    pub(super) url: Option<String>,
    pub(super) form: String,
    pub(super) headers: HeaderMap,
    pub(super) peer: Option<IpAddr>,
    /// The memory of the form.
    _lent: Option<Loan>,
}

impl RequestParams {
    pub(super) fn params(&self) -> Result<Params<'_>, Failure> {
        Ok(Params::parse(self.url.as_deref().unwrap_or_default(), &self.form)?)
    }
}

impl FromRequest<Arc<Node>> for RequestParams {
    type Rejection = Failure;

    async fn from_request(request: Request, node: &Arc<Node>) -> Result<Self, Failure> {
        let url = request.uri().query().map(str::to_owned);
        let peer = peer_of(&request);
        let asked = Self { url, form: String::new(), headers: request.headers().clone(), peer, _lent: None };
        if request.method() != Method::POST {
            return Ok(asked);
        }
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(is_form);
        let (body, lent) = read_form(node, request).await?;
        if !is_form {
            return Ok(asked);
        }
        let form = String::from_utf8(body.into())
            .map_err(|_| Failure::new(ErrorKind::BadData, "the form is not UTF-8"))?;
        Ok(Self { form, _lent: Some(lent), ..asked })
    }
}

/// Whether a media type is that of a form: parameters may follow, and case does not matter.
fn is_form(media_type: &str) -> bool {
    let name = media_type.split(';').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

pub(super) fn peer_of(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0)
}

/// Bytes of memory for each byte of a form: as it comes, as text, and once more in the parameters.
const FORM_COPIES: u64 = 3;

/// The body of a read, and its memory: a crowd that sends forms must not fill the node's before a query is worked out.
pub(super) async fn read_form(node: &Node, request: Request) -> Result<(Bytes, Loan), Failure> {
    let said =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let most = said.map_or(FORM_BYTES_MAX, |bytes: usize| bytes.min(FORM_BYTES_MAX));
    let mut lent = node.pools.engine.working.loan();
    lent.try_grow(FORM_COPIES * most as u64).map_err(EvalError::Exhausted)?;
    match tokio::time::timeout(FORM_WAIT, axum::body::to_bytes(request.into_body(), FORM_BYTES_MAX)).await {
        Ok(Ok(whole)) => {
            lent.keep_only(FORM_COPIES * whole.len() as u64);
            Ok((whole, lent))
        }
        Ok(Err(_)) => Err(Failure::new(
            ErrorKind::BodyTooLarge,
            format!("the body is cut off or larger than {FORM_BYTES_MAX} bytes"),
        )),
        Err(_) => Err(Failure::new(ErrorKind::BodyLate, "the request body did not arrive in time")),
    }
}
