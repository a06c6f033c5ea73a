//! This proxy's part in a fleet: leases the shared part of every backend's budget, and of the limits of its busy tenants,
//! from the store, in one round trip for all.
//! No query waits for the store. One that finds no room waits in its queue as ever, and that hastens the next round.

mod board;
mod counts;
mod outbox;
mod pressure;
mod tenants;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

pub(super) use self::{board::Subjects, counts::SharedCounts};
use self::{
    board::{Board, News},
    outbox::Order,
    tenants::TenantShares,
};
use super::{log::Selection, meter::Kill};
use crate::{
    base::{
        distress::{Load, Signal},
        share::{Amount, Demand, SharedWindow},
    },
    fleet::{Answer, Answers, Ask, Lease, Renewal, Round, SEATS, SKEW_MS, Store, StoreError, TTL_MS},
    limit::{Admission, BackendDemand, BackendLease},
    telemetry::metrics::Metrics,
};

/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// The same while a lease is held or waited for, times the number of proxies: what one gives back, another takes up soon, and
/// all together make 500 rounds a second at most.
const WHILE_LEASED: Duration = Duration::from_millis(2);
/// The least of it.
const WHILE_LEASED_MIN: Duration = Duration::from_millis(20);
/// Rounds are no closer than this, however many queries ask.
const GAP: Duration = Duration::from_millis(10);
/// What others have in flight counts for no longer.
const FRESH: Duration = Duration::from_secs(3);
/// The seat of a proxy that was killed counts for this long.
const SEAT_LIFE: Duration = Duration::from_millis(TTL_MS + SKEW_MS);
/// Longest wait at the end for the store to take back the leases.
const LAST_ROUND: Duration = Duration::from_millis(500);

/// How a proxy shares its budgets with others.
#[derive(Clone)]
pub struct Settings {
    /// Where the store is: `redis://[[user]:password@]host[:port][/db]`, or `rediss://` with TLS.
    pub url: String,
    /// The name of the fleet. Proxies of one name share their budgets.
    pub name: String,
    /// The name of this proxy, for people that look into the store.
    pub id: String,
    /// The most proxies that run at the same time.
    pub replicas_max: u64,
    /// Longest wait for the store.
    pub timeout: Duration,
    /// The longest time that a query runs.
    pub longest_query: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Settings").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}

/// The state of a fleet, as this proxy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FleetStatus {
    /// The store answered the last round.
    pub connected: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// The store has just lost its memory: it grants only what is held.
    pub learning: bool,
    /// Proxies that run, this one among them.
    pub proxies: u64,
    /// The most that may run.
    pub replicas_max: u64,
    /// The names of those that run, as the store said last; that of this one.
    pub members: Vec<String>,
    pub own_name: String,
    /// By backend, what all other proxies have in flight, as of the last round: heavy bytes, and queries.
    pub others: BTreeMap<String, (u64, u64)>,
    /// By backend, the other proxies that have another budget there, or another number of replicas.
    pub differing: BTreeMap<String, u64>,
    /// By backend, bytes that proxies leased that are gone: nobody has them until the last queries of those are over.
    pub gone: BTreeMap<String, u64>,
    /// Since when the store does not answer.
    #[serde(skip)]
    pub away_since: Option<Instant>,
    /// More than `replicas_max` proxies run, for longer than one that was killed keeps its seat.
    pub crowded: bool,
    /// The topic of an entry that could not be read in the last ten minutes: of the board, `leases` or `rates`.
    pub unreadable: Option<&'static str>,
}

/// The other proxies before a backend, by the last answer of the store.
#[derive(Clone, Copy, Debug)]
struct Others {
    load: Amount,
    /// Those that have another budget there.
    differing: u64,
    /// Bytes of the leases of those that are gone.
    gone: u64,
    at: Instant,
}

/// The settings that a reload changes.
#[derive(Clone, Copy, Debug, Default)]
struct Reloadable {
    replicas_max: u64,
    timeout: Duration,
    longest_query: Duration,
}

/// A proxy's place in its fleet; without one it is never connected and knows of no others.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    reloadable: Mutex<Reloadable>,
    status: Mutex<Option<FleetStatus>>,
    others: Mutex<HashMap<Arc<str>, Others>>,
    news: Arc<News>,
    leaving: Notify,
    left: Notify,
}

