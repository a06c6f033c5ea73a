//! The acts of operators, on record: one line of target `weir::audit` for each, at a level that no usual filter hides.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use super::{ActiveQuery, Selection};
use crate::rules::Rule;

/// Queries that a line names.
const NAMED_MAX: usize = 20;

/// The operator who acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The holder of the token, and the name in the request; empty where neither is known.
    pub name: String,
    /// Where the request came from; `None` for an act of Weir itself.
    pub peer: Option<SocketAddr>,
}

impl Author {
    /// One who gave the order to another proxy of the fleet.
    pub(crate) fn elsewhere(name: &str) -> Self {
        let name = if name.is_empty() { "an operator" } else { name };
        Self { name: format!("{name}, at another proxy"), peer: None }
    }
}

/// A rule was set or taken away.
pub(crate) fn rule(action: &'static str, rule: &Rule, by: &Author) {
    // A reader of the line asks next for the queries that the rule matches.
    let matches = serde_json::to_string(&rule.spec.matches).unwrap_or_default();
    tracing::warn!(
        target: "weir::audit", action, by = &*by.name, client = by.peer.map(tracing::field::display), rule = rule.name(),
        rule_action = rule.action.as_str(), reason = &*rule.spec.reason, owner = &*rule.spec.owner,
        expires = rule.spec.expires.as_deref(), matches, "an operator changed the rules"
    );
}

/// Queries were stopped.
pub(crate) fn killed(by: &Author, which: &Selection, reason: &str, killed: &[Arc<ActiveQuery>]) {
    let mut ids = String::new();
    for query in killed.iter().take(NAMED_MAX) {
        let separator = if ids.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(ids, "{separator}{}", query.tag);
    }
    tracing::warn!(
        target: "weir::audit", action = "kill", by = &*by.name, client = by.peer.map(tracing::field::display), reason,
        id = which.id, tenant = which.tenant.as_deref(), dashboard = which.dashboard.as_deref(),
        user = which.user.as_deref(), fingerprint = which.fingerprint.as_deref(), killed = killed.len(), ids,
        "an operator stopped queries"
    );
}
