//! A simulated Go database behind admission and the monitor of distress, on a stopped clock.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;
use weir::{
    backend::{
        Kind,
        pressure::{Monitor, Settings},
    },
    base::{Confidence, Estimate, QueryCost, TenantId},
    limit::{
        Actual, Admission, AdmissionRequest, BackendBudget, Charged, ClassPolicy, Cut, End, Limit, Policy,
        QueuePolicy, Refusal, TenantPolicy,
    },
};

pub(crate) const MIB: u64 = 1 << 20;
/// Bytes that the process holds when nothing runs.
pub(crate) const BASE: u64 = 50 * MIB;

/// The content of a page of metrics.
#[derive(Clone, Copy)]
pub(crate) struct Tells {
    /// Where the next collection begins.
    pub(crate) next_gc: bool,
    /// Memory that it keeps and does not use.
    pub(crate) idle: bool,
    /// How many queries run.
    pub(crate) queries: bool,
}

/// A Go process: the memory of its queries is collected every five seconds, and never given back to the system.
pub(crate) struct Process {
    pub(crate) limit: u64,
    /// How many times their estimates queries hold.
    pub(crate) error: f64,
    /// Bytes that each query leaves behind for good.
    pub(crate) creep: u64,
    /// Memory and number of other clients' queries.
    pub(crate) foreign: (u64, u64),
    pub(crate) resident: u64,
    /// Bytes that queries left behind.
    pub(crate) kept: u64,
    /// When each began, and its estimate.
    running: Vec<(u64, Instant, u64)>,
    collected: (Instant, u64),
}

impl Process {
    pub(crate) fn new(limit: u64) -> Self {
        let collected = (Instant::now(), BASE);
        let (running, foreign) = (Vec::new(), (0, 0));
        Self { limit, error: 1.0, creep: 0, foreign, running, collected, resident: BASE, kept: 0 }
    }

    /// Bytes that are in use.
    pub(crate) fn alive(&self) -> u64 {
        let grown = |began: &Instant| (began.elapsed().as_secs_f64() / 2.0).min(1.0);
        let ours = self.running.iter().map(|(_, began, bytes)| *bytes as f64 * self.error * grown(began));
        BASE + self.kept + self.foreign.0 + ours.sum::<f64>() as u64
    }

    /// Its page of metrics.
    fn page(&mut self, tells: Tells) -> String {
        let alive = self.alive();
        if self.collected.0.elapsed() >= Duration::from_secs(5) {
            self.collected = (Instant::now(), alive);
        }
        let live = self.collected.1.max(alive);
        self.resident = self.resident.max(live * 3 / 2).min(self.limit.max(live));
        let mut page = format!("process_resident_memory_bytes {}\n", self.resident);
        if tells.idle {
            let _ =
                writeln!(page, "go_memstats_heap_idle_bytes {}", self.resident.saturating_sub(live * 3 / 2));
        }
        if tells.next_gc {
            let _ = writeln!(page, "go_memstats_next_gc_bytes {}", live as f64 / 0.75);
        }
        if tells.queries {
            let queries = self.running.len() as u64 + self.foreign.1;
            let _ = writeln!(page, "prometheus_engine_queries {queries}");
        }
        page
    }
}

/// How a proxy is set up.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) budget: u64,
    pub(crate) queries: u64,
    /// Percent of the budget that are open at first.
    pub(crate) unproven_percent: u8,
    /// The longest wait of a query.
    pub(crate) wait: Duration,
}

/// One proxy before the process, with the reserve for rules that the default configuration has.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) admission: Arc<Admission>,
    pub(crate) process: Arc<Mutex<Process>>,
    monitor: Arc<Mutex<Monitor>>,
}

impl Proxy {
    pub(crate) fn new(setup: Setup, process: &Arc<Mutex<Process>>) -> Self {
        let Setup { budget, queries, unproven_percent, wait } = setup;
        let queue = QueuePolicy { length: 100, wait };
        let admission = Admission::new(Policy {
            default: Arc::new(TenantPolicy { queue, ..TenantPolicy::default() }),
            classes: vec![ClassPolicy { name: "rules".into(), reserve_percent: 20 }],
            backends: vec![BackendBudget {
                name: "main".into(),
                memory: Limit::enforce(budget),
                queries: Limit::enforce(queries),
                slow: weir::limit::SlowLane::default(),
                unproven_percent,
                linger: Duration::from_secs(3),
            }],
            ..Policy::default()
        });
        let limit = process.lock().unwrap().limit;
        let settings = Settings { memory_limit: Some(limit), ..Settings::default() };
        let monitor = Monitor::new(Kind::Prometheus, settings, Instant::now());
        Self { admission, process: Arc::clone(process), monitor: Arc::new(Mutex::new(monitor)) }
    }

    /// Looks at the process every second for ever.
    pub(crate) async fn watch(self, tells: Tells) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let page = self.process.lock().unwrap().page(tells);
            let load = self.admission.take_peak("main").unwrap();
            let look = self.monitor.lock().unwrap().observe(&[Some(&page)], load, Instant::now());
            self.admission.observe("main", &look.distress, load);
        }
    }

    /// Runs a query of a tenant; how long it waited. No two queries have the same number.
    pub(crate) async fn query(
        &self,
        tenant: &str,
        (bytes, lasts): (u64, Duration),
        number: u64,
    ) -> Result<Duration, Refusal> {
        let request = AdmissionRequest {
            payers: [TenantId::new(tenant).unwrap()].into(),
            actor: "panel".into(),
            class: None,
            backend: "main".into(),
            cost: QueryCost { memory: Estimate::new(bytes, Confidence::UpperBound), ..QueryCost::NOTHING },
            deadline: Instant::now() + Duration::from_secs(600),
            charged: Charged::Nothing,
            slow: false,
            tag: number,
        };
        let admitted = self.admission.admit(request).await?;
        self.process.lock().unwrap().running.push((number, Instant::now(), bytes));
        tokio::time::sleep(lasts).await;
        let mut process = self.process.lock().unwrap();
        process.running.retain(|(known, ..)| *known != number);
        process.kept += process.creep;
        admitted.permit.settle(Actual { end: End::Answered, ..Actual::default() });
        Ok(admitted.waited)
    }

    /// The share, 0 to 1, that distress leaves of the window, and the signal that cut it.
    pub(crate) fn share(&self) -> (f64, Option<Cut>) {
        self.admission.share("main").unwrap()
    }
}
