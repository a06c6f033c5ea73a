//! Orders of operators that wait for the next round to the store.

use std::{mem, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use crate::{
    fleet::PAGE_BYTES,
    proxy::{log::Selection, meter::Kill},
};

/// Orders that wait at the same time.
const ORDERS_MAX: usize = 30;
/// Bytes of an order.
pub(super) const ORDER_BYTES_MAX: usize = 8 << 10;
const _: () = assert!(ORDERS_MAX * ORDER_BYTES_MAX < PAGE_BYTES, "all fit in one exchange");
/// Longest wait for the store: a second until the next round where it is away, and the time for that.
const CONFIRMED: Duration = Duration::from_secs(2);

/// An order to stop queries, as it stands on the board.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    pub(super) which: Selection,
    pub(super) kill: Kill,
}

/// One that waits; `None` is only for the confirmation that all is at the store.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) order: Option<Vec<u8>>,
    pub(super) confirmed: oneshot::Sender<Result<(), String>>,
}

/// Orders that wait for the next round, which they hasten.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Vec<Waiting>>,
    posted: Notify,
}

impl Outbox {
    /// Passes an order on with everything else that is to be shared; waits for the store.
    ///
    /// # Errors
    /// The store did not confirm it.
    pub(super) async fn pass_on(&self, order: Option<&Order>) -> Result<(), String> {
        let order = order.map(serde_json::to_vec).transpose().map_err(|error| error.to_string())?;
        if order.as_ref().is_some_and(|order| order.len() > ORDER_BYTES_MAX) {
            return Err(format!("it is longer than {ORDER_BYTES_MAX} bytes"));
        }
        let (confirmed, confirmation) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= ORDERS_MAX {
                return Err(format!("{ORDERS_MAX} orders wait already"));
            }
            waiting.push(Waiting { order, confirmed });
        }
        self.posted.notify_one();
        let late = || Err("the store does not answer".to_owned());
        timeout(CONFIRMED, confirmation).await.map_or_else(|_| late(), |said| said.unwrap_or_else(|_| late()))
    }

    /// All that wait, or only the orders; those whose sender waits no longer are forgotten.
    pub(super) fn take(&self, only_orders: bool) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        let (taken, left) = mem::take(&mut *waiting)
            .into_iter()
            .filter(|one| !one.confirmed.is_closed())
            .partition(|one| !only_orders || one.order.is_some());
        *waiting = left;
        taken
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// Until one waits.
    pub(super) async fn posted(&self) {
        self.posted.notified().await;
    }
}
