//! Floor 2: one budget over several proxies, as leases on a plain Redis or Valkey primary (after Google's Doorman).
//!
//! ```text
//! budget = fixed part × replicas_max   +   pool, kept at the store
//!          half of it, always there        leased: {held, wants} ─▶ {grant, epoch} once a second
//! ```
//!
//! A proxy renews before its lease ends, and counts its time from before it asked, so that it stops first. Before it asks,
//! it draws in its lease to what its queries hold: the store may give the rest away before the answer is there. A store
//! that is gone leaves every proxy its fixed part; one that lost its memory grants for one time to live only what is held.
//!
//! [`Lease`] is the side of the proxy and a plain value; `lease.lua` is that of the store, and `pool` its model in Rust, on
//! which the protocol is checked. [`Store`] carries messages between them.

mod lease;
#[cfg(test)]
mod pool;
mod store;

pub use lease::{Answer, Lease, Renewal, SKEW_MS, TTL_MS};
pub use store::{Ask, Store, StoreError};

#[cfg(test)]
pub(crate) mod tests;
