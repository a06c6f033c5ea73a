//! The limits of a tenant as the configuration writes them, each with the place that it comes from: for people, while
//! [`Policy`](super::Policy) has the same as numbers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Serialize;

use crate::base::{TenantId, TenantPrefixes};

/// Keys such as `per_query.series` and their values, as the configuration writes them.
pub type LimitTexts = BTreeMap<String, String>;

/// Every limit that is written or built in.
#[derive(Clone, Debug, Default)]
pub struct LimitTable {
    /// Those of every tenant, complete.
    pub default: LimitTexts,
    /// The part of them that the configuration writes.
    pub default_written: LimitTexts,
    /// Those written for single tenants.
    pub tenants: HashMap<TenantId, LimitTexts>,
    /// The same for tenants whose names begin alike, with the pattern.
    pub patterns: TenantPrefixes<(Arc<str>, LimitTexts)>,
    /// Those written for classes, which stand over the tenant's.
    pub classes: Vec<(Arc<str>, LimitTexts)>,
}

/// A limit that holds for a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveLimit {
    /// The class that it holds for; `None` is every other.
    pub class: Option<Box<str>>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// `enforce`, `shadow` or `off`; `None` of a limit that has no mode.
    pub mode: Option<String>,
    /// Where it is written: `limits.tenants.a`, `limits.default`, `classes.rules`; `None` is built in.
    pub source: Option<String>,
}

impl LimitTable {
    /// The limits of a tenant, by key.
    pub fn of(&self, tenant: &TenantId) -> Vec<EffectiveLimit> {
        let named = self.tenants.get(tenant).map(|own| (tenant.as_str(), own));
        let own = named.or_else(|| self.patterns.get(tenant).map(|(pattern, own)| (&**pattern, own)));
        let source = |key: &str| match own {
            Some((name, own)) if own.contains_key(key) => Some(format!("limits.tenants.{name}")),
            _ if self.default_written.contains_key(key) => Some("limits.default".to_owned()),
            _ => None,
        };
        let mut all = self.default.clone();
        all.extend(own.into_iter().flat_map(|(_, own)| own.clone()));
        let mode = |key: &str| {
            let of_limit = name_of(key)?;
            let own = all.get(&format!("modes.{of_limit}")).or_else(|| all.get("mode"));
            Some(own.map_or("enforce", String::as_str).to_owned())
        };
        let limits = all.iter().filter(|(key, _)| name_of(key).is_some() || key.starts_with("queue."));
        let limits = limits.map(|(key, value)| EffectiveLimit {
            class: None,
            key: key.clone(),
            value: value.clone(),
            mode: mode(key),
            source: source(key),
        });
        let of_classes = self.classes.iter().flat_map(|(class, written)| {
            let mode = &mode;
            written.iter().map(move |(key, value)| EffectiveLimit {
                class: Some(Box::from(&**class)),
                key: key.clone(),
                value: value.clone(),
                mode: mode(key),
                source: Some(format!("classes.{class}")),
            })
        });
        limits.chain(of_classes).collect()
    }
}

/// The name below `modes:` of the limit with this key.
fn name_of(key: &str) -> Option<String> {
    let (group, name) = key.split_once('.')?;
    match group {
        "per_query" | "soft" => Some(name.to_owned()),
        "in_flight" | "rate" | "quota" => Some(format!("{group}_{name}")),
        _ => None,
    }
}
