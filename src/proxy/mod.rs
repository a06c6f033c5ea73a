//! Floor 3: carries a query from its client to a backend and back. `stack.rs` is its life, layer by layer.

mod admit;
mod config;
mod estimate;
mod exchange;
mod forward;
mod front;
mod handle;
pub mod identify;
mod kill;
mod layer;
mod log;
mod long_answers;
pub mod meter;
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
pub use handle::Proxy;
pub(crate) use log::{ActiveQuery, TenantCounts, cut};
pub use log::{Author, Origin, QueryState, Refused, Selection};
pub use meter::Kill;
pub(crate) use rules::NoRoom;
pub use server::serve;
