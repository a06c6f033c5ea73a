//! Carries a request through its stages and decides nothing itself.

pub mod meter;
pub mod respond;
