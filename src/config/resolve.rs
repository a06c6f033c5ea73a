//! From the raw configuration to the modules' settings: defaults under overrides, units into numbers.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU64,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    auth, enforce, fleet,
    modes::{Modes, mode},
    raw::{self, LimitKey, Raw, TenantLimits},
    scalar, tls,
};
use crate::{
    backend::{
        self, BaseUrl,
        headers::Tenancy,
        pressure::{self, OnStale},
    },
    base::{TenantId, TenantPattern, TenantPrefixes},
    cost::{Model, Unknown},
    http::HostNames,
    limit::{
        BackendBudget, ClassPolicy, InFlight, Limit, LimitTable, LimitTexts, PerQuery, Policy, QueuePolicy,
        Rates, SlowLane, TenantPolicy, Written,
    },
    proxy::{
        self,
        identify::{Attribution, ClassRule, Pattern},
        upstream::{self, OnUnparsable},
    },
    rules::{Rule, RuleSpec},
};

/// The settings of a proxy.
///
/// # Errors
/// Mistakes that the checks of [`load_text`](super::load_text) missed: names and URLs that cannot be used.
pub fn resolve(raw: &Raw) -> Result<proxy::Settings, String> {
    let index = |name: &str| raw.backends.iter().position(|backend| backend.name == name);
    let (mut routes, mut prefix_routes) = (HashMap::new(), TenantPrefixes::default());
    for route in &raw.routes {
        let to = index(&route.backend).ok_or_else(|| format!("no backend is named `{}`", route.backend))?;
        for name in &route.tenants {
            match tenant_pattern(name)? {
                TenantPattern::Name(name) => _ = routes.insert(name, to),
                TenantPattern::Prefix(prefix) => prefix_routes.insert(prefix, to),
            }
        }
    }
    Ok(proxy::Settings {
        request_body: usize::try_from(raw.server.request_body.0.get()).unwrap_or(usize::MAX),
        grace: raw.server.grace.duration(),
        connections: raw.server.connections.resolve(),
        admin_connections: raw.server.admin_connections.resolve(),
        tls: tls::of_listener(&raw.server.tls).map_err(|wrong| format!("server.tls.{wrong}"))?,
        admin_tls: tls::of_listener(&raw.server.admin_tls)
            .map_err(|wrong| format!("server.admin_tls.{wrong}"))?,
        attribution: attribution(raw)?,
        upstreams: raw.backends.iter().map(upstream).collect::<Result<_, _>>()?,
        routes,
        prefix_routes,
        admin_hosts: HostNames::new(&raw.server.admin_hosts),
        admin_tokens: auth::tokens(&raw.server.admin_auth)
            .map_err(|(key, why)| format!("server.admin_auth.{key}: {why}"))?,
        enforced: enforce::enforced(&raw.limits)?,
        query_rules: query_rules(raw)?,
        fleet: fleet::resolve(raw),
        policy: policy(raw)?,
        limit_table: limit_table(raw)?,
    })
}

/// The limits as they are written, so that the source of each can be shown.
fn limit_table(raw: &Raw) -> Result<LimitTable, String> {
    let mut table = LimitTable {
        default: texts(&raw.limits.default),
        default_written: texts(&raw.limits.written),
        ..LimitTable::default()
    };
    for (name, limits) in &raw.limits.tenants {
        match tenant_pattern(name)? {
            TenantPattern::Name(tenant) => _ = table.tenants.insert(tenant, texts(limits)),
            TenantPattern::Prefix(prefix) => {
                table.patterns.insert(prefix, (name.as_str().into(), texts(limits)));
            }
        }
    }
    for class in &raw.classes {
        let limits = TenantLimits { per_query: class.per_query.clone(), ..TenantLimits::default() };
        table.classes.push((class.name.as_str().into(), texts(&limits)));
    }
    Ok(table)
}

/// The written limits, by keys such as `per_query.series`.
fn texts(limits: &TenantLimits) -> LimitTexts {
    let mut texts = LimitTexts::new();
    // Every value of the schema is JSON.
    let mut open = vec![(String::new(), serde_json::to_value(limits).unwrap_or_default())];
    while let Some((key, value)) = open.pop() {
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::Object(group) => {
                open.extend(group.into_iter().map(|(name, value)| {
                    (if key.is_empty() { name } else { format!("{key}.{name}") }, value)
                }));
            }
            serde_json::Value::String(text) => _ = texts.insert(key, text),
            other => _ = texts.insert(key, other.to_string()),
        }
    }
    texts
}

