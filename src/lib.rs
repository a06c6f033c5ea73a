//! Weir: a query-limiting coordinator proxy for Prometheus-compatible databases.
//!
//! # The life of a request
//!
//! ```text
//! HTTP ─ route ─ identify ─ parse ─ estimate ─ admit ─ forward ─ meter ─▶ client
//!         400      401/403    400     never      422     502/504   settles the permit with
//!                                     fails    429/503             what the query really cost
//! ```
//!
//! [`proxy`] carries a request through these stages and decides nothing itself: [`promql`] reads the query,
//! [`cost`] says what it will cost, [`limit`] says whether it may run now, [`backend`] runs it.
//!
//! # Floors
//!
//! A module imports only from the floors below it; `tests/tidy.rs` holds the table and fails on an import that climbs.
//!
//! | floor | modules |
//! |---|---|
//! | 0 | [`base`], [`series`] |
//! | 1 | [`telemetry`], [`promql`], [`wire`] |
//! | 2 | [`cost`], [`limit`], [`backend`], [`status`] |
//! | 3 | [`node`], [`proxy`] |
//! | 4 | [`config`] |
//! | 5 | [`cli`] |

// What tests and benchmarks share speaks of this crate by its name.
#[cfg(test)]
extern crate self as weir;

pub mod backend;
pub mod base;
pub mod cli;
pub mod config;
pub mod cost;
pub mod limit;
pub mod node;
pub mod promql;
pub mod proxy;
pub mod series;
pub mod status;
pub mod telemetry;
pub mod wire;
