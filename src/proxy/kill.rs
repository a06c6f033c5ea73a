//! Stops queries on an operator's order, and says so on record.

use std::sync::Arc;

use super::{
    Kill, Proxy,
    log::{ActiveQuery, Author, audit},
};

/// Which queries an order is about: those that match all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The number of one query.
    pub id: Option<u64>,
    /// Who pays.
    pub tenant: Option<String>,
    /// The dashboard's UID.
    pub dashboard: Option<String>,
    /// The user of Grafana.
    pub user: Option<String>,
    /// The fingerprint, as it is shown.
    pub fingerprint: Option<String>,
}

impl Selection {
    /// Nothing is given, which is not meant for everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn has(&self, query: &ActiveQuery) -> bool {
        let facts = &query.facts;
        let is = |wanted: &Option<String>, known: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| known == Some(wanted))
        };
        let is_fingerprint =
            |wanted: &String| facts.fingerprint.is_some_and(|known| known.to_string() == *wanted);
        self.id.is_none_or(|id| id == query.tag)
            && is(&self.tenant, Some(facts.owner.tenant.as_str()))
            && is(&self.dashboard, facts.origin.dashboard.as_deref())
            && is(&self.user, facts.origin.user.as_deref())
            && self.fingerprint.as_ref().is_none_or(is_fingerprint)
    }
}

impl Proxy {
    /// Stops the active queries that match, waiting or running. Their clients get 422 `weir-killed` with who and why, or where
    /// the answer has begun, a connection that breaks off.
    pub(crate) fn kill(&self, which: &Selection, kill: Kill, by: &Author) -> Vec<Arc<ActiveQuery>> {
        let kill = Arc::new(kill);
        let killed = self.logs.active.kill(|query| which.has(query), &kill);
        audit::killed(by, which, &kill.reason, &killed);
        killed
    }
}
