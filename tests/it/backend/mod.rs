//! One backend: connections, health checks and probes, against scripted servers.

mod health;
mod probe;
mod probe_crowd;
mod probe_types;
mod send;
mod tls;
