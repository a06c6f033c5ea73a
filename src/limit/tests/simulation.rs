//! A seeded crowd: thousands of tenants who ask, wait, give up, finish, while limits and capacities change under them.
//! The invariants are checked after every step.

use std::num::NonZeroU64;

use fastrand::Rng;
use futures_util::{
    StreamExt,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::FuturesUnordered,
};

use super::{
    super::{backend::Backend, invariants},
    *,
};
use crate::base::ErrorKind;

/// Backends that the policies have, each two or three of them.
const BACKENDS: [&str; 3] = ["one", "two", "three"];

type Waiting = Abortable<BoxFuture<'static, Result<Admitted, Refusal>>>;

struct Crowd {
    /// The limits among which a reload chooses.
    policies: Vec<Policy>,
    /// Tenants who ask.
    names: u32,
    admission: Arc<Admission>,
    rng: Rng,
    waiting: FuturesUnordered<Waiting>,
    handles: Vec<AbortHandle>,
    running: Vec<Admitted>,
    admitted: usize,
    refused: std::collections::HashMap<ErrorKind, usize>,
}

/// Policies that differ in everything that a reload may change.
fn policies() -> Vec<Policy> {
    let budget = |name: &str, memory, queries, unproven_percent| BackendBudget {
        unproven_percent,
        linger: Duration::from_millis(queries * 200),
        slow: SlowLane {
            memory_percent: (queries * 7 % 100) as u8,
            queries: NonZeroU64::new(queries / 3).unwrap_or(NonZeroU64::MIN),
        },
        ..self::budget(name, memory, queries)
    };
    let class = |name: &str, reserve_percent| ClassPolicy { name: name.into(), reserve_percent };
    let tenant = |memory, queries, length, count| {
        Arc::new(TenantPolicy {
            in_flight: InFlight { memory: Limit::enforce(memory), queries: Limit::enforce(queries) },
            queue: QueuePolicy { length, wait: Duration::from_secs(10) },
            rate: Rates {
                queries: RateLimit {
                    rate: std::num::NonZeroU64::new(count)
                        .map(|count| Rate { count, per: Duration::from_secs(1) }),
                    mode: Mode::Enforce,
                },
                ..Rates::default()
            },
            ..TenantPolicy::default()
        })
    };
    let wide = Policy {
        default: tenant(2 << 30, 20, 50, 0),
        tenants: [(self::tenant("t0"), tenant(1 << 30, 5, 20, 0))].into(),
        patterns: TenantPrefixes::default(),
        classes: vec![class("rules", 20)],
        backends: vec![budget("one", 4 << 30, 20, 100), budget("two", 1 << 30, 5, 12)],
        sharing: Sharing::default(),
        tenants_max: 200,
        waiting_max: 300,
    };
    let narrow = Policy {
        default: tenant(300 << 20, 3, 10, 50),
        tenants: [(self::tenant("t1"), tenant(1 << 30, 5, 20, 0))].into(),
        classes: vec![class("agents", 10), class("rules", 40)],
        backends: vec![
            budget("two", 2 << 30, 10, 12),
            budget("three", 500 << 20, 3, 100),
            budget("one", 1 << 30, 4, 50),
        ],
        ..wide.clone()
    };
    let open = Policy {
        default: Arc::default(),
        classes: Vec::new(),
        backends: vec![BackendBudget { memory: Limit::UNLIMITED, ..budget("one", 1, 8, 12) }],
        ..wide.clone()
    };
    vec![wide, narrow, open]
}

impl Crowd {
    fn new(seed: u64, policies: Vec<Policy>, names: u32) -> Self {
        let admission = Admission::new(policies[0].clone());
        Self {
            policies,
            names,
            admission,
            rng: Rng::with_seed(seed),
            waiting: FuturesUnordered::new(),
            handles: Vec::new(),
            running: Vec::new(),
            admitted: 0,
            refused: std::collections::HashMap::new(),
        }
    }

