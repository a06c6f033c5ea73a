//! Weir as a proxy, over real sockets, before scripted databases.

mod agents;
mod connections;
mod faults;
mod floods;
pub(crate) mod forward;
mod grafana_contract;
mod grafana_replay;
mod kill;
mod kinds;
mod light;
mod log;
mod meter;
mod openapi;
mod ordinary_use;
mod pressure;
mod replay;
mod rules;
mod shut_out;
mod split;
mod stack;
mod status;
mod tls;
mod top;
mod traces;
mod whose_data;
mod wrong_estimate;
