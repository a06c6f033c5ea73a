//! The limits in force: the configuration after defaults, overrides and units are resolved.

use std::{collections::HashMap, num::NonZeroU64, sync::Arc, time::Duration};

use crate::base::{TenantId, TenantPrefixes, share::TokenKind};

/// Whether a limit is enforced; the strictest first, as they compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Refuse queries over the limit.
    #[default]
    Enforce,
    /// Report queries over the limit, and let them run.
    Shadow,
    /// Do not look.
    Off,
}

impl Mode {
    /// The word in metrics and in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

/// A limit; its unit is that of the field that holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// The most that is allowed; `None` is unlimited.
    pub max: Option<NonZeroU64>,
    /// The treatment of a query over it.
    pub mode: Mode,
}

impl Limit {
    /// No limit.
    pub const UNLIMITED: Self = Self { max: None, mode: Mode::Enforce };

    /// An enforced limit; zero is no limit.
    pub const fn enforce(max: u64) -> Self {
        Self { max: NonZeroU64::new(max), mode: Mode::Enforce }
    }

    /// The same limit in another mode.
    #[must_use]
    pub const fn with_mode(self, mode: Mode) -> Self {
        Self { max: self.max, mode }
    }

    /// The number to look at, unless there is none or nobody looks.
    pub const fn threshold(self) -> Option<u64> {
        match (self.max, self.mode) {
            (Some(max), Mode::Enforce | Mode::Shadow) => Some(max.get()),
            _ => None,
        }
    }

    /// The number that must not be passed.
    pub const fn enforced(self) -> Option<u64> {
        match (self.max, self.mode) {
            (Some(max), Mode::Enforce) => Some(max.get()),
            _ => None,
        }
    }
}

impl Limit {
    /// Both: the stricter mode, and of two that are looked at the lower number.
    #[must_use]
    fn and(self, other: Self) -> Self {
        let [low, high] = if (self.mode, self.max_or_none()) <= (other.mode, other.max_or_none()) {
            [self, other]
        } else {
            [other, self]
        };
        if low.max.is_none() { high } else { low }
    }

    const fn max_or_none(self) -> u64 {
        match self.max {
            Some(max) => max.get(),
            None => u64::MAX,
        }
    }
}

/// Limits of one query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerQuery {
    /// Distinct series.
    pub series: Limit,
    /// Series × storage blocks.
    pub blocks: Limit,
    /// Raw samples read.
    pub samples: Limit,
    /// Series × steps.
    pub points: Limit,
    /// Bytes expected at the backend.
    pub memory: Limit,
    /// Seconds that a query spans.
    pub range_seconds: Limit,
    /// Seconds that a listing looks through.
    pub listing_seconds: Limit,
    /// Evaluation steps.
    pub steps: Limit,
    /// Vector selectors.
    pub selectors: Limit,
    /// Bytes of the query's text.
    pub text_bytes: Limit,
    /// Nodes of its syntax tree.
    pub nodes: Limit,
    /// Brackets within brackets.
    pub depth: Limit,
    /// Label matchers.
    pub matchers: Limit,
    /// Bytes of regular expressions.
    pub regex_bytes: Limit,
    /// Bytes of the answer; checked by its meter.
    pub response_bytes: Limit,
    /// Milliseconds from admission to the last byte; checked while it is forwarded.
    pub timeout_ms: Limit,
    /// Which of those that a backend may enforce in its own place are written.
    pub written: Written,
}

/// Limits that the configuration states; the others are built in, and are never to replace a backend's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in `PerQuery`")]
pub struct Written {
    pub series: bool,
    pub blocks: bool,
    pub range: bool,
    pub timeout: bool,
}

impl Written {
    const fn and(self, other: Self) -> Self {
        Self {
            series: self.series || other.series,
            blocks: self.blocks || other.blocks,
            range: self.range || other.range,
            timeout: self.timeout || other.timeout,
        }
    }
}

/// The budget of a tenant's queries in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Queries.
    pub queries: Limit,
    /// Bytes of estimated memory.
    pub memory: Limit,
}

/// How a tenant's queries wait for budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Most queries waiting.
    pub length: usize,
    /// Longest wait.
    pub wait: Duration,
}

impl Default for QueuePolicy {
    fn default() -> Self {
        Self { length: 100, wait: Duration::from_secs(10) }
    }
}

/// How much per time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How much, in `per`; also the most at once.
    pub count: NonZeroU64,
    /// In which time.
    pub per: Duration,
}

/// A limit over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// The rate; `None` is unlimited.
    pub rate: Option<Rate>,
    /// The treatment of a query over it.
    pub mode: Mode,
}

/// The rates of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Queries.
    pub queries: RateLimit,
    /// Samples read.
    pub samples: RateLimit,
}

impl Rates {
    /// The one of this kind.
    pub const fn of(&self, kind: TokenKind) -> RateLimit {
        match kind {
            TokenKind::Queries => self.queries,
            TokenKind::Samples => self.samples,
        }
    }
}

/// All limits of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantPolicy {
    /// Limits of one query.
    pub per_query: PerQuery,
    /// Limits beyond which one query goes to the slow lane.
    pub soft: PerQuery,
    /// Limits of one query of a class, where they differ.
    pub per_class: Vec<(Arc<str>, PerQuery)>,
    /// The budget of all queries in flight.
    pub in_flight: InFlight,
    /// How queries wait.
    pub queue: QueuePolicy,
    /// The rates.
    pub rate: Rates,
    /// The quotas: as much in each whole hour or day of the clock.
    pub quota: Rates,
}

