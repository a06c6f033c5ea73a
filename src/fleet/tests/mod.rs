//! The protocols: what leases and tokens promise, every interleaving of a small fleet, and the scripts beside their models.

mod lease;
mod model_check;
mod script;
pub(crate) mod server;
mod simulation;
mod tokens;
mod walk;
