//! How an operator ends a process: in good order by one signal, at once by a second.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::http::Served;

/// SIGTERM and SIGINT, as they come.
pub(super) struct Signals {
    first: CancellationToken,
    second: CancellationToken,
}

impl Signals {
    /// Listens from now on, as a task of this runtime.
    pub(super) fn listen() -> Self {
        let signals = Self { first: CancellationToken::new(), second: CancellationToken::new() };
        let (first, second) = (signals.first.clone(), signals.second.clone());
        let kinds = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        // Without them the process ends as the system ends it.
        let (Ok(mut term), Ok(mut int)) = kinds else { return signals };
        tokio::spawn(async move {
            for token in [first, second] {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                token.cancel();
            }
        });
        signals
    }

    /// The first one came.
    pub(super) fn first(&self) -> impl Future<Output = ()> + Send + use<> {
        self.first.clone().cancelled_owned()
    }

    /// Serves to its end, or to the second signal, and says in the log which it was. Whether nothing was cut.
    pub(super) async fn serve(&self, serving: impl Future<Output = Served>) -> bool {
        let served = tokio::select! {
            served = serving => Some(served.cut),
            () = self.second.cancelled() => None,
        };
        match served {
            Some(0) => tracing::info!("stopped; every query in flight was finished"),
            Some(cut) => {
                tracing::warn!(cut, "stopped; the grace period was over, and answers under way were cut");
            }
            None => tracing::warn!("stopped at once by a second signal; answers under way were cut"),
        }
        served == Some(0)
    }
}
