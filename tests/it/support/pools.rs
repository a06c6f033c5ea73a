//! The pools of a node's engine, without the node.

use std::{sync::Arc, time::Duration};

use prometheus::Registry;
use weir::node::{
    engine::{Pools, SamplePool},
    pool::{Buckets, Cap, Ledger, Mode, NumbersPool, PoolContext, PoolMetrics, Refiller},
};

/// Pools under a cap at which queries wait for a minute.
pub(crate) fn pools(bytes: u64) -> (Pools, Arc<Cap>) {
    pools_waiting(bytes, Duration::from_secs(60))
}

/// Pools under a cap at which queries wait for this time.
pub(crate) fn pools_waiting(bytes: u64, wait: Duration) -> (Pools, Arc<Cap>) {
    let cap = Arc::new(Cap::new(Mode::Bounded { bytes, wait }));
    let supply = PoolContext {
        cap: Arc::clone(&cap),
        refiller: Refiller::new(|_| false),
        refill_budget: None,
        metrics: PoolMetrics::register(&Registry::new()).unwrap(),
    };
    let pools = Pools {
        samples: SamplePool::new("samples", &Buckets::samples(), &supply),
        numbers: NumbersPool::new("numbers", &Buckets::numbers(), &supply),
        working: Ledger::new("working", &supply),
    };
    (pools, cap)
}
