//! The integration tests: one binary, real sockets on port 0.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]
#![allow(clippy::type_complexity, reason = "a table of cases is a list of tuples")]

mod backend;
mod cli;
mod dashboards;
mod deploy;
mod docs;
mod fuzz;
mod node;
mod page;
mod promql;
mod proxy;
mod real;
mod support;
