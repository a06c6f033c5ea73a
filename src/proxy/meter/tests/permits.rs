//! The phases of a permit while its answer streams.

use std::{
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::StreamBody;
use tokio::time::{Instant, advance};

use super::super::{AnswerMeter, MeterLimits, Progress};
use crate::{
    base::{Estimate, QueryCost, TenantId},
    limit::{Admission, AdmissionRequest, BackendBudget, Charged, Limit, Policy, SlowLane, Snapshot},
};

const SECOND: Duration = Duration::from_secs(1);

fn admission() -> Arc<Admission> {
    let main = BackendBudget {
        name: "main".into(),
        memory: Limit::enforce(1_000),
        queries: Limit::enforce(4),
        slow: SlowLane::default(),
        unproven_percent: 100,
        linger: Duration::ZERO,
    };
    Admission::new(Policy { backends: vec![main], ..Policy::default() })
}

/// Queries in flight, and bytes of those that are stalled.
fn held(admission: &Admission) -> (u64, (u64, u64)) {
    let Snapshot { backends, .. } = admission.snapshot();
    (backends[0].queries, backends[0].stalled)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_gives_its_slot_back_and_the_backends_last_byte_the_rest() {
    let admission = admission();
    let request = AdmissionRequest {
        payers: [TenantId::new("a").unwrap()].into(),
        actor: "panel".into(),
        class: None,
        backend: "main".into(),
        cost: QueryCost { memory: Estimate::exact(500), ..QueryCost::NOTHING },
        deadline: Instant::now() + SECOND,
        charged: Charged::Nothing,
        slow: false,
        tag: 0,
    };
    let permit = admission.admit(request).await.unwrap().permit;
    let progress = Arc::new(Progress::default());
    progress.under(permit.handle());
    let on_end = Box::new(move |_, _| drop(permit));
    let meter = AnswerMeter::reporting_to(Arc::clone(&progress), MeterLimits::default(), on_end);
    let frame = || Ok::<_, &'static str>(Frame::data(Bytes::from_static(b"{}")));
    let body = StreamBody::new(futures_util::stream::iter([frame(), frame()]));
    let mut body = Box::pin(meter.wrap(&HeaderMap::new(), body));
    let mut cx = Context::from_waker(Waker::noop());
    // It waits for the backend, however long: that is no stalled client.
    advance(5 * SECOND).await;
    progress.give_way(SECOND);
    assert_eq!(held(&admission), (1, (0, 0)));
    assert!(body.as_mut().poll_frame(&mut cx).is_ready());
    progress.give_way(SECOND);
    assert_eq!(held(&admission).1, (0, 0), "it was handed something just now");
    advance(SECOND).await;
    progress.give_way(SECOND);
    assert_eq!(held(&admission), (1, (1, 500)));
    // It reads on, to the end.
    assert!(body.as_mut().poll_frame(&mut cx).is_ready());
    while !body.is_end_stream() {
        assert!(body.as_mut().poll_frame(&mut cx).is_ready());
    }
    assert_eq!(held(&admission), (0, (0, 0)));
}
