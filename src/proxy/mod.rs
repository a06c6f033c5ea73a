//! Floor 3: carries a query from its client to a backend and back. `stack.rs` is its life, layer by layer.

mod admin;
mod admit;
mod config;
mod estimate;
mod exchange;
mod forward;
mod front;
mod handle;
pub mod identify;
mod log;
pub mod meter;
mod query;
mod replan;
pub mod respond;
mod route;
mod server;
mod split;
mod stack;
mod status;
mod supervise;
pub mod upstream;
mod weigh;

pub use crate::http::{ServerTls, ServerTlsSettings, Workers};
pub use admin::{Reload, serve_admin};
pub use config::Settings;
pub use handle::Proxy;
pub use server::serve;
