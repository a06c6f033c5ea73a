//! The configuration as an operator writes it. Every key has a default here; `config/weir.yaml` shows them all and a
//! test compares.

use super::raw_limits::is_default;
use super::scalar::{Cidr, Count, Limit, Listen, OnStale, Rate, Secret, Share, Size, Span, Unknown};
pub use super::{
    auth::{AdminAuth, Protected},
    connections::{AdminConnections, Connections},
    fleet::Fleet,
    journal::{Journal, JournalText},
    node::RawNode,
    raw_limits::{InFlight, LimitKey, Limits, Mode, PerQuery, Queue, Quotas, Rates, Soft, TenantLimits},
    sources::{BasicAuthPart, Jwt, JwtClaims, TenantSource},
    tls::{ClientAuth, ServerTls},
};
use crate::{base::Kind, rules::RuleSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Configuration of Weir.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Raw {
    /// Where Weir listens.
    pub server: Server,
    /// The databases behind Weir.
    #[schemars(length(min = 1))]
    pub backends: Vec<Backend>,
    /// Which tenants go to which backend; every other tenant goes to the first backend.
    pub routes: Vec<Route>,
    /// The tenant, actor and class of a request.
    pub tenancy: Tenancy,
    /// Limits on queries.
    pub limits: Limits,
    /// Lanes with a reserved share of every backend's budget; the first match wins.
    pub classes: Vec<Class>,
    /// Rules against single queries; the first match wins.
    pub rules: Vec<RuleSpec>,
    /// Several proxies before the same backends.
    pub fleet: Fleet,
    /// The record of every query.
    pub journal: Journal,
    /// Logs and profiles.
    pub telemetry: Telemetry,
    /// The storage node of `weir` alone, which `weir proxy` has not. Takes effect at the next start; its `telemetry` is
    /// that of the whole process.
    pub node: RawNode,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            server: Server::default(),
            backends: vec![Backend::default()],
            routes: Vec::new(),
            tenancy: Tenancy::default(),
            limits: Limits::default(),
            classes: Class::built_in(),
            rules: Vec::new(),
            fleet: Fleet::default(),
            journal: Journal::default(),
            telemetry: Telemetry::default(),
            node: RawNode::default(),
        }
    }
}

impl Raw {
    /// The other files that it names, by the key that names each: they may change when this one has not.
    pub fn files(&self) -> BTreeMap<String, PathBuf> {
        let mut files = BTreeMap::new();
        let mut add = |key: String, file: &Option<String>| {
            if let Some(file) = file {
                files.insert(key, PathBuf::from(file));
            }
        };
        for (name, tls) in [("tls", &self.server.tls), ("admin_tls", &self.server.admin_tls)] {
            add(format!("server.{name}.cert_file"), &tls.cert_file);
            add(format!("server.{name}.key_file"), &tls.key_file);
            add(format!("server.{name}.client_ca_file"), &tls.client_ca_file);
            add(format!("server.{name}.client_crl_file"), &tls.client_crl_file);
        }
        add("server.admin_auth.token_file".to_owned(), &self.server.admin_auth.token_file);
        for (at, source) in self.tenancy.sources.iter().enumerate() {
            add(format!("tenancy.sources[{at}].bearer_file"), &source.bearer_file);
            if let Some(jwt) = &source.jwt {
                add(format!("tenancy.sources[{at}].jwt.keys_file"), &jwt.keys_file);
                add(format!("tenancy.sources[{at}].jwt.ca_file"), &jwt.ca_file);
            }
        }
        for Backend { name, tls, .. } in &self.backends {
            add(format!("backends[{name}].tls.ca_file"), &tls.ca_file);
            add(format!("backends[{name}].tls.client_cert_file"), &tls.client_cert_file);
            add(format!("backends[{name}].tls.client_key_file"), &tls.client_key_file);
        }
        files
    }
}

/// The schema of the configuration file, for editors and for the checks made here.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Raw).to_value()
}

