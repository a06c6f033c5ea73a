//! The limits as an operator writes them, and the overlay of one layer over another.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::{Count, Limit, Quota, Rate, Size, Span};

/// Limits on queries.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// For every tenant.
    pub default: TenantLimits,
    /// The differences for single tenants, or with `team-*` for all whose names begin with `team-`; of several, the
    /// most specific one applies, and over `default` alone.
    pub tenants: BTreeMap<String, TenantLimits>,
    /// `default` as it is written, without the built-in limits.
    #[serde(skip)]
    pub written: TenantLimits,
}

/// Whether limits are enforced.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refuse queries over a limit.
    Enforce,
    /// Count and log the refusal, and let the query run.
    Shadow,
    /// Do not look.
    Off,
}

/// The outcome of a selector that asks for none of the values that its tenant may read.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// It matches nothing.
    #[default]
    Empty,
    /// The query is refused with 403.
    Refuse,
}

/// A limit, by the name it has in this file.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of the limits")]
pub enum LimitKey {
    Series,
    Blocks,
    Samples,
    Points,
    Memory,
    Range,
    ListingRange,
    Steps,
    Selectors,
    Text,
    Nodes,
    Depth,
    Matchers,
    Regex,
    Response,
    Timeout,
    InFlightQueries,
    InFlightMemory,
    RateQueries,
    RateSamples,
    QuotaQueries,
    QuotaSamples,
}

/// Declares a struct of optional settings that can be laid over another of its kind.
macro_rules! layers {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ident $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[$field_doc])*
                #[serde(skip_serializing_if = "is_default")]
                pub $field: layers!(@type $kind $type),
            )*
        }

        impl $name {
            /// These settings, with those of `below` where nothing is written here.
            #[must_use]
            pub fn over(&self, below: &Self) -> Self {
                Self { $($field: layers!(@over $kind self.$field, below.$field),)* }
            }
        }
    )*};
    (@type leaf $type:ty) => { Option<$type> };
    (@type group $type:ty) => { $type };
    (@over leaf $upper:expr, $lower:expr) => { $upper.clone().or_else(|| $lower.clone()) };
    (@over group $upper:expr, $lower:expr) => { $upper.over(&$lower) };
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

layers! {
    /// The limits of one tenant; a key that is left out comes from `limits.default`, then from the built-in defaults.
    TenantLimits {
        /// Whether the limits are enforced.
        mode: leaf Mode,
        /// Limits with a mode of their own, such as `{series: shadow}`.
        modes: leaf BTreeMap<LimitKey, Mode>,
        /// Limits on one query.
        per_query: group PerQuery,
        /// The cost from which on a query goes to the slow lane, with a warning in its answer; with the mode of the
        /// limit of the same name.
        soft: group Soft,
        /// The budget of the tenant's queries in flight.
        in_flight: group InFlight,
        /// How queries wait for budget.
        queue: group Queue,
        /// The rates of the tenant. Of each, four seconds' worth may come at once.
        rate: group Rates,
        /// The quotas of the tenant, for each whole hour or day of the clock, in UTC. Beyond one, a tenth more runs in the slow
        /// lane; then queries are refused until the hour or day is over.
        quota: group Quotas,
        /// Labels that the tenant's queries are confined to, with their values: `{namespace: [a, b]}`. Every selector gets them as
        /// matchers; endpoints that answer about all series are closed.
        enforce: leaf BTreeMap<String, Vec<String>>,
        /// The outcome of a query with a selector that asks for none of those values.
        enforce_conflict: leaf OnConflict,
    }
    /// Limits on one query.
    PerQuery {
        /// Distinct series matched by the selectors.
        series: leaf Limit<Count>,
        /// Series × storage blocks overlapped.
        blocks: leaf Limit<Count>,
        /// Raw samples read, and a sixteenth for each point of each window of a subquery.
        samples: leaf Limit<Count>,
        /// Series × steps held while evaluating.
        points: leaf Limit<Count>,
        /// Bytes the backend is expected to hold.
        memory: leaf Limit<Size>,
        /// Time that a query spans: from its first to its last evaluation, or as far as one evaluation reaches back.
        range: leaf Limit<Span>,
        /// Time that a listing of series, names or values looks through.
        listing_range: leaf Limit<Span>,
        /// Evaluation steps.
        steps: leaf Limit<Count>,
        /// Vector selectors.
        selectors: leaf Limit<Count>,
        /// Bytes of the query's text. More than 4 MiB are never parsed, under any limit.
        text: leaf Limit<Size>,
        /// Operands and operators; more than 50,000 are never parsed.
        nodes: leaf Limit<Count>,
        /// Brackets within brackets; more than 128 are never parsed.
        depth: leaf Limit<Count>,
        /// Label matchers; more than 20,000 are never parsed.
        matchers: leaf Limit<Count>,
        /// Bytes of all regular expressions together; more than 4 MiB are never parsed.
        regex: leaf Limit<Size>,
        /// Bytes of the answer.
        response: leaf Limit<Size>,
        /// Time from admission to the last byte.
        timeout: leaf Limit<Span>,
    }
    /// The cost from which on a query goes to the slow lane (`backends[].budget.slow`).
    Soft {
        /// Distinct series matched by the selectors.
        series: leaf Limit<Count>,
        /// Series × storage blocks overlapped.
        blocks: leaf Limit<Count>,
        /// Raw samples read.
        samples: leaf Limit<Count>,
        /// Series × steps held while evaluating.
        points: leaf Limit<Count>,
        /// Bytes the backend is expected to hold.
        memory: leaf Limit<Size>,
        /// Time that a query spans.
        range: leaf Limit<Span>,
        /// Evaluation steps.
        steps: leaf Limit<Count>,
    }
    /// The budget of the tenant's queries in flight.
    InFlight {
        /// Queries.
        queries: leaf Limit<Count>,
        /// Estimated memory.
        memory: leaf Limit<Size>,
    }
    /// How queries wait for budget.
    Queue {
        /// Most queries waiting.
        length: leaf Count,
        /// Longest wait; keep it below the timeout of the clients.
        wait: leaf Span,
    }
    /// The quotas of the tenant.
    Quotas {
        /// Queries.
        queries: leaf Limit<Quota>,
        /// Samples read: as estimated, and once the answer says so, the actual number.
        samples: leaf Limit<Quota>,
    }
    /// The rates of the tenant.
    Rates {
        /// Queries.
        queries: leaf Limit<Rate>,
        /// Samples read.
        samples: leaf Limit<Rate>,
    }
}
