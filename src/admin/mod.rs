//! Floor 3: the admin API. A [`Snapshot`] is the state of the proxy at one moment; [`page`] makes HTML of it,
//! [`Snapshot::json`] a document for machines, and [`serve_admin`] serves both beside metrics, health and reload.

mod page;
mod queries;
mod reply;
mod routes;
mod rules;
mod snapshot;
#[cfg(test)]
mod tests;

pub use page::{Escaped, escaped, page};
pub use routes::{Reload, serve_admin};
pub use snapshot::{Backend, Finding, Number, Queries, Query, Replica, Severity, Share, Snapshot, Tenant};
