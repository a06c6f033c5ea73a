//! The binary, its configuration and its profiles.

mod all_in_one;
mod binary;
mod config;
mod profile;
mod replay;
