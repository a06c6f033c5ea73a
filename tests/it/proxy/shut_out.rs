//! Admission and the monitor of distress before a simulated Go process, on a stopped clock: whatever the process keeps, others
//! run on it, or estimates are off by, a query that fits the budget is not shut out.

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
        Actual, Admission, AdmissionRequest, BackendBudget, Charged, ClassPolicy, End, Limit, Policy,
        QueuePolicy, Refusal, TenantPolicy,
    },
};

const MIB: u64 = 1 << 20;
/// Bytes that the process holds when nothing runs.
const BASE: u64 = 50 * MIB;

/// A Go process: what its queries hold is collected every five seconds, and never given back to the system.
struct Process {
    limit: u64,
    /// How many times their estimates queries hold.
    error: f64,
    /// Bytes that each query leaves behind for good.
    creep: u64,
    /// What queries of other clients hold, and how many there are.
    foreign: (u64, u64),
    /// When each began, and its estimate.
    running: Vec<(u64, Instant, u64)>,
    collected: (Instant, u64),
    resident: u64,
    kept: u64,
}

impl Process {
    fn new(limit: u64) -> Self {
        let collected = (Instant::now(), BASE);
        let (running, foreign) = (Vec::new(), (0, 0));
        Self { limit, error: 1.0, creep: 0, foreign, running, collected, resident: BASE, kept: 0 }
    }

    fn alive(&self) -> u64 {
        let grown = |began: &Instant| (began.elapsed().as_secs_f64() / 2.0).min(1.0);
        let ours = self.running.iter().map(|(_, began, bytes)| *bytes as f64 * self.error * grown(began));
        BASE + self.kept + self.foreign.0 + ours.sum::<f64>() as u64
    }

    /// Its page of metrics; `counts` its queries, as Prometheus does.
    fn page(&mut self, counts: bool) -> String {
        let alive = self.alive();
        if self.collected.0.elapsed() >= Duration::from_secs(5) {
            self.collected = (Instant::now(), alive);
        }
        let live = self.collected.1.max(alive);
        self.resident = self.resident.max(live * 3 / 2).min(self.limit.max(live));
        let mut page = format!(
            "process_resident_memory_bytes {}\ngo_memstats_next_gc_bytes {}\n",
            self.resident,
            live as f64 / 0.75
        );
        if counts {
            let queries = self.running.len() as u64 + self.foreign.1;
            let _ = writeln!(page, "prometheus_engine_queries {queries}");
        }
        page
    }
}

/// One proxy before the process.
#[derive(Clone)]
struct Proxy {
    admission: Arc<Admission>,
    monitor: Arc<Mutex<Monitor>>,
    process: Arc<Mutex<Process>>,
}

impl Proxy {
    fn new(budget: u64, process: &Arc<Mutex<Process>>) -> Self {
        let tenant = TenantPolicy {
            queue: QueuePolicy { length: 100, wait: Duration::from_secs(60) },
            ..TenantPolicy::default()
        };
        let admission = Admission::new(Policy {
            default: Arc::new(tenant),
            classes: vec![ClassPolicy { name: "rules".into(), reserve_percent: 20 }],
            backends: vec![BackendBudget {
                name: "main".into(),
                memory: Limit::enforce(budget),
                queries: Limit::enforce(20),
                unproven_percent: 10,
                linger: Duration::from_secs(3),
            }],
            ..Policy::default()
        });
        let limit = process.lock().unwrap().limit;
        let settings = Settings { memory_limit: Some(limit), ..Settings::default() };
        let monitor = Monitor::new(Kind::Prometheus, settings, Instant::now());
        let (monitor, process) = (Arc::new(Mutex::new(monitor)), Arc::clone(process));
        Self { admission, monitor, process }
    }

