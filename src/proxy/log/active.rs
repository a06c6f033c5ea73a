//! The queries under way, and the latest that were refused or failed. Bounded: the first by the number of client
//! connections, the others by numbers of their own. One lock, held for one operation of a map.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{
    Owner, Refused, Rejection,
    recent_tenants::{RecentTenants, TenantCounts},
};
use crate::{
    base::{QueryCost, TenantId, time::EvalTimes},
    limit::Candidate,
    promql::Fingerprint,
    proxy::{
        meter::{Cancellation, Kill, Progress},
        route::Endpoint,
    },
};

/// Rejections that are remembered.
const REJECTIONS_MAX: usize = 50;
/// Characters of a query's text.
const QUERY_CHARS: usize = 240;
/// Characters of a message.
const MESSAGE_CHARS: usize = 400;
/// In place of the time that a query waited, while it does.
const WAITING: u64 = u64::MAX;

/// The state of an active query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryState {
    /// Its cost is being found out; the backend may be asked how many series it reads.
    Probing,
    /// It waits for budget.
    Queued,
    /// The backend has it and has not answered.
    Running,
    /// Its answer comes.
    Streaming,
}

impl QueryState {
    /// Its name in the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probing => "probing",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Streaming => "streaming",
        }
    }
}

/// The facts about a query that was read.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub owner: Arc<Owner>,
    pub endpoint: Endpoint,
    pub fingerprint: Option<Fingerprint>,
    /// Its text, cut; `None` of a request without one.
    pub query: Option<Arc<str>>,
    /// It is confined to its tenant's labels, which its text does not show.
    pub enforced: bool,
    /// Start, end and step.
    pub times: Option<EvalTimes>,
    /// When the request came.
    pub began: Instant,
}

/// A query with its price, which asks to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PricedRequest {
    pub cost: QueryCost,
    /// The number of requests that it is split into.
    pub parts: u64,
    /// When its price was known.
    pub at: Instant,
}

/// A query that was read and has not ended, and how far it has got.
#[derive(Debug)]
pub(crate) struct ActiveQuery {
    pub facts: Facts,
    /// Set when it asks to run.
    asked: OnceLock<PricedRequest>,
    /// Its number, by which admission knows it.
    pub tag: u64,
    /// Milliseconds.
    waited: AtomicU64,
    progress: Arc<Progress>,
}

impl ActiveQuery {
    fn new(tag: u64, facts: Facts, asked: OnceLock<PricedRequest>, progress: Arc<Progress>) -> Arc<Self> {
        Arc::new(Self { facts, asked, tag, waited: AtomicU64::new(WAITING), progress })
    }

    /// Its request to run; `None` while it is priced, and of one that costs nothing.
    pub(crate) fn asked(&self) -> Option<&PricedRequest> {
        self.asked.get()
    }

    /// Whether it costs nothing.
    pub(crate) fn is_uncounted(&self) -> bool {
        self.asked().is_none() && self.waited().is_some()
    }

    /// Bytes that it is expected to hold; 0 before anything is known of it.
    pub(crate) fn memory(&self) -> u64 {
        self.asked().map_or(0, |asked| asked.cost.memory.value)
    }

    /// How long it waited; `None` while it does.
    pub(crate) fn waited(&self) -> Option<Duration> {
        let waited = self.waited.load(Relaxed);
        (waited != WAITING).then(|| Duration::from_millis(waited))
    }

    /// When it was admitted; `None` of one that costs nothing.
    fn began_to_run(&self) -> Option<Instant> {
        Some(self.asked()?.at + self.waited()?)
    }

    /// Bytes of its answer that have come.
    pub(crate) fn bytes(&self) -> u64 {
        self.progress.bytes()
    }

    /// Where it is.
    pub(crate) fn state(&self) -> QueryState {
        match (self.asked(), self.waited(), self.progress.is_answered()) {
            (None, None, _) => QueryState::Probing,
            (_, None, _) => QueryState::Queued,
            (_, _, false) => QueryState::Running,
            (_, _, true) => QueryState::Streaming,
        }
    }

