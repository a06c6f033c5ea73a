//! Every interleaving of small cases: `RUSTFLAGS="--cfg weir_loom" cargo test --release --lib node::pool::model`.

use std::{sync::Arc, time::Duration};

use loom::thread;
use prometheus::Registry;

use super::*;

fn supply(mode: Mode) -> PoolContext {
    let metrics = PoolMetrics::register(&Registry::new()).unwrap();
    let refiller = Refiller::new(|job| {
        thread::spawn(job);
        true
    });
    PoolContext { cap: Arc::new(Cap::new(mode)), refiller, refill_budget: None, metrics }
}

fn pool(size: usize, low: f64, high: f64, supply: &PoolContext) -> BytesPool {
    let options = Options { size, low, high };
    BytesPool::new("bytes", &Buckets::new(vec![Bucket { capacity: 16, options }]), supply)
}

/// Two threads get and drop: nothing is lost, nothing is lent beyond the cap.
#[test]
fn get_and_drop() {
    loom::model(|| {
        let supply = supply(Mode::Bounded { bytes: 16, wait: Duration::ZERO });
        let shared = pool(1, 0.0, 0.0, &supply);
        let other = shared.clone();
        let handle = thread::spawn(move || drop(other.get(16)));
        drop(shared.get(16));
        handle.join().unwrap();
        assert_eq!(supply.cap.lent(), 0);
        assert!(supply.cap.peak() <= 16);
        shared.check_returned().unwrap();
        assert_eq!(shared.free(16), Some(1));
    });
}

/// A refill races with the buffers that it is to replace: never more objects than the pool keeps, and it can refill
/// again.
#[test]
fn refill_and_put() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let supply = supply(Mode::Unbounded);
        let shared = pool(2, 0.5, 1.0, &supply);
        let other = shared.clone();
        let handle = thread::spawn(move || drop(other.get(16)));
        drop(shared.get(16));
        handle.join().unwrap();
        assert!(shared.free(16).unwrap() <= 2);
        shared.check_returned().unwrap();
    });
}
