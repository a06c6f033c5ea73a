//! M3's semantics one by one, then the bound that M3 never had.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::{Registry, TextEncoder};

use super::*;

/// Refills that run when the test says so.
#[derive(Clone, Default)]
struct Jobs(Arc<Mutex<Vec<Job>>>);

impl Jobs {
    fn refiller(&self) -> Refiller {
        let jobs = self.clone();
        Refiller::new(move |job| {
            jobs.0.lock().unwrap().push(job);
            true
        })
    }

    fn waiting(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn run(&self) {
        let jobs = std::mem::take(&mut *self.0.lock().unwrap());
        for job in jobs {
            job();
        }
    }
}

fn supply(mode: Mode, jobs: &Jobs) -> (PoolContext, Registry) {
    let registry = Registry::new();
    let metrics = PoolMetrics::register(&registry).unwrap();
    let supply = PoolContext {
        cap: Arc::new(Cap::new(mode)),
        refiller: jobs.refiller(),
        refill_budget: None,
        metrics,
    };
    (supply, registry)
}

fn bounded(bytes: u64) -> Mode {
    Mode::Bounded { bytes, wait: Duration::ZERO }
}

fn metric(registry: &Registry, line: &str) -> Option<u64> {
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    text.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
}

fn bytes_16(size: usize, low: f64, high: f64, supply: &PoolContext) -> BytesPool {
    let options = Options { size, low, high };
    BytesPool::new("bytes", &Buckets::new(vec![Bucket { capacity: 16, options }]), supply)
}

#[test]
fn it_starts_full() {
    let (supply, registry) = supply(Mode::Unbounded, &Jobs::default());
    let pool = bytes_16(10, 0.3, 0.6, &supply);
    assert_eq!(pool.free(16), Some(10));
    assert_eq!(metric(&registry, r#"weir_pool_free{bucket="16",pool="bytes"}"#), Some(10));
    assert_eq!(metric(&registry, r#"weir_pool_total{bucket="16",pool="bytes"}"#), Some(10));
}

#[test]
fn get_on_empty_allocates_and_counts() {
    let (supply, registry) = supply(Mode::Unbounded, &Jobs::default());
    let pool = bytes_16(2, 0.0, 0.0, &supply);
    let leases: Vec<_> = (0..5).map(|_| pool.get(16).unwrap()).collect();
    assert_eq!(metric(&registry, r#"weir_pool_get_on_empty_total{bucket="16",pool="bytes"}"#), Some(3));
    assert_eq!(metric(&registry, r#"weir_pool_outstanding{bucket="16",pool="bytes"}"#), Some(5));
    assert_eq!(metric(&registry, r#"weir_pool_outstanding_bytes{bucket="16",pool="bytes"}"#), Some(80));
    drop(leases);
    assert_eq!(metric(&registry, r#"weir_pool_put_on_full_total{bucket="16",pool="bytes"}"#), Some(3));
    assert_eq!(metric(&registry, r#"weir_pool_outstanding_bytes{bucket="16",pool="bytes"}"#), Some(0));
    assert_eq!(pool.free(16), Some(2));
}

#[test]
fn one_refill_starts_at_the_low_mark_and_stops_at_the_high_one() {
    let jobs = Jobs::default();
    let (supply, registry) = supply(Mode::Unbounded, &jobs);
    let pool = bytes_16(100, 0.25, 0.75, &supply);
    let mut leases: Vec<_> = (0..74).map(|_| pool.get(16).unwrap()).collect();
    assert_eq!((pool.free(16), jobs.waiting()), (Some(26), 0));
    leases.push(pool.get(16).unwrap());
    leases.push(pool.get(16).unwrap());
    assert_eq!((pool.free(16), jobs.waiting()), (Some(24), 1), "one refill at a time");
    jobs.run();
    assert_eq!(pool.free(16), Some(75));
    assert_eq!(metric(&registry, r#"weir_pool_refills_total{bucket="16",pool="bytes"}"#), Some(1));
    leases.extend((0..50).map(|_| pool.get(16).unwrap()));
    assert_eq!(jobs.waiting(), 1, "and another one after it");
}

#[test]
fn a_refiller_that_takes_no_job_is_asked_again() {
    let (mut supply, _) = supply(Mode::Unbounded, &Jobs::default());
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    supply.refiller = Refiller::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        false
    });
    let pool = bytes_16(2, 0.5, 1.0, &supply);
    let _leases = [pool.get(1).unwrap(), pool.get(1).unwrap()];
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn buckets_are_chosen_by_capacity() {
    let (supply, registry) = supply(Mode::Unbounded, &Jobs::default());
    let pool = BytesPool::new("bytes", &Buckets::of(&[(64, 4), (16, 4)]), &supply);
    for (asked, got) in [(0, 16), (16, 16), (17, 64), (64, 64), (65, 65)] {
        assert_eq!(pool.get(asked).unwrap().capacity(), got, "{asked}");
    }
    assert_eq!(metric(&registry, r#"weir_pool_alloc_max_total{pool="bytes"}"#), Some(1));
    assert_eq!((pool.free(16), pool.free(64)), (Some(4), Some(4)), "the larger one is not kept");
}

#[test]
fn a_buffer_comes_back_empty_with_its_memory_in_the_bucket_that_it_fills() {
    let (supply, _) = supply(bounded(500), &Jobs::default());
    let pool = BytesPool::new("bytes", &Buckets::of(&[(16, 4), (64, 4)]), &supply);
    let large = pool.get(64).unwrap();
    let mut small = pool.get(16).unwrap();
    small.reserve_charge(100, Claim::until(&|| false)).unwrap();
    assert_eq!(supply.cap.lent(), 164);
    small.reserve_exact(70);
    small.push(1);
    drop(small);
    assert_eq!((pool.free(16), pool.free(64)), (Some(3), Some(3)), "it outgrew every bucket");
    drop(large);
    let again = pool.get(64).unwrap();
    assert!(again.is_empty());
    assert_eq!(again.capacity(), 64);
}

#[test]
fn the_cap_holds_over_all_pools() {
    let (supply, registry) = supply(bounded(100), &Jobs::default());
    let bytes = BytesPool::new("bytes", &Buckets::of(&[(64, 4)]), &supply);
    let samples = NumbersPool::new("samples", &Buckets::of(&[(4, 4)]), &supply);
    let first = bytes.get(64).unwrap();
    let second = samples.get(4).unwrap();
    assert_eq!(second.charged(), 32);
    let refused = samples.get(1).unwrap_err();
    assert_eq!(refused, PoolExhausted { asked: 32, lent: 96, cap: 100 });
    assert!(refused.to_string().contains("96 of 100 bytes"));
    assert_eq!(bytes.get(1_000).unwrap_err().asked, 1_000, "larger than the cap");
    drop(first);
    samples.get(1).unwrap();
    assert_eq!(metric(&registry, r#"weir_pool_exhausted_total{pool="samples"}"#), Some(1));
    drop(second);
    assert_eq!((supply.cap.lent(), supply.cap.peak(), supply.cap.exhausted()), (0, 96, 2));
}

#[test]
fn whoever_waits_gets_what_is_given_back() {
    let mode = Mode::Bounded { bytes: 16, wait: Duration::from_secs(60) };
    let (supply, _) = supply(mode, &Jobs::default());
    let pool = bytes_16(1, 0.0, 0.0, &supply);
    let lease = pool.get(16).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.get(16).map(|lease| lease.charged()));
        while supply.cap.waiting() == 0 {
            std::thread::yield_now();
        }
        drop(lease);
        assert_eq!(waiter.join().unwrap(), Ok(16));
    });
}

#[test]
fn refills_keep_to_their_budget() {
    let jobs = Jobs::default();
    let (mut supply, _) = supply(Mode::Unbounded, &jobs);
    let clock = Arc::new(AtomicU64::new(0));
    let now = Arc::clone(&clock);
    let budget = RefillBudget::with_clock(5, move || Duration::from_millis(now.load(Ordering::Relaxed)));
    supply.refill_budget = Some(Arc::new(budget));
    let pool = bytes_16(20, 0.5, 1.0, &supply);
    let mut leases: Vec<_> = (0..20).map(|_| pool.get(16).unwrap()).collect();
    jobs.run();
    assert_eq!(pool.free(16), Some(5));
    clock.store(400, Ordering::Relaxed);
    leases.push(pool.get(16).unwrap());
    jobs.run();
    assert_eq!(pool.free(16), Some(6));
}

#[test]
fn an_idle_pool_shrinks_to_its_low_mark() {
    let (supply, _) = supply(Mode::Unbounded, &Jobs::default());
    let pool = bytes_16(10, 0.3, 0.6, &supply);
    drop(pool.get(1).unwrap());
    assert_eq!(pool.shrink(), 0, "it was used");
    assert_eq!(pool.shrink(), 7);
    assert_eq!((pool.free(16), pool.shrink()), (Some(3), 0));
}

#[test]
fn what_never_came_back_is_named() {
    let (supply, _) = supply(Mode::Unbounded, &Jobs::default());
    let pool = bytes_16(10, 0.3, 0.6, &supply);
    let (kept, oversize) = (pool.get(1).unwrap(), pool.get(1_000).unwrap());
    assert_eq!(pool.check_returned(), Err(Leaked { objects: 2, bytes: 1_016 }));
    drop((kept, oversize));
    pool.check_returned().unwrap();
}

#[test]
fn what_lies_free_counts_against_the_cap_and_is_given_up_first() {
    let (supply, _) = supply(bounded(100), &Jobs::default());
    let bytes = bytes_16(4, 0.0, 0.0, &supply);
    assert_eq!((supply.cap.lent(), supply.cap.held()), (0, 64));
    let pool = NumbersPool::new("numbers", &Buckets::of(&[(4, 4)]), &supply);
    assert_eq!((supply.cap.held(), pool.free(4)), (96, Some(1)), "it is filled as far as there is room");
    let mut loan = Ledger::new("working", &supply).loan();
    loan.grow(50, Claim::until(&|| false)).unwrap();
    assert_eq!((supply.cap.lent(), bytes.free(16)), (50, Some(1)));
    loan.grow(50, Claim::until(&|| false)).unwrap();
    assert_eq!((supply.cap.held(), bytes.free(16), pool.free(4)), (100, Some(0), Some(0)));
    assert!(bytes.get(1).is_err());
    drop(loan);
    drop(bytes.get(1).unwrap());
    assert_eq!((supply.cap.lent(), supply.cap.held(), bytes.free(16)), (0, 16, Some(1)));
}

#[test]
fn a_refill_makes_no_more_than_the_cap_has_room_for() {
    let jobs = Jobs::default();
    let (supply, _) = supply(bounded(40), &jobs);
    let pool = bytes_16(4, 0.5, 1.0, &supply);
    let leases = [pool.get(1).unwrap(), pool.get(1).unwrap()];
    jobs.run();
    assert_eq!((pool.free(16), supply.cap.held()), (Some(0), 32));
    drop(leases);
}

#[test]
fn metrics_of_a_dropped_pool_go() {
    let (supply, registry) = supply(Mode::Unbounded, &Jobs::default());
    drop(bytes_16(1, 0.0, 0.0, &supply));
    assert_eq!(metric(&registry, r#"weir_pool_free{bucket="16",pool="bytes"}"#), None);
}

#[test]
fn a_query_that_is_gone_waits_no_longer() {
    let mode = Mode::Bounded { bytes: 16, wait: Duration::from_secs(60) };
    let (supply, _) = supply(mode, &Jobs::default());
    let pool = bytes_16(1, 0.0, 0.0, &supply);
    let _lease = pool.get(16).unwrap();
    let asked = AtomicU64::new(0);
    let gone = || asked.fetch_add(1, Ordering::Relaxed) > 1;
    pool.get_unless(16, Claim::until(&gone)).unwrap_err();
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    assert_eq!((supply.cap.waiting(), supply.cap.lent()), (0, 16));
}

#[test]
fn loans_count_as_leases_do() {
    let (supply, registry) = supply(bounded(100), &Jobs::default());
    let ledger = Ledger::new("working", &supply);
    let line = r#"weir_pool_outstanding_bytes{bucket="any",pool="working"}"#;
    let (mut one, mut other) = (ledger.loan(), ledger.loan());
    one.grow(40, Claim::until(&|| false)).unwrap();
    other.grow(50, Claim::until(&|| false)).unwrap();
    assert_eq!(
        one.grow(11, Claim::until(&|| false)).unwrap_err(),
        PoolExhausted { asked: 11, lent: 90, cap: 100 }
    );
    assert_eq!(ledger.check_returned(), Err(Leaked { objects: 2, bytes: 90 }));
    one.keep_only(10);
    assert_eq!((one.charged(), metric(&registry, line)), (10, Some(60)));
    one.try_grow(40).unwrap();
    assert_eq!(one.try_grow(1).unwrap_err().cap, 100);
    drop(other);
    assert_eq!(ledger.check_returned(), Err(Leaked { objects: 1, bytes: 50 }));
    drop(one);
    ledger.check_returned().unwrap();
    assert_eq!(supply.cap.lent(), 0);
    assert_eq!(metric(&registry, r#"weir_pool_exhausted_total{pool="working"}"#), Some(2));
}

#[test]
fn what_a_buffer_grew_to_is_charged_afterwards() {
    let (supply, _) = supply(bounded(100), &Jobs::default());
    let pool = bytes_16(1, 0.0, 0.0, &supply);
    let mut lease = pool.get(16).unwrap();
    lease.reserve_exact(60);
    lease.settle(Claim::until(&|| false)).unwrap();
    assert_eq!(supply.cap.lent(), 60);
    lease.reserve_exact(101);
    lease.settle(Claim::until(&|| false)).unwrap_err();
}

/// Other queries, which hold memory until they are gone.
#[derive(Debug, Default)]
struct Remain {
    gone: AtomicBool,
}

impl Others for Remain {
    fn latest(&self) -> u64 {
        1
    }

    fn remain(&self, _number: u64) -> bool {
        !self.gone.load(Ordering::SeqCst)
    }
}

#[test]
fn others_leave_a_quarter_to_who_goes_first() {
    let (supply, _) = supply(bounded(100), &Jobs::default());
    let ledger = Ledger::new("working", &supply);
    let pool = bytes_16(4, 0.0, 1.0, &supply);
    let (mut first, mut other) = (ledger.loan(), ledger.loan());
    let others = Claim::until(&|| false);
    let gave_way = supply.cap.give_way();
    other.grow(75, others).unwrap();
    other.grow(1, others).unwrap_err();
    // Free buffers are part of the memory that is left.
    assert!(pool.get(16).is_err());
    first.grow(25, others.first(Some(&Remain::default()))).unwrap();
    assert_eq!(supply.cap.lent(), 100);
    drop((gave_way, first));
    other.grow(25, others).unwrap();
}

#[test]
fn who_goes_first_ends_while_ever_new_ones_come() {
    let mode = Mode::Bounded { bytes: 1_000, wait: Duration::from_millis(5) };
    let (supply, _) = supply(mode, &Jobs::default());
    let ledger = Ledger::new("working", &supply);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // Each takes all that it gets, gives all of it back when there is no more, and comes again.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut loan = ledger.loan();
                    while loan.grow(10, Claim::until(&|| done.load(Ordering::Relaxed))).is_ok() {}
                }
            });
        }
        let _gave_way = supply.cap.give_way();
        let mut loan = ledger.loan();
        let others = Remain::default();
        for bytes in [10, 600, 10, 330] {
            loan.grow(bytes, Claim::until(&|| false).first(Some(&others))).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// A read that goes first and one of the others, which holds 70 of the pool's 100 bytes; the line ends with its guard.
fn first_in_line() -> (PoolContext, YieldGuard, Loan, Loan) {
    let mode = Mode::Bounded { bytes: 100, wait: Duration::from_millis(1) };
    let (supply, _) = supply(mode, &Jobs::default());
    let ledger = Ledger::new("working", &supply);
    let (first, mut other) = (ledger.loan(), ledger.loan());
    other.grow(70, Claim::until(&|| false)).unwrap();
    let line = supply.cap.give_way();
    (supply, line, first, other)
}

#[test]
fn others_get_nothing_of_the_memory_for_which_the_first_waits() {
    let (supply, _gave_way, mut first, mut other) = first_in_line();
    let others = Claim::until(&|| false);
    std::thread::scope(|scope| {
        let first = scope.spawn(move || {
            let remain = Remain::default();
            first.grow(60, Claim::until(&|| false).first(Some(&remain))).map(|()| first)
        });
        while supply.cap.waiting() == 0 {
            std::thread::yield_now();
        }
        other.keep_only(45);
        // Less than three quarters are lent, but all that comes back is the first one's.
        let taken = other.grow(5, others);
        other.keep_only(40);
        assert_eq!(first.join().unwrap().unwrap().charged(), 60);
        taken.unwrap_err();
    });
}

#[test]
fn the_first_waits_as_long_as_others_hold_memory_and_no_longer() {
    let (supply, _gave_way, mut first, mut other) = first_in_line();
    let others = Claim::until(&|| false);
    let remain = Remain::default();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| first.grow(60, Claim::until(&|| false).first(Some(&remain))));
        while supply.cap.waiting() == 0 {
            std::thread::yield_now();
        }
        // Each of these waits is in vain after a millisecond.
        for _ in 0..20 {
            other.grow(50, others).unwrap_err();
        }
        assert!(!first.is_finished());
        remain.gone.store(true, Ordering::SeqCst);
        assert_eq!(first.join().unwrap().unwrap_err().asked, 60);
    });
}
