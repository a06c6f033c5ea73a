//! The cost of admission for a query that need not wait: `cargo bench --bench admit`.

use std::{hint::black_box, num::NonZeroU64, sync::Arc, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use tokio::time::Instant;
use weir::{
    base::{QueryCost, TenantId},
    limit::{
        Admission, AdmissionRequest, BackendBudget, Charged, ClassPolicy, InFlight, Limit, Policy, Rate,
        RateLimit, Rates, SlowLane, TenantPolicy,
    },
};

/// Everything is limited and nothing is refused.
fn admission() -> Arc<Admission> {
    let rate = |count| RateLimit {
        rate: NonZeroU64::new(count).map(|count| Rate { count, per: Duration::from_secs(1) }),
        ..RateLimit::default()
    };
    let tenant = TenantPolicy {
        in_flight: InFlight { queries: Limit::enforce(100), memory: Limit::enforce(2 << 30) },
        rate: Rates { queries: rate(1 << 40), samples: rate(1 << 50) },
        ..TenantPolicy::default()
    };
    let main = BackendBudget {
        name: "main".into(),
        memory: Limit::enforce(4 << 30),
        queries: Limit::enforce(100),
        slow: SlowLane::default(),
        unproven_percent: 12,
        linger: Duration::from_secs(3),
    };
    Admission::new(Policy {
        default: Arc::new(tenant),
        classes: vec![ClassPolicy { name: "rules".into(), reserve_percent: 20 }],
        backends: vec![main],
        ..Policy::default()
    })
}

fn admit(c: &mut Criterion) {
    let admission = admission();
    let (tenant, actor) = (TenantId::new("team-a"), Arc::<str>::from("dashboard"));
    let backend = Arc::<str>::from("main");
    let Some(tenant) = tenant else { return };
    let deadline = Instant::now() + Duration::from_secs(3600);
    c.bench_function("admit and release", |b| {
        b.iter(|| {
            let ask = AdmissionRequest {
                payers: [tenant.clone()].into(),
                actor: Arc::clone(&actor),
                class: None,
                backend: Arc::clone(&backend),
                cost: QueryCost::NOTHING,
                deadline,
                charged: Charged::Nothing,
                slow: false,
                tag: 0,
            };
            let admitted = admission.admit(black_box(ask)).now_or_never();
            assert!(admitted.is_some_and(|admitted| admitted.is_ok()));
        });
    });
}

criterion_group!(benches, admit);
criterion_main!(benches);
