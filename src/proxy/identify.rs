//! Identification: the tenant that pays, the actor inside it, the class that sets its priority.
//!
//! Headers name tenants and classes only when they come from a trusted proxy: any client can write a header.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use crate::{backend::headers::Tenancy, base::TenantId};

/// Bytes of an actor's name that are kept.
const ACTOR_BYTES_MAX: usize = 128;

/// Headers that name the actor inside a tenant, the most specific first, with the word for logs. Grafana sends them.
const ACTOR_HEADERS: [(HeaderName, &str); 3] = [
    (HeaderName::from_static("x-rule-uid"), "rule"),
    (HeaderName::from_static("x-dashboard-uid"), "dashboard"),
    (HeaderName::from_static("x-grafana-user"), "user"),
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Prefixes of headers in which proxies name the client, its user and its groups to the next hop.
const SAID_OF_CLIENTS: [&str; 8] = [
    "forwarded",
    "x-forwarded-",
    "x-real-ip",
    "x-auth-request-",
    "x-webauth-",
    "x-remote-",
    "remote-",
    "x-authenticated-",
];

/// How requests are attributed to tenants, actors and classes.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Peers whose headers are believed.
    pub trusted: Vec<IpNet>,
    /// Where the tenant is read from; the first one present wins.
    pub sources: Vec<TenantSource>,
    /// The tenant of a request that names none.
    pub default: TenantId,
    /// Classes, the first match wins; a request that matches none is of class [`Rules::unclassed`].
    pub classes: Vec<ClassRule>,
}

/// Where a tenant's name may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantSource {
    /// In this header.
    Header(HeaderName),
    /// It is the user of HTTP basic authentication.
    BasicAuthUser,
    /// A bearer token stands for it; the pairs are token and tenant.
    Bearer(Vec<(String, TenantId)>),
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
}

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenant that pays; where several tenants' data are read at once, all of them by the one name that the
    /// database knows.
    pub tenant: TenantId,
    /// Each of those that pay, where they are several.
    pub payers: Vec<TenantId>,
    /// The actor inside the tenant, such as `dashboard:abc`.
    pub actor: Arc<str>,
    /// Index into [`Rules::classes`]; its length for a request that matches none.
    pub class: usize,
    /// The peer is a trusted proxy: its headers may go on to the backend.
    pub trusted: bool,
}

/// The extension of a request that an operator makes in a tenant's name: no header decides whose it is, and it counts towards
/// nobody's rate.
#[derive(Clone, Debug)]
pub(super) struct OnBehalfOf(pub(super) TenantId);

/// Why a request belongs to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentifyError {
    /// The tenant's name is empty, too long or not printable.
    Name(&'static str),
    /// The bearer token stands for nobody.
    Token,
    /// A header that names the tenant is there twice, with different values.
    Twice(HeaderName),
    /// Several tenants at once whose data no one backend has.
    Apart(TenantId),
    /// A name that the backend could take for a pattern of names.
    Pattern(TenantId),
}

impl fmt::Display for IdentifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(place) => write!(
                f,
                "the tenant in {place} must be 1 to {} visible ASCII characters",
                crate::base::tenant::TENANT_NAME_MAX
            ),
            Self::Token => f.write_str("the bearer token is not known here"),
            Self::Twice(name) => write!(f, "the header {name} is given twice, with different values"),
            Self::Pattern(name) => {
                write!(f, "the tenant {name} is not one name: the backend may take it for a pattern of names")
            }
            Self::Apart(names) => write!(f, "the tenants {names} are kept by different backends"),
        }
    }
}

impl std::error::Error for IdentifyError {}