impl Fleet {
    /// The state of the fleet; `None` without one.
    pub(super) fn status(&self) -> Option<FleetStatus> {
        let status = self.status.lock().clone()?;
        let others = self.others.lock();
        let fresh = || others.iter().filter(|(_, of)| of.at.elapsed() < FRESH);
        let above_zero = |number: fn(&Others) -> u64| {
            let numbers = fresh().map(|(name, of)| (name.to_string(), number(of)));
            numbers.filter(|(_, number)| *number > 0).collect()
        };
        Some(FleetStatus {
            unreadable: self.news.unreadable(),
            others: fresh().map(|(name, of)| (name.to_string(), (of.load.bytes, of.load.queries))).collect(),
            differing: above_zero(|of| of.differing),
            gone: above_zero(|of| of.gone),
            ..status
        })
    }

    /// The highest pressure that any proxy read at a backend of late, given that of this one.
    pub(super) fn worst_pressure(&self, backend: &str, own: Option<(Signal, f64)>) -> Option<(Signal, f64)> {
        self.news.worst_pressure(backend, own)
    }

    /// Passes an order to stop queries on to the other proxies; `None` without a fleet.
    ///
    /// # Errors
    /// The store did not confirm it.
    pub(super) async fn pass_on_kill(&self, which: &Selection, kill: &Kill) -> Option<Result<(), String>> {
        self.status()?;
        let order = Order { which: which.clone(), kill: kill.clone() };
        Some(self.news.outbox.pass_on(Some(&order)).await)
    }

    /// Passes the rules set at run time on to the other proxies; `None` without a fleet.
    ///
    /// # Errors
    /// The store did not confirm it.
    pub(super) async fn pass_on_rules(&self) -> Option<Result<(), String>> {
        self.status()?;
        Some(self.news.outbox.pass_on(None).await)
    }

    /// The load of all proxies at a backend, given that of this one.
    pub(super) fn load_of_all(&self, backend: &str, own: Load) -> Load {
        let others = self.others.lock();
        match others.get(backend) {
            Some(of) if of.at.elapsed() < FRESH => Load {
                heavy_bytes: own.heavy_bytes.saturating_add(of.load.bytes),
                queries: own.queries.saturating_add(of.load.queries),
                ..own
            },
            _ => own,
        }
    }

    /// Obeys other settings from now on, as far as a reload changes them.
    pub(super) fn reload(&self, settings: &Settings) {
        let Settings { replicas_max, timeout, longest_query, .. } = *settings;
        let mut reloadable = self.reloadable.lock();
        // Queries that began before may run as long as they were allowed to.
        let longest_query = longest_query.max(reloadable.longest_query);
        *reloadable = Reloadable { replicas_max, timeout, longest_query };
    }

    /// Gives all leases back, as far as the store takes them in time.
    pub(super) async fn leave(&self) {
        if self.status().is_some() {
            let left = self.left.notified();
            self.leaving.notify_one();
            // Without an answer they end by themselves.
            let _ = timeout(LAST_ROUND, left).await;
        }
    }

    /// Joins a fleet. The task ends when the admission is gone, or by [`Self::leave`].
    ///
    /// # Errors
    /// The store's URL cannot be used.
    pub(super) fn join(
        self: &Arc<Self>,
        settings: &Settings,
        admission: &Arc<Admission>,
        subjects: Subjects,
    ) -> Result<(), String> {
        let author = format!("{:016x}", random());
        let store = Store::new(&settings.url, &settings.name, format!("{}/{author}", settings.id))?;
        self.join_at(store, author, settings, admission, subjects);
        Ok(())
    }

    fn join_at(
        self: &Arc<Self>,
        store: Store,
        author: String,
        settings: &Settings,
        admission: &Arc<Admission>,
        subjects: Subjects,
    ) {
        let own_name = format!("{}/{author}", settings.id);
        let replicas_max = settings.replicas_max;
        self.reload(settings);
        *self.status.lock() = Some(FleetStatus { replicas_max, own_name, ..FleetStatus::default() });
        let member = Member {
            fleet: Arc::clone(self),
            metrics: Arc::clone(&subjects.metrics),
            board: Board::new(subjects, Arc::clone(&self.news), author),
            store,
            began: Instant::now(),
            due: Instant::now(),
            leases: HashMap::new(),
            tenants: TenantShares::default(),
            seat: Lease::default(),
            crowded_since: None,
        };
        tokio::spawn(member.run(Arc::downgrade(admission)));
    }
}

