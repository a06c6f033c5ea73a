//! The meter against answers with a known truth.

mod answers;
mod body;
mod gzip;
mod permits;
mod scan;
