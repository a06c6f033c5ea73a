//! Identification: the tenant that pays, the actor inside it, the class that sets its priority.
//!
//! Headers name tenants and classes only when they come from a trusted proxy: any client can write a header. A signature
//! is believed of anybody: a certificate by an authority, a JWT by its issuer.

mod bearer;
mod error;
mod jwt;
pub(super) mod layer;
mod verified;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

pub use bearer::BearerTokens;
use error::BASIC;
pub use error::IdentifyError;
pub use jwt::{Expected, JwtError, JwtSource, KeySet, KeyUrl};
use verified::Named;
pub use verified::{CertificateName, IdentitySource};

use crate::{
    backend::{
        Kind,
        headers::{Tenancy, keep_known},
    },
    base::{TenantId, tenant},
    http::ClientCertificate,
};

/// Bytes of an actor's name that are kept.
const ACTOR_BYTES_MAX: usize = 128;

/// Headers that name the actor inside a tenant, the most specific first, with the word for logs. Grafana sends them.
const ACTOR_HEADERS: [(HeaderName, &str); 3] = [
    (HeaderName::from_static("x-rule-uid"), "rule:"),
    (HeaderName::from_static("x-dashboard-uid"), "dashboard:"),
    (HeaderName::from_static("x-grafana-user"), "user:"),
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The class of requests that match none.
pub const UNCLASSED: &str = "adhoc";

/// How requests are attributed to tenants, actors and classes.
#[derive(Clone, Debug)]
pub struct Attribution {
    /// Peers whose headers are believed.
    pub trusted: Vec<IpNet>,
    /// Where the tenant is read from; the first one present wins.
    pub sources: Vec<TenantSource>,
    /// The tenant of a request that names none.
    pub default: TenantId,
    /// A request that names none is refused.
    pub required: bool,
    /// Classes, the first match wins; a request that matches none is of class [`Attribution::unclassed`].
    pub classes: Vec<ClassRule>,
}

/// Where a tenant's name may stand.
#[derive(Clone, Debug)]
pub enum TenantSource {
    /// In this header.
    Header(HeaderName),
    /// It is the user of HTTP basic authentication.
    BasicAuthUser,
    /// A bearer token stands for it.
    Bearer(BearerTokens),
    /// A bearer token that an issuer signed names it.
    Jwt(Arc<JwtSource>),
    /// The client's certificate names it.
    Certificate(CertificateName),
}

/// The credentials of a request: its headers, and those of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The other end of its connection.
    pub peer: SocketAddr,
    /// The certificate that its client showed.
    pub certificate: Option<&'a ClientCertificate>,
    /// Milliseconds since the epoch.
    pub clock: fn() -> i64,
}

/// Which requests belong to a class.
#[derive(Clone, Debug, Default)]
pub struct ClassRule {
    /// The class' name.
    pub name: Arc<str>,
    /// Header and pattern; all must match.
    pub headers: Vec<(HeaderName, Pattern)>,
    /// Header and pattern; where there are any, one must match.
    pub any_header: Vec<(HeaderName, Pattern)>,
    /// A group that a JWT or a certificate names.
    pub group: Option<Pattern>,
    /// To be of this class is no advantage: any client may say that it is.
    pub only_lowers: bool,
    /// Refusals of its queries have a fix.
    pub fix: bool,
}

/// The condition on a header's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Exactly this.
    Exact(String),
    /// Anything that starts with this; everything when it is empty.
    Prefix(String),
    /// Anything that holds this.
    Contains(String),
}

