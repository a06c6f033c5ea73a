//! Helpers of several integration tests.

pub(crate) mod fake_upstream;
pub(crate) mod logs;
pub(crate) mod memory;
pub(crate) mod pki;
pub(crate) mod pools;
pub(crate) mod process;
pub(crate) mod real;
pub(crate) mod simulation;
pub(crate) mod sockets;
pub(crate) mod weir;
