//! The storage node and its engine.

mod control_group;
mod damaged;
mod faults;
mod hostile;
mod http;
mod import;
mod kill;
mod pool;
mod pool_bound;
mod promqltest;
mod shutdown;
