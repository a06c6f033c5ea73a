//! The limits that one query alone can pass; nothing is counted or kept.

use super::{
    policy::{Limit, Mode, PerQuery, TenantPolicy},
    refusal::{LimitName, Refusal, Scope, ShadowHit},
};
use crate::base::{Estimate, QueryCost, TenantId};

/// A limit on one query, its name, and the query's own number.
type Check = (Limit, LimitName, Estimate);

/// The limits beside the cost: selectors and time first, since those are the easiest to understand.
const fn checks(of: &PerQuery, cost: &QueryCost) -> [Check; 14] {
    let text = &cost.text;
    [
        (of.text_bytes, LimitName::MaxText, Estimate::exact(text.bytes)),
        (of.nodes, LimitName::MaxNodes, Estimate::exact(text.nodes)),
        (of.depth, LimitName::MaxDepth, Estimate::exact(text.depth)),
        (of.matchers, LimitName::MaxMatchers, Estimate::exact(text.matchers)),
        (of.regex_bytes, LimitName::MaxRegex, Estimate::exact(text.regex_bytes)),
        (of.selectors, LimitName::MaxSelectors, Estimate::exact(cost.selectors)),
        (of.steps, LimitName::MaxSteps, Estimate::exact(cost.steps)),
        (of.range_seconds, LimitName::MaxRange, Estimate::exact(cost.range_seconds)),
        (of.listing_seconds, LimitName::MaxListingRange, Estimate::exact(cost.listing_seconds)),
        (of.series, LimitName::MaxSeries, cost.series),
        (of.blocks, LimitName::MaxBlocks, cost.blocks),
        (of.samples, LimitName::MaxSamples, cost.samples),
        (of.points, LimitName::MaxPoints, cost.points),
        (of.memory, LimitName::MaxMemory, cost.memory),
    ]
}

/// Looks at everything a query asks for against the limits of its tenant and class.
///
/// A number that is not known is as large as the estimate says: `u64::MAX` where the configuration denies the unknown,
/// so that it passes every limit.
///
/// # Errors
/// The first enforced limit that is passed.
pub fn check_per_query(
    policy: &TenantPolicy,
    tenant: &TenantId,
    class: Option<&str>,
    cost: &QueryCost,
) -> Result<Vec<ShadowHit>, Refusal> {
    let mut shadow = Vec::new();
    for (i, &(limit, name, observed)) in checks(policy.per_query(class), cost).iter().enumerate() {
        let Some(max) = limit.threshold().filter(|max| observed.value > *max) else { continue };
        // A class repeats the tenant's limits where it has none of its own.
        let scope = match class.filter(|_| limit != checks(&policy.per_query, cost)[i].0) {
            Some(class) => Scope::Class(class.into()),
            None => Scope::Tenant(tenant.clone()),
        };
        let refusal = Refusal::exceeded(name, observed, max, scope);
        match limit.mode {
            Mode::Enforce => return Err(refusal),
            Mode::Shadow => shadow.push(refusal),
            Mode::Off => {}
        }
    }
    Ok(shadow)
}

/// A soft limit that a query passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftHit {
    /// The limit.
    pub limit: LimitName,
    /// The query's number, in the unit of the limit.
    pub observed: Estimate,
    /// The soft limit.
    pub max: u64,
    /// The limit beyond which it would be refused; `None` where there is none.
    pub refused_over: Option<u64>,
    /// The owner of the limit.
    pub tenant: TenantId,
}

impl SoftHit {
    /// For people: the excess, and the consequence for a larger query.
    pub fn message(&self) -> String {
        let (name, seen) = (self.limit, self.observed);
        let observed = name.show(seen.value);
        if matches!(name, LimitName::QuotaQueries | LimitName::QuotaSamples) {
            if seen.value <= self.max {
                return format!(
                    "this proxy has no lease on the rest of the quota of tenant `{}`: {} {}; the query runs in the slow lane ({})",
                    self.tenant,
                    name.show(self.max),
                    name.noun(),
                    name.id()
                );
            }
            let over = self
                .refused_over
                .map_or_else(String::new, |max| format!(" Over {} they are refused.", name.show(max)));
            return format!(
                "tenant `{}` has used {observed} {}, over its quota of {}: its queries run in the slow lane.{over} ({})",
                self.tenant,
                name.noun(),
                name.show(self.max),
                name.id()
            );
        }
        let refused = self
            .refused_over
            .map_or_else(String::new, |max| format!(" Over {} it will be refused.", name.show(max)));
        format!(
            "this query needs {observed} {} ({}), over the soft limit of tenant `{}`, {}: it runs in the slow lane.{refused} ({})",
            name.noun(),
            seen.confidence,
            self.tenant,
            name.show(self.max),
            name.id()
        )
    }
}

