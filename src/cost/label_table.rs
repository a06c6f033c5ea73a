//! The backend's own table of series by metric name and by label value, as an upper bound for selectors.
//!
//! One small request a minute (`/api/v1/status/tsdb`) clears the ordinary dashboard query without a probe. A selector
//! matches at most as many series as the rarest of its `name="value"` pairs.

use std::{collections::HashMap, fmt};

use serde::Deserialize;

use crate::{
    base::{Confidence, Estimate, LabelSize, TimeRange},
    promql::{
        ast::{MatchOp, Matcher},
        go_regex::literals,
    },
    series::METRIC_NAME,
};

/// A table older than this bounds nothing: new series come without asking. Milliseconds.
pub const MAX_AGE_MS: i64 = 300_000;

const DAY_MS: i64 = 86_400_000;
/// Lists are this long when a backend goes by its own default or ceiling instead of the limit it was asked for
/// (Prometheus before 2.45 and VictoriaMetrics: 10; their ceilings: 10,000 and 1,000). Such a list may be cut off.
const OWN_LIMITS: [usize; 3] = [10, 1_000, 10_000];

/// Values longer than this on average are long, bytes.
const LONG_BYTES: u64 = 64;
/// The names and values of a usual label set, bytes.
pub(super) const USUAL_SET_BYTES: u64 = 200;

/// Why a body is no label table.
#[derive(Debug)]
pub enum TableError {
    /// Not the JSON of `status/tsdb`.
    Malformed(serde_json::Error),
    /// The backend answered with an error, or with part of its data.
    Incomplete,
    /// It counts no series: a head that is just starting, or a Thanos querier whose stores keep no such table. That is
    /// not to say that there are none.
    Empty,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "malformed status/tsdb: {error}"),
            Self::Incomplete => f.write_str("status/tsdb answered with an error or with partial data"),
            Self::Empty => f.write_str("status/tsdb counts no series"),
        }
    }
}

impl std::error::Error for TableError {}

/// Series by metric name and label value, of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelTable {
    total: Option<u64>,
    names: Counts,
    /// Keyed `name=value`.
    pairs: Counts,
    /// Values by label name.
    values: Counts,
    /// The labels whose values are long, by name.
    texts: HashMap<Box<str>, LabelText, foldhash::fast::RandomState>,
    /// Windows inside hold no series that the table does not count.
    covers: TimeRange,
    /// It may leave out series of any time: it guesses and never bounds.
    partial: bool,
    fetched_ms: i64,
    /// A table of more of the time, for windows that this one does not cover.
    wider: Option<Box<Self>>,
}

/// The values of a label.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LabelText {
    /// Bytes of one value on average.
    mean: u64,
    /// Series that have the label: as many as it has values, or as the listed ones of these have.
    series: u64,
}

/// A list of the largest counts.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counts {
    listed: HashMap<Box<str>, u64, foldhash::fast::RandomState>,
    /// The most series of an unlisted key; `None` is unknown.
    unlisted: Option<u64>,
}

#[derive(Deserialize)]
struct Body {
    status: String,
    #[serde(default, rename = "isPartial")]
    partial: bool,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    head_stats: Option<HeadStats>,
    total_series: Option<u64>,
    series_count_by_metric_name: Option<Vec<Entry>>,
    series_count_by_label_value_pair: Option<Vec<Entry>>,
    label_value_count_by_label_name: Option<Vec<Entry>>,
    memory_in_bytes_by_label_name: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadStats {
    num_series: u64,
    min_time: i64,
}

#[derive(Deserialize)]
struct Entry {
    name: Box<str>,
    value: u64,
}

impl LabelTable {
    /// Reads the body of `/api/v1/status/tsdb`. `max_entries` is the limit that was asked for, and the most entries
    /// kept of each list.
    ///
    /// Prometheus' table covers the time of its head; VictoriaMetrics' covers the day of `fetched_ms` (UTC) unless
    /// [`covering`](Self::covering) names another.
    pub fn from_tsdb_status(json: &[u8], fetched_ms: i64, max_entries: usize) -> Result<Self, TableError> {
        let body: Body = serde_json::from_slice(json).map_err(TableError::Malformed)?;
        let data = body.data.filter(|_| body.status == "success" && !body.partial);
        let data = data.ok_or(TableError::Incomplete)?;
        let start = match &data.head_stats {
            // An empty head has a minimum time of i64::MAX and covers nothing.
            Some(head) => head.min_time,
            None => fetched_ms.div_euclid(DAY_MS).saturating_mul(DAY_MS),
        };
        let total = data.head_stats.map(|h| h.num_series).or(data.total_series);
        if total == Some(0) {
            return Err(TableError::Empty);
        }
        let memory = Counts::of(data.memory_in_bytes_by_label_name, max_entries, None);
        let pairs = Counts::of(data.series_count_by_label_value_pair, max_entries, None);
        let values = Counts::of(data.label_value_count_by_label_name, max_entries, None);
        Ok(Self {
            total,
            names: Counts::of(data.series_count_by_metric_name, max_entries, total),
            texts: texts(&memory, &values, &pairs, total.unwrap_or(u64::MAX)),
            pairs,
            values,
            covers: TimeRange { start, end: fetched_ms.saturating_add(MAX_AGE_MS) },
            partial: false,
            fetched_ms,
            wider: None,
        })
    }

