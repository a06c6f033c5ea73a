//! Limits against each other and against budgets. None of it is a mistake: a budget may be lowered for an hour, and the
//! limits below it left as they are.

use std::fmt;

use super::{
    cross::{Checker, Place},
    enforce,
    raw::{Backend, Raw, TenantLimits},
    scalar::Limit,
};

impl Checker<'_> {
    /// Checks the budget of a backend against its memory and the limit on one query.
    pub(super) fn budget(&mut self, raw: &Raw, place: &Place<'_>, backend: &Backend) {
        let (memory_at, limit_at) =
            (place.key("budget").key("memory"), place.key("pressure").key("memory_limit"));
        let budget = &backend.budget.memory;
        if let Some(limit) = backend.pressure.memory_limit.at().filter(|limit| limit.0 < budget.0)
            && limit_at.node.is_some()
        {
            self.warn(
                &limit_at,
                format!("{limit} in all is less than `budget.memory` ({budget}) for queries alone"),
            );
        }
        // A limit that is written has a warning of its own.
        let one = raw.limits.default.per_query.memory.and_then(Limit::at);
        let one = one.filter(|one| raw.limits.written.per_query.memory.is_none() && one.0 > budget.0);
        if let Some(one) = one.filter(|_| memory_at.node.is_some()) {
            let text = format!(
                "{budget} is less than one query may need (`limits.default.per_query.memory`, {one})"
            );
            self.warn(&memory_at, text);
        }
    }

    /// Checks the limits of a tenant that may use `backends`; a doubt is reported only for keys that the file has.
    pub(super) fn tenant<'b>(
        &mut self,
        backends: impl IntoIterator<Item = &'b Backend> + Clone,
        place: &Place<'_>,
        written: &TenantLimits,
        applies: &TenantLimits,
    ) {
        if let Some((label, why)) = enforce::mistake(written) {
            self.refuse(&place.key("enforce").key(label), why);
        }
        // Unlimited is fine, and so is a default that nobody wrote: the budget of the backend still holds.
        let queries = written.in_flight.queries.and_then(Limit::at);
        if let Some(widest) = backends.clone().into_iter().max_by_key(|backend| backend.budget.queries.0)
            && let Some(queries) = queries.filter(|queries| queries.0 > widest.budget.queries.0)
        {
            let text = above_budget(&queries, &widest.name, &widest.budget.queries);
            self.doubt(place, "in_flight", "queries", text);
        }
        let widest = backends.into_iter().max_by_key(|backend| backend.budget.memory.0);
        for (group, limit) in
            [("in_flight", written.in_flight.memory), ("per_query", written.per_query.memory)]
        {
            if let (Some(widest), Some(memory)) = (widest, limit.and_then(Limit::at))
                && memory.0 > widest.budget.memory.0
            {
                self.doubt(
                    place,
                    group,
                    "memory",
                    above_budget(&memory, &widest.name, &widest.budget.memory),
                );
            }
        }
        let one = applies.per_query.memory.and_then(Limit::at);
        let all = applies.in_flight.memory.and_then(Limit::at);
        let is_written = written.per_query.memory.is_some() || written.in_flight.memory.is_some();
        if let (true, Some(one), Some(all)) = (is_written, one, all)
            && one.0 > all.0
        {
            let text = format!("{one} for one query is above the {all} for all queries in flight");
            self.warn(&place.key("per_query").key("memory"), text);
        }
        let (wait, timeout) = (applies.queue.wait, applies.per_query.timeout.and_then(Limit::at));
        if let (Some(wait), Some(timeout)) = (wait, timeout)
            && wait > timeout
        {
            let text = format!("{wait} is longer than a query may take (`per_query.timeout`, {timeout})");
            self.doubt(place, "queue", "wait", text);
        }
        self.soft(place, written, applies);
    }

    /// A soft limit at or above the limit of the same name never applies.
    fn soft(&mut self, place: &Place<'_>, written: &TenantLimits, applies: &TenantLimits) {
        macro_rules! check {
            ($($key:ident)*) => {$(
                let (soft, hard) = (applies.soft.$key.and_then(Limit::at), applies.per_query.$key.and_then(Limit::at));
                let is_written = written.soft.$key.is_some() || written.per_query.$key.is_some();
                if let (true, Some(soft), Some(hard)) = (is_written, soft, hard)
                    && soft >= hard
                {
                    let text = format!("{soft} is not below `per_query` ({hard}), so that it never applies");
                    self.warn(&place.key("soft").key(stringify!($key)), text);
                }
            )*};
        }
        check!(series blocks samples points memory range steps);
    }

    /// Warns of a key that the file has.
    fn doubt(&mut self, place: &Place<'_>, group: &str, key: &str, text: String) {
        let at = place.key(group).key(key);
        if at.node.is_some() {
            self.warn(&at, text);
        }
    }
}

fn above_budget(limit: &dyn fmt::Display, backend: &str, budget: &dyn fmt::Display) -> String {
    format!("{limit} is above the budget of backend `{backend}` ({budget}), which applies")
}
