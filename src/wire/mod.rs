//! Floor 1: the connections of clients, whoever answers on them: accepted, bounded in time, ended in good order.

mod accept;
mod connection;
mod drain;
mod stage;
#[cfg(test)]
mod tests;

pub use accept::{Acceptor, places};
pub use connection::{HEAD_TIME, Patience, carry};
pub use drain::{Served, drain};