    /// The same table, of a backend that merges sources of which some keep no table (Thanos' store gateways): it
    /// guesses, and bounds nothing.
    #[must_use]
    pub fn partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// The same table, known to count every series from `start` on (VictoriaMetrics' `date=0`, or a date of the past).
    #[must_use]
    pub fn covering(mut self, start: i64) -> Self {
        self.covers.start = start;
        self
    }

    /// The same table, with another one for windows that it does not cover.
    #[must_use]
    pub fn or(mut self, wider: Self) -> Self {
        self.wider = Some(Box::new(wider));
        self
    }

    /// When it was fetched, milliseconds since the epoch.
    pub const fn fetched_ms(&self) -> i64 {
        self.fetched_ms
    }

    /// At most how many series the matchers match in the window; `None` when the table says nothing about that
    /// window, or about any of the matchers.
    pub fn bound(&self, matchers: &[Matcher], window: TimeRange) -> Option<Estimate> {
        if self.partial {
            return None;
        }
        if window.start < self.covers.start || window.end > self.covers.end {
            return self.wider.as_ref()?.bound(matchers, window);
        }
        let least = self.least(matchers)?;
        // A name that is not listed may have come since: a dashboard is opened before its targets exist.
        let is_listed = least > 0 || window.end <= self.fetched_ms;
        is_listed.then_some(Estimate::new(least, Confidence::UpperBound))
    }

    /// At most how many values a label has among the series of the table, or any label where this one has no name; `None`
    /// when it says nothing of labels.
    pub fn values(&self, label: &str) -> Option<u64> {
        if label.is_empty() {
            return self.values.listed.values().copied().max();
        }
        self.values.get(label)
    }

    /// Whether it says how long the values of labels are.
    pub fn has_lengths(&self) -> bool {
        !self.texts.is_empty()
    }

    /// Bytes of one of the label's values on average, or of the longest where it has no name; `None` when it says nothing
    /// of that label.
    pub fn value_bytes(&self, label: &str) -> Option<u64> {
        if label.is_empty() {
            return self.texts.values().map(|text| text.mean).max();
        }
        self.texts.get(label).map(|text| text.mean)
    }

    /// At most how large the label sets of this number of series are, beyond those of a usual size: the labels with long
    /// values may all be theirs. The longest value of each is taken for an average one.
    pub fn label_size(&self, series: u64) -> LabelSize {
        let long = || self.texts.values().filter(|text| text.mean > LONG_BYTES);
        let all = long().map(|text| text.mean.saturating_mul(text.series.min(series)));
        let set = all.fold(0, u64::saturating_add).checked_div(series).unwrap_or(0);
        let longest = long().map(|text| text.mean).max().unwrap_or(LONG_BYTES);
        LabelSize { set: set.saturating_add(USUAL_SET_BYTES), longest }
    }

    /// Whether a label is known to exist.
    pub fn has(&self, label: &str) -> bool {
        self.values.listed.contains_key(label)
    }

    /// The result of [`bound`](Self::bound) if the table covered all of time: a guess for windows that it does not
    /// cover, where more series may have lived.
    pub fn guess(&self, matchers: &[Matcher]) -> Option<u64> {
        self.least(matchers)
    }

