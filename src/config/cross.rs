//! Checks that need more than one value, or more than its shape: names, URLs, limits against budgets.

use super::{
    auth,
    diagnostic::{Diagnostic, Path, Position, suggest},
    raw::{Backend, BackendTls, ClassMatch, Raw},
    scalar::Secret,
    tls,
    tree::{Node, Value},
};
use crate::{
    backend::{BaseUrl, headers::is_of_weir},
    base::{TenantId, TenantPattern},
    proxy::identify::UNCLASSED,
    rules::{ActionName, RULES_MAX},
    telemetry::otlp,
};
use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
};

/// Headers that belong to a single message or connection.
const FRAMING: [http::HeaderName; 7] = [
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::EXPECT,
    http::header::HOST,
    http::header::TE,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
];

/// Everything that fits its type and still cannot be meant.
pub(super) fn check(raw: &Raw, root: &Node, wrong: &mut Vec<Diagnostic>, warnings: &mut Vec<Diagnostic>) {
    let mut checker = Checker { root, wrong, warnings };
    checker.server(raw);
    checker.backends(raw);
    checker.routes(raw);
    checker.tenancy(raw);
    checker.classes(raw);
    checker.limits(raw);
    checker.rules(raw);
    checker.journal(raw);
    checker.fleet(raw);
    if let Some(node) = root.get("node") {
        checker.wrong.extend([raw.node.pool.check(node), raw.node.recent.check(node)].into_iter().flatten());
    }
    checker.otlp(raw);
}

/// Bytes of the smallest journal: several files of several blocks.
const JOURNAL_BYTES_MIN: u64 = 1 << 20;

const NO_NAME: &str = "is not a name: 1 to 150 visible ASCII characters without spaces";

pub(super) struct Checker<'a> {
    root: &'a Node,
    wrong: &'a mut Vec<Diagnostic>,
    warnings: &'a mut Vec<Diagnostic>,
}

/// A place in the tree: its path, and the nearest node that the file really has.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub(super) node: Option<&'a Node>,
    position: Position,
    path: Path,
}

impl<'a> Place<'a> {
    fn step(&self, node: Option<&'a Node>, path: Path) -> Self {
        Self { node, position: node.map_or(self.position, |n| n.position), path }
    }

    /// The value as written in the file, so that a message never shows the value of a variable.
    fn shown(&self, value: &str) -> String {
        match self.node.map(|n| &n.value) {
            Some(Value::Scalar(scalar)) => format!("`{}`", scalar.written),
            // The name of a mapping, or a default: neither is substituted.
            _ => format!("`{value}`"),
        }
    }

    pub(super) fn key(&self, key: &str) -> Self {
        self.step(self.node.and_then(|n| n.get(key)), self.path.key(key))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.step(self.node.and_then(|n| n.at(index)), self.path.index(index))
    }
}

