//! Which active queries an operator means.

use serde::{Deserialize, Serialize};

use super::ActiveQuery;

/// Which queries an order is about: those that match all that is given.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// The number of one query.
    pub id: Option<u64>,
    /// The tenant that pays.
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

    pub(in crate::proxy) fn has(&self, query: &ActiveQuery) -> bool {
        let facts = &query.facts;
        let is = |wanted: &Option<String>, known: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| known == Some(wanted))
        };
        let is_fingerprint =
            |wanted: &String| facts.fingerprint.is_some_and(|known| known.to_string() == *wanted);
        self.id.is_none_or(|id| id == query.tag)
            && is(&self.tenant, Some(facts.owner.tenant.as_str()))
            && is(&self.dashboard, facts.owner.origin.dashboard.as_deref())
            && is(&self.user, facts.owner.origin.user.as_deref())
            && self.fingerprint.as_ref().is_none_or(is_fingerprint)
    }
}