/// The first soft limit in this mode that a query passes.
pub fn soft(
    policy: &TenantPolicy,
    tenant: &TenantId,
    class: Option<&str>,
    cost: &QueryCost,
    mode: Mode,
) -> Option<SoftHit> {
    // Most tenants have none.
    if policy.soft == PerQuery::default() {
        return None;
    }
    checks(&policy.soft, cost).iter().enumerate().find_map(|(i, &(soft, limit, observed))| {
        let max = soft.threshold().filter(|max| soft.mode == mode && observed.value > *max)?;
        let refused_over = checks(policy.per_query(class), cost)[i].0.enforced();
        Some(SoftHit { limit, observed, max, refused_over, tenant: tenant.clone() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Confidence;

    type Pick = (LimitName, fn(&mut PerQuery) -> &mut Limit, fn(&mut QueryCost, u64));

    const PICKS: [Pick; 14] = [
        (LimitName::MaxText, |l| &mut l.text_bytes, |d, n| d.text.bytes = n),
        (LimitName::MaxNodes, |l| &mut l.nodes, |d, n| d.text.nodes = n),
        (LimitName::MaxDepth, |l| &mut l.depth, |d, n| d.text.depth = n),
        (LimitName::MaxMatchers, |l| &mut l.matchers, |d, n| d.text.matchers = n),
        (LimitName::MaxRegex, |l| &mut l.regex_bytes, |d, n| d.text.regex_bytes = n),
        (LimitName::MaxListingRange, |l| &mut l.listing_seconds, |d, n| d.listing_seconds = n),
        (LimitName::MaxSelectors, |l| &mut l.selectors, |d, n| d.selectors = n),
        (LimitName::MaxSteps, |l| &mut l.steps, |d, n| d.steps = n),
        (LimitName::MaxRange, |l| &mut l.range_seconds, |d, n| d.range_seconds = n),
        (LimitName::MaxSeries, |l| &mut l.series, |d, n| d.series.value = n),
        (LimitName::MaxBlocks, |l| &mut l.blocks, |d, n| d.blocks.value = n),
        (LimitName::MaxSamples, |l| &mut l.samples, |d, n| d.samples.value = n),
        (LimitName::MaxPoints, |l| &mut l.points, |d, n| d.points.value = n),
        (LimitName::MaxMemory, |l| &mut l.memory, |d, n| d.memory.value = n),
    ];

    #[test]
    fn every_limit_is_looked_at_in_every_mode() {
        let tenant = TenantId::new("t").unwrap();
        for (name, limit, ask) in PICKS {
            for (asked, over) in [(10, false), (11, true), (u64::MAX, true)] {
                for mode in [Mode::Enforce, Mode::Shadow, Mode::Off] {
                    let mut policy = TenantPolicy::default();
                    *limit(&mut policy.per_query) = Limit::enforce(10).with_mode(mode);
                    let mut cost = QueryCost::NOTHING;
                    ask(&mut cost, asked);
                    let verdict = check_per_query(&policy, &tenant, None, &cost);
                    match (mode, over) {
                        (Mode::Enforce, true) => {
                            let refusal = verdict.unwrap_err();
                            assert_eq!((refusal.limit, refusal.max), (name, 10));
                            assert_eq!(refusal.kind.status(), 422);
                        }
                        (Mode::Shadow, true) => assert_eq!(verdict.unwrap()[0].limit, name),
                        _ => assert_eq!(verdict.unwrap(), []),
                    }
                }
            }
        }
    }

    #[test]
    fn a_class_has_limits_of_its_own() {
        let tenant = TenantId::new("t").unwrap();
        let strict = PerQuery { series: Limit::enforce(5), ..PerQuery::default() };
        let policy = TenantPolicy { per_class: vec![("slow".into(), strict)], ..TenantPolicy::default() };
        let cost = QueryCost { series: Estimate::new(9, Confidence::Learned), ..QueryCost::NOTHING };
        assert!(check_per_query(&policy, &tenant, Some("fast"), &cost).is_ok());
        assert!(check_per_query(&policy, &tenant, None, &cost).is_ok());
        let refusal = check_per_query(&policy, &tenant, Some("slow"), &cost).unwrap_err();
        assert_eq!((refusal.limit, refusal.scope), (LimitName::MaxSeries, Scope::Class("slow".into())));
        let mut both = policy;
        both.per_query.steps = Limit::enforce(1);
        both.per_class[0].1.steps = Limit::enforce(1);
        let steps = QueryCost { steps: 2, ..QueryCost::NOTHING };
        let refusal = check_per_query(&both, &tenant, Some("slow"), &steps).unwrap_err();
        assert_eq!(refusal.scope, Scope::Tenant(tenant), "the class has none of its own");
    }
}
