//! Floor 3: carries a request through its stages and decides nothing itself.
//!
//! Read [`Proxy::answer`] first: it is the way of a request, stage by stage.

mod admin;
mod answer;
mod asking;
mod board;
mod body;
mod call;
mod failure;
mod forward;
pub mod identify;
mod leash;
mod listener;
mod live;
pub mod meter;
mod recent;
mod record;
mod remote_read;
pub mod respond;
mod route;
mod send;
mod server;
mod settle;
mod status;
mod tls;
mod trace;
mod typed;
pub mod upstream;
mod watch;
mod weigh;
mod workers;

pub use admin::{Reload, serve_admin};
pub use live::{Proxy, Settings};
pub use server::serve;
pub use tls::{ServerTls, ServerTlsSettings};
pub use workers::Workers;
