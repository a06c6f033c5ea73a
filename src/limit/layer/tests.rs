//! The layers before a mocked service, on a clock that stands still until it is moved.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service};
use tower_test::mock::{self, Handle, Mock};

use super::{Admissible, Admit, AdmitLayer, CheckRateLayer, HoldLayer, Permitted, RateLimited};
use crate::{
    base::{Estimate, QueryCost, TenantId},
    limit::{
        Admission, AdmissionRequest, Admitted, BackendBudget, Charged, Limit, Mode, Policy, QueuePolicy,
        Rate, RateLimit, Rates, Refusal, ShadowHit, SlowLane, TenantPolicy,
    },
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A job of a tenant that takes this many bytes.
#[derive(Clone, Debug, PartialEq)]
struct Job {
    tenant: &'static str,
    bytes: u64,
}

impl Job {
    fn id(&self) -> TenantId {
        TenantId::new(self.tenant).unwrap()
    }
}

impl Admissible for Job {
    type Admitted = Permitted<Self>;
    type Refused = Refusal;

    fn admission_request(&self) -> AdmissionRequest {
        AdmissionRequest {
            payers: [self.id()].into(),
            actor: "test".into(),
            class: None,
            backend: "workers".into(),
            cost: QueryCost { memory: Estimate::exact(self.bytes), ..QueryCost::NOTHING },
            deadline: Instant::now() + Duration::from_secs(60),
            charged: Charged::Nothing,
            slow: false,
            tag: 0,
        }
    }

    fn admitted(self, admitted: Admitted) -> Permitted<Self> {
        Permitted::new(self, admitted.permit)
    }

    fn refused(self, refusal: Refusal) -> Refusal {
        refusal
    }
}

/// The tenant and rate of a job, apart, so that the rate layer is tested alone.
#[derive(Clone, Debug, PartialEq)]
struct Counted(TenantId, Vec<&'static str>);

impl RateLimited for Counted {
    type Refused = Refusal;

    fn payers(&self) -> &[TenantId] {
        std::slice::from_ref(&self.0)
    }

    fn counted(self, shadowed: Vec<ShadowHit>) -> Self {
        Self(self.0, shadowed.iter().map(ShadowHit::id).collect())
    }

    fn over_rate(self, refusal: Refusal) -> Result<Self, Refusal> {
        Err(refusal)
    }
}

/// Room for 100 bytes and two queries; at most two wait, for ten seconds.
fn admission(rates: Rates) -> Arc<Admission> {
    let tenant = TenantPolicy {
        queue: QueuePolicy { length: 2, wait: Duration::from_secs(10) },
        rate: rates,
        ..TenantPolicy::default()
    };
    Admission::new(Policy {
        default: Arc::new(tenant),
        backends: vec![BackendBudget {
            name: "workers".into(),
            memory: Limit::enforce(100),
            queries: Limit::enforce(2),
            slow: SlowLane::default(),
            unproven_percent: 100,
            linger: Duration::ZERO,
        }],
        ..Policy::default()
    })
}

fn used(admission: &Admission) -> (u64, u64) {
    let backend = &admission.snapshot().backends[0];
    (backend.queries, backend.waiting)
}

type Service1 = Mock<Permitted<Job>, &'static str>;

fn stack() -> (Arc<Admission>, Admit<Service1>, Handle<Permitted<Job>, &'static str>) {
    let admission = admission(Rates::default());
    let (mock, handle) = mock::pair();
    (Arc::clone(&admission), AdmitLayer::new(admission).layer(mock), handle)
}

const fn job(bytes: u64) -> Job {
    Job { tenant: "a", bytes }
}

#[tokio::test(start_paused = true)]
async fn what_has_room_runs_at_once_and_its_permit_goes_with_it() {
    let (admission, mut admit, mut handle) = stack();
    let mut call = task::spawn(admit.call(job(40)));
    assert_pending!(call.poll());
    let (permitted, respond) = handle.next_request().await.unwrap();
    assert_eq!((permitted.get(), used(&admission)), (&job(40), (1, 0)));
    respond.send_response("done");
    assert_eq!(assert_ready_ok!(call.poll()), "done");
    assert_eq!(used(&admission).0, 1, "the service still holds it");
    drop(permitted);
    assert_eq!(used(&admission), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_service_is_asked_whether_it_is_ready_only_when_a_request_may_run() {
    let (admission, mut admit, mut handle) = stack();
    handle.allow(0);
    // Ready, though the service behind is not: nobody knows yet whether this request will run.
    let mut ready = task::spawn(std::future::poll_fn(|cx| Service::<Job>::poll_ready(&mut admit, cx)));
    assert_ready_ok!(ready.poll());
    drop(ready);
    let mut call = task::spawn(admit.call(job(40)));
    assert_pending!(call.poll());
    assert_eq!(used(&admission), (1, 0), "admitted, and waiting for the service");
    handle.allow(1);
    assert!(call.is_woken());
    assert_pending!(call.poll());
    assert!(handle.next_request().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_takes_nothing_along() {
    let (admission, mut admit, mut handle) = stack();
    let mut first = task::spawn(admit.call(job(90)));
    assert_pending!(first.poll());
    let (running, _) = handle.next_request().await.unwrap();
    let mut second = task::spawn(admit.call(job(50)));
    let mut third = task::spawn(admit.call(job(60)));
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    assert_eq!(used(&admission), (1, 2));
    drop(second);
    assert_eq!(used(&admission), (1, 1));
    drop(running);
    assert!(third.is_woken(), "whose turn it is runs");
    assert_pending!(third.poll());
    assert_eq!(used(&admission), (1, 0));
    assert_eq!(handle.next_request().await.unwrap().0.get(), &job(60));
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_over_goes_back_when_its_future_is_dropped_unpolled() {
    let (admission, mut admit, mut handle) = stack();
    let mut first = task::spawn(admit.call(job(90)));
    assert_pending!(first.poll());
    let (running, _) = handle.next_request().await.unwrap();
    let mut second = task::spawn(admit.call(job(50)));
    assert_pending!(second.poll());
    drop(running);
    assert!(second.is_woken());
    drop(second);
    assert_eq!(used(&admission), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_running_request_that_is_dropped_gives_its_permit_back() {
    let admission = admission(Rates::default());
    let (mock, mut handle) = mock::pair::<Job, &'static str>();
    let mut service = AdmitLayer::new(Arc::clone(&admission)).layer(HoldLayer.layer(mock));
    let mut early = task::spawn(service.call(job(90)));
    assert_pending!(early.poll());
    assert!(handle.next_request().await.is_some());
    assert_eq!(used(&admission).0, 1);
    drop(early);
    assert_eq!(used(&admission).0, 0, "the future held it");

    let mut call = task::spawn(service.call(job(90)));
    assert_pending!(call.poll());
    handle.next_request().await.unwrap().1.send_response("done");
    let response = assert_ready_ok!(call.poll());
    assert_eq!((*response.get(), used(&admission).0), ("done", 1));
    drop(response);
    assert_eq!(used(&admission).0, 0, "the response held it");

    let mut call = task::spawn(service.call(job(90)));
    assert_pending!(call.poll());
    handle.next_request().await.unwrap().1.send_error("broken");
    assert_ready_err!(call.poll());
    assert_eq!(used(&admission).0, 0, "an error holds nothing");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_its_limit_and_the_wait_is_bounded() {
    let (admission, mut admit, mut handle) = stack();
    let refused = |error: BoxError| error.downcast::<Refusal>().unwrap().id();
    let mut never = task::spawn(admit.call(job(101)));
    assert_eq!(refused(assert_ready_err!(never.poll())), "weir-budget-never");
    let mut first = task::spawn(admit.call(job(90)));
    assert_pending!(first.poll());
    let _running = handle.next_request().await.unwrap();
    let mut late = task::spawn(admit.call(job(50)));
    assert_pending!(late.poll());
    advance(Duration::from_secs(10)).await;
    assert_eq!(refused(assert_ready_err!(late.poll())), "weir-queue-timeout");
    assert_eq!(used(&admission), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns() {
    let (_, mut admit, mut handle) = stack();
    let of = |tenant| Job { tenant, bytes: 90 };
    let mut calls: Vec<_> = ["a", "b", "b", "c"].map(|t| task::spawn(admit.call(of(t)))).into();
    for call in &mut calls {
        assert_pending!(call.poll());
    }
    let mut order = Vec::new();
    for _ in 0..4 {
        let (running, _respond) = handle.next_request().await.unwrap();
        order.push(running.get().tenant);
        drop(running);
        for call in calls.iter_mut().filter(|call| call.is_woken()) {
            drop(call.poll());
        }
    }
    assert_eq!(order, ["a", "b", "c", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_checked_before_the_service_sees_anything() {
    let tenant = TenantId::new("a").unwrap();
    for (mode, passed) in [(Mode::Enforce, None), (Mode::Shadow, Some(vec!["weir-rate-queries"]))] {
        let rate = Rate { count: std::num::NonZeroU64::new(1).unwrap(), per: Duration::from_secs(1) };
        let queries = RateLimit { rate: Some(rate), mode };
        let rates = admission(Rates { queries, ..Rates::default() });
        let (mock, mut handle) = mock::pair::<Counted, ()>();
        let mut limited = CheckRateLayer::new(rates).layer(mock);
        let mut requests = Vec::new();
        for _ in 0..2 {
            assert_ready!(task::spawn(std::future::poll_fn(|cx| limited.poll_ready(cx))).poll()).unwrap();
            requests.push(task::spawn(limited.call(Counted(tenant.clone(), Vec::new()))));
        }
        assert_pending!(requests[0].poll());
        assert_eq!(handle.next_request().await.unwrap().0.1, Vec::<&str>::new());
        match passed {
            Some(hits) => assert_eq!(handle.next_request().await.unwrap().0.1, hits),
            None => {
                let refused = assert_ready_err!(requests[1].poll()).downcast::<Refusal>().unwrap();
                assert_eq!((refused.id(), refused.retry_after), ("weir-rate-queries", Some(rate.per)));
            }
        }
        advance(rate.per).await;
    }
}
