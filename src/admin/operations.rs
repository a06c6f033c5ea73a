//! Operations that need the process around the proxy.

use std::{fmt, sync::Arc};

/// Reloads the configuration: returns the changes, or the mistakes in the file.
pub type Reload = Arc<dyn Fn() -> Result<Vec<String>, String> + Send + Sync>;

/// Suggests limits for a tenant from the journal, as a patch to the configuration, or says why it cannot. Takes seconds.
pub type Suggest = Arc<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

/// Operations that need the process around the proxy: its file and its journal.
#[derive(Clone, Default)]
pub struct Operations {
    /// Reads the configuration again; `None` where there is no file.
    pub reload: Option<Reload>,
    /// Suggests limits; `None` where no journal is kept.
    pub suggest: Option<Suggest>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl From<Option<Reload>> for Operations {
    fn from(reload: Option<Reload>) -> Self {
        Self { reload, suggest: None }
    }
}