impl Pattern {
    /// Reads `text`, `prefix*` or `*part*`.
    pub fn new(text: &str) -> Self {
        let Some(prefix) = text.strip_suffix('*') else { return Self::Exact(text.to_owned()) };
        match prefix.strip_prefix('*') {
            Some(part) => Self::Contains(part.to_owned()),
            None => Self::Prefix(prefix.to_owned()),
        }
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Contains(text) => memchr::memmem::find(value, text.as_bytes()).is_some(),
        }
    }

    /// As [`matches`](Self::matches), in upper or lower case.
    fn matches_any_case(&self, value: &[u8]) -> bool {
        let is = |text: &str, part: Option<&[u8]>| {
            part.is_some_and(|part| part.eq_ignore_ascii_case(text.as_bytes()))
        };
        match self {
            Self::Exact(text) => is(text, Some(value)),
            Self::Prefix(text) => is(text, value.get(..text.len())),
            Self::Contains(text) => {
                text.is_empty() || value.windows(text.len()).any(|part| is(text, Some(part)))
            }
        }
    }
}

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenant that pays; where several tenants' data are read at once, all of them by the one name that the
    /// database knows.
    pub tenant: TenantId,
    /// Each of those that pay, where they are several; read by [`Self::payers`].
    pub several: Vec<TenantId>,
    /// The actor inside the tenant, such as `dashboard:abc`.
    pub actor: Arc<str>,
    /// Index into [`Attribution::classes`]; its length for a request that matches none.
    pub class: usize,
    /// The peer is a trusted proxy: its headers may go on to the backend.
    pub trusted: bool,
    /// The source of the tenant's name.
    pub source: IdentitySource,
}

impl Identity {
    /// Each of the tenants that pay.
    pub fn payers(&self) -> &[TenantId] {
        if self.several.is_empty() { std::slice::from_ref(&self.tenant) } else { &self.several }
    }
}

/// The extension of a request that an operator makes in a tenant's name: no header decides whose it is, and it counts towards
/// nobody's rate.
#[derive(Clone, Debug)]
pub(super) struct OnBehalfOf(pub(super) TenantId);

impl Attribution {
    /// The class of requests that match no rule.
    pub fn unclassed(&self) -> usize {
        self.classes.len()
    }

    /// Whether the headers of this peer are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }

    /// Identifies the client.
    ///
    /// # Errors
    /// A name is not believed, or there is none where one is required.
    pub fn identify(&self, presented: &Presented<'_>) -> Result<Identity, IdentifyError> {
        let Presented { headers, peer, .. } = *presented;
        let trusted = self.trusts(peer.ip());
        // Nobody checks the password here, so that the name is no more than a header.
        let user = if trusted { basic_user(headers) } else { None };
        let (source, named) = self.named(presented, user.as_deref(), trusted)?;
        let class = self.class(headers, &named, trusted);
        let actor = match &named.actor {
            Some(actor) => actor_of("user:", actor),
            None => self.actor(headers, user.as_deref(), peer.ip(), trusted),
        };
        let (tenant, several) = match named.tenants.into_inner() {
            Ok([tenant]) => (tenant, Vec::new()),
            Err(several) => {
                (tenant::joined(&several).ok_or(IdentifyError::Name("the token"))?, several.into_vec())
            }
        };
        Ok(Identity { tenant, several, actor, class, trusted, source })
    }

    /// A caller in this tenant's name, of no class.
    pub(super) fn on_behalf_of(&self, tenant: TenantId) -> Identity {
        let (class, source) = (self.unclassed(), IdentitySource::Operator);
        Identity { tenant, several: Vec::new(), actor: "operator".into(), class, trusted: false, source }
    }

    /// The class that a credential names, or the first that matches.
    fn class(&self, headers: &HeaderMap, named: &Named, trusted: bool) -> usize {
        let by_name = |class: &ClassRule| named.class.as_ref().is_some_and(|name| *name == class.name);
        let by_rule = |class: &ClassRule| class.matches(headers, &named.groups, trusted);
        let found = self.classes.iter().position(by_name).or_else(|| self.classes.iter().position(by_rule));
        found.unwrap_or(self.unclassed())
    }

