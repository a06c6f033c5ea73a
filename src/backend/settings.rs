//! Settings of a backend; the configuration resolves into these.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Uri, uri::PathAndQuery};

use super::{Kind, Tls, headers::Tenancy};

/// The settings of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The name in metrics and messages.
    pub name: String,
    /// Which API it speaks.
    pub kind: Kind,
    /// Its replicas, each holding the same data.
    pub urls: Vec<BaseUrl>,
    /// Longest wait for a connection to open.
    pub connect_timeout: Duration,
    /// Longest wait for the first byte of an answer.
    pub response_timeout: Duration,
    /// Most connections per replica; 0 counts as 1.
    pub max_connections: usize,
    /// Most connections per replica for light requests, beside those; 0 counts as 1.
    pub light_connections: usize,
    /// Idle time after which a connection is closed; keep it below the backend's own.
    pub idle_timeout: Duration,
    /// Headers set on every request, over those of the client: credentials.
    pub headers: HeaderMap,
    /// How the tenant is named to it.
    pub tenancy: Tenancy,
    /// TLS, for the replicas with an `https` URL.
    pub tls: Option<Tls>,
    /// Active health checks.
    pub health: HealthSettings,
    /// Small requests that ask how large a selector is.
    pub probe: ProbeSettings,
}

impl Settings {
    /// The built-in defaults around a name, a kind and replicas.
    pub fn new(name: impl Into<String>, kind: Kind, urls: Vec<BaseUrl>) -> Self {
        Self {
            name: name.into(),
            kind,
            urls,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(120),
            max_connections: 100,
            light_connections: 10,
            idle_timeout: Duration::from_secs(20),
            headers: HeaderMap::new(),
            tenancy: Tenancy::of(kind),
            tls: None,
            health: HealthSettings::default(),
            probe: ProbeSettings::default(),
        }
    }
}

/// Active health checks of each replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Time between two checks.
    pub interval: Duration,
    /// Longest wait for one check.
    pub timeout: Duration,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), timeout: Duration::from_secs(2) }
    }
}

/// Bounds on probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Probes at a time. One tenant takes all but one of them.
    pub concurrency: usize,
    /// Longest wait for one probe, its wait for a place included.
    pub deadline: Duration,
    /// How long an answer is believed.
    pub ttl: Duration,
    /// Most answers kept.
    pub cache_entries: u64,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            concurrency: 4,
            deadline: Duration::from_secs(2),
            ttl: Duration::from_secs(300),
            cache_entries: 10_000,
        }
    }
}

/// Where a replica listens: `http://host:port/prefix`, or `https`, taken apart once.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl {
    text: Arc<str>,
    secure: bool,
    host: Arc<str>,
    port: u16,
    /// The value of the `Host` header.
    pub(super) authority: HeaderValue,
    /// Put before every path: empty, or `/prefix` without a slash at its end.
    prefix: Box<str>,
}

impl BaseUrl {
    /// Whether it is that of a listener on this address, as far as it says.
    pub fn leads_to(&self, listener: SocketAddr) -> bool {
        let is_here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
        let is_host = match self.host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => ip == listener.ip() || (is_here(ip) && is_here(listener.ip())),
            Err(_) => &*self.host == "localhost" && is_here(listener.ip()),
        };
        is_host && self.port == listener.port()
    }

    /// Takes `http://host[:port][/prefix]`, or `https`, apart; the error names the mistake.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|e| format!("`{text}` is not a URL: {e}"))?;
        let (scheme, usual_port) = match uri.scheme_str() {
            Some("http") => ("http", 80),
            Some("https") => ("https", 443),
            Some(other) => {
                return Err(format!("`{text}`: the scheme `{other}` is neither `http` nor `https`"));
            }
            None => return Err(format!("`{text}` needs a scheme: `http://{text}`")),
        };
        let authority = uri.authority().ok_or_else(|| format!("`{text}` names no host"))?;
        if authority.as_str().contains('@') {
            return Err(format!("`{text}`: put credentials into `headers`, not into the URL"));
        }
        if uri.query().is_some() {
            return Err(format!("`{text}`: a backend URL has no query string"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(format!("`{text}` names no host"));
        }
        // The URI's own parser takes any digits after the colon.
        let port = match authority.as_str().rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
            None => usual_port,
            Some((_, port)) => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("`{text}`: no port `{port}`"))?,
        };
        let prefix = uri.path().trim_end_matches('/');
        Ok(Self {
            text: format!("{scheme}://{authority}{prefix}").into(),
            secure: scheme == "https",
            host: host.into(),
            port,
            authority: HeaderValue::from_str(authority.as_str()).map_err(|e| format!("`{text}`: {e}"))?,
            prefix: prefix.into(),
        })
    }

    /// The URL without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is reached over TLS.
    pub const fn secure(&self) -> bool {
        self.secure
    }

    /// Whether it leads to another process on each machine.
    pub fn is_loopback(&self) -> bool {
        let name = &*self.host;
        let is_local = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
        name.parse().map_or(name == "localhost" || name.ends_with(".localhost"), is_local)
    }

    /// Host and port, for connecting.
    pub(super) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The request target for a path below this URL; without a prefix nothing is copied.
    pub(super) fn target(&self, path: &PathAndQuery) -> Result<Uri, http::Error> {
        if self.prefix.is_empty() {
            return Ok(Uri::from(path.clone()));
        }
        Ok(Uri::from(PathAndQuery::from_maybe_shared(format!("{}{path}", self.prefix))?))
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
