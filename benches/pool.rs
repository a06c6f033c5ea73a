//! The cost of a pooled buffer beside a plain allocation and beside the bare queue: one thread, two threads, and
//! buffers held while others are taken.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use crossbeam_queue::ArrayQueue;
use prometheus::Registry;
use weir::node::pool::{Buckets, BytesPool, Cap, Mode, PoolContext, PoolMetrics, Refiller};

const KEPT: usize = 4_096;

fn pool(capacity: usize, mode: Mode) -> BytesPool {
    let metrics = PoolMetrics::register(&Registry::new()).expect("a new registry");
    let refiller = Refiller::thread().expect("a thread");
    let supply = PoolContext { cap: Arc::new(Cap::new(mode)), refiller, refill_budget: None, metrics };
    BytesPool::new("bytes", &Buckets::of(&[(capacity, KEPT)]), &supply)
}

/// Takes, touches and gives back, on the given number of threads.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, threads: u64, once: impl Fn() + Sync) {
    group.bench_function(format!("{name}, {threads} threads"), |bencher| {
        bencher.iter_custom(|rounds| {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| (0..rounds).for_each(|_| once()));
                }
            });
            start.elapsed()
        });
    });
}

fn touch(buffer: &mut Vec<u8>) {
    buffer.push(1);
    black_box(buffer);
}

fn buffers(c: &mut Criterion) {
    for capacity in [256, 4_096, 262_144] {
        let mut group = c.benchmark_group(format!("{capacity} bytes"));
        let bound = Mode::Bounded { bytes: 1 << 30, wait: Duration::ZERO };
        let (bounded, unbounded) = (pool(capacity, bound), pool(capacity, Mode::Unbounded));
        let queue = ArrayQueue::new(KEPT);
        while queue.push(Vec::with_capacity(capacity)).is_ok() {}
        for threads in [1, 2] {
            measure(&mut group, "plain", threads, || touch(&mut Vec::with_capacity(capacity)));
            measure(&mut group, "zeroed", threads, || touch(black_box(&mut vec![0; capacity])));
            measure(&mut group, "queue", threads, || {
                if let Some(mut buffer) = queue.pop() {
                    touch(&mut buffer);
                    buffer.clear();
                    queue.push(buffer).ok();
                }
            });
            for (name, pool) in [("pool bounded", &bounded), ("pool unbounded", &unbounded)] {
                measure(&mut group, name, threads, || {
                    if let Ok(mut buffer) = pool.get(capacity) {
                        touch(&mut buffer);
                    }
                });
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .without_plots();
    targets = buffers
}
criterion_main!(benches);