fn tenant(name: &str) -> Result<TenantId, String> {
    TenantId::new(name).ok_or_else(|| format!("`{name}` is not a tenant name"))
}

fn tenant_pattern(text: &str) -> Result<TenantPattern, String> {
    TenantPattern::new(text).ok_or_else(|| format!("`{text}` is not a tenant name"))
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("`{name}` is not a header name"))
}

fn attribution(raw: &Raw) -> Result<Attribution, String> {
    let class = |class: &raw::Class| {
        let patterns = |headers: &BTreeMap<String, String>| {
            let patterns = headers.iter().map(|(name, value)| Ok((header_name(name)?, Pattern::new(value))));
            patterns.collect::<Result<_, String>>()
        };
        Ok::<_, String>(ClassRule {
            name: class.name.as_str().into(),
            headers: patterns(&class.matches.header)?,
            any_header: patterns(&class.matches.any_header)?,
            only_lowers: class.only_lowers(),
            fix: class.fix,
            group: class.matches.group.as_deref().map(Pattern::new),
        })
    };
    let source = |source: &raw::TenantSource| {
        source.resolve().map_err(|(key, why)| format!("tenancy.sources: {key}: {why}"))
    };
    Ok(Attribution {
        trusted: raw.server.trusted_proxies.iter().map(|cidr| cidr.0).collect(),
        sources: raw.tenancy.sources.iter().map(source).collect::<Result<_, _>>()?,
        default: tenant(&raw.tenancy.default)?,
        required: raw.tenancy.required,
        classes: raw.classes.iter().map(class).collect::<Result<_, _>>()?,
    })
}

fn upstream(raw: &raw::Backend) -> Result<upstream::Settings, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &raw.headers {
        let mut value =
            HeaderValue::try_from(value.reveal()).map_err(|_| format!("the value of `{name}`"))?;
        value.set_sensitive(true);
        headers.insert(header_name(name)?, value);
    }
    let urls = raw.urls.iter().map(|url| BaseUrl::parse(url)).collect::<Result<Vec<_>, _>>()?;
    let metrics_urls = raw.pressure.metrics_urls.iter().map(|url| BaseUrl::parse(url));
    let metrics_urls = metrics_urls.collect::<Result<Vec<_>, _>>()?;
    let tls = urls.iter().chain(&metrics_urls).any(BaseUrl::secure).then(|| tls::load(&raw.tls)).transpose();
    let tls = tls.map_err(|wrong| format!("backend `{}`: tls.{wrong}", raw.name))?;
    let kind = raw.kind;
    let backend = backend::Settings {
        connect_timeout: raw.connect_timeout.duration(),
        response_timeout: raw.response_timeout.duration(),
        max_connections: size(raw.max_connections),
        light_connections: size(raw.light_connections),
        headers,
        tenancy: tenancy(raw, kind)?,
        tls,
        health: backend::HealthSettings {
            interval: raw.health.interval.duration(),
            timeout: raw.health.timeout.duration(),
        },
        probe: backend::ProbeSettings {
            concurrency: size(raw.probe.concurrency),
            deadline: raw.probe.deadline.duration(),
            ttl: raw.probe.ttl.duration(),
            cache_entries: raw.probe.cache_entries.0.get(),
        },
        ..backend::Settings::new(raw.name.as_str(), kind, urls)
    };
    let metrics = (!metrics_urls.is_empty()).then(|| backend::Settings {
        urls: metrics_urls,
        headers: HeaderMap::new(),
        ..backend.clone()
    });
    let model = Model {
        kind,
        block_duration_ms: raw.block_duration.ms().get(),
        scrape_interval_ms: raw.scrape_interval.ms().get(),
        unknown: match raw.unknown {
            scalar::Unknown::Allow => Unknown::Allow,
            scalar::Unknown::Deny => Unknown::Deny,
            scalar::Unknown::Series(count) => Unknown::Number(count.0.get()),
        },
    };
    let on_unparsable = match raw.on_unparsable {
        raw::OnUnparsable::Auto if kind == backend::Kind::VictoriaMetrics => OnUnparsable::EstimateFromText,
        raw::OnUnparsable::Auto => OnUnparsable::UnknownFunctions,
        raw::OnUnparsable::Refuse => OnUnparsable::Refuse,
        raw::OnUnparsable::EstimateFromText => OnUnparsable::EstimateFromText,
        raw::OnUnparsable::Forward => OnUnparsable::Forward,
    };
    let pressure = pressure(&raw.pressure);
    let split_percent =
        Some(raw.budget.split_above.percent()).filter(|n| *n < 100 && backend.kind.splits_queries());
    let push_down = raw.push_down;
    Ok(upstream::Settings { backend, metrics, model, on_unparsable, pressure, split_percent, push_down })
}

