//! The cost of a query: numbers, each with its confidence.
//!
//! `cost` produces a [`QueryCost`], `limit` charges it; neither knows the other.

use std::fmt;

/// How a number is known. Ordered from the best knowledge to the worst, so that `max` of two is that
/// of a number computed from both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// Counted by the backend for this selector and window, or a matter of arithmetic.
    Exact,
    /// The truth cannot be larger (label tables, limits of the grammar).
    UpperBound,
    /// Observed on earlier runs of the same query.
    Learned,
    /// Counting stopped here, over a limit: the truth is this or larger.
    AtLeast,
    /// Nothing is known; the configured assumption.
    Assumed,
}

impl Confidence {
    /// The word shown beside the number: `exact`, `upper_bound`, `learned`, `at_least`, `assumed`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::UpperBound => "upper_bound",
            Self::Learned => "learned",
            Self::AtLeast => "at_least",
            Self::Assumed => "assumed",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A number together with how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The number; its unit is that of the field that holds it.
    pub value: u64,
    /// How it is known.
    pub confidence: Confidence,
}

impl Estimate {
    /// A number known in this way.
    pub const fn new(value: u64, confidence: Confidence) -> Self {
        Self { value, confidence }
    }

    /// A number that is a matter of arithmetic or was counted.
    pub const fn exact(value: u64) -> Self {
        Self::new(value, Confidence::Exact)
    }

    /// Nobody looked, since the query is refused for any number.
    pub const UNPRICED: Self = Self::new(0, Confidence::Assumed);

    /// The number; `None` where nobody counted, which is `u64::MAX` or [`Self::UNPRICED`] inside.
    pub fn known(self) -> Option<u64> {
        (self.value < u64::MAX && self != Self::UNPRICED).then_some(self.value)
    }

    /// The sum, known as well as its worse part; saturates.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::new(self.value.saturating_add(other.value), self.confidence.max(other.confidence))
    }

    /// The product with an exact factor; saturates.
    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        Self::new(self.value.saturating_mul(factor), self.confidence)
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", super::units::count(self.value), self.confidence)
    }
}

/// The sizes of label sets: of some series, or of those that a backend lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelSize {
    /// Bytes of one set's names and values on average.
    pub set: u64,
    /// Bytes of the longest value.
    pub longest: u64,
}

/// The size of a query's own text and tree: the cost of parsing and planning it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextSize {
    /// Bytes of text.
    pub bytes: u64,
    /// Nodes of the syntax tree.
    pub nodes: u64,
    /// Brackets within brackets.
    pub depth: u64,
    /// Label matchers of all selectors together.
    pub matchers: u64,
    /// Bytes of all regular expressions together.
    pub regex_bytes: u64,
}

impl TextSize {
    /// Both together, as two selectors of one listing are.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            nodes: self.nodes.saturating_add(other.nodes),
            depth: self.depth.max(other.depth),
            matchers: self.matchers.saturating_add(other.matchers),
            regex_bytes: self.regex_bytes.saturating_add(other.regex_bytes),
        }
    }
}

/// The cost of one query, summed over its selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryCost {
    /// Distinct series that the selectors match in their windows.
    pub series: Estimate,
    /// Series × storage blocks overlapped by the window.
    pub blocks: Estimate,
    /// Raw samples read, each counted once, and the work on windows of subqueries in samples that take as long.
    pub samples: Estimate,
    /// Series × steps held while evaluating.
    pub points: Estimate,
    /// Bytes that the backend is expected to hold for the query at once.
    pub memory: Estimate,
    /// Seconds that a query spans, see [`Shape::range_seconds`](crate::promql::shape::Shape::range_seconds); 0 for a
    /// listing.
    pub range_seconds: u64,
    /// Seconds that a listing of series, names or values looks through; 0 for a query.
    pub listing_seconds: u64,
    /// Evaluation steps (1 for an instant query).
    pub steps: u64,
    /// Number of vector selectors.
    pub selectors: u64,
    /// How large its text is.
    pub text: TextSize,
}

impl QueryCost {
    /// How the least known of series, samples and memory is known.
    pub fn confidence(&self) -> Confidence {
        self.series.confidence.max(self.samples.confidence).max(self.memory.confidence)
    }

    /// A query that touches no series (`1+1`).
    pub const NOTHING: Self = Self {
        series: Estimate::exact(0),
        blocks: Estimate::exact(0),
        samples: Estimate::exact(0),
        points: Estimate::exact(0),
        memory: Estimate::exact(0),
        range_seconds: 0,
        listing_seconds: 0,
        steps: 1,
        selectors: 0,
        text: TextSize { bytes: 0, nodes: 0, depth: 0, matchers: 0, regex_bytes: 0 },
    };
}