impl<'a> Checker<'a> {
    pub(super) fn place(&self, key: &str) -> Place<'a> {
        let top = Place { node: Some(self.root), position: Position::default(), path: Path::default() };
        top.key(key)
    }

    pub(super) fn refuse(&mut self, place: &Place<'_>, message: impl Into<String>) {
        self.wrong.push(Diagnostic::new(place.position, &place.path, message));
    }

    pub(super) fn warn(&mut self, place: &Place<'_>, message: impl Into<String>) {
        self.warnings.push(Diagnostic::new(place.position, &place.path, message));
    }

    fn otlp(&mut self, raw: &Raw) {
        let Some(url) = &raw.telemetry.otlp.endpoint else { return };
        if let Err(why) = otlp::endpoint(url) {
            let at = self.place("telemetry").key("otlp").key("endpoint");
            let shown = at.shown(url);
            self.refuse(&at, format!("{shown}: {why}"));
        }
    }

    fn server(&mut self, raw: &Raw) {
        if raw.server.listen == raw.server.admin_listen && raw.server.listen.0.port() != 0 {
            let place = self.place("server").key("admin_listen");
            self.refuse(&place, "the same address as `server.listen`; give it a port of its own");
        }
        for (i, name) in raw.server.admin_hosts.iter().enumerate().filter(|(_, name)| !is_host(name)) {
            let at = self.place("server").key("admin_hosts").index(i);
            let shown = at.shown(name);
            self.refuse(
                &at,
                format!("{shown} is not the name of a host; without scheme and port, such as `weir.example`"),
            );
        }
        if let Err((key, message)) = auth::tokens(&raw.server.admin_auth) {
            self.refuse(&self.place("server").key("admin_auth").key(key), message);
        }
        if !raw.server.admin_auth.client_certificates.is_empty()
            && raw.server.admin_tls.client_ca_file.is_none()
        {
            let at = self.place("server").key("admin_auth").key("client_certificates");
            self.refuse(&at, "no client is asked for a certificate: set `server.admin_tls.client_ca_file`");
        }
        for (key, of) in [("tls", &raw.server.tls), ("admin_tls", &raw.server.admin_tls)] {
            if let Err(wrong) = tls::of_listener(of) {
                self.refuse(&self.place("server").key(key).key(wrong.key), wrong.message);
            }
        }
    }

    /// Settings of pressure that are read for one release more.
    fn without_effect(&mut self, place: &Place<'_>) {
        for key in ["errors", "latency"] {
            let at = place.key(key);
            if at.node.is_some() {
                self.warn(
                    &at,
                    "has no effect any more, and is refused from the next release on; leave it out",
                );
            }
        }
    }

    fn backends(&mut self, raw: &Raw) {
        let mut seen = HashSet::new();
        for (i, backend) in raw.backends.iter().enumerate() {
            let place = self.place("backends").index(i);
            self.name(&place.key("name"), &backend.name);
            if !seen.insert(&backend.name) {
                let at = place.key("name");
                self.refuse(
                    &at,
                    format!("a second backend named {}; names are unique", at.shown(&backend.name)),
                );
            }
            let named = [
                (place.key("urls"), &backend.urls),
                (place.key("pressure").key("metrics_urls"), &backend.pressure.metrics_urls),
            ];
            let each = named
                .iter()
                .flat_map(|(at, urls)| urls.iter().enumerate().map(|(j, url)| (at.index(j), url)));
            for (at, url) in each {
                if let Err(message) = url_fits(url, raw.server.listen.0) {
                    // The text before an `@` may be a password.
                    let shown = if url.contains('@') { "the URL".to_owned() } else { at.shown(url) };
                    self.refuse(&at, format!("{shown}: {message}"));
                }
            }
            if let Some(name) =
                backend.tenant_header.as_ref().filter(|name| http::HeaderName::try_from(*name).is_err())
            {
                let at = place.key("tenant_header");
                let shown = at.shown(name);
                self.refuse(&at, format!("{shown} is not a header name"));
            }
            self.without_effect(&place.key("pressure"));
            self.budget(raw, &place, backend);
            for (j, name) in backend.forward_headers.iter().enumerate() {
                let at = place.key("forward_headers").index(j);
                let shown = at.shown(name);
                match http::HeaderName::try_from(name) {
                    Err(_) => self.refuse(&at, format!("{shown} is not a header name")),
                    Ok(name) if is_of_weir(&name) => {
                        let message =
                            "Weir names the tenant, and credentials go on with `forward_authorization`";
                        self.refuse(&at, message);
                    }
                    Ok(_) => {}
                }
            }
            self.tls(&place.key("tls"), backend);
            for (name, value) in &backend.headers {
                let at = place.key("headers").key(name);
                match http::HeaderName::try_from(name) {
                    Err(_) => self.refuse(&at, "not a header name"),
                    Ok(name) if FRAMING.contains(&name) => {
                        self.refuse(&at, "Weir sets it itself, for each request; it cannot be fixed");
                    }
                    Ok(_) => {}
                }
                if http::HeaderValue::try_from(value.reveal()).is_err() {
                    self.refuse(&at, "the value holds characters that a header cannot carry");
                }
            }
        }
    }

    fn tls(&mut self, place: &Place<'_>, backend: &Backend) {
        let urls = backend.urls.iter().chain(&backend.pressure.metrics_urls);
        let secure = urls.into_iter().any(|url| url.starts_with("https:"));
        if !secure {
            if backend.tls != BackendTls::default() {
                let message = "has no effect: no URL of this backend begins with `https://`";
                self.warnings.push(Diagnostic::new(place.position, &place.path, message));
            }
            return;
        }
        if let Err(wrong) = tls::load(&backend.tls) {
            self.refuse(&place.key(wrong.key), wrong.message);
        }
        if backend.tls.insecure_skip_verify {
            let at = place.key("insecure_skip_verify");
            let message = format!(
                "INSECURE: anybody between Weir and backend `{}` can read and forge its answers",
                backend.name
            );
            self.warnings.push(Diagnostic::new(at.position, &at.path, message));
        }
    }

    fn routes(&mut self, raw: &Raw) {
        let names: Vec<&str> = raw.backends.iter().map(|b| b.name.as_str()).collect();
        let mut routed = HashSet::new();
        for (i, route) in raw.routes.iter().enumerate() {
            let place = self.place("routes").index(i);
            if !names.contains(&route.backend.as_str()) {
                let at = place.key("backend");
                let shown = at.shown(&route.backend);
                self.refuse(&at, format!("no backend is named {shown}; {}", suggest(&route.backend, &names)));
            }
            for (j, tenant) in route.tenants.iter().enumerate() {
                let at = place.key("tenants").index(j);
                self.pattern(&at, tenant);
                if !routed.insert(tenant) {
                    self.refuse(&at, format!("tenant {} has a route already", at.shown(tenant)));
                }
            }
        }
    }

    fn name(&mut self, place: &Place<'_>, name: &str) {
        if TenantId::new(name).is_none() {
            let shown = place.shown(name);
            self.refuse(place, format!("{shown} {NO_NAME}"));
        }
    }

    /// The name of one tenant.
    fn tenant_name(&mut self, place: &Place<'_>, name: &str) {
        if TenantId::new(name).is_some() && name.contains('*') {
            let shown = place.shown(name);
            return self.refuse(place, format!("{shown} {NO_NAME}, and no `*`"));
        }
        self.name(place, name);
    }

    /// The name of one tenant, or the beginning of several.
    fn pattern(&mut self, place: &Place<'_>, text: &str) {
        if TenantPattern::new(text).is_none() {
            let star = if text.contains('*') { "; `*` stands at the end only" } else { "" };
            let shown = place.shown(text);
            self.refuse(place, format!("{shown} {NO_NAME}{star}"));
        }
    }

    fn tenancy(&mut self, raw: &Raw) {
        let place = self.place("tenancy");
        self.tenant_name(&place.key("default"), &raw.tenancy.default);
        for (i, source) in raw.tenancy.sources.iter().enumerate() {
            let at = place.key("sources").index(i);
            if let Some(tokens) = &source.bearer {
                self.tokens(&at.key("bearer"), tokens);
            }
            match source.resolve() {
                Err(("", message)) => self.refuse(&at, message),
                Err((key, message)) if key != "bearer" => self.refuse(&at.key(key), message),
                _ => {}
            }
            if source.client_certificate.is_some() && raw.server.tls.client_ca_file.is_none() {
                let at = at.key("client_certificate");
                self.refuse(&at, "no client is asked for a certificate: set `server.tls.client_ca_file`");
            }
        }
    }

    fn tokens(&mut self, place: &Place<'_>, tokens: &BTreeMap<String, Secret>) {
        let mut seen = HashSet::new();
        for (tenant, token) in tokens {
            self.tenant_name(&place.key(tenant), tenant);
            if token.reveal().is_empty() || !seen.insert(token.reveal()) {
                self.refuse(&place.key(tenant), "a token must not be empty, and belongs to one tenant only");
            }
        }
    }

    fn journal(&mut self, raw: &Raw) {
        if raw.journal.size.0.get() < JOURNAL_BYTES_MIN {
            self.refuse(
                &self.place("journal").key("size"),
                "a journal needs 1MiB at least; `enabled: false` keeps none",
            );
        }
    }

    fn classes(&mut self, raw: &Raw) {
        let mut seen = HashSet::new();
        let mut reserved = 0u32;
        for (i, class) in raw.classes.iter().enumerate() {
            let place = self.place("classes").index(i);
            self.name(&place.key("name"), &class.name);
            if class.name == UNCLASSED {
                self.refuse(
                    &place.key("name"),
                    format!("`{UNCLASSED}` is the class of requests that match none; choose another name"),
                );
            }
            if !seen.insert(&class.name) {
                self.refuse(&place.key("name"), format!("a second class named `{}`", class.name));
            }
            let ClassMatch { header, any_header, group } = &class.matches;
            if header.is_empty() && any_header.is_empty() && group.is_none() {
                self.refuse(&place.key("match"), "needs a header or a group, or the class matches nothing");
            }
            for (key, headers) in [("header", header), ("any_header", any_header)] {
                for header in headers.keys().filter(|name| http::HeaderName::try_from(*name).is_err()) {
                    self.refuse(&place.key("match").key(key).key(header), "not a header name");
                }
            }
            reserved += class.reserve.map_or(0, |share| u32::from(share.percent()));
        }
        if reserved >= 100 {
            let place = self.place("classes");
            let message =
                format!("the reserves add up to {reserved}%, which leaves nothing for other queries");
            self.refuse(&place, message);
        }
    }

    fn limits(&mut self, raw: &Raw) {
        let place = self.place("limits");
        let default = &raw.limits.default;
        self.tenant(&raw.backends, &place.key("default"), default, default);
        self.limits_in_fleet(raw, &raw.backends, &place.key("default"), default);
        for (name, written) in &raw.limits.tenants {
            let at = place.key("tenants").key(name);
            self.pattern(&at, name);
            let named =
                route_of(raw, name).and_then(|backend| raw.backends.iter().find(|b| b.name == backend));
            let backend = named.or(raw.backends.first());
            self.tenant(backend, &at, written, &written.over(default));
            self.limits_in_fleet(raw, backend, &at, written);
        }
    }

    fn rules(&mut self, raw: &Raw) {
        let place = self.place("rules");
        if raw.rules.len() > RULES_MAX {
            self.refuse(&place, format!("more than {RULES_MAX} rules: every query is held against each"));
        }
        let mut names = HashSet::new();
        for (i, rule) in raw.rules.iter().enumerate() {
            let at = place.index(i);
            if let Err((key, why)) = rule.read(None) {
                self.refuse(&at.key(key), why);
            }
            if rule.reason.is_empty() && rule.action != ActionName::Shadow {
                self.warn(&at, "no `reason`: clients read it, and at run time a rule needs one");
            }
            if !names.insert(&rule.name) {
                self.refuse(&at.key("name"), format!("`{}` is the name of two rules", rule.name));
            }
        }
    }
}

