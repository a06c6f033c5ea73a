//! The value of every key that is not written.

use super::{
    raw::{
        AdminAuth, AdminConnections, Backend, BackendTls, BasicAuthPart, Budget, Class, ClassMatch,
        Connections, Health, InFlight, Limits, LogFormat, Mode, OnUnparsable, Otlp, PerQuery, Pressure,
        Probe, Profiling, Queue, Quotas, Rates, Server, ServerTls, SlowLane, Soft, Telemetry, Tenancy,
        TenantLimits, TenantSource,
    },
    scalar::{Limit, OnStale, Unknown},
};
use crate::base::Kind;
use std::{collections::BTreeMap, str::FromStr};

/// Reads a literal of this file; `every_default_is_readable` builds them all.
#[expect(clippy::expect_used, reason = "the literals are in this file and a test reads each of them")]
pub(super) fn lit<T: FromStr<Err = String>>(text: &str) -> T {
    text.parse().expect("a readable literal")
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: lit("127.0.0.1:9099"),
            admin_listen: lit("127.0.0.1:9098"),
            tls: ServerTls::default(),
            admin_tls: ServerTls::default(),
            trusted_proxies: vec![lit("127.0.0.0/8"), lit("::1/128")],
            connections: Connections::default(),
            admin_connections: AdminConnections::default(),
            request_body: lit("4MiB"),
            grace: lit("30s"),
            admin_hosts: Vec::new(),
            admin_auth: AdminAuth::default(),
        }
    }
}

impl Default for Backend {
    fn default() -> Self {
        Self {
            name: "main".to_owned(),
            kind: Kind::Prometheus,
            urls: vec!["http://127.0.0.1:9090".to_owned()],
            block_duration: lit("2h"),
            scrape_interval: lit("15s"),
            budget: Budget::default(),
            unknown: Unknown::Allow,
            on_unparsable: OnUnparsable::Auto,
            connect_timeout: lit("2s"),
            response_timeout: lit("2m"),
            max_connections: lit("100"),
            light_connections: lit("10"),
            headers: BTreeMap::new(),
            tenant_header: None,
            forward_authorization: false,
            forward_headers: Vec::new(),
            tls: BackendTls::default(),
            health: Health::default(),
            probe: Probe::default(),
            pressure: Pressure::default(),
            push_down: false,
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            memory: lit("4GiB"),
            queries: lit("20"),
            unproven: lit("10%"),
            split_above: lit("40%"),
            slow: SlowLane::default(),
            mode: None,
        }
    }
}

impl Default for SlowLane {
    fn default() -> Self {
        Self { memory: lit("25%"), queries: lit("2") }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { interval: lit("5s"), timeout: lit("2s") }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self { concurrency: lit("4"), deadline: lit("2s"), ttl: lit("5m"), cache_entries: lit("10_000") }
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            metrics_urls: Vec::new(),
            memory_limit: Limit::Unlimited,
            on_stale: OnStale::Hold,
            stale_after: lit("15s"),
            get_on_empty: lit("1/s"),
            errors: lit("50%"),
            latency: lit("8"),
        }
    }
}

impl Default for Tenancy {
    fn default() -> Self {
        Self {
            sources: vec![
                TenantSource { header: Some("X-Scope-OrgID".to_owned()), ..TenantSource::default() },
                TenantSource { basic_auth: Some(BasicAuthPart::User), ..TenantSource::default() },
            ],
            default: "anonymous".to_owned(),
            required: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { default: TenantLimits::built_in(), tenants: BTreeMap::new(), written: TenantLimits::default() }
    }
}

impl TenantLimits {
    /// The limits of a tenant without limits of its own; every field is set.
    pub fn built_in() -> Self {
        Self {
            mode: Some(Mode::Enforce),
            modes: None,
            per_query: PerQuery {
                series: Some(lit("50_000")),
                blocks: Some(lit("500_000")),
                samples: Some(lit("50_000_000")),
                points: Some(lit("50_000_000")),
                memory: Some(lit("1GiB")),
                range: Some(lit("31d")),
                listing_range: Some(Limit::Unlimited),
                steps: Some(lit("11_001")),
                selectors: Some(lit("50")),
                text: Some(lit("1MiB")),
                nodes: Some(lit("10_000")),
                depth: Some(lit("100")),
                matchers: Some(lit("2_000")),
                regex: Some(lit("512KiB")),
                response: Some(lit("256MiB")),
                timeout: Some(lit("60s")),
            },
            soft: Soft {
                series: Some(Limit::Unlimited),
                blocks: Some(Limit::Unlimited),
                samples: Some(Limit::Unlimited),
                points: Some(Limit::Unlimited),
                memory: Some(Limit::Unlimited),
                range: Some(Limit::Unlimited),
                steps: Some(Limit::Unlimited),
            },
            in_flight: InFlight { queries: Some(lit("20")), memory: Some(lit("2GiB")) },
            queue: Queue { length: Some(lit("100")), wait: Some(lit("10s")) },
            rate: Rates { queries: Some(lit("50/s")), samples: Some(Limit::Unlimited) },
            quota: Quotas { queries: Some(Limit::Unlimited), samples: Some(Limit::Unlimited) },
            enforce: None,
            enforce_conflict: None,
        }
    }
}

impl PerQuery {
    /// A question and an answer that a language model can use.
    fn for_agents() -> Self {
        Self {
            series: Some(lit("5_000")),
            samples: Some(lit("5_000_000")),
            points: Some(lit("1_000_000")),
            memory: Some(lit("256MiB")),
            range: Some(lit("7d")),
            steps: Some(lit("1_000")),
            response: Some(lit("1MiB")),
            ..Self::default()
        }
    }
}

impl Class {
    /// Programs that ask on behalf of a language model name themselves: `mcp-grafana`, `prometheus-mcp-server`,
    /// `mcp-victoriametrics`; they stand first, so that no other header lifts their ceilings. Grafana marks alerts and dashboards.
    pub(super) fn built_in() -> Vec<Self> {
        let headers = |headers: &[(&str, &str)]| {
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let class = |name: &str, matches, reserve| Self {
            name: name.to_owned(),
            matches,
            reserve,
            per_query: PerQuery::default(),
            ceilings: PerQuery::default(),
            fix: false,
        };
        let header = |name, value| ClassMatch { header: headers(&[(name, value)]), ..ClassMatch::default() };
        let agents = headers(&[("User-Agent", "*mcp*"), ("Weir-Agent", "*")]);
        let agents = ClassMatch { any_header: agents, ..ClassMatch::default() };
        vec![
            Self { ceilings: PerQuery::for_agents(), fix: true, ..class("agents", agents, None) },
            class("rules", header("FromAlert", "true"), Some(lit("20%"))),
            class("dashboards", header("X-Dashboard-Uid", "*"), None),
        ]
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            profiling: Profiling::default(),
            otlp: Otlp::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::Raw;

    #[test]
    fn every_default_is_readable() {
        let text = serde_json::to_string(&Raw::default()).unwrap();
        assert!(text.contains("\"series\":\"50,000\""), "{text}");
    }
}
