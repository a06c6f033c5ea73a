//! A tenant's limits that hold for several proxies: the fixed part, the leased part, its end, and drawn tokens.

use std::num::NonZeroU64;

use super::{
    super::{BackendLease, Sharing, TenantDemand, WaitReason},
    *,
};
use crate::base::share::{Amount, Demand, TokenDemand, TokenKind};

/// One of four proxies before a large budget. Every tenant may have 16 queries and 1,600 bytes in flight, of which an eighth
/// and a fortieth need no lease.
fn one_of_four() -> Arc<Admission> {
    with_rates(Rates::default())
}

fn with_rates(rate: Rates) -> Arc<Admission> {
    let sharing = Sharing { replicas_max: NonZeroU64::new(4).unwrap(), leased: true };
    let policy = policy(1 << 20, 1 << 20, |tenant| {
        tenant.in_flight = InFlight { queries: Limit::enforce(16), memory: Limit::enforce(1_600) };
        tenant.rate = rate;
    });
    Admission::new(Policy { sharing, ..policy })
}

const FIXED: Amount = Amount { bytes: 40, queries: 2 };
const POOL: Amount = Amount { bytes: 1_440, queries: 8 };

fn in_5_s() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn in_flight(demand: &TenantDemand) -> Demand {
    let (pool, demand) = demand.in_flight.unwrap();
    assert_eq!(pool, POOL);
    demand
}

#[tokio::test(start_paused = true)]
async fn a_tenant_within_its_fixed_part_asks_nobody_and_more_waits_for_a_lease() {
    let admission = one_of_four();
    let first = fill(&admission, &ask("a", 10));
    assert_eq!(first.len() as u64, FIXED.queries);
    admission.lease_wanted().now_or_never().expect("the third had to wait");
    assert!(admission.lease_wanted().now_or_never().is_none());
    // The third left the queue; what was used of late is asked for, and that was the fixed part.
    assert_eq!(admission.draw_in_tenants(9), []);
    let mut third = Box::pin(admission.admit(ask("a", 10)));
    assert!((&mut third).now_or_never().is_none());
    assert_eq!(admission.snapshot().backends[0].reasons, [(WaitReason::TenantLease, 1)]);
    let demands = admission.draw_in_tenants(9);
    assert_eq!((demands[0].tenant.as_str(), demands[0].is_waiting), ("a", true));
    let one = Amount { bytes: 0, queries: 1 };
    let demand = in_flight(&demands[0]);
    assert_eq!((demand.held, demand.wants, demand.claim.1), (Amount::NONE, one, 0));
    admission.set_tenant_leased(&tenant("a"), one, in_5_s());
    let third = third.now_or_never().unwrap().unwrap();
    assert!(admission.admit(ask("a", 10)).now_or_never().is_none());
    assert!(admission.admit(ask("b", 10)).now_or_never().is_some(), "another tenant has its own");
    drop((first, third));
    let demands = admission.draw_in_tenants(9);
    assert_eq!(
        (in_flight(&demands[0]).held, in_flight(&demands[0]).wants),
        (Amount::NONE, one),
        "the peak of late"
    );
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(in_flight(&admission.draw_in_tenants(9)[0]).wants, Amount::NONE, "it gives the lease back");
    admission.set_tenant_leased(&tenant("a"), Amount::NONE, in_5_s());
    assert_eq!(admission.draw_in_tenants(9), []);
}

