//! The binary, its configuration and its profiles.

mod binary;
mod config;
mod profile;
