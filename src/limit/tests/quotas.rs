//! Quotas over whole hours: the slow lane beyond them, refusals, and corrections of what was debited.

use std::num::NonZeroU64;

use super::{super::Sharing, *};
use crate::base::{
    ErrorKind,
    share::{Amount, TokenKind},
};

const HOUR: Duration = Duration::from_secs(3_600);

fn per_hour(count: u64, mode: Mode) -> RateLimit {
    RateLimit { rate: NonZeroU64::new(count).map(|count| Rate { count, per: HOUR }), mode }
}

/// Every tenant may read 1,000 samples an hour.
fn samples(mode: Mode) -> Policy {
    policy(1 << 30, 100, |tenant| tenant.quota.samples = per_hour(1_000, mode))
}

fn reads(samples: u64) -> AdmissionRequest {
    let request = ask("a", 1);
    let cost = QueryCost { samples: Estimate::new(samples, Confidence::UpperBound), ..request.cost };
    AdmissionRequest { cost, ..request }
}

fn used(admission: &Admission) -> u64 {
    admission.quotas_used().iter().map(|(_, used)| used.own).sum()
}

async fn read(admission: &Arc<Admission>, samples: u64) -> Result<Admitted, Refusal> {
    admission.admit(reads(samples)).await
}

#[tokio::test(start_paused = true)]
async fn over_a_quota_queries_are_slow_then_refused_and_let_in_with_the_next_hour() {
    let admission = Admission::new(samples(Mode::Enforce));
    assert_eq!(read(&admission, 950).await.unwrap().soft, None);
    let slow = read(&admission, 100).await.unwrap();
    let soft = slow.soft.clone().unwrap();
    assert_eq!((soft.limit, soft.max, soft.refused_over), (LimitName::QuotaSamples, 1_000, Some(1_100)));
    assert_eq!(admission.snapshot().backends[0].lanes[2].queries, 1, "it holds a share of the slow lane");
    assert!(soft.message().contains("has used 1,050 samples, over its quota of 1,000"), "{}", soft.message());
    let refusal = read(&admission, 100).await.unwrap_err();
    assert_eq!((refusal.kind, refusal.limit), (ErrorKind::RateLimited, LimitName::QuotaSamples));
    let left = refusal.retry_after.unwrap();
    assert!(left <= HOUR, "{left:?}");
    assert!(refusal.message().starts_with("tenant `a` has used its quota of 1,000 samples"), "{refusal}");
    let never = read(&admission, 1_001).await.unwrap_err();
    assert_eq!((never.kind, never.observed.value, never.max), (ErrorKind::LimitExceeded, 1_001, 1_000));
    assert!(admission.admit(AdmissionRequest { payers: [tenant("b")].into(), ..reads(900) }).await.is_ok());
    tokio::time::advance(left).await;
    assert_eq!(read(&admission, 900).await.unwrap().soft, None);
}

#[tokio::test(start_paused = true)]
async fn a_debit_is_settled_by_the_actual_number_and_given_back_by_a_query_that_never_runs() {
    let mut policy = samples(Mode::Enforce);
    policy.backends[0].queries = Limit::enforce(1);
    let admission = Admission::new(policy);
    let running = read(&admission, 400).await.unwrap();
    assert_eq!(used(&admission), 400);
    let mut waiting = Box::pin(read(&admission, 300));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(used(&admission), 700, "waiting queries do not pass a quota together");
    drop(waiting);
    assert_eq!(used(&admission), 400);
    running.permit.settle(Actual { samples: Some(90), end: End::Answered });
    assert_eq!(used(&admission), 90);
    let waiting = Box::pin(read(&admission, 300));
    drop(waiting.await.unwrap());
    assert_eq!(used(&admission), 390, "without an actual number the estimate stands");
}

