//! The estimate is wrong by a factor of ten: what keeps the database alive then, and how the estimate comes right.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;
use weir::{
    backend::{
        Kind,
        pressure::{Monitor, Settings},
    },
    base::{Confidence, Estimate, QueryCost, TenantId},
    limit::{
        Admission, AdmissionRequest, Admitted, BackendBudget, Charged, Limit, Policy, QueuePolicy, Refusal,
        TenantPolicy,
    },
};

use crate::support::{
    fake_upstream::{Act, FakeUpstream, Seen},
    weir::Weir,
};

const MIB: u64 = 1 << 20;
const ANSWER: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

/// No label table and nobody to ask: what the backend tells of its answers is all there is.
#[tokio::test]
async fn a_learned_number_ten_times_off_comes_right() {
    let truth = Arc::new(AtomicU64::new(100));
    let tells = Arc::clone(&truth);
    let upstream = FakeUpstream::start(move |seen: &Seen| {
        if !seen.path().ends_with("/query") {
            return Act::answer(404, &[], b"");
        }
        let series = tells.load(Ordering::SeqCst).to_string();
        Act::answer(
            200,
            &[("content-type", "application/json"), ("m3-series-count", &series)],
            ANSWER.as_bytes(),
        )
    })
    .await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, kind: m3, urls: [\"{}\"]}}]\nlimits: {{default: {{rate: {{queries: unlimited}}}}}}",
        upstream.url()
    ))
    .await;
    let estimate = async || {
        let answer = weir.get("/api/v1/query?query=sum(foo)").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let header = answer.headers["weir-estimate"].to_str().unwrap().to_owned();
        let series = header.split([';', '=']).nth(1).unwrap().parse::<u64>().unwrap();
        // What was learned is learned at the end of the answer.
        weir.until_idle().await;
        (series, header)
    };
    let _nothing_known = estimate().await;
    let (series, header) = estimate().await;
    assert!(series == 100 && header.contains("known=learned"), "{header}");

    // The store says a tenth of the truth: one run puts it right.
    truth.store(1_000, Ordering::SeqCst);
    assert_eq!(estimate().await.0, 100);
    assert_eq!(estimate().await.0, 1_000);

    // It says ten times the truth: careful at first, right in the end, as the window is the same.
    truth.store(100, Ordering::SeqCst);
    assert_eq!(estimate().await.0, 1_000);
    for _ in 0..2 {
        estimate().await;
    }
    let (series, header) = estimate().await;
    assert_eq!(series, 100, "{header}");
}

/// A database whose heavy queries hold ten times what was estimated, for 40 s each.
struct Database {
    admission: Arc<Admission>,
    waiting: FuturesUnordered<BoxFuture<'static, (bool, Result<Admitted, Refusal>)>>,
    heavy: Vec<(Instant, Admitted)>,
    light: Vec<(Instant, Admitted)>,
    light_refused: usize,
    heavy_done: usize,
}

impl Database {
    const IDLE: u64 = 1024 * MIB;
    const LIMIT: u64 = 8192 * MIB;
    const BUDGET: u64 = 800 * MIB;
    const ESTIMATED: u64 = 40 * MIB;

    fn new() -> Self {
        let tenant = TenantPolicy {
            queue: QueuePolicy { length: 100, wait: Duration::from_secs(10) },
            ..TenantPolicy::default()
        };
        let admission = Admission::new(Policy {
            default: Arc::new(tenant),
            backends: vec![BackendBudget {
                name: "main".into(),
                memory: Limit::enforce(Self::BUDGET),
                queries: Limit::enforce(80),
                unproven_percent: 100,
                linger: Duration::ZERO,
            }],
            ..Policy::default()
        });
        Self {
            admission,
            waiting: FuturesUnordered::new(),
            heavy: Vec::new(),
            light: Vec::new(),
            light_refused: 0,
            heavy_done: 0,
        }
    }

    fn ask(&mut self, heavy: bool) {
        let (name, memory) = if heavy { ("heavy", Self::ESTIMATED) } else { ("light", MIB) };
        let ask = AdmissionRequest {
            payers: [TenantId::new(name).unwrap()].into(),
            actor: "actor".into(),
            class: None,
            backend: "main".into(),
            cost: QueryCost { memory: Estimate::new(memory, Confidence::Learned), ..QueryCost::NOTHING },
            deadline: Instant::now() + Duration::from_secs(30),
            charged: Charged::Nothing,
            tag: 0,
        };
        let door = Arc::clone(&self.admission);
        self.waiting.push(async move { (heavy, door.admit(ask).await) }.boxed());
    }

    fn settle(&mut self) {
        let now = Instant::now();
        let before = self.heavy.len();
        self.heavy.retain(|(since, _)| now - *since < Duration::from_secs(40));
        self.heavy_done += before - self.heavy.len();
        self.light.retain(|(since, _)| now - *since < Duration::from_millis(50));
        while let Some(Some((heavy, outcome))) = self.waiting.next().now_or_never() {
            match outcome {
                Ok(admitted) if heavy => self.heavy.push((now, admitted)),
                Ok(admitted) => self.light.push((now, admitted)),
                Err(_) if heavy => {}
                Err(_) => self.light_refused += 1,
            }
        }
    }

    /// Every heavy query holds ten times its estimate after 2 s.
    fn resident(&self) -> u64 {
        let now = Instant::now();
        let held = self.heavy.iter().map(|(since, _)| {
            let grown = ((now - *since).as_secs_f64() / 2.0).min(1.0);
            (10.0 * Self::ESTIMATED as f64 * grown) as u64
        });
        Self::IDLE + held.sum::<u64>()
    }
}

/// Ten minutes of one heavy query a second and five light ones; the most that was resident.
async fn ten_minutes(database: &mut Database, obeys_pressure: bool) -> u64 {
    let settings = Settings { memory_limit: Some(Database::LIMIT), ..Settings::default() };
    let mut monitor = Monitor::new(Kind::Prometheus, settings, Instant::now());
    let mut most = 0;
    for tick in 0..6_000_u32 {
        tokio::time::advance(Duration::from_millis(100)).await;
        if tick % 10 == 0 {
            database.ask(true);
            if obeys_pressure {
                let page = format!("process_resident_memory_bytes {}\n", database.resident());
                let load = database.admission.take_peak("main").unwrap();
                let look = monitor.observe(&[Some(&page)], load, Instant::now());
                database.admission.observe("main", &look.distress, load);
            }
        }
        if tick % 2 == 0 {
            database.ask(false);
        }
        database.settle();
        most = most.max(database.resident());
        let held = database.admission.snapshot().backends[0].memory;
        assert!(held <= Database::BUDGET, "what is in flight is bounded, whatever it really costs: {held}");
    }
    most
}

#[tokio::test(start_paused = true)]
async fn pressure_keeps_a_database_alive_whose_queries_cost_ten_times_the_estimate() {
    // The counter-test: by estimates alone it dies.
    let mut deceived = Database::new();
    assert!(ten_minutes(&mut deceived, false).await > Database::LIMIT);

    let mut database = Database::new();
    let most = ten_minutes(&mut database, true).await;
    assert!(most < Database::LIMIT, "{} of {} MiB", most / MIB, Database::LIMIT / MIB);
    // Whatever the pressure is, light ones have their lane.
    assert_eq!(database.light_refused, 0, "light queries were refused");
    // Three quarters of the limit are 13 heavy queries at a time: 195 in ten minutes.
    assert!(database.heavy_done > 100, "{}", database.heavy_done);
}
