//! The live views: each is written once a second for all who watch it, and only while somebody does.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse::{Event, Sse};
use futures_util::stream::{self, Stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    history::{History, INTERVAL_MS},
    page::{State, View},
    rules,
    snapshot::Snapshot,
};
use crate::proxy::Proxy;

/// People who watch at the same time.
const VIEWERS_MAX: usize = 16;
/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// A view as it was written last; `None` ends its watchers.
type Written = Option<Arc<str>>;

/// The views, their watchers, and the history that they show.
pub(super) struct Live {
    proxy: Arc<Proxy>,
    history: History,
    views: [watch::Sender<Written>; View::LIVE.len()],
    viewers: Arc<Semaphore>,
}

impl Live {
    pub(super) fn new(proxy: Arc<Proxy>) -> Arc<Self> {
        let (history, viewers) = (History::default(), Arc::new(Semaphore::new(VIEWERS_MAX)));
        Arc::new(Self { proxy, history, views: View::LIVE.map(|_| watch::Sender::default()), viewers })
    }

    /// Records the history and writes the watched views, until it is dropped.
    pub(super) async fn run(&self) {
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut recorded_ms = i64::MIN;
        loop {
            every.tick().await;
            let now_ms = self.proxy.now_ms();
            if now_ms.saturating_sub(recorded_ms).unsigned_abs() >= INTERVAL_MS.unsigned_abs() {
                self.history.record(now_ms, &self.proxy.snapshot());
                recorded_ms = now_ms;
            }
            self.write_watched();
        }
    }

    fn write_watched(&self) {
        let watched = |(_, written): &(View, &watch::Sender<Written>)| written.receiver_count() > 0;
        let mut watched = View::LIVE.into_iter().zip(&self.views).filter(watched).peekable();
        if watched.peek().is_none() || self.viewers.is_closed() {
            return;
        }
        let snapshot = Snapshot::take(&self.proxy);
        for (view, written) in watched {
            written.send_replace(Some(self.fragment(view, &snapshot).into()));
        }
    }

    /// The changing part of a view.
    pub(super) fn fragment(&self, view: View, snapshot: &Snapshot) -> String {
        let rules = if view == View::Rules { rules::all(&self.proxy) } else { Vec::new() };
        State { snapshot, history: &self.history, rules: &rules }.fragment(view)
    }

    /// The changes of a view from now on; `None` where too many people watch already.
    pub(super) fn watch(
        &self,
        view: View,
    ) -> Option<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>> {
        let viewer = Arc::clone(&self.viewers).try_acquire_owned().ok()?;
        let (_, written) = View::LIVE.into_iter().zip(&self.views).find(|(known, _)| *known == view)?;
        Some(Sse::new(stream::unfold((written.subscribe(), viewer), next)))
    }

    /// Ends all who watch, so that a shutdown need not wait for them.
    pub(super) fn close(&self) {
        self.viewers.close();
        for written in &self.views {
            written.send_replace(None);
        }
    }
}

/// The next change. A slow reader misses those between.
async fn next(
    (mut changes, viewer): (watch::Receiver<Written>, OwnedSemaphorePermit),
) -> Option<(Result<Event, Infallible>, (watch::Receiver<Written>, OwnedSemaphorePermit))> {
    changes.changed().await.ok()?;
    let written = changes.borrow_and_update().clone()?;
    Some((Ok(Event::default().data(written)), (changes, viewer)))
}
