//! Tenants: the payers of queries.

use std::{collections::HashMap, fmt, sync::Arc};

/// A tenant's name: 1 to 150 visible ASCII characters, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// The longest tenant name accepted, as in Mimir and Cortex.
pub const TENANT_NAME_MAX: usize = 150;

impl TenantId {
    /// Accepts a name from the wire or from the configuration; `None` when it is empty, too long or not printable.
    pub fn new(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= TENANT_NAME_MAX;
        (fits && name.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(name.into()))
    }

    /// The common name of the tenants beyond the bound on their number.
    pub fn other() -> Self {
        Self("other".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The separator of several tenants whose data one query reads, where the database knows that.
const FEDERATION_MARK: char = '|';

/// The names in `a|b|a`, sorted, each once; `None` when there is only one, or one of them is no name.
pub fn federated(name: &str) -> Option<Vec<TenantId>> {
    if !name.contains(FEDERATION_MARK) {
        return None;
    }
    let parts = name.split(FEDERATION_MARK).filter(|part| !part.is_empty());
    let mut tenants = parts.map(TenantId::new).collect::<Option<Vec<_>>>()?;
    tenants.sort_unstable();
    tenants.dedup();
    Some(tenants)
}

/// The one name of these tenants together: `a|b`.
pub fn joined(tenants: &[TenantId]) -> Option<TenantId> {
    let names: Vec<&str> = tenants.iter().map(TenantId::as_str).collect();
    TenantId::new(&names.join("|"))
}

/// Whether Cortex may take the name for a pattern, which selects tenants (`tenant-federation.regex-matcher-enabled`). A dot
/// alone is common in names, and as a pattern nearly the same.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '+', '?', '[', ']', '(', ')', '{', '}', '^', '$', '\\'])
}

/// A tenant in the configuration: a name, or `team-*` for all that begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantPattern {
    /// Exactly this tenant.
    Name(TenantId),
    /// Every tenant whose name begins with this.
    Prefix(Box<str>),
}

impl TenantPattern {
    /// Reads a name or `prefix*`; `None` for anything else, a star elsewhere included.
    pub fn new(text: &str) -> Option<Self> {
        let (start, star) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
        if start.contains('*') {
            return None;
        }
        match (star, TenantId::new(start)) {
            (false, name) => name.map(Self::Name),
            (true, Some(_)) => Some(Self::Prefix(start.into())),
            (true, None) => start.is_empty().then(|| Self::Prefix(start.into())),
        }
    }
}

/// Something for each group of tenants whose names begin alike; of several groups the one with the longest beginning
/// counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantPrefixes<T>(
    /// The longest first.
    Vec<(Box<str>, T)>,
);

impl<T> Default for TenantPrefixes<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> TenantPrefixes<T> {
    /// Sets the value for names that begin so.
    pub fn insert(&mut self, prefix: Box<str>, value: T) {
        self.0.retain(|(known, _)| *known != prefix);
        let order = |known: &str| (std::cmp::Reverse(known.len()), known.to_owned());
        let at = self.0.partition_point(|(known, _)| order(known) < order(&prefix));
        self.0.insert(at, (prefix, value));
    }

    /// The most specific value for this tenant.
    pub fn get(&self, tenant: &TenantId) -> Option<&T> {
        self.0.iter().find(|(prefix, _)| tenant.as_str().starts_with(&**prefix)).map(|(_, value)| value)
    }
}

/// Something for every tenant: its own, that of its group, or that of all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantMap<T> {
    names: HashMap<TenantId, T>,
    prefixes: TenantPrefixes<T>,
    default: T,
}

impl<T> TenantMap<T> {
    /// The same for every tenant.
    pub fn new(default: T) -> Self {
        Self { names: HashMap::new(), prefixes: TenantPrefixes::default(), default }
    }

    /// Sets the value for one tenant, or for those whose names begin so.
    pub fn insert(&mut self, pattern: TenantPattern, value: T) {
        match pattern {
            TenantPattern::Name(name) => _ = self.names.insert(name, value),
            TenantPattern::Prefix(prefix) => self.prefixes.insert(prefix, value),
        }
    }

    /// The most specific value for this tenant.
    pub fn get(&self, tenant: &TenantId) -> &T {
        let own = if self.names.is_empty() { None } else { self.names.get(tenant) };
        own.or_else(|| self.prefixes.get(tenant)).unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn federated_names_are_sorted_and_distinct() {
        let names =
            |text: &str| federated(text).map(|all| all.iter().map(TenantId::to_string).collect::<Vec<_>>());
        for (text, want) in [
            ("a", None),
            ("b|a", Some(vec!["a", "b"])),
            ("t2|t2", Some(vec!["t2"])),
            ("t2|", Some(vec!["t2"])),
            ("|", Some(vec![])),
            ("a|b c", None),
        ] {
            assert_eq!(names(text), want.map(|all| all.into_iter().map(str::to_owned).collect()), "{text}");
        }
        assert_eq!(joined(&[id("a"), id("b")]), Some(id("a|b")));
    }

    #[test]
    fn the_longest_prefix_counts() {
        let mut map = TenantPrefixes::default();
        for (text, value) in [("team-*", 1), ("*", 0), ("team-a*", 2)] {
            let Some(TenantPattern::Prefix(prefix)) = TenantPattern::new(text) else { panic!("{text}") };
            map.insert(prefix, value);
        }
        for (tenant, want) in [("team-abc", 2), ("team-x", 1), ("other", 0), ("team", 0)] {
            assert_eq!(map.get(&id(tenant)), Some(&want), "{tenant}");
        }
        assert_eq!(TenantPattern::new("team-a"), Some(TenantPattern::Name(id("team-a"))));
        for bad in ["", "a*b", "**", "a b*", "team-*x"] {
            assert_eq!(TenantPattern::new(bad), None, "{bad}");
        }
    }
}
