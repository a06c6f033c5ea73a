//! The state that the handlers of the admin API share. A handler takes the part of it that it needs.

use std::sync::Arc;

use axum::extract::FromRef;

use super::{limits::Suggester, live::Live, operations::Reload};
use crate::proxy::Proxy;

#[derive(Clone)]
pub(super) struct Admin {
    pub(super) proxy: Arc<Proxy>,
    pub(super) live: Arc<Live>,
    /// Reads the configuration again; `None` where there is no file.
    pub(super) reload: Option<Reload>,
    pub(super) suggester: Suggester,
}

impl FromRef<Admin> for Arc<Proxy> {
    fn from_ref(admin: &Admin) -> Self {
        Self::clone(&admin.proxy)
    }
}

impl FromRef<Admin> for Suggester {
    fn from_ref(admin: &Admin) -> Self {
        admin.suggester.clone()
    }
}