/// The word for a backend that gets no tenant header.
const NO_HEADER: &str = "none";

fn tenancy(raw: &raw::Backend, kind: backend::Kind) -> Result<Tenancy, String> {
    let header = match raw.tenant_header.as_deref() {
        None => Tenancy::of(kind).header,
        Some(NO_HEADER) => None,
        Some(name) => Some(header_name(name)?),
    };
    let forward_headers =
        raw.forward_headers.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?;
    Ok(Tenancy { header, forward_credentials: raw.forward_authorization, forward_headers })
}

/// How long a backend is taken to hold a heavy query's memory after its client left. Weir's node looks every 50 ms. The
/// engine of Prometheus looks between the parts of a query: `docs/incident.md` has its memory grow for 3 s and more. The
/// others are not measured.
const fn linger(kind: backend::Kind) -> Duration {
    match kind {
        backend::Kind::Weir => Duration::from_millis(100),
        backend::Kind::VictoriaMetrics => Duration::from_secs(1),
        backend::Kind::Prometheus
        | backend::Kind::Thanos
        | backend::Kind::Mimir
        | backend::Kind::Cortex
        | backend::Kind::M3 => Duration::from_secs(3),
    }
}

fn pressure(raw: &raw::Pressure) -> pressure::Settings {
    pressure::Settings {
        memory_limit: raw.memory_limit.at().map(|size| size.0.get()),
        on_stale: match raw.on_stale {
            scalar::OnStale::Hold => OnStale::Hold,
            scalar::OnStale::Shrink => OnStale::SHRINK,
            scalar::OnStale::Ignore => OnStale::Ignore,
            scalar::OnStale::ShrinkTo(share) => OnStale::ShrinkTo(part(share)),
        },
        stale_after: raw.stale_after.duration(),
        get_on_empty_at_full: raw.get_on_empty.at().map(per_second),
    }
}

fn part(share: scalar::Share) -> f64 {
    f64::from(share.percent()) / 100.0
}

fn per_second(rate: scalar::Rate) -> f64 {
    rate.count.get() as f64 / rate.per.as_secs_f64()
}

fn size(count: scalar::Count) -> usize {
    usize::try_from(count.0.get()).unwrap_or(usize::MAX)
}

fn policy(raw: &Raw) -> Result<Policy, String> {
    let classes = raw.classes.iter().map(|class| ClassPolicy {
        name: class.name.as_str().into(),
        reserve_percent: class.reserve.map_or(0, scalar::Share::percent),
    });
    let backends = raw.backends.iter().map(|backend| {
        let mode = mode(backend.budget.mode.or(raw.limits.default.mode));
        BackendBudget {
            name: backend.name.as_str().into(),
            memory: Limit::enforce(backend.budget.memory.0.get()).with_mode(mode),
            queries: Limit::enforce(backend.budget.queries.0.get()).with_mode(mode),
            slow: SlowLane {
                memory_percent: backend.budget.slow.memory.percent(),
                queries: backend.budget.slow.queries.0,
            },
            unproven_percent: backend.budget.unproven.percent(),
            linger: linger(backend.kind),
        }
    });
    let (mut tenants, mut patterns) = (HashMap::new(), TenantPrefixes::default());
    for (name, limits) in &raw.limits.tenants {
        let (limits, written) = (limits.over(&raw.limits.default), limits.over(&raw.limits.written));
        let limits = Arc::new(tenant_policy(&limits, &written, &raw.classes));
        match tenant_pattern(name)? {
            TenantPattern::Name(name) => _ = tenants.insert(name, limits),
            TenantPattern::Prefix(prefix) => patterns.insert(prefix, limits),
        }
    }
    Ok(Policy {
        default: Arc::new(tenant_policy(&raw.limits.default, &raw.limits.written, &raw.classes)),
        tenants,
        patterns,
        classes: classes.collect(),
        backends: backends.collect(),
        sharing: raw.fleet.sharing(),
        ..Policy::default()
    })
}