    /// Which of its parts it is at, from 1 on.
    pub(crate) fn part(&self) -> u64 {
        (self.progress.parts() + 1).min(self.parts())
    }

    /// Requests that it is asked for in.
    pub(crate) fn parts(&self) -> u64 {
        self.asked().map_or(1, |asked| asked.parts)
    }
}

/// Every query that was read and has not ended, and the latest rejections.
pub(crate) struct ActiveQueries {
    clock: fn() -> i64,
    state: Mutex<State>,
}

struct State {
    next_id: u64,
    active: HashMap<u64, Arc<ActiveQuery>, foldhash::fast::RandomState>,
    recent: RecentTenants,
    rejections: VecDeque<Refused>,
}

impl ActiveQueries {
    /// None yet; the number of the first follows `last`.
    pub(in crate::proxy) fn new(last: u64, clock: fn() -> i64) -> Arc<Self> {
        let recent = RecentTenants::new(Instant::now());
        let state = State { next_id: last, active: HashMap::default(), recent, rejections: VecDeque::new() };
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    /// A query is about to be priced; it is active until the guard is dropped.
    pub(in crate::proxy) fn enter(self: &Arc<Self>, facts: Facts) -> ActiveGuard {
        let mut state = self.lock();
        // 0 is none.
        state.next_id += 1;
        let id = state.next_id;
        let progress = Arc::new(Progress::since(facts.began));
        let query = ActiveQuery::new(id, facts, OnceLock::new(), progress);
        state.active.insert(id, Arc::clone(&query));
        ActiveGuard { queries: Arc::clone(self), id, query }
    }

    /// A request goes out that is neither priced nor admitted.
    pub(in crate::proxy) fn enter_uncounted(self: &Arc<Self>, facts: Facts) -> ActiveGuard {
        let guard = self.enter(facts);
        guard.query.waited.store(0, Relaxed);
        guard
    }

    /// A query was refused or failed, or would have been refused.
    pub(in crate::proxy) fn rejected(
        &self,
        owner: &Owner,
        fingerprint: &str,
        query: &str,
        rejection: Rejection<'_>,
    ) {
        let at_ms = (self.clock)();
        let mut state = self.lock();
        if !rejection.shadow {
            state.recent.refused(&owner.tenant, rejection.reason, Instant::now());
        }
        let same = |known: &Refused| {
            (known.reason, known.shadow, &*known.fingerprint)
                == (rejection.reason, rejection.shadow, fingerprint)
                && known.tenant == owner.tenant.as_str()
                && *known.actor == *owner.actor
        };
        let before = state.rejections.iter().position(same).and_then(|at| state.rejections.remove(at));
        state.rejections.truncate(REJECTIONS_MAX - 1);
        state.rejections.push_front(Refused {
            at_ms,
            times: before.map_or(0, |known| known.times) + 1,
            tenant: owner.tenant.to_string(),
            actor: cut(&owner.actor, QUERY_CHARS),
            origin: owner.origin.clone(),
            reason: rejection.reason,
            shadow: rejection.shadow,
            status: rejection.status,
            message: cut(rejection.message, MESSAGE_CHARS),
            fingerprint: fingerprint.to_owned(),
            text: cut(query, QUERY_CHARS),
        });
    }

    /// The queries that were read and have not ended.
    pub(crate) fn list(&self) -> Vec<Arc<ActiveQuery>> {
        self.lock().active.values().map(Arc::clone).collect()
    }

    /// Cancels the query that `choose` picks of those that run at a backend and are not being cancelled already.
    pub(in crate::proxy) fn cancel_one(
        &self,
        backend: &str,
        choose: impl Fn(&[Candidate]) -> Option<usize>,
    ) -> Option<Arc<ActiveQuery>> {
        let (state, now) = (self.lock(), Instant::now());
        let runs = |query: &&Arc<ActiveQuery>| {
            &*query.facts.owner.backend == backend
                && query.began_to_run().is_some()
                && query.progress.cancelled().is_none()
        };
        let running: Vec<_> = state.active.values().filter(runs).collect();
        let candidate = |query: &&Arc<ActiveQuery>| Candidate {
            bytes: query.memory(),
            runs_for: now.saturating_duration_since(query.began_to_run().unwrap_or(now)),
        };
        let chosen = choose(&running.iter().map(candidate).collect::<Vec<_>>())?;
        let chosen = running.get(chosen)?;
        chosen.progress.cancel(Cancellation::ForBackend);
        Some(Arc::clone(chosen))
    }

    /// Ends the queries, in any state, that are picked and not being cancelled already.
    pub(in crate::proxy) fn kill(
        &self,
        is_picked: impl Fn(&ActiveQuery) -> bool,
        kill: &Arc<Kill>,
    ) -> Vec<Arc<ActiveQuery>> {
        let killed = self.list().into_iter().filter(|query| {
            is_picked(query) && query.progress.cancel(Cancellation::Killed(Arc::clone(kill)))
        });
        killed.collect()
    }

    /// Gives back the slots of a backend's answers whose clients have not read for this time.
    pub(in crate::proxy) fn release_stalled(&self, backend: &str, stalled_for: Duration) {
        let here = |query: &&Arc<ActiveQuery>| *query.facts.owner.backend == *backend;
        let queries: Vec<_> = self.lock().active.values().filter(here).map(Arc::clone).collect();
        for query in &queries {
            query.progress.give_way(stalled_for);
        }
    }

    /// Counts by tenant in a time that ends now.
    pub(crate) fn recent(&self) -> (Duration, Vec<(TenantId, TenantCounts)>) {
        self.lock().recent.totals(Instant::now())
    }

    /// The latest rejections, the newest first.
    pub(crate) fn rejections(&self) -> Vec<Refused> {
        self.lock().rejections.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl fmt::Debug for ActiveQueries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveQueries").finish_non_exhaustive()
    }
}

/// Keeps a query among the active ones until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct ActiveGuard {
    queries: Arc<ActiveQueries>,
    id: u64,
    query: Arc<ActiveQuery>,
}