/// Before the first number of a query, so that no two proxies of a fleet give the same: 20 bits of chance, and room for
/// 2^32 queries below what JSON carries exactly.
pub(super) fn first_number() -> u64 {
    (random() >> 44) << 32
}

/// A number that no other process has.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    // Keyed by the system's randomness.
    RandomState::new().hash_one(std::process::id())
}

/// The task that keeps the leases.
struct Member {
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    board: Board,
    store: Store,
    began: Instant,
    /// When all leases are renewed again, also of backends where nothing runs: what others run there moves their memory.
    due: Instant,
    leases: HashMap<Arc<str>, Lease>,
    tenants: TenantShares,
    seat: Lease,
    /// Since when more than `replicas_max` proxies have a seat.
    crowded_since: Option<Instant>,
}

impl Member {
    async fn run(mut self, admission: Weak<Admission>) {
        let fleet = Arc::clone(&self.fleet);
        while let Some(admission) = admission.upgrade() {
            let (began, is_busy) = (Instant::now(), self.round(&admission).await);
            // While the store is away, only the clock asks it again.
            let up = self.store.is_connected();
            let pause = if is_busy && up { self.while_leased() } else { EVERY };
            tokio::select! {
                () = sleep(pause) => {}
                () = admission.lease_wanted(), if up => sleep_until(began + GAP).await,
                () = fleet.news.outbox.posted(), if up => sleep_until(began + GAP).await,
                () = fleet.leaving.notified() => break,
            }
        }
        self.leave().await;
    }

    /// Time until the next round while a lease is held or waited for.
    fn while_leased(&self) -> Duration {
        let proxies = self.fleet.status().map_or(1, |status| status.proxies);
        let pause = WHILE_LEASED.saturating_mul(u32::try_from(proxies).unwrap_or(u32::MAX));
        pause.clamp(WHILE_LEASED_MIN, EVERY)
    }

    /// Milliseconds since the beginning, on a clock that only goes forward.
    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Renews leases, and once a second all of them; exchanges news with the other proxies then. Says whether a lease is held
    /// or waited for, or news wait for being read.
    async fn round(&mut self, admission: &Arc<Admission>) -> bool {
        let (backends, settings) = (admission.leased_backends(), *self.fleet.reloadable.lock());
        self.leases.retain(|name, _| backends.iter().any(|(known, _)| known == name));
        let is_due = self.due <= Instant::now();
        if is_due {
            self.due = Instant::now() + EVERY;
        }
        let (mut asks, mut names, mut is_busy) = (vec![self.seat(1)], Vec::new(), false);
        for (name, needs_lease) in backends {
            is_busy |= needs_lease;
            if !needs_lease && !is_due {
                continue;
            }
            let Some(BackendDemand { pool, demand, load, window, terms }) = admission.draw_in(&name) else {
                continue;
            };
            let now = self.now();
            let renewal = self.leases.entry(Arc::clone(&name)).or_default().renew(now, demand, load, window);
            let hold_ms = settings.longest_query.as_millis() as u64;
            let renewal = Renewal { terms, ..renewal };
            asks.push(Ask { pool: format!("backend:{name}"), size: pool, hold_ms, renewal });
            names.push(name);
        }
        let mut round = Round { leases: asks, ..Round::default() };
        let of_tenants = self.tenants.ask(admission, self.now(), settings.longest_query, &mut round);
        is_busy |= of_tenants.is_waiting;
        let sent = Instant::now();
        let mut exchange = self.board.ask(sent);
        round.boards = std::mem::take(&mut exchange.asks);
        let outcome = self.store.round(&round, settings.timeout).await;
        self.metrics.fleet_round(outcome.is_ok(), of_tenants.tenants(), sent.elapsed());
        self.note(&outcome, &round.leases, &names);
        if let Ok(answers) = &outcome {
            self.count_unreadable(answers);
        }
        let news = outcome.as_ref().map(|answers| &*answers.boards).map_err(ToString::to_string);
        is_busy |= self.board.take(exchange, &round.boards, news, sent);
        let (now, began, answers) = (self.now(), self.began, outcome.unwrap_or_default());
        let at = |millis| began + Duration::from_millis(millis);
        self.tenants.answered(&of_tenants, &answers, admission, now, at);
        // The first is the seat.
        for (place, name) in names.iter().enumerate() {
            let Some(lease) = self.leases.get(name) else { continue };
            let answer = answers.leases.get(place + 1).and_then(Option::as_ref);
            let of_all = answer.map(|Answer { window, others, .. }| (*window, others.bytes));
            let lease = BackendLease { leased: lease.usable(now), until: at(lease.until()), of_all };
            admission.set_leased(name, &lease);
            self.metrics.fleet_leased(name, lease.leased.bytes, lease.leased.queries);
        }
        is_busy
    }

