//! The tenant that pays for a query, the backend where it runs, and where it comes from.

use std::sync::Arc;

use super::Origin;
use crate::base::TenantId;

/// The owner of a query, and its backend.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// The tenant that pays.
    pub tenant: TenantId,
    /// The actor inside the tenant.
    pub actor: Arc<str>,
    /// Name of the class.
    pub class: Arc<str>,
    /// Name of the backend.
    pub backend: Arc<str>,
    /// Where it comes from, as its client says.
    pub origin: Origin,
}
