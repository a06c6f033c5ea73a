//! Stops queries on an operator's order, with a line in the audit log.

use std::sync::Arc;

use super::{
    Kill, Proxy,
    log::{ActiveQuery, Author, Selection, audit},
};

/// The effect of an order to stop queries.
#[derive(Debug)]
pub(crate) struct Killed {
    /// The queries of this proxy that were stopped.
    pub here: Vec<Arc<ActiveQuery>>,
    /// Whether the store passes the order on to the other proxies, or why not; `None` where there are none, or where the one
    /// query that it is about was here.
    pub passed_on: Option<Result<(), String>>,
}

impl Proxy {
    /// Stops the active queries that match, waiting or running, here and at the other proxies of the fleet. Their clients get
    /// 422 `weir-killed` with the person and the reason, or where the answer has begun, a connection that breaks off.
    pub(crate) async fn kill(&self, which: &Selection, kill: Kill, by: &Author) -> Killed {
        let kill = Arc::new(kill);
        let here = self.logs.active.kill(|query| which.has(query), &kill);
        audit::killed(by, which, &kill.reason, &here);
        // A number is that of one query in the fleet.
        let is_done = which.id.is_some() && !here.is_empty();
        let passed_on = if is_done { None } else { self.fleet.pass_on_kill(which, &kill).await };
        Killed { here, passed_on }
    }

    /// Passes the rules that were set at run time on to the other proxies of the fleet; `None` where there are none.
    pub(crate) async fn pass_on_rules(&self) -> Option<Result<(), String>> {
        self.fleet.pass_on_rules().await
    }
}