/// Where Weir listens.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address of the query API.
    pub listen: Listen,
    /// Address of metrics, health, explain and reload. Keep it private.
    pub admin_listen: Listen,
    /// TLS on the query API. Without it, plain HTTP.
    pub tls: ServerTls,
    /// TLS on the admin address. Without it, plain HTTP.
    pub admin_tls: ServerTls,
    /// Peers whose headers are believed (tenant, class, actor, `X-Forwarded-For`), as CIDR blocks.
    pub trusted_proxies: Vec<Cidr>,
    /// Client connections of the query API.
    pub connections: Connections,
    /// Client connections of the admin API.
    pub admin_connections: AdminConnections,
    /// The largest request body that is read.
    pub request_body: Size,
    /// How long a shutdown waits for queries in flight.
    pub grace: Span,
    /// Names of the admin address, beside IP addresses and `localhost`: a page in somebody's browser can make any other
    /// name lead here. `*.suffix` covers every name with this end, `*` every name.
    pub admin_hosts: Vec<String>,
    /// Tokens of the admin address. Without any, everybody who reaches it may do everything.
    pub admin_auth: AdminAuth,
}

/// A database behind Weir.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// The name in metrics, messages and routes.
    pub name: String,
    /// Which API and which cost formula it has.
    pub kind: Kind,
    /// Its replicas; a path is put before every request.
    #[schemars(length(min = 1))]
    pub urls: Vec<String>,
    /// Length of a storage block, for counting blocks.
    pub block_duration: Span,
    /// The usual time between samples, for counting samples.
    pub scrape_interval: Span,
    /// The budget of all queries in flight on this backend.
    pub budget: Budget,
    /// Verdict on a selector of which nothing is known.
    pub unknown: Unknown,
    /// The treatment of a query that is not PromQL, but may be a dialect that the backend knows.
    pub on_unparsable: OnUnparsable,
    /// Longest wait for a connection.
    pub connect_timeout: Span,
    /// Longest wait for the first byte of an answer.
    pub response_timeout: Span,
    /// Most connections per replica.
    pub max_connections: Count,
    /// Most connections per replica for light requests (metadata, rules, build information), beside those; one tenant
    /// has three quarters of them at most.
    pub light_connections: Count,
    /// Headers added to every request, for credentials: `Authorization: Bearer ${TOKEN}`.
    pub headers: BTreeMap<String, Secret>,
    /// The header that names the tenant to the database, or `none`. Left out: `X-Scope-OrgID` for mimir, cortex and
    /// weir, `THANOS-TENANT` for thanos, none for others. Weir alone sets it; a client's own header never goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_header: Option<String>,
    /// Whether the client's own credentials (`Authorization`, cookies, Grafana's tokens) go on to the database.
    pub forward_authorization: bool,
    /// Headers of clients outside of `server.trusted_proxies` that go on to the database, beside those that say how a message is
    /// written or which trace it belongs to, and those that its kind is known to read.
    pub forward_headers: Vec<String>,
    /// TLS to the replicas with an `https` URL.
    pub tls: BackendTls,
    /// Active health checks.
    pub health: Health,
    /// Small requests that ask the backend how large a selector is.
    pub probe: Probe,
    /// The backend's own distress, which shrinks its budget.
    pub pressure: Pressure,
    /// Whether the limits on one query that are written here go down with it, as M3's own headers. They replace M3's
    /// limits, also where those are lower.
    pub push_down: bool,
}

/// The treatment of a query that is not PromQL.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnparsable {
    /// `estimate_from_text` for VictoriaMetrics. For all others a function that only the database knows is priced by
    /// its arguments as the most expensive kind of function, and any other text that is not PromQL is refused.
    Auto,
    /// Weigh it by the selectors found in its text.
    EstimateFromText,
    /// Let it run as if nothing were known of it.
    Forward,
    /// Refuse it with the parse error.
    Refuse,
}

/// The budget of all queries in flight on a backend.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Estimated memory of all queries in flight.
    pub memory: Size,
    /// Queries in flight.
    pub queries: Count,
    /// The share that needs no proof; as heavy queries end as expected, all of it opens. `100%` asks for none.
    pub unproven: Share,
    /// A range query that would hold more than this share is sent in parts of its time, where the backend runs
    /// Prometheus' engine. `100%` asks for every query as it comes.
    pub split_above: Share,
    /// The share of it for queries over a soft limit, and those that a rule sends there.
    pub slow: SlowLane,
    /// Whether the budget is enforced; that of `limits.default` where nothing is written.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Option<Mode>,
}

/// The slow lane: a small share of a backend's budget. A single query may always run in it.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlowLane {
    /// Share of the memory.
    pub memory: Share,
    /// Queries in flight.
    pub queries: Count,
}

