//! Why a query may not run: which limit, by how much, and whether later will help.

use std::{fmt, sync::Arc, time::Duration};

use super::wait::Waited;
use crate::base::{Confidence, ErrorKind, Estimate, TenantId, duration, units};

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident => $id:literal, $grafana:expr, $unit:ident, $what:literal;)*) => {
        /// A limit that can refuse a query.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum LimitName { $($(#[$doc])* $name,)* }

        impl LimitName {
            /// Every limit, for metrics and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable id that operators and scripts know it by.
            pub const fn id(self) -> &'static str { match self { $(Self::$name => $id,)* } }

            /// The id of the same limit that Grafana's alerting knows, and does not retry on.
            pub const fn grafana_id(self) -> Option<&'static str> { match self { $(Self::$name => $grafana,)* } }

            /// The unit of its numbers.
            const fn unit(self) -> Unit { match self { $(Self::$name => Unit::$unit,)* } }

            /// The noun for the unit.
            pub const fn noun(self) -> &'static str { match self { $(Self::$name => $what,)* } }
        }
    };
}

impl LimitName {
    /// A number in its unit, for people; `u64::MAX` is unknown.
    pub fn show(self, n: u64) -> String {
        match (n, self.unit()) {
            (u64::MAX, Unit::Count) => "an unknown number of".to_owned(),
            (u64::MAX, _) => "an unknown amount".to_owned(),
            (n, unit) => unit.show(n),
        }
    }
}

const SERIES: Option<&str> = Some("err-mimir-max-series-per-query");
const CHUNKS: Option<&str> = Some("err-mimir-max-chunks-per-query");
const CHUNK_BYTES: Option<&str> = Some("err-mimir-max-chunks-bytes-per-query");
const MEMORY: Option<&str> = Some("err-mimir-max-estimated-memory-consumption-per-query");

limits! {
    /// Distinct series of one query.
    MaxSeries => "weir-max-series", SERIES, Count, "series";
    /// Series × storage blocks of one query.
    MaxBlocks => "weir-max-blocks", CHUNKS, Count, "series-blocks";
    /// Raw samples read by one query.
    MaxSamples => "weir-max-samples", CHUNK_BYTES, Count, "samples";
    /// Series × steps of one query.
    MaxPoints => "weir-max-points", MEMORY, Count, "points";
    /// Memory of one query.
    MaxMemory => "weir-max-memory", MEMORY, Bytes, "of backend memory";
    /// Bytes of one query's text.
    MaxText => "weir-max-text", None, Bytes, "of query text";
    /// Nodes of one query's syntax tree.
    MaxNodes => "weir-max-nodes", None, Count, "operands and operators";
    /// Brackets within brackets of one query.
    MaxDepth => "weir-max-depth", None, Count, "levels of brackets";
    /// Label matchers of one query.
    MaxMatchers => "weir-max-matchers", None, Count, "label matchers";
    /// Bytes of the regular expressions of one query.
    MaxRegex => "weir-max-regex", None, Bytes, "of regular expressions";
    /// Time span of one query.
    MaxRange => "weir-max-range", None, Seconds, "of data";
    /// Time span of one listing of series, names or values.
    MaxListingRange => "weir-max-listing-range", None, Seconds, "to be looked through";
    /// Evaluation steps of one query.
    MaxSteps => "weir-max-steps", None, Count, "steps";
    /// Vector selectors of one query.
    MaxSelectors => "weir-max-selectors", None, Count, "selectors";
    /// Bytes of one answer.
    MaxResponse => "weir-max-response", CHUNK_BYTES, Bytes, "of response";
    /// Time of one query.
    MaxTime => "weir-max-time", None, Milliseconds, "of run time";
    /// Queries over time.
    RateQueries => "weir-rate-queries", None, Count, "queries";
    /// Samples over time.
    RateSamples => "weir-rate-samples", None, Count, "samples";
    /// Queries in an hour or a day.
    QuotaQueries => "weir-quota-queries", None, Count, "queries";
    /// Samples in an hour or a day.
    QuotaSamples => "weir-quota-samples", None, Count, "samples";
    /// More queries wait than may.
    QueueFull => "weir-queue-full", None, Count, "queries waiting";
    /// The wait was longer than allowed.
    QueueTimeout => "weir-queue-timeout", None, Milliseconds, "of waiting";
    /// The query alone is more than a whole budget.
    BudgetNever => "weir-budget-never", MEMORY, Bytes, "of backend memory";
    /// More queries of the tenant in flight than may; seen in shadow mode only, since such a query waits.
    InFlightQueries => "weir-in-flight-queries", None, Count, "queries in flight";
    /// More memory held by the tenant's queries in flight than may be; seen in shadow mode only.
    InFlightMemory => "weir-in-flight-memory", None, Bytes, "of memory in flight";
    /// The backend is sick: nothing waits for it.
    BackendSick => "weir-backend-sick", None, Count, "queries";
    /// The backend was about to run out of memory: its heaviest query was cancelled.
    Cancelled => "weir-recalled", None, Count, "queries";
    /// A rule of the operator is against the query.
    Blocked => "weir-blocked", None, Count, "queries";
    /// The query may read its tenant's series only, and cannot be confined to them.
    LabelEnforcement => "weir-label-enforcement", None, Count, "queries";
    /// An operator stopped the query.
    Killed => "weir-killed", None, Count, "queries";
    /// Weir ends while the query waits.
    ShuttingDown => "weir-shutting-down", None, Count, "queries";
}