#[tokio::test(start_paused = true)]
async fn a_quota_in_shadow_mode_lets_all_run_and_says_which_would_not() {
    let admission = Admission::new(samples(Mode::Shadow));
    assert_eq!(read(&admission, 1_000).await.unwrap().shadowed, []);
    let over = read(&admission, 500).await.unwrap();
    assert_eq!((over.shadowed[0].limit, over.soft), (LimitName::QuotaSamples, None));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_is_not_forgotten_before_its_hour_is_over() {
    let mut policy = policy(1 << 30, 100, |tenant| tenant.quota.queries = per_hour(10, Mode::Enforce));
    policy.tenants_max = 2;
    let admission = Admission::new(policy);
    for _ in 0..10 {
        admission.admit(ask("a", 1)).await.unwrap();
    }
    for name in ["b", "c", "d", "e"] {
        admission.admit(ask(name, 1)).await.unwrap();
    }
    admission.admit(ask("a", 1)).await.unwrap();
    assert!(admission.admit(ask("a", 1)).await.is_err(), "ten, and one in the slow lane");
}

#[tokio::test(start_paused = true)]
async fn a_quota_counts_on_after_a_restart_and_after_a_reload() {
    let before = Admission::new(samples(Mode::Enforce));
    read(&before, 600).await.unwrap();
    before.reload(policy(1 << 30, 100, |tenant| tenant.quota.samples = per_hour(900, Mode::Enforce)));
    assert_eq!(used(&before), 600);
    let after = Admission::new(samples(Mode::Enforce));
    after.restore_quotas(&before.quotas_used());
    assert_eq!(used(&after), 600);
    let mut stale = before.quotas_used();
    stale[0].1.window.0 -= 1;
    after.restore_quotas(&stale);
    assert_eq!(used(&after), 600);
}

#[tokio::test(start_paused = true)]
async fn one_of_several_proxies_leases_a_quota_ahead_and_knows_what_the_others_used() {
    let sharing = Sharing { replicas_max: NonZeroU64::new(4).unwrap(), leased: true };
    let quota = |tenant: &mut TenantPolicy| tenant.quota.samples = per_hour(8_000, Mode::Enforce);
    let admission = Admission::new(Policy { sharing, ..policy(1 << 30, 100, quota) });
    read(&admission, 80).await.unwrap();
    assert_eq!(admission.draw_in_tenants(9), [], "less than half of its 200");
    read(&admission, 100).await.unwrap();
    let demand = admission.draw_in_tenants(9).remove(0).quotas.remove(0);
    let amount = |bytes| Amount { bytes, queries: 0 };
    assert_eq!((demand.kind, demand.pool, demand.used), (TokenKind::Samples, amount(7_200), amount(180)));
    assert_eq!((demand.demand.held, demand.demand.wants), (Amount::NONE, amount(340)));
    let until = Instant::now() + Duration::from_secs(5);
    let lease = QuotaLease { leased: 340, until, others: Some(5_000) };
    admission.set_quota_leased(&tenant("a"), demand.kind, demand.window, lease);
    assert_eq!(read(&admission, 300).await.unwrap().soft, None);
    let over = read(&admission, 200).await.unwrap().soft.unwrap();
    assert_eq!(over.observed.value, 5_000 + 680);
    let (_, all) = admission.quotas_used().remove(0);
    assert_eq!((all.own, all.all), (680, 5_680));
}

/// A window that does not end during a test, whenever that begins.
fn in_136_years(count: u64, mode: Mode) -> RateLimit {
    RateLimit {
        rate: NonZeroU64::new(count).map(|count| Rate { count, per: Duration::from_secs(1 << 32) }),
        mode,
    }
}

/// Proxies that lease a tenant's quota, and their store: it lends what no other proxy was lent.
struct LeasedFleet {
    proxies: Vec<Arc<Admission>>,
    lent: Vec<u64>,
}

impl LeasedFleet {
    fn of_two(change: impl Fn(&mut Rates)) -> Self {
        let sharing = Sharing { replicas_max: NonZeroU64::new(2).unwrap(), leased: true };
        let proxy = || {
            Admission::new(Policy { sharing, ..policy(1 << 30, 1_000, |tenant| change(&mut tenant.quota)) })
        };
        Self { proxies: vec![proxy(), proxy()], lent: vec![0; 2] }
    }

    fn round(&mut self, proxy: usize) {
        for QuotaDemand { kind, window, pool, demand, .. } in
            self.proxies[proxy].draw_in_tenants(9).into_iter().flat_map(|of| of.quotas)
        {
            let rest = pool.bytes - self.lent[1 - proxy];
            let leased = demand.wants.bytes.min(rest);
            self.lent[proxy] = leased.max(demand.held.bytes);
            let others = Some(used(&self.proxies[1 - proxy]));
            let lease = QuotaLease { leased, until: Instant::now() + Duration::from_secs(5), others };
            self.proxies[proxy].set_quota_leased(&tenant("a"), kind, window, lease);
        }
    }

    /// A query, and the round that it asks for.
    async fn ask(&mut self, proxy: usize, samples: u64) -> Result<Option<SoftHit>, Refusal> {
        let admitted = read(&self.proxies[proxy], samples).await;
        if self.proxies[proxy].lease_wanted().now_or_never().is_some() {
            self.round(proxy);
        }
        admitted.map(|admitted| admitted.soft)
    }

    /// The rounds of 3 s.
    async fn pause(&mut self) {
        for second in 0..6 {
            tokio::time::advance(Duration::from_millis(500)).await;
            self.round(second % 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_slower_than_the_window_uses_all_of_a_leased_quota() {
    let mut fleet = LeasedFleet::of_two(|quota| quota.queries = in_136_years(10, Mode::Enforce));
    for query in 0..10 {
        assert_eq!(fleet.ask(query % 2, 1).await, Ok(None), "query {query}");
        fleet.pause().await;
    }
    for proxy in 0..2 {
        let refusal = fleet.ask(proxy, 1).await.unwrap_err();
        assert!(refusal.message().contains("has used its quota of 10 queries"), "{refusal}");
        assert!(fleet.proxies[proxy].lease_wanted().now_or_never().is_none(), "no lease would help");
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_beyond_the_fixed_part_of_a_quota_has_its_lease_at_once() {
    let mut fleet = LeasedFleet::of_two(|quota| quota.queries = in_136_years(1_000, Mode::Enforce));
    for query in 0..150 {
        assert_eq!(fleet.ask(0, 1).await, Ok(None), "query {query}");
    }
    // A second burst before the next round: the part of the slow lane, and then nothing for a moment.
    let soft = fleet.ask(0, 1).await.unwrap().unwrap();
    assert!(soft.message().contains("no lease on the rest of the quota"), "{}", soft.message());
    let refusal = loop {
        if let Err(refusal) = fleet.ask(0, 1).await {
            break refusal;
        }
    };
    assert_eq!((used(&fleet.proxies[0]), refusal.retry_after), (200, Some(Duration::from_secs(1))));
    assert!(refusal.message().starts_with("this proxy has no lease on the rest of the quota"), "{refusal}");
    fleet.pause().await;
    assert_eq!(fleet.ask(0, 1).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_first_request_larger_than_the_fixed_part_is_leased_for_until_it_comes_again() {
    let mut fleet = LeasedFleet::of_two(|quota| quota.samples = in_136_years(1_000_000, Mode::Enforce));
    let refusal = fleet.ask(0, 389_600).await.unwrap_err();
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
    assert!(refusal.message().contains("no lease on the rest"), "{refusal}");
    fleet.pause().await;
    assert_eq!(fleet.ask(0, 389_600).await, Ok(None));
    fleet.pause().await;
    assert_eq!(fleet.ask(0, 389_600).await, Ok(None));
    let mut ran = 2 * 389_600;
    for proxy in [0, 1].repeat(20) {
        let soft = fleet.ask(proxy, 30_000).await;
        ran += if soft.is_ok() { 30_000 } else { 0 };
        fleet.pause().await;
    }
    assert!((900_000..=1_100_000).contains(&ran), "{ran}");
}