    fn ask(&mut self) {
        let rng = &mut self.rng;
        let few = self.names.min(5);
        let name = if self.names == few || rng.bool() { rng.u32(0..few) } else { rng.u32(few..self.names) };
        let memory = 1u64 << rng.u32(10..33);
        let mut ask = AdmissionRequest {
            actor: format!("actor{}", rng.u8(0..3)).into(),
            class: [Some("rules".into()), Some("agents".into()), None][rng.usize(0..3)].clone(),
            backend: BACKENDS[rng.usize(0..3)].into(),
            deadline: Instant::now() + Duration::from_millis(rng.u64(0..20_000)),
            slow: rng.u8(0..5) == 0,
            ..ask(&format!("t{name}"), memory)
        };
        if rng.u8(0..8) == 0 {
            // Another pays as well.
            ask.payers.push(tenant(&format!("t{}", rng.u32(0..self.names))));
            ask.payers.sort();
            ask.payers.dedup();
        }
        let admission = Arc::clone(&self.admission);
        let (handle, registration) = AbortHandle::new_pair();
        self.waiting.push(Abortable::new(async move { admission.admit(ask).await }.boxed(), registration));
        self.handles.push(handle);
    }

    /// Lets everybody run who was woken.
    fn settle(&mut self) {
        while let Some(Some(outcome)) = self.waiting.next().now_or_never() {
            match outcome {
                Ok(Ok(admitted)) => {
                    self.admitted += 1;
                    self.running.push(admitted);
                }
                Ok(Err(refusal)) => *self.refused.entry(refusal.kind).or_default() += 1,
                Err(_aborted) => {}
            }
        }
        self.handles.retain(|handle| !handle.is_aborted());
        if self.handles.len() > 2 * self.waiting.len() + 16 {
            let excess = self.handles.len() - self.waiting.len();
            self.handles.drain(..excess);
        }
    }

    fn finish(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.rng.usize(0..self.running.len());
        match self.rng.u8(0..8) {
            0 => {
                self.running[at].permit.handle().stalled();
                return;
            }
            1 => return self.running[at].permit.handle().backend_done(self.rng.bool()),
            2 => return self.running[at].permit.part_done(),
            _ => {}
        }
        let done = self.running.swap_remove(at);
        if self.rng.bool() {
            let samples = self.rng.bool().then(|| self.rng.u64(0..1000));
            let end = [End::Answered, End::Failed, End::Abandoned][self.rng.usize(0..3)];
            done.permit.settle(Actual { samples, end });
        }
    }

    /// A look at a backend: at ease, or in any distress.
    fn look(&mut self) {
        let backend = BACKENDS[self.rng.usize(0..3)];
        let Some(in_flight) = self.admission.take_peak(backend) else { return };
        let distress = Distress {
            pressure: Some((Signal::ALL[self.rng.usize(0..3)], self.rng.f64())),
            underestimate: if self.rng.u8(0..4) == 0 { 1.0 + self.rng.f64() * 15.0 } else { 1.0 },
            silent: self.rng.u8(0..6) == 0,
            ceiling: (self.rng.u8(0..10) == 0).then(|| self.rng.f64()),
            places: (self.rng.u8(0..4) == 0).then(|| self.rng.u64(1..30)),
        };
        self.admission.observe(backend, &distress, in_flight);
    }

    async fn step(&mut self, dice: u32) {
        match dice {
            0..60 => self.ask(),
            60..80 => self.finish(),
            80..88 if !self.handles.is_empty() => {
                let at = self.rng.usize(0..self.handles.len());
                // Dropped at the next settling: still in the queue, or just handed over.
                self.handles.swap_remove(at).abort();
            }
            88..96 => tokio::time::advance(Duration::from_millis(self.rng.u64(0..500))).await,
            96 => {
                let policy = self.rng.usize(0..3);
                self.admission.reload(self.policies[policy].clone());
            }
            97 if self.rng.u8(0..4) == 0 => {
                let alive = self.rng.u8(0..4) > 0;
                self.admission.set_alive(BACKENDS[self.rng.usize(0..3)], alive);
            }
            97 => self.look(),
            _ => {}
        }
    }