impl TenantPolicy {
    /// The per-query limits that hold for a class, by its name.
    pub fn per_query(&self, class: Option<&str>) -> &PerQuery {
        let own = self.per_class.iter().find(|(name, _)| class == Some(&**name));
        own.map_or(&self.per_query, |(_, limits)| limits)
    }
}

/// The smaller of each limit of two tenants.
macro_rules! each_limit {
    ($one:expr, $other:expr, $type:ident {$($field:ident),*}) => {
        $type { $($field: $one.$field.and($other.$field),)* }
    };
}

impl PerQuery {
    /// The stricter of both for each limit.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        each_limit!(
            self,
            other,
            Self {
                series,
                blocks,
                samples,
                points,
                memory,
                range_seconds,
                listing_seconds,
                steps,
                selectors,
                text_bytes,
                nodes,
                depth,
                matchers,
                regex_bytes,
                response_bytes,
                timeout_ms,
                written
            }
        )
    }
}

impl TenantPolicy {
    /// The stricter of both for each limit. Rates and quotas are charged to each tenant by itself, and stay.
    fn and(&self, other: &Self) -> Self {
        let classes = self.per_class.iter().chain(&other.per_class).map(|(class, _)| Arc::clone(class));
        let mut classes: Vec<Arc<str>> = classes.collect();
        classes.sort_unstable();
        classes.dedup();
        let both = |class: Arc<str>| {
            let limits = self.per_query(Some(&class)).and(other.per_query(Some(&class)));
            (class, limits)
        };
        Self {
            per_query: self.per_query.and(&other.per_query),
            soft: self.soft.and(&other.soft),
            per_class: classes.into_iter().map(both).collect(),
            in_flight: each_limit!(self.in_flight, other.in_flight, InFlight { queries, memory }),
            queue: QueuePolicy {
                length: self.queue.length.min(other.queue.length),
                wait: self.queue.wait.min(other.queue.wait),
            },
            rate: self.rate,
            quota: self.quota,
        }
    }
}

/// A lane with a reserved share of every backend's budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassPolicy {
    /// The name; it identifies the class over reloads.
    pub name: Arc<str>,
    /// Percent of the open part of each lane that other classes leave free for it; 0 is none.
    pub reserve_percent: u8,
}

/// The budget of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendBudget {
    /// The name; it identifies the backend over reloads.
    pub name: Arc<str>,
    /// Bytes of estimated memory.
    pub memory: Limit,
    /// Queries.
    pub queries: Limit,
    /// The share of queries in the slow lane.
    pub slow: SlowLane,
    /// Percent of the memory that are open to heavy queries before any completed; 100 opens all.
    pub unproven_percent: u8,
    /// How long the backend goes on to hold a heavy query's memory after its client left.
    pub linger: Duration,
}

/// The share of a backend's budget for queries over a soft limit, or that a rule sends there. A single one may always
/// run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowLane {
    /// Percent of the memory.
    pub memory_percent: u8,
    /// Queries.
    pub queries: NonZeroU64,
}

impl Default for SlowLane {
    fn default() -> Self {
        Self { memory_percent: 25, queries: NonZeroU64::MIN.saturating_add(1) }
    }
}

/// How budgets are shared with other proxies that admit by the same policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// The most proxies that run at the same time; 1 shares nothing.
    pub replicas_max: NonZeroU64,
    /// Most of each heavy lane and a part of each tenant's limit is leased to the proxies that need it. Without leases
    /// every proxy has an equal part of the lanes, and counts a tenant's queries by itself.
    pub leased: bool,
}

impl Default for Sharing {
    fn default() -> Self {
        Self { replicas_max: NonZeroU64::MIN, leased: false }
    }
}

/// Everything that admission obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For every tenant that has none of its own.
    pub default: Arc<TenantPolicy>,
    /// Limits of single tenants, complete.
    pub tenants: HashMap<TenantId, Arc<TenantPolicy>>,
    /// Limits of tenants by the prefix of their names, complete; an exact name takes precedence.
    pub patterns: TenantPrefixes<Arc<TenantPolicy>>,
    /// The classes.
    pub classes: Vec<ClassPolicy>,
    /// The backends' budgets.
    pub backends: Vec<BackendBudget>,
    /// The other proxies before the same backends.
    pub sharing: Sharing,
    /// The most tenants without limits of their own that have an account each; those beyond share one.
    pub tenants_max: usize,
    /// Most queries waiting for one backend, over all tenants.
    pub waiting_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default: Arc::default(),
            tenants: HashMap::new(),
            patterns: TenantPrefixes::default(),
            classes: Vec::new(),
            backends: Vec::new(),
            sharing: Sharing::default(),
            tenants_max: 10_000,
            waiting_max: 10_000,
        }
    }
}

impl Policy {
    /// The limits of a tenant.
    pub fn tenant(&self, tenant: &TenantId) -> &Arc<TenantPolicy> {
        self.tenants.get(tenant).or_else(|| self.patterns.get(tenant)).unwrap_or(&self.default)
    }

    /// The limits on a query that reads the data of several tenants at once: the smallest of each.
    pub fn strictest(&self, tenants: &[TenantId]) -> Option<Arc<TenantPolicy>> {
        let mut policies = tenants.iter().map(|tenant| self.tenant(tenant));
        let first = Arc::clone(policies.next()?);
        Some(policies.fold(first, |strictest, other| {
            if strictest == *other { strictest } else { Arc::new(strictest.and(other)) }
        }))
    }
}