    fn count_unreadable(&self, Answers { leases, tokens, .. }: &Answers) {
        let leases = leases.iter().flatten().filter(|answer| answer.unreadable).count();
        let rates = tokens.iter().flatten().filter(|drawn| drawn.unreadable).count();
        for (topic, keys) in [("leases", leases), ("rates", rates)] {
            self.fleet.news.count_unreadable(&self.metrics, topic, keys);
        }
    }

    /// Asks for the seat of this proxy, or gives it back.
    fn seat(&mut self, wants: u64) -> Ask {
        let (now, one) = (self.now(), Amount { bytes: wants, queries: wants });
        let demand = Demand { held: self.seat.usable(now).min(one), wants: one, claim: (0, 0), weight: 1 };
        let renewal = self.seat.renew(now, demand, Amount::NONE, SharedWindow::default());
        let seats = self.fleet.reloadable.lock().replicas_max;
        Ask { pool: SEATS.to_owned(), size: Amount { bytes: seats, queries: seats }, hold_ms: 0, renewal }
    }

    /// Takes the answers into the leases, and shows what they say.
    fn note(&mut self, outcome: &Result<Answers, StoreError>, asks: &[Ask], names: &[Arc<str>]) {
        let now = self.now();
        let before = self.fleet.status().unwrap_or_default();
        let mut status = FleetStatus {
            replicas_max: self.fleet.reloadable.lock().replicas_max,
            members: before.members.clone(),
            own_name: before.own_name.clone(),
            ..FleetStatus::default()
        };
        match outcome {
            Ok(answers) => {
                status.connected = true;
                if let Some(members) = &answers.members {
                    status.members.clone_from(members);
                }
                for ((ask, answer), name) in asks.iter().zip(&answers.leases).skip(1).zip(names) {
                    let Some(answer) = answer else { continue };
                    if let Some(lease) = self.leases.get_mut(name) {
                        lease.answered(now, ask.renewal.seq, answer);
                    }
                    status.learning |= answer.learning;
                    let Answer { others: load, differing, gone, .. } = *answer;
                    let of = Others { load, differing, gone, at: Instant::now() };
                    self.fleet.others.lock().insert(Arc::clone(name), of);
                }
                if let (Some(ask), Some(Some(answer))) = (asks.first(), answers.leases.first()) {
                    self.seat.answered(now, ask.renewal.seq, answer);
                    status.proxies = answer.members;
                    let is_crowded = status.proxies > status.replicas_max;
                    self.crowded_since = is_crowded.then(|| self.crowded_since.unwrap_or_else(Instant::now));
                    status.crowded = self.crowded_since.is_some_and(|at| at.elapsed() > SEAT_LIFE);
                    status.learning |= answer.learning;
                }
            }
            Err(error) => {
                status.error = Some(error.to_string());
                status.away_since = before.away_since.or_else(|| Some(Instant::now()));
            }
        }
        self.metrics.fleet(status.connected, status.learning, status.proxies);
        if (before.connected, before.error.is_some()) != (status.connected, status.error.is_some()) {
            match &status.error {
                None => tracing::info!(proxies = status.proxies, "the store of leases answers"),
                Some(error) => tracing::warn!(
                    error,
                    "the store of leases does not answer: until it does, every proxy keeps to its fixed part"
                ),
            }
        }
        *self.fleet.status.lock() = Some(status);
    }

    async fn leave(mut self) {
        let mut asks = vec![self.seat(0)];
        let now = self.now();
        for (name, lease) in &mut self.leases {
            let renewal = lease.renew(
                now,
                Demand { weight: 1, ..Demand::default() },
                Amount::NONE,
                SharedWindow::default(),
            );
            asks.push(Ask { pool: format!("backend:{name}"), size: Amount::NONE, hold_ms: 0, renewal });
        }
        asks.extend(self.tenants.leave(now));
        let round = Round { leases: asks, ..Round::default() };
        let limit = self.fleet.reloadable.lock().timeout;
        if let Err(error) = self.store.round(&round, limit).await {
            tracing::debug!(%error, "the leases end by themselves");
        }
        self.fleet.left.notify_one();
    }
}

#[cfg(test)]
mod tests;