#[derive(Clone, Copy)]
enum Unit {
    Count,
    Bytes,
    Seconds,
    Milliseconds,
}

impl Unit {
    /// For a number that is not known.
    fn unknown(self, what: &str) -> String {
        match self {
            Self::Count => format!("a number of {what}"),
            _ => format!("an amount {what}"),
        }
    }

    fn show(self, n: u64) -> String {
        match self {
            Self::Count => units::count(n),
            Self::Bytes => units::bytes(n),
            Self::Seconds => duration::text(Duration::from_secs(n)),
            Self::Milliseconds => duration::text(Duration::from_millis(n)),
        }
    }
}

/// The owner of the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A tenant's.
    Tenant(TenantId),
    /// A class of the tenant's queries.
    Class(Arc<str>),
    /// A backend's.
    Backend(Arc<str>),
    /// A rule's, by its name.
    Rule(Arc<str>),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(name) => write!(f, "tenant `{name}`"),
            Self::Class(name) => write!(f, "class `{name}`"),
            Self::Backend(name) => write!(f, "backend `{name}`"),
            Self::Rule(name) => write!(f, "rule `{name}`"),
        }
    }
}

/// Why a query may not run, or in shadow mode would not have been allowed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How the request fails.
    pub kind: ErrorKind,
    /// The limit.
    pub limit: LimitName,
    /// The demand of the query, in the unit of the limit.
    pub observed: Estimate,
    /// The most that is allowed.
    pub max: u64,
    /// The owner of the limit.
    pub scope: Scope,
    /// When to ask again; `None` when that would not help.
    pub retry_after: Option<Duration>,
    /// The reason for waiting, where the wait timed out.
    pub waiting_for: Option<Waited>,
}

/// A limit that was passed in shadow mode.
pub type ShadowHit = Refusal;

impl Refusal {
    /// One that asking again does not help.
    pub(crate) const fn exceeded(limit: LimitName, observed: Estimate, max: u64, scope: Scope) -> Self {
        let kind = ErrorKind::LimitExceeded;
        Self { kind, limit, observed, max, scope, retry_after: None, waiting_for: None }
    }

    /// A query that a rule is against.
    pub fn blocked(rule: Arc<str>) -> Self {
        Self::exceeded(LimitName::Blocked, Estimate::exact(1), 0, Scope::Rule(rule))
    }

    /// A query that waits and is not to run any more.
    pub fn killed(tenant: TenantId) -> Self {
        Self::exceeded(LimitName::Killed, Estimate::exact(1), 0, Scope::Tenant(tenant))
    }

