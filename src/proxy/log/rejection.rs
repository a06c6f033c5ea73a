//! Queries that were refused, that failed, or that a limit in shadow mode would have refused.

use serde::Serialize;

use super::Origin;

/// Why a query got no answer, or would have got none.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Rejection<'a> {
    pub reason: &'static str,
    pub status: u16,
    pub message: &'a str,
    /// It was admitted nevertheless: the limit is in shadow mode.
    pub shadow: bool,
}

/// A query that was refused, failed, or would have been refused.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// When it happened last.
    pub at_ms: i64,
    /// How often of late: the same tenant, query and reason.
    pub times: u64,
    /// The tenant that pays.
    pub tenant: String,
    /// The actor inside the tenant.
    pub actor: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// The id of the limit, or the kind of the failure.
    pub reason: &'static str,
    /// It was admitted nevertheless: the limit is only watched.
    pub shadow: bool,
    /// The status that the client got.
    pub status: u16,
    /// The message to the client, cut.
    pub message: String,
    /// The same for queries that differ in their numbers only.
    pub fingerprint: String,
    /// The text of the query, cut.
    pub text: String,
}