    /// The scheme by which a client may identify itself, for `WWW-Authenticate`.
    pub fn challenge(&self) -> &'static str {
        let takes_bearer = self.sources.iter().any(TenantSource::is_bearer);
        if takes_bearer { "Bearer realm=\"weir\"" } else { "Basic realm=\"weir\"" }
    }

    /// The sources whose keys are fetched.
    pub(super) fn jwt_sources(&self) -> impl Iterator<Item = &Arc<JwtSource>> {
        self.sources.iter().filter_map(|source| match source {
            TenantSource::Jwt(source) => Some(source),
            _ => None,
        })
    }

    /// Turns a request's headers into those for a backend, which believes them as Weir believes a trusted proxy: of a
    /// stranger's only known ones go on, and the tenant is the one that was identified.
    pub fn forward(&self, headers: &mut HeaderMap, who: &Identity, (kind, tenancy): (Kind, &Tenancy)) {
        for source in &self.sources {
            if let TenantSource::Header(name) = source {
                headers.remove(name);
            }
        }
        if !who.trusted {
            keep_known(headers, kind, tenancy);
        }
        tenancy.apply(headers, who.tenant.as_str());
    }

    /// Whom the first source names that is there. A credential that is not believed is an error, whichever source comes
    /// first.
    fn named(
        &self,
        presented: &Presented<'_>,
        user: Option<&str>,
        trusted: bool,
    ) -> Result<(IdentitySource, Named), IdentifyError> {
        let headers = presented.headers;
        // The next hop may look at the other one.
        single(headers, &header::AUTHORIZATION)?;
        let takes_tokens = self.sources.iter().any(TenantSource::is_bearer);
        let by_token = bearer(headers).filter(|_| takes_tokens);
        let by_token = by_token.map(|token| self.named_by_token(token, presented.clock)).transpose()?;
        for source in &self.sources {
            let TenantSource::Certificate(part) = source else { continue };
            if presented.certificate.is_some_and(|certificate| part.named(certificate).is_none()) {
                return Err(IdentifyError::Certificate);
            }
        }
        for source in &self.sources {
            let found = match source {
                TenantSource::Header(name) if trusted => single(headers, name)?
                    .map(|value| named(value.to_str().unwrap_or(""), "the header"))
                    .map(|named| named.map(|named| (IdentitySource::Header, named))),
                TenantSource::Header(_) => None,
                TenantSource::BasicAuthUser => {
                    user.map(|user| named(user, BASIC).map(|named| (IdentitySource::BasicAuth, named)))
                }
                TenantSource::Bearer(_) | TenantSource::Jwt(_) => {
                    by_token.clone().map(|(source, named)| Ok((source, self.chosen(headers, source, named)?)))
                }
                TenantSource::Certificate(part) => presented.certificate.map(|certificate| {
                    let named = part.named(certificate).ok_or(IdentifyError::Certificate)?;
                    Ok((IdentitySource::Certificate, named))
                }),
            };
            if let Some(found) = found {
                return found;
            }
        }
        if self.required {
            return Err(IdentifyError::Nobody);
        }
        Ok((IdentitySource::Default, Named::tenant(self.default.clone())))
    }

    /// Whom a bearer token names: it is one that is known, or one that an issuer signed.
    fn named_by_token(
        &self,
        token: &str,
        clock: fn() -> i64,
    ) -> Result<(IdentitySource, Named), IdentifyError> {
        let mut error = IdentifyError::Token;
        for source in &self.sources {
            match source {
                TenantSource::Bearer(tokens) => {
                    if let Some(tenant) = tokens.tenant(token) {
                        return Ok((IdentitySource::Bearer, Named::tenant(tenant.clone())));
                    }
                }
                TenantSource::Jwt(source) if JwtSource::is_about(token) => {
                    match source.named(token, clock()) {
                        Ok(named) => return Ok((IdentitySource::Jwt, named)),
                        Err(other) => error = IdentifyError::Jwt(other),
                    }
                }
                _ => {}
            }
        }
        Err(error)
    }

    /// Of the tenants that a token names, those that a header asks for: it cannot ask for others.
    fn chosen(
        &self,
        headers: &HeaderMap,
        by: IdentitySource,
        mut named: Named,
    ) -> Result<Named, IdentifyError> {
        for source in &self.sources {
            let TenantSource::Header(name) = source else { continue };
            let Some(value) = single(headers, name)? else { continue };
            let asked = verified::names(value.to_str().unwrap_or("").split('|'));
            let asked = asked.filter(|asked| asked.iter().all(|one| named.tenants.contains(one)));
            named.tenants = asked.ok_or(IdentifyError::NotNamed(by))?;
            break;
        }
        Ok(named)
    }

    fn actor(&self, headers: &HeaderMap, user: Option<&str>, peer: IpAddr, trusted: bool) -> Arc<str> {
        if trusted {
            for (name, word) in &ACTOR_HEADERS {
                if let Some(value) = headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty())
                {
                    return actor_of(word, value);
                }
            }
        }
        if let Some(user) = user {
            return actor_of("user:", user);
        }
        let client = if trusted { self.client(headers).unwrap_or(peer) } else { peer };
        format!("ip:{}", client.to_canonical()).into()
    }

    /// The address of the client, as far as trusted proxies name it.
    pub fn client_of(&self, headers: &HeaderMap, peer: SocketAddr) -> IpAddr {
        let peer = peer.ip();
        if self.trusts(peer) { self.client(headers).unwrap_or(peer) } else { peer }
    }

    /// The last address in `X-Forwarded-For` that is not one of ours.
    fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let list = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
        let mut hops = list.rsplit(',').map(|hop| hop.trim().parse::<IpAddr>());
        hops.find_map(|hop| hop.map_or(Some(None), |ip| (!self.trusts(ip)).then_some(Some(ip))))?
    }
}