    /// The most series that the matchers match in a window that began before the table's time, when this number of
    /// series left the table since: observed, as far as all series were in the table once.
    pub fn observed(&self, matchers: &[Matcher], window: TimeRange, gone: u64) -> Option<Estimate> {
        let in_table = self.guess(matchers).filter(|_| !self.partial && window.end <= self.covers.end)?;
        Some(Estimate::new(in_table.saturating_add(gone), Confidence::Learned))
    }

    /// The least that one of the matchers, or the total, says.
    fn least(&self, matchers: &[Matcher]) -> Option<u64> {
        let of_matchers = matchers.iter().filter_map(|m| self.of_matcher(m)).min();
        [of_matchers, self.total].into_iter().flatten().min()
    }

    fn of_matcher(&self, matcher: &Matcher) -> Option<u64> {
        match matcher.op {
            // `label=""` also matches series without the label.
            MatchOp::Equal => {
                (!matcher.value.is_empty()).then(|| self.of_pair(&matcher.name, &matcher.value))?
            }
            MatchOp::Regex => {
                let mut values: Vec<String> = literals(&matcher.value)?.collect();
                values.sort_unstable();
                values.dedup();
                if values.iter().any(String::is_empty) {
                    return None;
                }
                let mut each = values.iter().map(|value| self.of_pair(&matcher.name, value));
                each.try_fold(0u64, |sum, one| Some(sum.saturating_add(one?)))
            }
            MatchOp::NotEqual | MatchOp::NotRegex => None,
        }
    }

    fn of_pair(&self, name: &str, value: &str) -> Option<u64> {
        let pair = [name, "=", value].concat();
        if name != METRIC_NAME {
            return self.pairs.get(&pair);
        }
        // Not every backend lists names among the pairs: only a listed one says something.
        let (by_name, by_pair) = (self.names.get(value), self.pairs.listed.get(pair.as_str()).copied());
        [by_name, by_pair].into_iter().flatten().min()
    }
}

/// The bytes of values, by the table. Older versions of Prometheus count a value once, newer ones with
/// its name for each series that has it. Nearly every series has a name, so the bytes of names say which.
fn texts(
    memory: &Counts,
    values: &Counts,
    pairs: &Counts,
    total: u64,
) -> HashMap<Box<str>, LabelText, foldhash::fast::RandomState> {
    let of_names = memory.listed.get(METRIC_NAME).copied().unwrap_or(0);
    let for_each_series = of_names >= total.saturating_mul(METRIC_NAME.len() as u64 + 1);
    let mut listed: HashMap<&str, u64> = HashMap::new();
    for (pair, series) in &pairs.listed {
        let label = pair.split_once('=').map_or("", |(label, _)| label);
        *listed.entry(label).or_default() += series;
    }
    let text = |label: &str, bytes: u64| {
        let distinct = values.listed.get(label).copied()?.max(1);
        let series = listed.get(label).copied().unwrap_or(0).max(distinct);
        let one = if for_each_series {
            LabelText { mean: (bytes / series).saturating_sub(label.len() as u64), series }
        } else {
            LabelText { mean: bytes / distinct, series }
        };
        Some((label.into(), one))
    };
    memory.listed.iter().filter_map(|(label, bytes)| text(label, *bytes)).collect()
}

impl Counts {
    fn of(entries: Option<Vec<Entry>>, max_entries: usize, total: Option<u64>) -> Self {
        let Some(mut entries) = entries else { return Self::default() };
        let sum = entries.iter().fold(0u64, |sum, e| sum.saturating_add(e.value));
        let own_limit = OWN_LIMITS.contains(&entries.len()) && total.is_none_or(|total| sum < total);
        let complete = entries.len() < max_entries && !own_limit;
        // Sorted here: the order of the wire is nobody's promise, and the cut must take the smallest.
        entries.sort_by_key(|e| std::cmp::Reverse(e.value));
        entries.truncate(max_entries);
        // An empty list is one that the backend does not make: nothing can be concluded from it.
        let smallest = entries.last().map(|e| e.value);
        let unlisted = smallest.map(|n| if complete { 0 } else { n });
        Self { listed: entries.into_iter().map(|e| (e.name, e.value)).collect(), unlisted }
    }

    fn get(&self, key: &str) -> Option<u64> {
        self.listed.get(key).copied().or(self.unlisted)
    }
}
