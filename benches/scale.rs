//! Admission for a fleet: 10,000 tenants, 100 backends, a million queries a minute. `cargo bench --bench scale` prints
//! a table in Markdown and a line of JSON. `docs/fleet.md` uses the figures.

use std::{fs, io::Write as _, process::ExitCode, sync::Arc, time::Duration, time::Instant as Stopwatch};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{runtime, time::Instant};
use weir::{
    base::{Confidence, Estimate, QueryCost},
    limit::{Admission, AdmissionRequest, Charged},
};

#[path = "support/crowd.rs"]
mod crowd;

const PLAN: crowd::Plan = crowd::Plan {
    tenants: 10_000,
    backends: 100,
    per_second: 16_700,
    lasts: Duration::from_secs(60),
    seed: 1,
};

fn main() -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let report = match runtime {
        Ok(runtime) => runtime.block_on(measure()),
        Err(error) => format!("no runtime: {error}"),
    };
    match std::io::stdout().lock().write_all(report.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn measure() -> String {
    let (per_tenant, per_waiting) = memory().await;
    let watch = Stopwatch::now();
    let mut fullest = 0.0_f64;
    let mut looks = 0u32;
    let mut outcome = crowd::run(PLAN, |admission, _| {
        looks += 1;
        // A snapshot walks over all accounts; ten a second see enough.
        if looks.is_multiple_of(10) {
            for backend in admission.snapshot().backends {
                fullest = fullest.max(backend.memory as f64 / backend.memory_capacity.unwrap_or(1) as f64);
            }
        }
    })
    .await;
    let took = watch.elapsed().as_secs_f64();
    let asked: u64 = outcome.shares.iter().map(|share| share.asked).sum();
    let mut rows = vec![
        ("queries asked", asked.to_string()),
        (
            "of them refused (all of greedy tenants, if the next row is 1)",
            outcome.refused.values().sum::<u64>().to_string(),
        ),
        ("modest tenants: share of queries that ran", format!("{:.6}", outcome.modest_ran(&PLAN))),
        ("modest tenants: Jain's index", format!("{:.6}", outcome.jain_modest(&PLAN))),
        ("greedy tenants: Jain's index of work done", format!("{:.4}", outcome.jain_greedy(&PLAN))),
        ("largest share of a budget ever held", format!("{fullest:.3}")),
        ("most queries waiting at once", outcome.waiting_most.to_string()),
    ];
    for (name, values) in [
        ("modest tenants: wait, ms", &mut outcome.waits_ms),
        ("verdict, ns", &mut outcome.verdict_ns),
        ("giving back, ns", &mut outcome.release_ns),
    ] {
        let quantiles = [0.5, 0.99, 0.999].map(|share| crowd::quantile(values, share).to_string());
        rows.push((
            name,
            format!("{} (p50), {} (p99), {} (p99.9)", quantiles[0], quantiles[1], quantiles[2]),
        ));
    }
    rows.push(("memory of a tenant that was seen, bytes", per_tenant.to_string()));
    rows.push(("memory of a query that waits, bytes", per_waiting.to_string()));
    rows.push(("wall time of the simulated minute, s", format!("{took:.1}")));
    let table: Vec<String> = rows.iter().map(|(name, value)| format!("| {name} | {value} |")).collect();
    let fields: Vec<String> = rows.iter().map(|(name, value)| format!("{name:?}: {value:?}")).collect();
    format!(
        "| 10,000 tenants, 100 backends, 1 M queries/min | |\n|--|--|\n{}\n\n{{{}}}\n",
        table.join("\n"),
        fields.join(", ")
    )
}

/// Resident bytes that a tenant takes once it was seen, and that a waiting query takes.
async fn memory() -> (u64, u64) {
    const WAITING: usize = 10_000;
    let admission = Admission::new(crowd::policy(PLAN.backends));
    let ask = |tenant: usize, memory: u64| AdmissionRequest {
        payers: [crowd::tenant(tenant)].into(),
        actor: "dashboard".into(),
        class: None,
        backend: format!("backend-{}", tenant % PLAN.backends).into(),
        cost: QueryCost { memory: Estimate::new(memory, Confidence::Exact), ..QueryCost::NOTHING },
        deadline: Instant::now() + Duration::from_secs(10),
        charged: Charged::Nothing,
        slow: false,
        tag: 0,
    };
    let before = resident();
    for tenant in 0..PLAN.tenants {
        drop(admission.admit(ask(tenant, 1)).await);
    }
    let seen = resident();
    let mut held = Vec::new();
    for backend in 0..PLAN.backends {
        while let Some(Ok(admitted)) = admission.admit(ask(backend, 1 << 30)).now_or_never() {
            held.push(admitted);
        }
    }
    let busy = resident();
    let mut waiting: Vec<BoxFuture<'_, bool>> = Vec::with_capacity(WAITING);
    for i in 0..WAITING {
        let (door, ask) = (Arc::clone(&admission), ask(i % PLAN.tenants, 1 << 30));
        let mut asking = async move { door.admit(ask).await.is_ok() }.boxed();
        if (&mut asking).now_or_never().is_none() {
            waiting.push(asking);
        }
    }
    let full = resident();
    let each = |bytes: u64, count: usize| bytes / count.max(1) as u64;
    (each(seen.saturating_sub(before), PLAN.tenants), each(full.saturating_sub(busy), waiting.len()))
}

/// Resident bytes of this process; 0 where the system does not say.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