impl ClassRule {
    /// Whether a request is of this class. Its headers count where they are `trusted`, or where they only take away.
    fn matches(&self, headers: &HeaderMap, groups: &[Arc<str>], trusted: bool) -> bool {
        let is_met = |(name, pattern): &(HeaderName, Pattern)| {
            // One program is `mcp-grafana` to some and `MCP-Grafana` to others.
            let is = if name == header::USER_AGENT { Pattern::matches_any_case } else { Pattern::matches };
            headers.get_all(name).iter().any(|value| is(pattern, value.as_bytes()))
        };
        let is_in = |group: &Pattern| groups.iter().any(|own| group.matches(own.as_bytes()));
        let asks_headers = !self.headers.is_empty() || !self.any_header.is_empty();
        (trusted || self.only_lowers || !asks_headers)
            && self.headers.iter().all(is_met)
            && (self.any_header.is_empty() || self.any_header.iter().any(is_met))
            && self.group.as_ref().is_none_or(is_in)
    }
}

impl TenantSource {
    /// Whether it is about bearer tokens.
    const fn is_bearer(&self) -> bool {
        matches!(self, Self::Bearer(_) | Self::Jwt(_))
    }
}

/// The name of an actor, cut.
fn actor_of(word: &str, name: &str) -> Arc<str> {
    [word, &name[..name.floor_char_boundary(ACTOR_BYTES_MAX)]].concat().into()
}

/// The value of a header that names the client: one, however often it is repeated.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, IdentifyError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.any(|other| Some(other) != first) {
        return Err(IdentifyError::Twice(name.clone()));
    }
    Ok(first)
}

fn named(name: &str, place: &'static str) -> Result<Named, IdentifyError> {
    TenantId::new(name).map(Named::tenant).ok_or(IdentifyError::Name(place))
}

fn credentials<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (found, rest) = value.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn basic_user(headers: &HeaderMap) -> Option<String> {
    let encoded = credentials(headers, "basic")?;
    let mut decoded = Vec::with_capacity(encoded.len());
    BASE64.decode_vec(encoded, &mut decoded).ok()?;
    let mut text = String::from_utf8(decoded).ok()?;
    text.truncate(text.find(':')?);
    Some(text)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    credentials(headers, "bearer")
}

#[cfg(test)]
mod tests;
