//! Answers of the admin API in the shape of the query API, and the sender of a request.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    base::{ErrorKind, error::WEIR_ERROR},
    http::Holder,
    proxy::Author,
};

/// An error in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed(pub(super) ErrorKind, pub(super) String);

impl Failed {
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self(ErrorKind::BadData, message.into())
    }

    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self(ErrorKind::NotFound, message.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(kind, message) = self;
        let body = json!({"status": "error", "errorType": kind.error_type(), "error": message});
        let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, HEADERS, [(WEIR_ERROR, kind.label())], body.to_string()).into_response()
    }
}

pub(super) const HEADERS: [(header::HeaderName, &str); 2] =
    [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];

/// `{"status": "success", "data": …}`.
pub(super) fn success(data: impl Serialize) -> Response {
    let body = json!({"status": "success", "data": data});
    (HEADERS, body.to_string()).into_response()
}

/// Adds whether an order was passed on to the other proxies of the fleet: `{"fleet": {"passed_on": true}}`, or `false` and the
/// `error`. Without a fleet nothing is added.
pub(super) fn with_fleet(mut answer: Value, passed_on: Option<Result<(), String>>) -> Value {
    match passed_on {
        None => {}
        Some(Ok(())) => answer["fleet"] = json!({"passed_on": true}),
        Some(Err(error)) => answer["fleet"] = json!({"passed_on": false, "error": error}),
    }
    answer
}

/// The parameters of a request, each once, and its sender.
#[derive(Debug)]
pub(super) struct RequestParams {
    params: BTreeMap<String, String>,
    holder: Option<Holder>,
    peer: Option<SocketAddr>,
}

impl<S: Sync> FromRequestParts<S> for RequestParams {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failed> {
        let mut params = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            if params.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Failed::bad(format!("the parameter `{name}` is there twice")));
            }
        }
        let holder = parts.extensions.get::<Holder>().cloned();
        Ok(Self { params, holder, peer: parts.extensions.get::<SocketAddr>().copied() })
    }
}

impl RequestParams {
    /// Takes a parameter; an empty one is none.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.params.remove(name).filter(|value| !value.is_empty())
    }

    /// Takes a parameter that is one of these; the first where it is missing.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        name: &str,
        all: &[T],
        word: fn(T) -> &'static str,
    ) -> Result<T, Failed> {
        let asked = self.take(name);
        let found = all.iter().copied().find(|one| asked.as_deref().is_none_or(|asked| word(*one) == asked));
        found.ok_or_else(|| {
            let words: Vec<_> = all.iter().copied().map(word).collect();
            Failed::bad(format!("`{name}` is one of {}", words.join(", ")))
        })
    }

    /// Refuses unknown parameters: a misspelt one must not widen the request.
    pub(super) fn nothing_else(&self) -> Result<(), Failed> {
        match self.params.keys().next() {
            Some(name) => Err(Failed::bad(format!("there is no parameter `{name}` here, or it is empty"))),
            None => Ok(()),
        }
    }

    /// The holder of the token; the name that the request gives stands in brackets.
    pub(super) fn author(&self, says: Option<String>) -> Author {
        let name = match (&self.holder, says) {
            (Some(Holder(holder)), Some(says)) if *says != **holder => format!("{says} (token of {holder})"),
            (Some(Holder(holder)), _) => holder.to_string(),
            (None, says) => says.unwrap_or_default(),
        };
        Author { name, peer: self.peer }
    }
}
