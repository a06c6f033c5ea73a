//! Weir and its node beside real databases; each test is skipped, by name, where its database is not installed.

mod differential;
mod fleet;
mod kinds;
mod node;
mod prometheus;
mod query_log;
mod victoriametrics;
