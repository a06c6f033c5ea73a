//! One query, as it is remembered.

use std::{fmt, net::IpAddr, ops::Deref, sync::Arc};

use smallvec::SmallVec;

use crate::{
    base::{Estimate, QueryCost, time::EvalTimes},
    cost::{Model, SampleType, SelectorEstimate, SeriesKnowledge, Source},
    promql::Fingerprint,
    top::Observation,
};

/// A text that is shared, owned or part of the program; empty where it is not known.
#[derive(Clone)]
#[allow(missing_docs, reason = "the three ways to hold a text")]
pub enum Text {
    Static(&'static str),
    Shared(Arc<str>),
    Owned(Box<str>),
}

impl Text {
    /// `None` where it is not known.
    pub fn known(&self) -> Option<&str> {
        (!self.is_empty()).then_some(&**self)
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::Static("")
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self::Shared(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Owned(text.into())
    }
}

impl From<Option<Box<str>>> for Text {
    fn from(text: Option<Box<str>>) -> Self {
        text.map_or_else(Self::default, Self::Owned)
    }
}

/// A query from its arrival to its end. A text that is empty and a number that is `None` are not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// When it came, milliseconds since the epoch.
    pub at_ms: i64,
    /// From its arrival to its last byte, milliseconds.
    pub took_ms: Option<u64>,
    /// How long it waited for budget, milliseconds.
    pub wait_ms: Option<u64>,
    /// The tenant that pays.
    pub tenant: Text,
    /// The actor inside the tenant, such as `dashboard:abc`.
    pub actor: Text,
    /// Name of the class.
    pub class: Text,
    /// Name of the backend.
    pub backend: Text,
    /// The endpoint: `query`, `query_range`, `series`, `labels`, `label_values`, `read`.
    pub endpoint: Text,
    /// Grafana's user.
    pub user: Text,
    /// Grafana's dashboard, by its uid.
    pub dashboard: Text,
    /// Grafana's panel, by its id.
    pub panel: Text,
    /// The recording or alerting rule.
    pub rule: Text,
    /// The client's program.
    pub user_agent: Text,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The query; empty where texts are not kept.
    pub query: Text,
    /// `query` is only the beginning of it.
    pub query_is_cut: bool,
    /// The same for the same query with other times and constants.
    pub fingerprint: Option<Fingerprint>,
    /// Start, end and step.
    pub times: Option<EvalTimes>,
    /// Its expected cost.
    pub priced: Option<Priced>,
    /// `admitted`, `free`, or the id of the limit or rule that refused it.
    pub verdict: Text,
    /// The limit that stopped its answer.
    pub limit: Text,
    /// The limits in shadow mode that it passed, separated by commas.
    pub shadowed: Text,
    /// `complete`, `passed`, `refused`, `cut_off`, `failed`, `dropped`, `late`.
    pub outcome: Text,
    /// The status that the client saw; `None` if it saw none.
    pub status: Option<u16>,
    /// Its actual cost.
    pub actual: Actual,
}

impl Record {
    /// It was answered in full: a change of limits must not refuse it unnoticed.
    pub fn ran(&self) -> bool {
        matches!(&*self.outcome, "complete" | "passed") && self.status.is_none_or(|status| status < 400)
    }

    /// As it is ranked. A query that is malformed, or that its client left before it ran, neither ran nor was refused.
    pub(super) fn observation(&self) -> Observation<'_> {
        let cost = self.priced.as_ref().map(|priced| &priced.cost);
        let is_refused = &*self.outcome == "refused" && self.verdict.starts_with("weir-");
        Observation {
            at_ms: self.at_ms,
            took_ms: self.took_ms.unwrap_or(0),
            wait_ms: self.wait_ms.unwrap_or(0),
            tenant: &self.tenant,
            dashboard: &self.dashboard,
            panel: &self.panel,
            user: &self.user,
            rule: &self.rule,
            client: self.client,
            fingerprint: self.fingerprint,
            query: &self.query,
            ran: matches!(&*self.verdict, "admitted" | "free"),
            refused: is_refused || !self.limit.is_empty(),
            shadow_refused: !self.shadowed.is_empty(),
            memory: cost.map(|cost| cost.memory.value),
            series: cost.map(|cost| cost.series.value),
            samples: cost.map(|cost| cost.samples.value),
            series_read: self.actual.series_read,
            samples_read: self.actual.samples_read,
            answer_bytes: self.actual.answer_bytes,
        }
    }
}

/// The expected cost of a query, and all inputs of the estimate but its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Priced {
    /// The expected cost.
    pub cost: QueryCost,
    /// Requests that it was asked for in.
    pub parts: u64,
    /// Bytes that it would have held as a whole.
    pub whole_memory: Estimate,
    /// The series of each selector, in the order of the query.
    pub counts: SmallVec<[SelectorCount; 2]>,
    /// The price model.
    pub basis: Basis,
}

/// The inputs of a query's price beside its text and its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The backend's formulas.
    pub model: Model,
    /// Bytes above which the query is split.
    pub split_above: Option<u64>,
    /// Whether it may be split.
    pub split_mode: SplitMode,
    /// How far back an instant looks for a sample, milliseconds.
    pub lookback_ms: u64,
}

/// The series of one selector, and how that number came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectorCount {
    /// How many.
    pub series: Estimate,
    /// From where.
    pub source: Source,
    /// The types of their samples.
    pub sample_type: SampleType,
}

impl From<&SelectorEstimate> for SelectorCount {
    fn from(of: &SelectorEstimate) -> Self {
        let SelectorEstimate { series, source, sample_type, .. } = *of;
        Self { series, source, sample_type }
    }
}

impl SelectorCount {
    /// As the estimator takes it.
    pub const fn known(self) -> SeriesKnowledge {
        SeriesKnowledge {
            series: self.series,
            source: self.source,
            samples: self.sample_type,
            labels: None,
            values: None,
        }
    }
}

/// Whether a query may be split by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SplitMode {
    /// A part of the time may not give a part of the answer.
    #[default]
    No,
    /// A part of the time gives a part of the answer.
    Yes,
    /// The same, and all replicas are asked for (`dedup=false`).
    AllReplicas,
}

/// The actual cost of a query, as far as it was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Series in the answer.
    pub answer_series: Option<u64>,
    /// Samples in the answer.
    pub answer_samples: Option<u64>,
    /// Bytes of the answer, decompressed.
    pub answer_bytes: Option<u64>,
    /// Series that were read.
    pub series_read: Option<u64>,
    /// Samples that were read.
    pub samples_read: Option<u64>,
}
