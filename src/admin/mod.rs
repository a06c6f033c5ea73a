//! Floor 3: the admin API. A [`Snapshot`] is the state of the proxy at one moment; `page/` makes HTML of it,
//! [`Snapshot::json`] a document for machines, and [`serve_admin`] serves both beside metrics, health and reload.

mod api;
mod explain;
mod history;
mod limits;
mod live;
mod operations;
mod page;
mod queries;
mod reply;
mod routes;
mod rules;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod top;
mod views;

pub use operations::{Operations, Reload, Suggest};
pub use page::{Escaped, escaped};
pub use routes::serve_admin;
pub use snapshot::{
    Backend, Finding, Holder, Number, Queries, Query, Replica, Severity, Share, Snapshot, Tenant,
};
