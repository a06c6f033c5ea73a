//! How an operator ends a process: in good order by one signal, at once by a second.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::http::Served;

/// SIGHUP, as it comes.
pub(super) struct Hangups(Option<Signal>);

impl Hangups {
    /// Takes signals from the system that would end the process; all but SIGHUP mean nothing to it. To be called first
    /// of all: a start may take long.
    pub(super) fn listen() -> Self {
        let meaningless =
            [SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::alarm(), SignalKind::io()];
        for kind in meaningless {
            // Once it was listened to, the system does nothing by itself any more. Where it cannot be, that stays so.
            drop(signal(kind));
        }
        Self(signal(SignalKind::hangup()).ok())
    }

    /// The next one; `None` when none will come.
    pub(super) async fn next(&mut self) -> Option<()> {
        self.0.as_mut()?.recv().await
    }

    /// Says in the log each time that there is nothing to read again.
    pub(super) async fn ignore(mut self) {
        while self.next().await.is_some() {
            tracing::warn!("SIGHUP is ignored: settings of this process change at its next start");
        }
    }
}

/// SIGTERM, SIGINT and SIGQUIT, as they come.
pub(super) struct Signals {
    first: CancellationToken,
    second: CancellationToken,
}

impl Signals {
    /// Listens from now on, as a task of this runtime.
    pub(super) fn listen() -> Self {
        let signals = Self { first: CancellationToken::new(), second: CancellationToken::new() };
        let (first, second) = (signals.first.clone(), signals.second.clone());
        let listen = |kind| signal(kind).ok();
        let kinds =
            (listen(SignalKind::terminate()), listen(SignalKind::interrupt()), listen(SignalKind::quit()));
        // Without them the process ends as the system ends it.
        let (Some(mut term), Some(mut int), Some(mut quit)) = kinds else { return signals };
        tokio::spawn(async move {
            for token in [first, second] {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                    _ = quit.recv() => {}
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
