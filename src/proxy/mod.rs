//! Floor 3: carries a request through its stages and decides nothing itself.
//!
//! Read [`Proxy::answer`] first: it is the way of a request, stage by stage.

mod admin;
mod answer;
mod asking;
mod config;
mod dispatch;
mod forward;
pub mod identify;
mod leash;
mod listener;
mod log;
pub mod meter;
mod query;
pub mod respond;
mod route;
mod server;
mod status;
mod supervise;
mod tls;
mod typed;
pub mod upstream;
mod weigh;
mod workers;

pub use admin::{Reload, serve_admin};
pub use config::{Proxy, Settings};
pub use server::serve;
pub use tls::{ServerTls, ServerTlsSettings};
pub use workers::Workers;