/// The limits of one tenant: complete, and as they are written.
fn tenant_policy(limits: &TenantLimits, written: &TenantLimits, classes: &[raw::Class]) -> TenantPolicy {
    let modes = Modes(limits);
    let none = raw::PerQuery::default();
    let per_class = classes.iter().filter(|class| class.per_query != none || class.ceilings != none);
    let per_class = per_class.map(|class| {
        let over = |below| class.per_query.over(below);
        let (limits, written) = (over(&limits.per_query), over(&written.per_query));
        let limits = per_query(&limits, &written, &modes);
        // Weir's own: a database that enforces limits itself gets those of the tenant.
        let ceilings = per_query(&class.ceilings, &none, &modes);
        (class.name.as_str().into(), if class.ceilings == none { limits } else { limits.and(&ceilings) })
    });
    let queue = QueuePolicy::default();
    TenantPolicy {
        per_query: per_query(&limits.per_query, &written.per_query, &modes),
        soft: soft(&limits.soft, &modes),
        per_class: per_class.collect(),
        in_flight: InFlight {
            queries: modes.limit(LimitKey::InFlightQueries, counted(limits.in_flight.queries)),
            memory: modes.limit(LimitKey::InFlightMemory, sized(limits.in_flight.memory)),
        },
        queue: QueuePolicy {
            length: limits.queue.length.map_or(queue.length, size),
            wait: limits.queue.wait.map_or(queue.wait, scalar::Span::duration),
        },
        rate: Rates {
            queries: modes.rate(LimitKey::RateQueries, limits.rate.queries),
            samples: modes.rate(LimitKey::RateSamples, limits.rate.samples),
        },
        quota: Rates {
            queries: modes.quota(LimitKey::QuotaQueries, limits.quota.queries),
            samples: modes.quota(LimitKey::QuotaSamples, limits.quota.samples),
        },
    }
}

fn per_query(limits: &raw::PerQuery, written: &raw::PerQuery, modes: &Modes<'_>) -> PerQuery {
    let seconds = |span: Option<scalar::Limit<scalar::Span>>| {
        span_of(span).and_then(|time| NonZeroU64::new(time.as_secs().max(1)))
    };
    let millis = |span: Option<scalar::Limit<scalar::Span>>| {
        span_of(span).and_then(|time| NonZeroU64::new(time.as_millis() as u64))
    };
    PerQuery {
        series: modes.limit(LimitKey::Series, counted(limits.series)),
        blocks: modes.limit(LimitKey::Blocks, counted(limits.blocks)),
        samples: modes.limit(LimitKey::Samples, counted(limits.samples)),
        points: modes.limit(LimitKey::Points, counted(limits.points)),
        memory: modes.limit(LimitKey::Memory, sized(limits.memory)),
        range_seconds: modes.limit(LimitKey::Range, seconds(limits.range)),
        listing_seconds: modes.limit(LimitKey::ListingRange, seconds(limits.listing_range)),
        steps: modes.limit(LimitKey::Steps, counted(limits.steps)),
        selectors: modes.limit(LimitKey::Selectors, counted(limits.selectors)),
        text_bytes: modes.limit(LimitKey::Text, sized(limits.text)),
        nodes: modes.limit(LimitKey::Nodes, counted(limits.nodes)),
        depth: modes.limit(LimitKey::Depth, counted(limits.depth)),
        matchers: modes.limit(LimitKey::Matchers, counted(limits.matchers)),
        regex_bytes: modes.limit(LimitKey::Regex, sized(limits.regex)),
        response_bytes: modes.limit(LimitKey::Response, sized(limits.response)),
        timeout_ms: modes.limit(LimitKey::Timeout, millis(limits.timeout)),
        written: Written {
            series: written.series.is_some(),
            blocks: written.blocks.is_some(),
            range: written.range.is_some(),
            timeout: written.timeout.is_some(),
        },
    }
}

