//! Floor 2: one budget over several proxies, as leases on a plain Redis or Valkey primary (after Google's Doorman).
//!
//! ```text
//! budget = fixed part × replicas_max   +   pool, kept at the store
//!          a tenth, always there           leased: {held, wants} ─▶ {grant, epoch} once a second
//! ```
//!
//! A proxy renews before its lease ends, and counts its time from before it asked, so that it stops first. Before it asks,
//! it draws in its lease to what its queries hold: the store may give the rest away before the answer is there. A store
//! that is gone leaves every proxy its fixed part; one that lost its memory grants for one time to live only what is held.
//! With the leases of a backend travels its congestion window, which is one for all proxies.
//!
//! Tenants' limits on queries in flight are pools as budgets are. Of a tenant's rate the pool is a bucket of tokens, and a
//! proxy draws some ahead ([`Draws`], `tokens.lua`, and `bucket`, its model): unspent ones count as if they were still in it.
//!
//! Proxies also keep a board there, of bounded [`Topic`]s: kills, rules, pressure and observed costs, read once a second.
//!
//! [`Lease`] is the side of the proxy and a plain value; `lease.lua` is that of the store, and `pool` its model in Rust, on
//! which the protocol is checked. [`Store`] carries messages between them.

mod board;
#[cfg(test)]
mod bucket;
mod lease;
#[cfg(test)]
mod pool;
mod store;
mod tokens;

pub use board::{
    BoardAnswer, BoardAsk, Cursor, Entry, PAGE_BYTES, PAGE_ENTRIES, Post, Topic, VALUE_BYTES_MAX, page,
};
pub use lease::{Answer, Lease, Renewal, SKEW_MS, TTL_MS};
pub use store::{Answers, Ask, AskTokens, Round, SEATS, Store, StoreError};
pub use tokens::{Draw, Drawn, Draws};

#[cfg(test)]
pub(crate) mod tests;