impl Rules {
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
    pub fn identify(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<Identity, IdentifyError> {
        let trusted = self.trusts(peer.ip());
        // Nobody checks the password here, so that the name is no more than a header.
        let user = if trusted { basic_user(headers) } else { None };
        let tenant = self.tenant(headers, user.as_deref(), trusted)?;
        let is_believed = |class: &ClassRule| trusted || class.only_lowers;
        let class = self.classes.iter().position(|class| is_believed(class) && class.matches(headers));
        let class = class.unwrap_or(self.unclassed());
        let actor = self.actor(headers, user.as_deref(), peer.ip(), trusted);
        Ok(Identity { tenant, payers: Vec::new(), actor, class, trusted })
    }

    /// A caller in this tenant's name, of no class.
    pub(super) fn on_behalf_of(&self, tenant: TenantId) -> Identity {
        let class = self.unclassed();
        Identity { tenant, payers: Vec::new(), actor: "operator".into(), class, trusted: false }
    }

    /// Turns a request's headers into those for a backend, which believes them as Weir believes a trusted proxy:
    /// identity headers of a stranger are taken out, and the tenant is the one that was identified.
    pub fn forward(&self, headers: &mut HeaderMap, who: &Identity, tenancy: &Tenancy) {
        for source in &self.sources {
            if let TenantSource::Header(name) = source {
                headers.remove(name);
            }
        }
        if !who.trusted {
            let believed_to_the_trusted = self.classes.iter().filter(|class| !class.only_lowers);
            for (name, _) in
                believed_to_the_trusted.flat_map(|class| class.headers.iter().chain(&class.any_header))
            {
                headers.remove(name);
            }
            for (name, _) in ACTOR_HEADERS {
                headers.remove(name);
            }
            let is_said =
                |name: &&HeaderName| SAID_OF_CLIENTS.iter().any(|start| name.as_str().starts_with(start));
            let said: Vec<HeaderName> = headers.keys().filter(is_said).cloned().collect();
            for name in said {
                headers.remove(name);
            }
        }
        tenancy.apply(headers, who.tenant.as_str());
    }

    fn tenant(
        &self,
        headers: &HeaderMap,
        user: Option<&str>,
        trusted: bool,
    ) -> Result<TenantId, IdentifyError> {
        // The next hop may look at the other one.
        single(headers, &header::AUTHORIZATION)?;
        for source in &self.sources {
            let found = match source {
                TenantSource::Header(name) if trusted => {
                    single(headers, name)?.map(|value| named(value.to_str().unwrap_or(""), "the header"))
                }
                TenantSource::Header(_) => None,
                TenantSource::BasicAuthUser => user.map(|user| named(user, "basic authentication")),
                TenantSource::Bearer(tokens) => bearer(headers).map(|token| {
                    let owner = tokens.iter().find(|(known, _)| same_secret(known, token));
                    owner.map(|(_, tenant)| tenant.clone()).ok_or(IdentifyError::Token)
                }),
            };
            if let Some(found) = found {
                return found;
            }
        }
        Ok(self.default.clone())
    }

    fn actor(&self, headers: &HeaderMap, user: Option<&str>, peer: IpAddr, trusted: bool) -> Arc<str> {
        if trusted {
            for (name, word) in &ACTOR_HEADERS {
                if let Some(value) = headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty())
                {
                    let end = value.len().min(ACTOR_BYTES_MAX);
                    // A header that reads as a string is ASCII: any byte is a boundary.
                    return [word, ":", &value[..end]].concat().into();
                }
            }
        }
        if let Some(user) = user {
            let end = user.char_indices().nth(ACTOR_BYTES_MAX).map_or(user.len(), |(end, _)| end);
            return ["user:", &user[..end]].concat().into();
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
    fn matches(&self, headers: &HeaderMap) -> bool {
        let is_met = |(name, pattern): &(HeaderName, Pattern)| {
            headers.get(name).is_some_and(|value| pattern.matches(value.as_bytes()))
        };
        self.headers.iter().all(is_met) && (self.any_header.is_empty() || self.any_header.iter().any(is_met))
    }
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

fn named(name: &str, place: &'static str) -> Result<TenantId, IdentifyError> {
    TenantId::new(name).ok_or(IdentifyError::Name(place))
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

/// Compares in constant time.
fn same_secret(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Kind;

    fn rules() -> Rules {
        let team = |name| TenantId::new(name).unwrap();
        Rules {
            trusted: vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()],
            sources: vec![
                TenantSource::Header(HeaderName::from_static("x-scope-orgid")),
                TenantSource::Bearer(vec![("s3cret".to_owned(), team("robots"))]),
                TenantSource::BasicAuthUser,
            ],
            default: team("anonymous"),
            classes: vec![ClassRule {
                name: "rules".into(),
                headers: vec![(HeaderName::from_static("fromalert"), Pattern::new("tr*"))],
                ..ClassRule::default()
            }],
        }
    }

    fn ask(peer: &str, headers: &[(&'static str, &str)]) -> Result<Identity, IdentifyError> {
        let map = headers.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect();
        rules().identify(&map, SocketAddr::new(peer.parse().unwrap(), 1))
    }

    #[test]
    fn tenants_come_from_the_first_source_present() {
        let tenant = |peer, headers: &[_]| ask(peer, headers).map(|identity| identity.tenant.to_string());
        let basic = format!("Basic {}", BASE64.encode("alice:pw"));
        assert_eq!(tenant("10.1.1.1", &[("x-scope-orgid", "a")]).unwrap(), "a");
        assert_eq!(tenant("10.1.1.1", &[("x-scope-orgid", "a"), ("authorization", &basic)]).unwrap(), "a");
        assert_eq!(tenant("10.1.1.1", &[("authorization", &basic)]).unwrap(), "alice");
        assert_eq!(tenant("10.1.1.1", &[("authorization", "bearer s3cret")]).unwrap(), "robots");
        assert_eq!(tenant("10.1.1.1", &[]).unwrap(), "anonymous");
        assert_eq!(tenant("::ffff:10.1.1.1", &[("x-scope-orgid", "a")]).unwrap(), "a");
    }

    #[test]
    fn strangers_cannot_name_themselves_by_header() {
        let stranger =
            ask("192.0.2.1", &[("x-scope-orgid", "a"), ("fromalert", "true"), ("x-dashboard-uid", "d")]);
        let stranger = stranger.unwrap();
        assert_eq!((stranger.tenant.as_str(), stranger.class, stranger.trusted), ("anonymous", 1, false));
        assert_eq!(&*stranger.actor, "ip:192.0.2.1");
        assert_eq!(ask("192.0.2.1", &[("authorization", "Bearer guess!")]), Err(IdentifyError::Token));
        let basic = format!("Basic {}", BASE64.encode("vip:whatever"));
        let stranger = ask("192.0.2.1", &[("authorization", &basic)]).unwrap();
        assert_eq!((stranger.tenant.as_str(), &*stranger.actor), ("anonymous", "ip:192.0.2.1"));
        for bad in ["", " ", "a b", &"x".repeat(151)] {
            assert!(ask("10.1.1.1", &[("x-scope-orgid", bad)]).is_err(), "{bad:?}");
        }
    }

    /// Each kind of source, and a stranger beside it who names a victim: the backend sees the tenant that pays.
    #[test]
    fn the_backend_sees_the_tenant_that_pays_whatever_the_client_wrote() {
        let basic = format!("Basic {}", BASE64.encode("alice:pw"));
        let forged = [
            ("x-scope-orgid", "victim"),
            ("thanos-tenant", "victim"),
            ("fromalert", "true"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-user", "admin"),
            ("forwarded", "for=203.0.113.9"),
            ("x-webauth-user", "admin"),
            ("remote-user", "admin"),
        ];
        let one = |name: &str| vec![name.to_owned()];
        for (source, peer, own, paid) in [
            ("bearer", "192.0.2.1", Some(("authorization", "Bearer s3cret")), "robots"),
            ("basic_auth", "10.1.1.1", Some(("authorization", basic.as_str())), "alice"),
            ("header", "10.1.1.1", Some(("x-team", "blue")), "blue"),
            ("default", "192.0.2.1", None, "anonymous"),
        ] {
            let mut rules = rules();
            rules.sources.remove(0);
            rules.sources.insert(0, TenantSource::Header(HeaderName::from_static("x-team")));
            let given = forged.iter().copied().chain(own);
            let headers = given.map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect();
            let who = rules.identify(&headers, SocketAddr::new(peer.parse().unwrap(), 1)).unwrap();
            assert_eq!(who.tenant.as_str(), paid, "{source}");
            let all = |sent: &HeaderMap, name| -> Vec<String> {
                sent.get_all(name)
                    .iter()
                    .map(|v: &http::HeaderValue| v.to_str().unwrap().to_owned())
                    .collect()
            };
            for (kind, orgid, thanos) in [
                (Kind::Mimir, one(paid), vec![]),
                (Kind::Cortex, one(paid), vec![]),
                (Kind::Weir, one(paid), vec![]),
                (Kind::Thanos, vec![], one(paid)),
                (Kind::Prometheus, vec![], vec![]),
                (Kind::VictoriaMetrics, vec![], vec![]),
                (Kind::M3, vec![], vec![]),
            ] {
                let mut sent: HeaderMap = headers.clone();
                rules.forward(&mut sent, &who, &Tenancy::of(kind));
                assert_eq!(all(&sent, "x-scope-orgid"), orgid, "{source} {kind:?}");
                assert_eq!(all(&sent, "thanos-tenant"), thanos, "{source} {kind:?}");
                assert!(!sent.contains_key("authorization") && !sent.contains_key("x-team"), "{source}");
                // A stranger is no alert and no administrator; a trusted proxy may say that its client is one.
                for (name, _) in &forged[2..] {
                    assert_eq!(sent.contains_key(*name), who.trusted, "{source} {name}");
                }
            }
        }
    }

    #[test]
    fn a_tenant_named_twice_is_nobody() {
        let mut headers = HeaderMap::new();
        headers.append("x-scope-orgid", "a".parse().unwrap());
        headers.append("x-scope-orgid", "a".parse().unwrap());
        let peer = SocketAddr::new("10.1.1.1".parse().unwrap(), 1);
        assert_eq!(rules().identify(&headers, peer).unwrap().tenant.as_str(), "a");
        headers.append("x-scope-orgid", "b".parse().unwrap());
        let twice = IdentifyError::Twice(HeaderName::from_static("x-scope-orgid"));
        assert_eq!(rules().identify(&headers, peer), Err(twice));
        let mut headers = HeaderMap::new();
        headers.append("authorization", "Bearer s3cret".parse().unwrap());
        assert_eq!(rules().identify(&headers, peer).unwrap().tenant.as_str(), "robots");
        headers.append("authorization", "Basic YWxpY2U6cHc=".parse().unwrap());
        assert_eq!(rules().identify(&headers, peer), Err(IdentifyError::Twice(header::AUTHORIZATION)));
    }

    #[test]
    fn actors_and_classes() {
        let actor = |headers: &[_]| ask("10.1.1.1", headers).unwrap().actor.to_string();
        assert_eq!(actor(&[("x-dashboard-uid", "d"), ("x-rule-uid", "r")]), "rule:r");
        assert_eq!(actor(&[("x-dashboard-uid", "d")]), "dashboard:d");
        assert_eq!(actor(&[("x-forwarded-for", "203.0.113.9, 198.51.100.7, 10.2.2.2")]), "ip:198.51.100.7");
        assert_eq!(actor(&[("x-forwarded-for", "203.0.113.9, garbage")]), "ip:10.1.1.1");
        assert_eq!(actor(&[]), "ip:10.1.1.1");
        assert_eq!(ask("10.1.1.1", &[("fromalert", "true")]).unwrap().class, 0);
        assert_eq!(ask("10.1.1.1", &[("fromalert", "false")]).unwrap().class, 1);
    }
}