fn soft(limits: &raw::Soft, modes: &Modes<'_>) -> PerQuery {
    let raw::Soft { series, blocks, samples, points, memory, range, steps } = *limits;
    let written =
        raw::PerQuery { series, blocks, samples, points, memory, range, steps, ..raw::PerQuery::default() };
    per_query(&written, &raw::PerQuery::default(), modes)
}

/// Rules against single queries.
pub(super) fn query_rules(raw: &Raw) -> Result<Vec<Arc<Rule>>, String> {
    let read = |(at, spec): (usize, &RuleSpec)| {
        spec.read(None).map(Arc::new).map_err(|(key, why)| format!("rules[{at}].{key}: {why}"))
    };
    raw.rules.iter().enumerate().map(read).collect()
}

fn counted(limit: Option<scalar::Limit<scalar::Count>>) -> Option<NonZeroU64> {
    limit?.at().map(|count| count.0)
}

fn sized(limit: Option<scalar::Limit<scalar::Size>>) -> Option<NonZeroU64> {
    limit?.at().map(|size| size.0)
}

fn span_of(limit: Option<scalar::Limit<scalar::Span>>) -> Option<Duration> {
    limit?.at().map(scalar::Span::duration)
}

#[cfg(test)]
mod tests {
    use super::{super::load_text, *};
    use crate::limit::Mode;

    fn settings(text: &str) -> proxy::Settings {
        resolve(&load_text("test", text, &|_| None).unwrap().raw).unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let settings = settings("server: {grace: 5s}");
        let limits = &settings.policy.default.per_query;
        assert_eq!(limits.series, Limit::enforce(50_000));
        assert_eq!(limits.range_seconds, Limit::enforce(31 * 86_400));
        assert_eq!(limits.timeout_ms, Limit::enforce(60_000));
        assert_eq!(settings.policy.default.rate.samples.rate, None);
        let queries = settings.policy.default.rate.queries.rate.unwrap();
        assert_eq!((queries.count.get(), queries.per), (200, Duration::from_secs(4)));
        assert_eq!(settings.policy.backends[0].memory, Limit::enforce(4 << 30));
        let reserves: Vec<_> = settings.policy.classes.iter().map(|class| class.reserve_percent).collect();
        assert_eq!(reserves, [0, 20, 0], "agents, rules, dashboards");
        assert_eq!(settings.upstreams[0].on_unparsable, OnUnparsable::UnknownFunctions);
        assert_eq!(settings.grace, Duration::from_secs(5));
    }

    #[test]
    fn a_budget_is_enforced_as_the_limits_are_unless_it_says_otherwise() {
        let settings = settings(
            "backends: [{name: a}, {name: b, budget: {mode: enforce}}]\nlimits: {default: {mode: shadow}}",
        );
        let modes = settings.policy.backends.iter().map(|budget| (budget.memory.mode, budget.queries.mode));
        let (shadow, enforce) = (Mode::Shadow, Mode::Enforce);
        assert_eq!(modes.collect::<Vec<_>>(), [(shadow, shadow), (enforce, enforce)]);
    }

    #[test]
    fn overrides_lie_over_defaults() {
        let settings = settings(
            "backends: [{name: a}, {name: b, kind: victoriametrics, unknown: 500}]\n\
             routes: [{tenants: [noisy], backend: b}]\n\
             limits: {default: {modes: {series: shadow}}, tenants: {noisy: {mode: off, per_query: {series: 1_000}}}}\n\
             classes: [{name: slow, match: {header: {X-A: \"b*\"}}, per_query: {steps: 5}}]",
        );
        let noisy = TenantId::new("noisy").unwrap();
        assert_eq!(settings.routes[&noisy], 1);
        assert_eq!(settings.upstreams[1].model.unknown, Unknown::Number(500));
        assert_eq!(settings.upstreams[1].on_unparsable, OnUnparsable::EstimateFromText);
        let policy = settings.policy.tenant(&noisy);
        assert_eq!(policy.per_query.series, Limit::enforce(1_000).with_mode(Mode::Shadow));
        assert_eq!(policy.per_query.steps, Limit::enforce(11_001).with_mode(Mode::Off));
        assert_eq!(policy.per_query(Some("slow")).steps, Limit::enforce(5).with_mode(Mode::Off));
        assert_eq!(settings.policy.default.per_query(None).steps, Limit::enforce(11_001));
    }
}