    /// Looks at the process every second for ever.
    async fn watch(self, counts: bool) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let page = self.process.lock().unwrap().page(counts);
            let load = self.admission.take_peak("main").unwrap();
            let look = self.monitor.lock().unwrap().observe(&[Some(&page)], load, Instant::now());
            self.admission.observe("main", &look.distress, load);
        }
    }

    /// Runs a query of this many bytes for three seconds; how long it waited.
    async fn query(&self, bytes: u64, number: u64) -> Result<Duration, Refusal> {
        let request = AdmissionRequest {
            payers: [TenantId::new("a").unwrap()].into(),
            actor: "panel".into(),
            class: None,
            backend: "main".into(),
            cost: QueryCost { memory: Estimate::new(bytes, Confidence::UpperBound), ..QueryCost::NOTHING },
            deadline: Instant::now() + Duration::from_secs(600),
            charged: Charged::Nothing,
            tag: number,
        };
        let admitted = self.admission.admit(request).await?;
        self.process.lock().unwrap().running.push((number, Instant::now(), bytes));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut process = self.process.lock().unwrap();
        process.running.retain(|(known, ..)| *known != number);
        process.kept += process.creep;
        admitted.permit.settle(Actual { end: End::Answered, ..Actual::default() });
        Ok(admitted.waited)
    }

    /// A burst of queries at the same time: how many were refused.
    async fn burst(&self, queries: u64, bytes: u64, from: u64) -> usize {
        let all = (0..queries).map(|number| self.query(bytes, from + number));
        futures_util::future::join_all(all).await.iter().filter(|outcome| outcome.is_err()).count()
    }

    /// Eight queries in a row, each as large as fits, a few seconds apart: none waits for long.
    async fn eight_in_a_row(&self, budget: u64) {
        for number in 0..8 {
            let waited = self.query(budget / 32 * 31, 1_000 + number).await.unwrap();
            assert!(waited <= Duration::from_millis(100), "{budget}: {number} waited {waited:?}");
            tokio::time::sleep(Duration::from_secs(number % 4)).await;
        }
    }
}

const BUDGETS: [u64; 4] = [4 * MIB, 64 * MIB, 128 * MIB, 512 * MIB];

fn before(budget: u64, change: impl FnOnce(&mut Process)) -> (Arc<Mutex<Process>>, Proxy) {
    let mut process = Process::new(BASE + 4 * budget);
    change(&mut process);
    let process = Arc::new(Mutex::new(process));
    let proxy = Proxy::new(budget, &process);
    tokio::spawn(proxy.clone().watch(true));
    (process, proxy)
}

#[tokio::test(start_paused = true)]
async fn after_a_burst_whose_memory_stays_the_heaviest_runs_at_once() {
    for budget in BUDGETS {
        let (process, proxy) = before(budget, |_| {});
        let refused = proxy.burst(20, budget / 4, 0).await;
        assert!(refused <= 10, "{budget}: {refused} of 20 that fit were refused");
        // A process that stays near its limit.
        process.lock().unwrap().resident = BASE + 4 * budget / 100 * 97;
        tokio::time::sleep(Duration::from_secs(10)).await;
        proxy.eight_in_a_row(budget).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_creeps_with_every_query_goes_on_to_be_asked() {
    for budget in BUDGETS {
        let (process, proxy) = before(budget, |process| process.creep = budget / 40);
        for round in 0..4 {
            assert_eq!(proxy.burst(10, budget / 8, round * 100).await, 0, "{budget}");
            proxy.eight_in_a_row(budget).await;
        }
        assert!(process.lock().unwrap().kept > budget, "it crept");
    }
}

#[tokio::test(start_paused = true)]
async fn the_query_of_another_client_is_no_error_of_ours() {
    for budget in BUDGETS {
        for counts in [true, false] {
            let process = Arc::new(Mutex::new(Process::new(BASE + 40 * budget)));
            let proxy = Proxy::new(budget, &process);
            tokio::spawn(proxy.clone().watch(counts));
            tokio::time::sleep(Duration::from_secs(5)).await;
            // It begins while ours runs, and goes on for minutes.
            let ours = tokio::spawn({
                let proxy = proxy.clone();
                async move { proxy.query(budget / 16, 1).await }
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
            process.lock().unwrap().foreign = (15 * budget, 1);
            assert!(ours.await.unwrap().is_ok());
            for number in 0..60 {
                let waited = proxy.query(budget / 20, 10 + number).await.unwrap();
                assert!(waited <= Duration::from_millis(100), "{budget}, {counts}: {waited:?}");
            }
            process.lock().unwrap().foreign = (0, 0);
            proxy.eight_in_a_row(budget).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_estimates_slows_down_and_shuts_nobody_out() {
    for budget in BUDGETS {
        for error in [1.4, 3.0] {
            let (_process, proxy) = before(budget, |process| process.error = error);
            assert_eq!(proxy.burst(14, budget / 3, 0).await, 0, "{budget}: an error of {error}");
            proxy.eight_in_a_row(budget).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_proxies_do_not_take_each_others_queries_for_errors() {
    for budget in BUDGETS {
        for counts in [true, false] {
            let process = Arc::new(Mutex::new(Process::new(BASE + 8 * budget)));
            let proxies = [(); 2].map(|()| Proxy::new(budget, &process));
            for proxy in &proxies {
                tokio::spawn(proxy.clone().watch(counts));
            }
            let bursts =
                proxies.iter().enumerate().map(|(at, proxy)| proxy.burst(12, budget / 4, at as u64 * 100));
            let refused = futures_util::future::join_all(bursts).await;
            assert_eq!(refused, [0, 0], "{budget}, {counts}");
            for proxy in &proxies {
                proxy.eight_in_a_row(budget).await;
            }
        }
    }
}
