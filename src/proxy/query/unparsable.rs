//! Queries that are not PromQL.

/// The treatment of a query that Weir cannot parse: it may be a dialect that the backend knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnparsable {
    /// Weigh it by the selectors found in its text.
    EstimateFromText,
    /// Let it run as if nothing were known of it.
    Forward,
    /// Weigh a call of a function that is not known by its arguments; refuse everything else.
    UnknownFunctions,
    /// Refuse it with the parse error.
    Refuse,
}
