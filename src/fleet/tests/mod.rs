//! The protocols: what leases and tokens promise, every interleaving of a small fleet, the scripts beside their models,
//! and the board.

mod board;
mod lease;
pub(crate) mod model;
mod model_check;
mod script;
pub(crate) mod server;
mod simulation;
mod tokens;
mod walk;