/// The backend that a tenant is routed to, or the tenants whose names begin so.
fn route_of<'r>(raw: &'r Raw, tenant: &str) -> Option<&'r str> {
    let covers = |pattern: &&String| match pattern.strip_suffix('*') {
        Some(prefix) => tenant.starts_with(prefix),
        None => *pattern == tenant,
    };
    let routes = raw.routes.iter().flat_map(|route| {
        let patterns = route.tenants.iter().filter(covers);
        patterns.map(|pattern| (pattern, route.backend.as_str()))
    });
    routes.max_by_key(|(pattern, _)| (*pattern == tenant, pattern.len())).map(|(_, backend)| backend)
}

/// A name without scheme, port and path; a star in front covers every name with this end.
fn is_host(name: &str) -> bool {
    let plain = name.strip_prefix('*').unwrap_or(name);
    name.len() <= 253
        && !name.is_empty()
        && plain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// Whether a backend can be reached under this URL.
fn url_fits(url: &str, listen: SocketAddr) -> Result<(), &'static str> {
    let uri: http::Uri = url.parse().map_err(|_| "not a URL such as `http://127.0.0.1:9090`")?;
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err("credentials do not belong in a URL; use `headers: {Authorization: …}`");
    }
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err("needs `http://` or `https://` in front"),
    }
    if uri.query().is_some() {
        return Err("has a query string; only a path is allowed");
    }
    match BaseUrl::parse(url) {
        Err(_) => Err("needs a host, and a port from 1 to 65535 if it names one"),
        Ok(url) if url.leads_to(listen) => {
            Err("the address of Weir itself (`server.listen`): its queries would come back to it")
        }
        Ok(_) => Ok(()),
    }
}