/// TLS to a backend. Files are PEM, and read again with every reload.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendTls {
    /// Authorities to trust in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Take any certificate: encrypted, but to an unknown peer.
    pub insecure_skip_verify: bool,
    /// The name that the certificate must carry, where it is not the host of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The certificate that Weir shows, with its chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert_file: Option<String>,
    /// The key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_file: Option<String>,
}

/// Active health checks.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Time between two checks of a replica.
    pub interval: Span,
    /// Longest wait for one check.
    pub timeout: Span,
}

/// Small requests that ask the backend how large a selector is.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// Probes at a time. One tenant takes all but one of them.
    pub concurrency: Count,
    /// Longest wait for one probe.
    pub deadline: Span,
    /// How long an answer is believed.
    pub ttl: Span,
    /// Most answers kept.
    pub cache_entries: Count,
}

/// The backend's own distress, read from its metrics, which shrinks its budget.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pressure {
    /// Where `/metrics` is found, where that is not below `urls`: M3's storage nodes, for one. Fetched without
    /// `headers`.
    pub metrics_urls: Vec<String>,
    /// Resident memory at which the backend is at its limit; `unlimited` leaves memory out where the backend does not
    /// export its own.
    pub memory_limit: Limit<Size>,
    /// The reaction of the budget to a signal that stays away, or never comes: `hold` (it does not rise), `shrink` (to
    /// one query at a time), a share to shrink to, or `ignore` (the other signals decide).
    pub on_stale: OnStale,
    /// How long a signal may stay away before that happens.
    pub stale_after: Span,
    /// How often pools (of the kinds weir and m3) allocate anew all that they keep, because they are empty, at full
    /// pressure.
    pub get_on_empty: Limit<Rate>,
    /// Without effect since failures are no sign of distress any more; refused from the next release on.
    pub errors: Limit<Share>,
    /// Without effect since queries' times are no sign of distress any more; refused from the next release on.
    pub latency: Limit<Count>,
}

/// Sends tenants to a backend.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The tenants.
    #[schemars(length(min = 1))]
    pub tenants: Vec<String>,
    /// Name of the backend.
    pub backend: String,
}

/// The tenant, actor and class of a request.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tenancy {
    /// Where the tenant is read from; the first source present in the request wins.
    pub sources: Vec<TenantSource>,
    /// The tenant of a request that names none.
    pub default: String,
    /// Whether a request that names none is refused with 401.
    pub required: bool,
}

/// A lane with a reserved share of every backend's budget.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// The name in metrics and messages.
    pub name: String,
    /// Which requests belong to it.
    #[serde(rename = "match")]
    pub matches: ClassMatch,
    /// The share kept free for it.
    #[serde(default)]
    pub reserve: Option<Share>,
    /// Limits of one query of this class, where they differ from the tenant's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub per_query: PerQuery,
    /// The highest cost of one query of this class, also where its tenant may ask for more. A class with ceilings and without `reserve` and
    /// `per_query` only takes away, so that any client may name itself one of it; others are believed to trusted peers alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ceilings: PerQuery,
    /// Whether a refusal has a `fix`: a query that passes, as text to send.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fix: bool,
}

impl Class {
    /// To be of this class is no advantage.
    pub(super) fn only_lowers(&self) -> bool {
        !is_default(&self.ceilings) && self.reserve.is_none() && is_default(&self.per_query)
    }
}

/// Which requests belong to a class.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassMatch {
    /// Headers with these values, all of which must match; `*` at the end, or at both ends, stands for anything.
    #[serde(skip_serializing_if = "is_default")]
    pub header: BTreeMap<String, String>,
    /// Headers with these values, one of which must match.
    #[serde(skip_serializing_if = "is_default")]
    pub any_header: BTreeMap<String, String>,
    /// A group that a JWT names, or an organisation or organisational unit of the client's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Logs and profiles.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Log filter such as `info` or `weir=debug`; the environment variable `WEIR_LOG` overrides it.
    pub log: String,
    /// Form of a log line.
    pub log_format: LogFormat,
    /// Profiles of this process, for its developers.
    pub profiling: Profiling,
    /// Traces of queries.
    pub otlp: Otlp,
}

/// Where traces go.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// Base URL of a collector that speaks OTLP over HTTP; none sends nothing.
    pub endpoint: Option<String>,
}

/// Profiles of this process.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profiling {
    /// Whether `/debug/pprof/` answers.
    pub enabled: bool,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}