impl ActiveGuard {
    /// The number of the query, by which admission knows it.
    pub(in crate::proxy) const fn tag(&self) -> u64 {
        self.id
    }

    /// The handle on its answer.
    pub(in crate::proxy) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.query.progress)
    }

    /// It asks to run, perhaps once more in another way. Its number stays, and a kill that came meanwhile.
    pub(in crate::proxy) fn queued(&mut self, asked: PricedRequest) {
        if self.query.asked.set(asked).is_ok() {
            return;
        }
        let progress = self.progress();
        progress.set_parts(0);
        let query = ActiveQuery::new(self.id, self.query.facts.clone(), OnceLock::from(asked), progress);
        self.query = Arc::clone(&query);
        self.queries.lock().active.insert(self.id, query);
    }

    /// The query may run after having waited this long. Gives the handle on its answer.
    pub(in crate::proxy) fn admitted(&self, waited: Duration) -> Arc<Progress> {
        self.query.waited.store(waited.as_millis() as u64, Relaxed);
        if let Some(asked) = self.query.asked() {
            let (tenant, samples) = (&self.query.facts.owner.tenant, asked.cost.samples.value);
            self.queries.lock().recent.admitted(tenant, samples, asked.at + waited);
        }
        Arc::clone(&self.query.progress)
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.queries.lock().active.remove(&self.id);
    }
}

