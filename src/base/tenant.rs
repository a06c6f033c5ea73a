//! Who pays for a query.

use std::{fmt, sync::Arc};

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

    /// The common name of tenants that are not told apart, since a bound on their number is reached.
    pub fn other() -> Self {
        Self("other".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
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
