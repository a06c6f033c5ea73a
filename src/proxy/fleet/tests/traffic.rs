//! A large fleet on a stopped clock: bytes and requests at its store, fairness between its tenants, and the time until the
//! part of a dead proxy is used by others. The admission, the rounds, the board and the commands are the real ones; the store
//! is a model. `WEIR_TEST_FLEET=200,100,10000` sets proxies, backends and tenants.

use std::sync::atomic::AtomicUsize;

use tokio::sync::watch;

use super::*;
use crate::{
    backend::ProbeOutcome,
    fleet::tests::model::{Model, Traffic},
    limit::{Actual, End, InFlight},
    promql::Fingerprint,
};

/// One backend of this number always has a heavy query of each of its tenants waiting; the other tenants have one a minute.
const BUSY_OF: usize = 10;
/// One tenant of this number sends its queries to as many proxies in turn, the others to one.
const SPREAD: usize = 4;
/// Bytes of a heavy query, and how long it runs, in milliseconds.
const QUERY: (std::ops::RangeInclusive<u64>, std::ops::RangeInclusive<u64>) =
    (30 * MIB..=60 * MIB, 300..=1_000);
const MEASURED: Duration = Duration::from_secs(60);

struct Tenant {
    name: String,
    backend: usize,
    proxies: Vec<usize>,
    /// Byte-milliseconds, in MiB, of its queries.
    served: AtomicU64,
}

struct Crowd {
    model: Arc<Model>,
    backends: Vec<Arc<str>>,
    members: Vec<Member>,
    tenants: Vec<Tenant>,
    /// The proxy that was killed.
    killed: watch::Sender<Option<usize>>,
    queries: AtomicUsize,
}

impl Crowd {
    /// A fleet of this number of proxies, backends and tenants that has run for some seconds.
    async fn run([proxies, backends, tenants]: [usize; 3]) -> Arc<Self> {
        let model = Arc::new(Model::new(Duration::from_millis(1)));
        let names: Vec<Arc<str>> = (0..backends).map(|number| format!("cluster-{number}").into()).collect();
        let member = |number: usize| {
            let id = format!("weir-7d9f8b6c5d-x2x9z/0.0.0.0:9099/{number:016x}");
            let in_flight = InFlight { queries: Limit::enforce(256), memory: Limit::enforce(BUDGET / 2) };
            let limits = TenantPolicy { in_flight, ..TenantPolicy::default() };
            let store = Store::modelled(&model, id);
            Member::before(&names, store, 1_024, limits, (proxies as u64, 100))
        };
        let members = (1..=proxies).map(member).collect();
        let tenant = |number: usize| {
            let spread = if (number / backends).is_multiple_of(SPREAD) { SPREAD } else { 1 };
            let first = Rng::with_seed(number as u64).usize(..proxies);
            Tenant {
                name: format!("tenant-{number}"),
                backend: number % backends,
                proxies: (0..spread).map(|place| (first + place) % proxies).collect(),
                served: AtomicU64::new(0),
            }
        };
        let tenants: Vec<_> = (0..tenants).map(tenant).collect();
        let killed = watch::Sender::new(None);
        let crowd =
            Arc::new(Self { model, backends: names, members, tenants, killed, queries: AtomicUsize::new(0) });
        sleep(Duration::from_secs(10)).await;
        for number in 0..crowd.tenants.len() {
            tokio::spawn(Arc::clone(&crowd).client(number));
        }
        sleep(Duration::from_secs(10)).await;
        crowd
    }

    fn is_busy(backend: usize) -> bool {
        backend.is_multiple_of(BUSY_OF)
    }

    async fn client(self: Arc<Self>, number: usize) {
        let (mut rng, mut killed) = (Rng::with_seed(number as u64), self.killed.subscribe());
        let Tenant { name, backend, proxies, served } = &self.tenants[number];
        for turn in 0.. {
            if !Self::is_busy(*backend) {
                sleep(Duration::from_millis(rng.u64(0..120_000))).await;
            }
            let mut at = proxies[turn % proxies.len()];
            if *killed.borrow() == Some(at) {
                // A balancer sends it elsewhere.
                at = (at + 1) % self.members.len();
            }
            let (bytes, takes) = (rng.u64(QUERY.0), rng.u64(QUERY.1));
            let asked =
                admit_at(&self.members[at].admission, Arc::clone(&self.backends[*backend]), name, bytes);
            let admitted = tokio::select! {
                admitted = asked => admitted,
                _ = killed.wait_for(|killed| *killed == Some(at)) => continue,
            };
            let Ok(admitted) = admitted else { continue };
            self.counted(at);
            sleep(Duration::from_millis(takes)).await;
            served.fetch_add(bytes / MIB * takes, Relaxed);
            admitted.permit.settle(Actual { end: End::Answered, ..Actual::default() });
        }
    }

