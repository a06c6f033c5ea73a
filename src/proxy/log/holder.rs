//! Whose queries hold the memory that a refused query waited for, in a sentence for its client.

use std::collections::BTreeMap;

use super::{ActiveQuery, QueryLog};
use crate::base::{TenantId, units};

/// Queries of one dashboard, user or tenant.
#[derive(Default)]
struct Held {
    queries: u64,
    bytes: u64,
}

impl QueryLog {
    /// Whose queries hold the most memory at the backend of this query; of other tenants no more than that it is theirs.
    pub(in crate::proxy) fn holder(&self) -> Option<String> {
        let owner = self.owner.as_ref()?;
        let active = self.logs.active.list();
        sentence(active.iter().map(AsRef::as_ref), &owner.tenant, &owner.backend)
    }
}

fn sentence<'a>(
    active: impl Iterator<Item = &'a ActiveQuery>,
    asker: &TenantId,
    backend: &str,
) -> Option<String> {
    let mut held = BTreeMap::<String, Held>::new();
    let runs = |query: &&ActiveQuery| {
        *query.facts.owner.backend == *backend && query.waited().is_some() && !query.is_uncounted()
    };
    for query in active.filter(runs) {
        let of = held.entry(name(query, asker)).or_default();
        of.queries += 1;
        // Of one of which nothing is known the sum says nothing.
        let known = Some(query.memory()).filter(|memory| *memory < u64::MAX);
        of.bytes = of.bytes.saturating_add(known.unwrap_or(0));
    }
    let (name, Held { queries, bytes }) = held.into_iter().max_by_key(|(_, held)| held.bytes)?;
    let queries =
        if queries == 1 { "1 query".to_owned() } else { format!("{} queries", units::count(queries)) };
    Some(format!("Its memory is held above all by {queries} of {name} ({})", units::bytes(bytes)))
}

fn name(query: &ActiveQuery, asker: &TenantId) -> String {
    let owner = &query.facts.owner;
    if owner.tenant != *asker {
        return "other tenants".to_owned();
    }
    owner.origin.name().unwrap_or_else(|| format!("tenant `{asker}`"))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::Instant;

    use super::*;
    use crate::{
        base::{Estimate, QueryCost},
        proxy::{
            log::{
                ActiveQueries, Origin, Owner,
                active::{Facts, PricedRequest},
            },
            route::Endpoint,
        },
    };

    #[test]
    fn the_largest_holder_is_named_and_other_tenants_are_not() {
        let queries = ActiveQueries::new(0, || 0);
        let tenant = |name: &str| TenantId::new(name).unwrap();
        let run = |of: &str, dashboard: Option<&str>, bytes| {
            let origin = Origin { dashboard: dashboard.map(Into::into), ..Origin::default() };
            let [actor, class, backend] = ["panel", "adhoc", "main"].map(Into::into);
            let owner = Arc::new(Owner { tenant: tenant(of), actor, class, backend, origin });
            let (endpoint, query, began) = (Endpoint::Query, Some("up".into()), Instant::now());
            let facts =
                Facts { owner, endpoint, fingerprint: None, query, enforced: false, times: None, began };
            let mut guard = queries.enter(facts);
            let cost = QueryCost { memory: Estimate::exact(bytes), ..QueryCost::NOTHING };
            guard.queued(PricedRequest { cost, parts: 1, at: began });
            guard
        };
        let said = |asker| {
            sentence(queries.list().iter().map(AsRef::as_ref), &tenant(asker), "main").unwrap_or_default()
        };
        let running =
            [run("a", Some("abc"), 3 << 30), run("a", Some("abc"), 1 << 30), run("b", None, 1 << 30)];
        assert_eq!(said("a"), "", "none runs yet");
        for guard in &running {
            guard.admitted(Duration::ZERO);
        }
        let _waits = run("b", None, 9 << 30);
        assert_eq!(said("a"), "Its memory is held above all by 2 queries of dashboard abc (4GiB)");
        assert_eq!(said("b"), "Its memory is held above all by 2 queries of other tenants (4GiB)");
    }
}
