//! The end of a server.

use tokio_util::sync::CancellationToken;

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Answers that were under way when the grace period was over: cut, or refused with 503 where nothing was sent yet.
    pub cut: usize,
}

/// Signals the end of a shutdown's grace period: waiting requests are answered then at once, with the reason.
#[derive(Clone, Debug, Default)]
pub struct Drain(CancellationToken);

impl Drain {
    /// Ends when the grace period is over.
    pub async fn expired(&self) {
        self.0.cancelled().await;
    }

    pub(super) fn expire(&self) {
        self.0.cancel();
    }
}