    fn check(&self, before: &invariants::Before, step: usize) {
        let permits: Vec<_> = self.running.iter().map(|admitted| admitted.permit.held()).collect();
        let broken = invariants::broken(&self.admission.lock(), &permits, before, 2, Instant::now());
        assert!(broken.is_empty(), "step {step}: {broken:#?}");
        let waiting: usize = self.admission.lock().backends.iter().map(Backend::waiting).sum();
        assert_eq!(self.admission.callers(), waiting, "step {step}: each query that waits has its caller");
    }

    /// Makes this number of steps, and checks after each.
    async fn go(&mut self, steps: usize) {
        for step in 0..steps {
            let mut before = invariants::Before::of(&self.admission.lock());
            // Several events happen between two checks; a change of limits is the last of them, since queries within
            // the old ones may pass the new.
            for _ in 0..self.rng.u32(1..4) {
                let dice = self.rng.u32(0..100);
                let changes_limits = matches!(dice, 96 | 97);
                if changes_limits {
                    before = invariants::Before::of(&self.admission.lock());
                }
                self.step(dice).await;
                if changes_limits {
                    break;
                }
            }
            // Timers that are due run first.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            self.settle();
            self.check(&before, step);
        }
    }

    /// All leave. A query that fits the budget runs within the stated time then, after any load.
    async fn leave(&mut self) {
        self.waiting.clear();
        self.running.clear();
        for name in BACKENDS {
            self.admission.set_alive(name, true);
        }
        let policy = self.admission.policy();
        let start = Instant::now();
        for budget in &policy.backends {
            let most = budget.memory.max.map_or(1 << 30, |max| max.get() / 32 * 31);
            for class in [Some("rules".into()), None] {
                let request =
                    AdmissionRequest { class, backend: Arc::clone(&budget.name), ..ask("t4999", most) };
                match self.admission.admit(request).await {
                    Ok(admitted) => answered([admitted]),
                    Err(refusal) => assert_eq!(refusal.scope, Scope::Tenant(tenant("t4999")), "{refusal}"),
                }
            }
        }
        assert!(start.elapsed() <= invariants::IDLE_WAIT_MAX, "{:?}", start.elapsed());
        tokio::time::sleep(Duration::from_secs(5)).await;
        let left = self.admission.snapshot();
        assert_eq!(left.tenants, []);
        assert!(left.backends.iter().all(|backend| backend.memory == 0 && backend.waiting == 0));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_breaks_where_actors_take_each_others_places() {
    let mut policies = policies();
    for policy in &mut policies {
        for tenant in std::iter::once(&mut policy.default).chain(policy.tenants.values_mut()) {
            Arc::make_mut(tenant).queue.length = 4;
        }
    }
    for seed in 0..8 {
        let mut crowd = Crowd::new(seed, policies.clone(), 3);
        crowd.go(1000).await;
        assert!(crowd.refused.contains_key(&ErrorKind::QueueFull), "seed {seed}: {:?}", crowd.refused);
        crowd.leave().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_breaks_whatever_the_crowd_does() {
    let mut refused = std::collections::HashMap::new();
    for seed in 0..3 {
        let mut crowd = Crowd::new(seed, policies(), 5000);
        crowd.go(2000).await;
        assert!(crowd.admitted > 400, "seed {seed}: only {} ran", crowd.admitted);
        refused.extend(crowd.refused.iter().map(|(kind, n)| (*kind, *n)));
        crowd.leave().await;
    }
    for kind in
        [ErrorKind::QueueTimeout, ErrorKind::QueueFull, ErrorKind::BackendSick, ErrorKind::LimitExceeded]
    {
        assert!(refused.contains_key(&kind), "no {kind:?} in {refused:?}");
    }
}
