//! Timeouts of a client connection.

use std::time::Duration;

/// How long a client may take for parts of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a request's head, or from the beginning of the connection, to the end of the head.
    pub head: Duration,
    /// A client that takes no byte of its answer for this long is given up: it holds all that its answer does.
    pub stalled: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), stalled: Duration::from_secs(30) }
    }
}