/// A text of at most this many characters, with a sign where it was cut.
pub(crate) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::Estimate, proxy::log::Origin};

    fn owner(tenant: &str) -> Owner {
        let tenant = TenantId::new(tenant).unwrap();
        let [actor, class, backend] = ["panel", "adhoc", "main"].map(Into::into);
        Owner { tenant, actor, class, backend, origin: Origin::default() }
    }

    fn read(tenant: &str) -> Facts {
        Facts {
            owner: Arc::new(owner(tenant)),
            endpoint: Endpoint::Query,
            fingerprint: None,
            query: Some("up".into()),
            enforced: false,
            times: None,
            began: Instant::now(),
        }
    }

    fn asked(memory: u64) -> PricedRequest {
        let (samples, memory) = (Estimate::exact(7), Estimate::exact(memory));
        let cost = QueryCost { samples, memory, ..QueryCost::NOTHING };
        PricedRequest { cost, parts: 1, at: Instant::now() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_is_active_from_its_pricing_to_its_end() {
        let queries = ActiveQueries::new(0, || 0);
        let mut guard = queries.enter(read("a"));
        assert_eq!(queries.list()[0].state(), QueryState::Probing);
        guard.queued(asked(1));
        assert_eq!((queries.list()[0].state(), queries.list()[0].waited()), (QueryState::Queued, None));
        guard.admitted(Duration::from_secs(2));
        let seen = queries.list();
        assert_eq!((seen[0].waited(), seen[0].bytes()), (Some(Duration::from_secs(2)), 0));
        drop(guard);
        assert!(queries.list().is_empty());
        assert_eq!(queries.recent().1[0].1.samples, 7);
    }

    /// To stop it helps no backend, but an operator may.
    #[tokio::test(start_paused = true)]
    async fn a_request_that_costs_nothing_is_active_and_no_victim() {
        let queries = ActiveQueries::new(0, || 0);
        let guard = queries.enter_uncounted(read("a"));
        assert_eq!((queries.list()[0].state(), queries.list()[0].memory()), (QueryState::Running, 0));
        assert!(queries.cancel_one("main", |running| running.len().checked_sub(1)).is_none());
        let kill = Arc::new(Kill { by: "ann".into(), reason: String::new() });
        assert_eq!(queries.kill(|_| true, &kill).len(), 1);
        assert_eq!(*guard.progress().cancellation().await, Cancellation::Killed(kill));
        assert!(queries.recent().1.is_empty(), "it was not admitted");
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_is_chosen_of_those_that_run_is_cancelled_and_each_once() {
        let queries = ActiveQueries::new(0, || 0);
        let holding = |bytes| {
            let mut guard = queries.enter(read("a"));
            guard.queued(asked(bytes));
            guard
        };
        let (light, heavy, _waiting) = (holding(1), holding(5), holding(9));
        let _probing = queries.enter(read("a"));
        let runs = [&light, &heavy].map(|guard| guard.admitted(Duration::ZERO));
        let choose = |running: &[Candidate]| crate::limit::victim(running.iter().copied(), 0);
        assert!(queries.cancel_one("other", choose).is_none());
        let cancelled =
            |queries: &ActiveQueries| queries.cancel_one("main", choose).map(|seen| seen.memory());
        assert_eq!(cancelled(&queries), Some(5));
        assert!(runs[0].cancelled().is_none());
        assert_eq!(*runs[1].cancellation().await, Cancellation::ForBackend);
        assert_eq!(cancelled(&queries), Some(1));
        assert_eq!(cancelled(&queries), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_rejection_is_listed_once_and_the_oldest_is_forgotten() {
        let queries = ActiveQueries::new(0, || 5);
        let told = |message| Rejection { reason: "weir-max-series", status: 422, message, shadow: false };
        for i in 0..200 {
            queries.rejected(&owner("a"), &i.to_string(), &"x".repeat(1_000), told("no"));
        }
        queries.rejected(&owner("a"), "190", "x", told("no, again"));
        queries.rejected(&owner("b"), "190", "x", told("no"));
        let list = queries.rejections();
        assert_eq!(list.len(), REJECTIONS_MAX);
        assert_eq!((list[1].times, &*list[1].message), (2, "no, again"));
        assert_eq!((list[0].times, &*list[0].tenant), (1, "b"));
        assert_eq!(list[2].text.chars().count(), QUERY_CHARS + 1);
        assert_eq!(queries.recent().1.len(), 2);
    }
}
