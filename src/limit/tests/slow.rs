//! The slow lane: one more account beside the lanes of a backend.

use super::*;

const MIB: u64 = 1 << 20;

/// A backend of 1 GiB and 20 queries, of which the slow lane has a quarter and two.
fn slow_policy(change: impl FnOnce(&mut TenantPolicy)) -> Policy {
    policy(1 << 30, 20, change)
}

fn slow(name: &str, memory: u64) -> AdmissionRequest {
    AdmissionRequest { slow: true, ..ask(name, memory) }
}

fn waits(admission: &Arc<Admission>) -> Vec<(WaitReason, u64)> {
    admission.snapshot().backends[0].reasons.clone()
}

#[tokio::test(start_paused = true)]
async fn slow_queries_hold_no_more_than_their_share_and_nobody_waits_for_them() {
    let admission = Admission::new(slow_policy(|_| {}));
    let running = fill(&admission, &slow("a", 50 * MIB));
    assert_eq!(running.len(), 2);
    let mut third = Box::pin(admission.admit(slow("a", 50 * MIB)));
    assert!(third.as_mut().now_or_never().is_none());
    assert_eq!(waits(&admission), [(WaitReason::SlowLane, 1)]);
    // The same tenant, another tenant, heavy and light: they pass.
    for request in [ask("a", 50 * MIB), ask("b", 50 * MIB), ask("a", MIB)] {
        answered([admission.admit(request).now_or_never().unwrap().unwrap()]);
    }
    answered(running);
    assert_eq!(third.await.unwrap().waited, Duration::ZERO);
    let lanes = admission.snapshot().backends[0].lanes;
    assert_eq!((lanes[2].lane, lanes[2].queries, lanes[2].waiting), ("slow", 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_query_larger_than_the_lane_runs_alone_in_it() {
    let admission = Admission::new(slow_policy(|_| {}));
    let large = admission.admit(slow("a", 600 * MIB)).now_or_never().unwrap().unwrap();
    assert!(admission.admit(slow("a", MIB)).now_or_never().is_none(), "a light one is slow as well");
    let beside = admission.admit(ask("a", 300 * MIB)).now_or_never().unwrap().unwrap();
    answered([large, beside]);
    assert_eq!(fill(&admission, &slow("a", 100 * MIB)).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_leaves_the_slow_lane() {
    let admission = Admission::new(slow_policy(|_| {}));
    let running = fill(&admission, &slow("a", 50 * MIB));
    let waiting = admission.admit(slow("b", 50 * MIB));
    let ((), admitted) = tokio::join!(
        async {
            tokio::task::yield_now().await;
            assert!(running[0].permit.handle().stalled());
        },
        waiting
    );
    answered([admitted.unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn over_a_soft_limit_a_query_is_slow_and_over_the_hard_one_refused() {
    let admission = Admission::new(slow_policy(|tenant| {
        tenant.soft.series = Limit::enforce(1_000_000);
        tenant.soft.memory = Limit::enforce(100 * MIB).with_mode(Mode::Shadow);
        tenant.per_query.series = Limit::enforce(2_000_000);
    }));
    let of = |series| {
        let cost = QueryCost {
            series: Estimate::new(series, Confidence::UpperBound),
            memory: Estimate::exact(200 * MIB),
            ..QueryCost::NOTHING
        };
        AdmissionRequest { cost, ..ask("a", 0) }
    };
    let fast = admission.admit(of(1_000_000)).await.unwrap();
    assert_eq!(fast.soft, None, "a soft limit in shadow mode sends nobody to the slow lane");
    let slow = admission.admit(of(1_200_000)).await.unwrap();
    assert_eq!(
        slow.soft.as_ref().unwrap().message(),
        "this query needs 1,200,000 series (upper_bound), over the soft limit of tenant `a`, 1,000,000: it runs in the slow \
         lane. Over 2,000,000 it will be refused. (weir-max-series)"
    );
    assert_eq!(admission.snapshot().backends[0].lanes[2].queries, 1);
    assert_eq!(admission.admit(of(2_000_001)).await.unwrap_err().limit, LimitName::MaxSeries);
}
