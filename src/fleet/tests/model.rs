//! A store of leases without a server, on the runtime's clock: a whole fleet runs in a test that takes no time.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::super::{
    board::BoardAnswer,
    lease::{SKEW_MS, TTL_MS},
    pool::{Pool, Terms},
    store::{Answers, Round, SEATS, StoreError},
};

/// Its pools; the board is always empty, and there are no tokens.
pub(crate) struct Model {
    began: Instant,
    /// How long a round trip takes.
    latency: Duration,
    pools: Mutex<HashMap<String, Pool>>,
    /// How long the leases of each pool count after their end, as it was asked last.
    holds: Mutex<HashMap<String, u64>>,
}

impl Model {
    pub(crate) fn new(latency: Duration) -> Self {
        Self { began: Instant::now(), latency, pools: Mutex::default(), holds: Mutex::default() }
    }

    /// How long the leases of a pool count after their end, milliseconds.
    pub(crate) fn hold_ms(&self, pool: &str) -> Option<u64> {
        self.holds.lock().get(pool).copied()
    }

    pub(in super::super) async fn round(
        &self,
        id: &str,
        round: &Round,
        limit: Duration,
    ) -> Result<Answers, StoreError> {
        let there_and_back = async {
            sleep(self.latency / 2).await;
            let answers = self.answer(id, round);
            sleep(self.latency / 2).await;
            answers
        };
        timeout(limit, there_and_back).await.map_err(|_| StoreError::Slow(limit))
    }

    fn answer(&self, id: &str, round: &Round) -> Answers {
        let id = u64::from_str_radix(id, 16).expect("a number");
        let now = 1_000_000 + self.began.elapsed().as_millis() as u64;
        let mut pools = self.pools.lock();
        let leases = round.leases.iter().map(|ask| {
            self.holds.lock().insert(ask.pool.clone(), ask.hold_ms);
            let terms = Terms { pool: ask.size, ttl: TTL_MS, skew: SKEW_MS, hold: ask.hold_ms };
            if !pools.contains_key(&ask.pool) {
                let pool = pools.get(SEATS).map_or_else(Pool::default, Pool::beside);
                pools.insert(ask.pool.clone(), pool);
            }
            pools.get_mut(&ask.pool)?.renew((now, 1), &terms, id, &ask.renewal)
        });
        let leases = leases.collect();
        let boards = round.boards.iter().map(|_| BoardAnswer::default()).collect();
        Answers { leases, boards, ..Answers::default() }
    }
}
