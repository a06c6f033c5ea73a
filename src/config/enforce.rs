//! The labels that tenants are confined to, from the written form to the enforced one.

use std::sync::Arc;

use super::raw_limits::{Limits, OnConflict, TenantLimits};
use crate::{
    base::{TenantMap, TenantPattern},
    promql::enforce::LabelEnforcement,
    series::METRIC_NAME,
};

/// Bytes of all names and values of one tenant: they are part of each of its selectors.
const BYTES_MAX: usize = 16 << 10;

/// The mistake in a tenant's labels: the label, and the reason.
pub(super) fn mistake(limits: &TenantLimits) -> Option<(&str, String)> {
    let labels = limits.enforce.as_ref()?;
    for (name, values) in labels {
        let wrong = if name.is_empty() || name == METRIC_NAME {
            "is no label that can be enforced; metrics are kept from queries by `rules`"
        } else if values.is_empty() {
            "needs the values that the tenant may read"
        } else if values.iter().any(String::is_empty) {
            "must not have an empty value: it would match every series without the label"
        } else {
            continue;
        };
        return Some((name, wrong.to_owned()));
    }
    let bytes = |(name, values): (&String, &Vec<String>)| {
        name.len() + values.iter().map(|value| value.len() + 1).sum::<usize>()
    };
    let largest = labels.iter().max_by_key(|label| bytes(*label))?;
    let all: usize = labels.iter().map(bytes).sum();
    let message = || {
        format!(
            "names and values are {all} bytes together, more than {BYTES_MAX}: they are part of each selector"
        )
    };
    (all > BYTES_MAX).then(|| (largest.0.as_str(), message()))
}

/// The labels of every tenant; of `limits.default`, where a tenant has none of its own.
pub(super) fn enforced(limits: &Limits) -> Result<TenantMap<Option<Arc<LabelEnforcement>>>, String> {
    let mut map = TenantMap::new(of(&limits.default));
    for (name, own) in &limits.tenants {
        let pattern = TenantPattern::new(name).ok_or_else(|| format!("`{name}` is no tenant name"))?;
        map.insert(pattern, of(&own.over(&limits.default)));
    }
    Ok(map)
}

fn of(limits: &TenantLimits) -> Option<Arc<LabelEnforcement>> {
    let labels = limits.enforce.as_ref().filter(|labels| !labels.is_empty())?;
    let labels = labels.iter().map(|(name, values)| (name.as_str(), values.as_slice()));
    let refuses_conflicts = limits.enforce_conflict == Some(OnConflict::Refuse);
    Some(Arc::new(LabelEnforcement::new(labels, refuses_conflicts)))
}
