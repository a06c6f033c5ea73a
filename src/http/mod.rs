//! Floor 1: the connections of clients, for any service.
//!
//! [`serve`] takes a bound listener, a service and a shutdown future. [`Connections`] bounds how many there are and
//! gives each client address its share; one timer for each connection bounds heads, idleness and clients that do not
//! read; a response that takes time carries its own [`ResponseDeadline`].

mod accept;
mod activity;
mod browser;
mod byte_budget;
mod client_certificate;
mod connection;
mod connections;
mod deadline;
mod drain;
mod escape_request_line;
mod guard;
mod handshake;
mod io;
pub mod openapi;
pub mod pem;
mod reject;
mod revocation;
mod serve;
#[cfg(test)]
mod tests;
mod timeouts;
mod tls;
mod token;
mod workers;

pub use accept::{bind, within_open_files};
pub use browser::{BrowserGuard, HostNames};
pub use byte_budget::{ByteBudget, ByteShare};
pub use client_certificate::ClientCertificate;
pub use connections::{ConnectionLimits, Connections, Counts};
pub use deadline::{ResponseDeadline, Timed};
pub use drain::{Drain, Served};
pub use serve::{Options, serve};
pub use timeouts::Timeouts;
pub use tls::{ListenerTls, ServerTls, ServerTlsSettings};
pub use token::{Holder, TokenGuard, Tokens};
pub use workers::Workers;
