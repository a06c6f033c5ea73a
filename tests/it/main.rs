//! The integration tests: one binary, real sockets on port 0.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]
#![allow(clippy::type_complexity, reason = "a table of cases is a list of tuples")]

mod backend_health;
mod backend_probe;
mod backend_send;
mod backend_tls;
mod cli;
mod config;
mod connections;
mod dashboards;
mod differential;
mod docs;
mod fuzz;
mod grafana_contract;
mod grafana_replay;
mod meter_wire;
mod node_damaged;
mod node_end;
mod node_faults;
mod node_hostile;
mod node_http;
mod node_import;
mod node_kill;
mod node_pool;
mod node_pool_bound;
mod ordinary_use;
mod parse_corpus;
mod parse_errors;
mod pressure;
mod profile;
mod promqltest;
mod proxy_faults;
mod proxy_floods;
mod proxy_light;
mod proxy_log;
mod proxy_pieces;
mod proxy_stack;
mod proxy_tls;
mod proxy_way;
mod real_node;
mod real_prometheus;
mod real_victoriametrics;
mod shut_out;
mod sockets;
mod status;
mod support;
mod traces;
mod whose_data;
mod wrong_estimate;
