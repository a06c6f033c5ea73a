//! Stops queries on an operator's order, with a line in the audit log.

use std::sync::Arc;

use super::{
    Kill, Proxy,
    log::{ActiveQuery, Author, Selection, audit},
};

impl Proxy {
    /// Stops the active queries that match, waiting or running. Their clients get 422 `weir-killed` with who and why,
    /// or where the answer has begun, a connection that breaks off.
    pub(crate) fn kill(&self, which: &Selection, kill: Kill, by: &Author) -> Vec<Arc<ActiveQuery>> {
        let kill = Arc::new(kill);
        let killed = self.logs.active.kill(|query| which.has(query), &kill);
        audit::killed(by, which, &kill.reason, &killed);
        killed
    }
}
