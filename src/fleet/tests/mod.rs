//! The protocol: what a lease promises, every interleaving of a small fleet, and the script beside its model.

mod lease;
mod model_check;
mod script;
pub(crate) mod server;
mod simulation;