    /// The stable id, such as `weir-max-series`.
    pub const fn id(&self) -> &'static str {
        self.limit.id()
    }

    /// The matching id that Grafana's alerting knows; only where asking again does not help.
    pub fn grafana_id(&self) -> Option<&'static str> {
        self.limit.grafana_id().filter(|_| self.kind == ErrorKind::LimitExceeded)
    }

    /// Which limit, the number against the limit, how it is known, whose limit it is, and the ids. The remedy is the
    /// caller's to add: it knows the query.
    pub fn message(&self) -> String {
        let ids = match self.grafana_id() {
            Some(grafana) => format!("({}, {grafana})", self.id()),
            None => format!("({})", self.id()),
        };
        format!("{} {ids}", self.sentence())
    }

    fn sentence(&self) -> String {
        let (what, unit, scope) = (self.limit.noun(), self.limit.unit(), &self.scope);
        let max = unit.show(self.max);
        let number = match unit {
            Unit::Bytes => units::bytes_over(self.observed.value, self.max),
            _ => unit.show(self.observed.value),
        };
        let seen = match (self.observed.value, self.observed.confidence) {
            (u64::MAX, class) => format!("{} that nobody has counted ({class})", unit.unknown(what)),
            (_, Confidence::Exact) => format!("{number} {what}"),
            (_, Confidence::AtLeast) => format!("at least {number} {what}"),
            (_, class) => format!("{number} {what} ({class})"),
        };
        match self.limit {
            LimitName::RateQueries | LimitName::RateSamples if self.kind == ErrorKind::LimitExceeded => {
                format!("the query needs {seen}, more than {scope} may ask for at once: {max}")
            }
            LimitName::RateQueries | LimitName::RateSamples => {
                format!("{scope} asks for more {what} than its rate allows: {max} at once")
            }
            LimitName::QuotaQueries | LimitName::QuotaSamples if self.kind == ErrorKind::LimitExceeded => {
                format!("the query needs {seen}, more than the whole quota of {scope}: {max}")
            }
            LimitName::QuotaQueries | LimitName::QuotaSamples if self.observed.value <= self.max => {
                format!("this proxy has no lease on the rest of the quota of {scope}: {max} {what}")
            }
            LimitName::QuotaQueries | LimitName::QuotaSamples => {
                format!("{scope} has used its quota of {max} {what}")
            }
            LimitName::QueueFull => format!("the queue of {scope} is full: {max} wait; ask again later"),
            LimitName::QueueTimeout => {
                let reason = self.waiting_for.map_or_else(|| "room".to_owned(), Waited::sentence);
                format!(
                    "timed out after {max} waiting for {scope}: {reason}; ask again later, or for less at once"
                )
            }
            LimitName::BudgetNever => {
                format!("the query needs {seen}, more than {scope} has for heavy queries: {max}")
            }
            LimitName::BackendSick => format!("{scope} is down; nothing is sent to it until it is back"),
            LimitName::ShuttingDown => format!("Weir is shutting down; the query still waited for {scope}"),
            LimitName::Blocked => format!("blocked by {scope}"),
            LimitName::Killed => "an operator stopped the query".to_owned(),
            LimitName::MaxResponse | LimitName::MaxTime => {
                format!("the query took {seen}; the limit of {scope} is {max}")
            }
            LimitName::InFlightQueries | LimitName::InFlightMemory => {
                format!("{seen}; the limit of {scope} is {max}")
            }
            _ => format!("the query needs {seen}; the limit of {scope} is {max}"),
        }
    }

    /// For the `Weir-Limit` header: `weir-max-series; max=5; observed=9; known=exact`.
    pub fn header(&self) -> String {
        let (id, max, seen) = (self.id(), self.max, self.observed);
        match seen.value {
            u64::MAX => format!("{id}; max={max}; observed=unknown; known={}", seen.confidence),
            value => format!("{id}; max={max}; observed={value}; known={}", seen.confidence),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::WaitReason;

    #[test]
    fn ids_are_stable_and_distinct() {
        let mut ids: Vec<_> = LimitName::ALL.iter().map(|limit| limit.id()).collect();
        assert!(ids.iter().all(|id| id.starts_with("weir-")));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), LimitName::ALL.len());
    }

    #[test]
    fn messages_read_well() {
        let tenant = Scope::Tenant(TenantId::new("a").unwrap());
        let refusal = |kind, limit, value, class, max, scope: &Scope| {
            let observed = Estimate::new(value, class);
            Refusal {
                kind,
                limit,
                observed,
                max,
                scope: scope.clone(),
                retry_after: None,
                waiting_for: (limit == LimitName::QueueTimeout)
                    .then_some(Waited { reason: WaitReason::Slots, first: None }),
            }
            .message()
        };
        let over = ErrorKind::LimitExceeded;
        let (exact, bound) = (Confidence::Exact, Confidence::UpperBound);
        let cases = [
            (
                refusal(over, LimitName::MaxSeries, 120_000, bound, 50_000, &tenant),
                "the query needs 120,000 series (upper_bound); the limit of tenant `a` is 50,000 \
                 (weir-max-series, err-mimir-max-series-per-query)",
            ),
            (
                refusal(over, LimitName::MaxRange, 3_456_000, exact, 2_678_400, &tenant),
                "the query needs 40d of data; the limit of tenant `a` is 31d (weir-max-range)",
            ),
            (
                refusal(over, LimitName::MaxMemory, u64::MAX, Confidence::Assumed, 1 << 30, &tenant),
                "the query needs an amount of backend memory that nobody has counted (assumed); the limit of tenant `a` is 1GiB \
                 (weir-max-memory, err-mimir-max-estimated-memory-consumption-per-query)",
            ),
            (
                refusal(over, LimitName::MaxMemory, (1 << 30) + 1, bound, 1 << 30, &tenant),
                "the query needs 1.01GiB of backend memory (upper_bound); the limit of tenant `a` is 1GiB \
                 (weir-max-memory, err-mimir-max-estimated-memory-consumption-per-query)",
            ),
            (
                refusal(over, LimitName::RateSamples, 9_000, bound, 5_000, &tenant),
                "the query needs 9,000 samples (upper_bound), more than tenant `a` may ask for at once: 5,000 \
                 (weir-rate-samples)",
            ),
            (
                refusal(ErrorKind::RateLimited, LimitName::RateQueries, 1, exact, 50, &tenant),
                "tenant `a` asks for more queries than its rate allows: 50 at once (weir-rate-queries)",
            ),
            (
                refusal(
                    over,
                    LimitName::BudgetNever,
                    8 << 30,
                    bound,
                    4 << 30,
                    &Scope::Backend("main".into()),
                ),
                "the query needs 8GiB of backend memory (upper_bound), more than backend `main` has for heavy \
                 queries: 4GiB (weir-budget-never, err-mimir-max-estimated-memory-consumption-per-query)",
            ),
            (
                refusal(ErrorKind::QueueTimeout, LimitName::QueueTimeout, 10_000, exact, 10_000, &tenant),
                "timed out after 10s waiting for tenant `a`: one of the slots for heavy queries; ask again later, \
                 or for less at once (weir-queue-timeout)",
            ),
        ];
        for (got, want) in cases {
            assert_eq!(got, want);
        }
    }
}