    /// Every query is a new one, whose series were counted.
    fn counted(&self, at: usize) {
        let number = self.queries.fetch_add(1, Relaxed) as u64;
        let series = Estimate::new(number, Confidence::Exact);
        let outcome = ProbeOutcome {
            series,
            truncated: false,
            cached: false,
            took: Duration::ZERO,
            bytes: 0,
            labels: None,
        };
        let life = Duration::from_secs(60);
        self.members[at].counts.offer(Fingerprint::from_words([number, number]), &outcome, false, life);
    }

    /// Byte-milliseconds of all tenants of busy backends so far.
    fn served(&self) -> Vec<(usize, u64)> {
        let busy = self.tenants.iter().filter(|tenant| Self::is_busy(tenant.backend));
        busy.map(|tenant| (tenant.proxies.len(), tenant.served.load(Relaxed))).collect()
    }

    fn all_served(&self) -> u64 {
        self.served().iter().map(|(_, served)| served).sum()
    }

    /// No backend has more in flight than its budget.
    fn is_within_budget(&self) -> bool {
        let snapshots: Vec<_> = self.members.iter().map(|member| member.admission.snapshot()).collect();
        (0..self.backends.len())
            .all(|at| snapshots.iter().map(|snapshot| snapshot.backends[at].memory).sum::<u64>() <= BUDGET)
    }

    /// The part of the busy backends that the store counts as this proxy's.
    fn leased(&self, proxy: usize) -> u64 {
        let busy = self.backends.iter().step_by(BUSY_OF);
        busy.map(|name| self.model.leased(&format!("backend:{name}"), proxy as u64 + 1).bytes).sum()
    }

    /// Kills the proxy that has leased the most; gives the time until nothing counts as its own.
    async fn kill(&self) -> Duration {
        let doomed = (0..self.members.len()).max_by_key(|proxy| self.leased(*proxy)).unwrap();
        assert!(self.leased(doomed) > 0);
        let began = Instant::now();
        self.model.isolate(doomed as u64 + 1);
        self.killed.send_replace(Some(doomed));
        while self.leased(doomed) > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }
}

/// Jain's index of these numbers, and the least and the greatest of them beside their mean.
fn fairness(served: &[f64]) -> [f64; 3] {
    let (sum, squares) = served.iter().fold((0.0, 0.0), |(sum, squares), of| (sum + of, squares + of * of));
    let mean = sum / served.len() as f64;
    let [least, most] = [f64::min, f64::max].map(|of| served.iter().copied().reduce(of).unwrap() / mean);
    [sum * sum / (squares * served.len() as f64), least, most]
}

fn size() -> [usize; 3] {
    let asked = std::env::var_os("WEIR_TEST_FLEET").map(|asked| asked.into_string().unwrap());
    let asked = asked.unwrap_or_else(|| "10,5,500".to_owned());
    let numbers: Vec<_> = asked.split(',').map(|number| number.parse().unwrap()).collect();
    numbers.try_into().expect("proxies, backends and tenants")
}

#[allow(clippy::print_stdout, reason = "the figures of docs/fleet.md")]
#[tokio::test(start_paused = true)]
async fn a_large_fleet_is_fair_bounded_at_its_store_and_soon_uses_the_part_of_a_dead_proxy() {
    let size = size();
    let crowd = Crowd::run(size).await;
    let (before, began) = (crowd.model.traffic(), crowd.served());
    for _ in 0..MEASURED.as_secs() {
        sleep(Duration::from_secs(1)).await;
        assert!(crowd.is_within_budget());
    }
    let Traffic { rounds, scripts, received, sent } = crowd.model.traffic();
    let seconds = MEASURED.as_secs();
    let [rounds, scripts, received, sent] = [
        (rounds - before.rounds) / seconds,
        (scripts - before.scripts) / seconds,
        (received - before.received) / seconds,
        (sent - before.sent) / seconds,
    ];
    let served: Vec<_> =
        crowd.served().iter().zip(&began).map(|(now, then)| (now.0, (now.1 - then.1) as f64)).collect();
    let of = |proxies: usize| served.iter().filter(|of| of.0 == proxies).map(|of| of.1).collect::<Vec<_>>();
    let (ones, spread) = (of(1), of(SPREAD));
    let [jain, least, most] = fairness(&ones);
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let gain = mean(&spread) / mean(&ones);
    let usual = crowd.all_served();
    sleep(MEASURED / 4).await;
    let usual = crowd.all_served() - usual;
    let (then, took) = (crowd.all_served(), crowd.kill().await);
    let meanwhile =
        (crowd.all_served() - then) as f64 / took.as_secs_f64() / (usual as f64 / (seconds / 4) as f64);
    println!(
        "{size:?}: {rounds} rounds, {scripts} scripts, {received} bytes received and {sent} sent a second; fairness {jain:.3} \
         ({least:.2} to {most:.2} of the mean), {gain:.2} times as much with {SPREAD} proxies; a dead proxy's part after {took:?}, \
         and {meanwhile:.2} of the work until then",
    );
    assert!(jain > 0.95 && least > 0.6 && most < 1.4 && gain < 1.3);
    // 7 s and the longest time of a query.
    assert!(took < Duration::from_secs(10) && meanwhile > 0.7);
}
