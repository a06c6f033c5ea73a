//! Floor 3: carries a query from its client to a backend and back. `stack.rs` is its life, layer by layer:
//!
//! | layer | file |
//! |---|---|
//! | respond | `respond/layer.rs` |
//! | identify | `identify/layer.rs`, with the table of endpoints (`route.rs`) |
//! | rate, admit | [`crate::limit::layer`]; `admit.rs` is their view of a query |
//! | parse | `query/layer.rs` |
//! | rules | `rules/layer.rs` |
//! | estimate | `estimate/mod.rs` |
//! | replan | `replan.rs` |
//! | meter | `meter/layer.rs` |
//! | split, forward | `split.rs`, `forward.rs` |
//!
//! `exchange.rs` has the types that the layers hand on, `shared.rs` the state of all requests. `proxy.rs` is the proxy
//! from outside, `supervise.rs` looks after the backends, `log/` has one record for each query.

mod admit;
pub mod api;
mod config;
mod estimate;
mod exchange;
mod fleet;
mod forward;
pub mod identify;
mod kill;
mod layer;
mod log;
mod long_answers;
pub mod meter;
#[expect(clippy::module_inception, reason = "the file of `Proxy`")]
mod proxy;
mod query;
mod replan;
pub mod replay;
pub mod respond;
mod route;
mod rules;
mod server;
mod shared;
mod split;
mod stack;
mod supervise;
pub mod upstream;

pub use crate::http::{ServerTls, ServerTlsSettings, Workers};
pub use config::{ConfigState, Settings};
pub use fleet::{FleetStatus, Settings as FleetSettings};
pub(crate) use log::{ActiveQuery, TenantCounts, cut};
pub use log::{Author, Origin, QueryState, Refused, Selection};
pub use meter::Kill;
pub use proxy::Proxy;
pub use query::confine_read;
pub(crate) use rules::NoRoom;
pub use server::serve;
