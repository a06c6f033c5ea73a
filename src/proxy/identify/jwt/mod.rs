//! JSON Web Tokens: the caller that they name, once issuer, audience, time and signature are checked.

mod crypto;
mod fetch;
mod keys;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};

use super::verified::{Named, names};
pub use fetch::KeyUrl;
pub use keys::KeySet;

/// Bytes of the longest token: beyond those of any provider, and below the bound of a head.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Keys that are tried for a token that does not name its own.
const TRIED_MAX: usize = 8;
/// How far the clocks of issuers may be off, seconds.
const LEEWAY_SECONDS: f64 = 60.0;

/// The required claims of tokens, and the claims that name the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The issuer, `iss`.
    pub issuer: String,
    /// The audiences, one of which `aud` must name.
    pub audiences: Vec<String>,
    /// The claim that names the tenant or tenants.
    pub tenant: String,
    /// The claim that names the actor.
    pub actor: String,
    /// The claim that names the class, if any does.
    pub class: Option<String>,
    /// The claim that names the groups.
    pub groups: String,
}

/// A source of tenants: tokens of one issuer, and its keys.
#[derive(Debug)]
pub struct JwtSource {
    expected: Expected,
    keys: ArcSwap<KeySet>,
    /// Where the keys come from, if not from a file that was read.
    url: Option<KeyUrl>,
}

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtError {
    /// It is no token, or too long.
    Malformed,
    /// None of the keys is for it.
    UnknownKey,
    /// It is signed by another key than it says.
    Signature,
    /// It is over.
    Expired,
    /// Its time has not come.
    Early,
    /// A claim is missing or not the one that is expected.
    Claim(String),
    /// No keys have been fetched yet.
    NoKeys,
}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the token is no JWT that can be read"),
            Self::UnknownKey => f.write_str("no key of the issuer is for this token"),
            Self::Signature => f.write_str("the token is not signed by its issuer"),
            Self::Expired => f.write_str("the token has expired"),
            Self::Early => f.write_str("the token is not valid yet"),
            Self::Claim(name) => {
                write!(f, "the claim `{name}` of the token is missing or not the expected one")
            }
            Self::NoKeys => f.write_str("the keys of the issuer could not be fetched yet"),
        }
    }
}

impl JwtSource {
    /// Tokens that are signed by the keys of a file.
    pub fn with_keys(expected: Expected, keys: KeySet) -> Self {
        Self { expected, keys: ArcSwap::from_pointee(keys), url: None }
    }

    /// Tokens that are signed by keys which are fetched by `keep_keys`.
    pub fn with_url(expected: Expected, url: KeyUrl) -> Self {
        Self { expected, keys: ArcSwap::default(), url: Some(url) }
    }

    /// Whether a bearer token looks like one of these: three parts with dots between.
    pub(super) fn is_about(token: &str) -> bool {
        token.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// Whom a token names at `now_ms`, milliseconds since the epoch.
    pub(super) fn named(&self, token: &str, now_ms: i64) -> Result<Named, JwtError> {
        let keys = self.keys.load();
        if keys.keys.is_empty() {
            return Err(JwtError::NoKeys);
        }
        let claims = verify(token, &keys, &self.expected, now_ms);
        if let (Err(JwtError::UnknownKey), Some(url)) = (&claims, &self.url) {
            // The issuer may have a new one.
            url.nudge();
        }
        named(&claims?, &self.expected)
    }
}

/// The claims of a token that one of the keys signed, and that is for us now.
pub(super) fn verify(
    token: &str,
    keys: &KeySet,
    expected: &Expected,
    now_ms: i64,
) -> Result<Map<String, Value>, JwtError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::Malformed);
    }
    let header = decode_header(token).map_err(|_| JwtError::Malformed)?;
    // A key says which algorithms are its own: the token's header only chooses among them.
    let fits = |key: &&keys::Key| {
        let is_named = header.kid.is_none() || key.id.is_none() || key.id == header.kid;
        is_named && key.algorithms.contains(&header.alg)
    };
    let mut validation = Validation::new(header.alg);
    validation.set_issuer(&[&expected.issuer]);
    validation.set_audience(&expected.audiences);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    // Time is checked here, by the clock that is given.
    validation.validate_exp = false;
    let mut error = JwtError::UnknownKey;
    for key in keys.keys.iter().filter(fits).take(TRIED_MAX) {
        match decode::<Map<String, Value>>(token, &key.decoding, &validation) {
            // A list of issuers passes the check if one of them is expected.
            Ok(token) if !token.claims.get("iss").is_some_and(Value::is_string) => {
                return Err(JwtError::Claim("iss".to_owned()));
            }
            Ok(token) => return in_time(token.claims, now_ms),
            Err(other) => error = error_of(other.kind()),
        }
        if error != JwtError::Signature {
            break;
        }
    }
    Err(error)
}

fn error_of(kind: &ErrorKind) -> JwtError {
    match kind {
        ErrorKind::InvalidSignature => JwtError::Signature,
        ErrorKind::InvalidIssuer => JwtError::Claim("iss".to_owned()),
        ErrorKind::InvalidAudience => JwtError::Claim("aud".to_owned()),
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => {
            JwtError::Claim(name.clone())
        }
        _ => JwtError::Malformed,
    }
}

fn in_time(claims: Map<String, Value>, now_ms: i64) -> Result<Map<String, Value>, JwtError> {
    let now = now_ms as f64 / 1e3;
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| JwtError::Claim(name.to_owned())),
    };
    let expires = time("exp")?.ok_or_else(|| JwtError::Claim("exp".to_owned()))?;
    if now > expires + LEEWAY_SECONDS {
        return Err(JwtError::Expired);
    }
    if time("nbf")?.is_some_and(|begins| now < begins - LEEWAY_SECONDS) {
        return Err(JwtError::Early);
    }
    Ok(claims)
}

fn named(claims: &Map<String, Value>, expected: &Expected) -> Result<Named, JwtError> {
    let wrong = || JwtError::Claim(expected.tenant.clone());
    let tenants = texts(claims, &expected.tenant)?;
    let tenants = names(tenants.iter().map(|text| &**text)).ok_or_else(wrong)?;
    let one = |name: &str| texts(claims, name).map(|texts| texts.into_iter().next());
    Ok(Named {
        tenants,
        actor: one(&expected.actor)?,
        class: expected.class.as_deref().map(one).transpose()?.flatten(),
        groups: texts(claims, &expected.groups)?,
    })
}

/// The text or texts of a claim; `a.b` is also the claim `b` in the claim `a`. A list of anything else is an error.
fn texts(claims: &Map<String, Value>, name: &str) -> Result<Vec<Arc<str>>, JwtError> {
    let nested = || {
        let (first, rest) = name.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, key| value.get(key))
    };
    match claims.get(name).or_else(nested) {
        Some(Value::String(text)) => Ok(vec![text.as_str().into()]),
        Some(Value::Array(items)) => {
            let text = |item: &Value| item.as_str().map(Arc::from);
            items.iter().map(text).collect::<Option<_>>().ok_or_else(|| JwtError::Claim(name.to_owned()))
        }
        _ => Ok(Vec::new()),
    }
}
