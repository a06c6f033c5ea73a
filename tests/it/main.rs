//! The integration tests: one binary, real sockets on port 0.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod backend_probe;
mod backend_send;
mod backend_tls;
mod cli;
mod config;
mod dashboards;
mod differential;
mod fuzz;
mod grafana_contract;
mod grafana_replay;
mod meter_wire;
mod node_damaged;
mod node_hostile;
mod node_http;
mod node_kill;
mod node_pool;
mod parse_corpus;
mod parse_errors;
mod pressure;
mod profile;
mod promqltest;
mod proxy_faults;
mod proxy_floods;
mod proxy_light;
mod proxy_log;
mod proxy_tls;
mod proxy_way;
mod real_node;
mod real_prometheus;
mod real_victoriametrics;
mod sockets;
mod status;
mod support;
mod traces;
mod wrong_estimate;
