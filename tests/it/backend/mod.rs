//! One backend: connections, health checks and probes, against scripted servers.

mod health;
mod probe;
mod send;
mod tls;