#[tokio::test(start_paused = true)]
async fn a_tenants_lease_ends_by_the_clock_and_while_the_store_is_away_the_fixed_part_stays() {
    let admission = one_of_four();
    let _small = admission.admit(ask("a", 10)).now_or_never().unwrap().unwrap();
    let mut large = Box::pin(admission.admit(ask("a", 600)));
    assert!((&mut large).now_or_never().is_none());
    let demand = in_flight(&admission.draw_in_tenants(9)[0]);
    assert_eq!((demand.wants.bytes, demand.claim.1), (610 - FIXED.bytes, 610 - FIXED.bytes));
    admission.set_tenant_leased(&tenant("a"), Amount { bytes: 570, queries: 0 }, in_5_s());
    let large = large.now_or_never().unwrap().unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(admission.admit(ask("a", 10)).now_or_never().is_none(), "nobody has to say that it ended");
    assert_eq!(in_flight(&admission.draw_in_tenants(9)[0]).held.bytes, 570);
    drop(large);
    assert!(admission.admit(ask("a", 10)).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_tenant_does_not_hold_is_drawn_in_before_the_store_is_asked() {
    let admission = one_of_four();
    admission.set_tenant_leased(&tenant("a"), POOL, in_5_s());
    assert_eq!(fill(&admission, &ask("a", 1)).len(), 2, "an account that is not there yet leases nothing");
    admission.set_tenant_leased(&tenant("a"), POOL, in_5_s());
    let mut running = fill(&admission, &ask("a", 1));
    assert_eq!(running.len(), 10);
    running.truncate(7);
    let demand = in_flight(&admission.draw_in_tenants(9)[0]);
    assert_eq!((demand.held.queries, demand.wants.queries), (5, 8), "all ran a moment ago");
    assert_eq!(fill(&admission, &ask("a", 1)).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_light_query_of_a_tenant_that_runs_nothing_needs_no_lease_and_a_query_larger_than_any_part_is_refused()
 {
    let admission = one_of_four();
    // Light, and larger than the fixed part.
    let light = admission.admit(ask("a", 300)).now_or_never().unwrap().unwrap();
    assert!(admission.admit(ask("a", 300)).now_or_never().is_none());
    drop(light);
    let refusal = admission.admit(ask("a", 1_481)).now_or_never().unwrap().unwrap_err();
    assert_eq!((refusal.limit, refusal.max), (LimitName::BudgetNever, FIXED.bytes + POOL.bytes));
}

#[tokio::test(start_paused = true)]
async fn the_busiest_tenants_ask_first_and_those_that_hold_a_lease_before_them() {
    let admission = one_of_four();
    let mut waiting = Vec::new();
    for (name, queries) in [("a", 3), ("b", 9), ("c", 6)] {
        for _ in 0..queries {
            let mut query = tokio_test::task::spawn(admission.admit(ask(name, 1)));
            // Those that run go on.
            waiting.push((query.poll(), query));
        }
    }
    let names = |most| -> Vec<String> {
        let demands = admission.draw_in_tenants(most);
        demands.into_iter().map(|demand| demand.tenant.as_str().to_owned()).collect()
    };
    assert_eq!(names(9), ["b", "c", "a"]);
    assert_eq!(names(2), ["b", "c"]);
    admission.set_tenant_leased(&tenant("a"), Amount { bytes: 1, queries: 1 }, in_5_s());
    assert_eq!(names(1), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn queries_beyond_the_fixed_part_of_a_rate_need_tokens_that_are_asked_for_ahead() {
    let rate = NonZeroU64::new(80).map(|count| Rate { count, per: Duration::from_secs(10) });
    let queries = RateLimit { rate, mode: Mode::Enforce };
    let admission = with_rates(Rates { queries, ..Rates::default() });
    let name = tenant("a");
    let some = |count: usize| {
        (0..count).filter(|_| admission.check_rate(std::slice::from_ref(&name)).is_ok()).count()
    };
    assert_eq!(some(4), 4);
    assert!(admission.lease_wanted().now_or_never().is_none());
    assert_eq!(admission.draw_in_tenants(9), []);
    assert_eq!(some(1), 1);
    admission.lease_wanted().now_or_never().expect("half of the fixed part is used");
    let demand = |stock, wants, claim| TokenDemand { stock, wants, claim };
    let rates = |admission: &Admission| -> Vec<_> {
        let demands = admission.draw_in_tenants(9);
        demands
            .into_iter()
            .flat_map(|of| of.rates)
            .map(|(kind, pool, of)| (kind, pool.count.get(), of))
            .collect()
    };
    assert_eq!(rates(&admission), [(TokenKind::Queries, 40, demand(0, 10, 0))]);
    admission.add_tokens(&name, TokenKind::Queries, 10, in_5_s());
    assert_eq!(some(20), 15);
    let refusal = admission.check_rate(std::slice::from_ref(&name)).unwrap_err();
    assert_eq!((refusal.limit, refusal.max), (LimitName::RateQueries, 80));
    assert_eq!(rates(&admission), [(TokenKind::Queries, 40, demand(0, 40, 1))]);
    // Without a store, what the fixed part brings: one a second.
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(some(20), 4);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_keeps_its_lease_while_its_query_waits_for_the_backends() {
    let sharing = Sharing { replicas_max: NonZeroU64::new(4).unwrap(), leased: true };
    let policy = policy(3_200, 32, |tenant| {
        tenant.in_flight = InFlight { queries: Limit::enforce(16), memory: Limit::enforce(1_600) };
    });
    let admission = Admission::new(Policy { sharing, ..policy });
    let mut query = Box::pin(admission.admit(ask("a", 600)));
    assert!((&mut query).now_or_never().is_none());
    let needed = Amount { bytes: 600 - FIXED.bytes, queries: 0 };
    assert_eq!(in_flight(&admission.draw_in_tenants(9)[0]).wants, needed);
    admission.set_tenant_leased(&tenant("a"), needed, in_5_s());
    assert_eq!(admission.snapshot().backends[0].reasons, [(WaitReason::Lease, 1)]);
    // The next round, whose answer brings the backend's lease.
    let demand = admission.draw_in("main").unwrap().demand;
    assert_eq!(in_flight(&admission.draw_in_tenants(9)[0]).wants, needed, "else both are asked for in turns");
    admission.set_tenant_leased(&tenant("a"), needed, in_5_s());
    let lease = BackendLease { leased: demand.wants, until: in_5_s(), of_all: None };
    admission.set_leased("main", &lease);
    assert!(query.now_or_never().unwrap().is_ok());
}
