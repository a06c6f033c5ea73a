//! What the status page tells of queries: those under way, and what became of the latest. Bounded: the first by the
//! places for client connections, the others by numbers of their own. One lock, held for as long as a map takes.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::proxy::{
    log::recent::{Recent, Tally},
    log::record::Owner,
    meter::Progress,
    route::Endpoint,
};
use crate::{
    base::{QueryCost, TenantId},
    status::Refused,
};

/// Refusals that are remembered.
const TOLD_MAX: usize = 50;
/// Characters of a query's text.
const QUERY_CHARS: usize = 240;
/// Characters of a message.
const MESSAGE_CHARS: usize = 400;
/// In place of the time that a query waited, while it does.
const WAITING: u64 = u64::MAX;

/// A query that asks to run.
#[derive(Debug)]
pub(in crate::proxy) struct Running {
    pub owner: Owner,
    pub cost: QueryCost,
    pub endpoint: Endpoint,
    pub fingerprint: Arc<str>,
    pub query: Arc<str>,
    /// When the request came.
    pub began: Instant,
    /// When it asked to run.
    pub asked: Instant,
}

/// A query that asked to run, and how far it has got.
#[derive(Debug)]
pub(in crate::proxy) struct Seen {
    pub query: Running,
    /// Milliseconds.
    waited: AtomicU64,
    progress: Arc<Progress>,
}

impl Seen {
    /// How long it waited; `None` while it does.
    pub(in crate::proxy) fn waited(&self) -> Option<Duration> {
        let waited = self.waited.load(Relaxed);
        (waited != WAITING).then(|| Duration::from_millis(waited))
    }

    /// Bytes of its answer that have come.
    pub(in crate::proxy) fn bytes(&self) -> u64 {
        self.progress.bytes()
    }
}

/// Why a query got no answer, or would have got none.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Told<'a> {
    pub reason: &'static str,
    pub status: u16,
    pub message: &'a str,
    pub shadow: bool,
}

/// Everything that the status page tells of queries.
pub(in crate::proxy) struct Board {
    clock: fn() -> i64,
    notes: Mutex<Notes>,
}

struct Notes {
    next_id: u64,
    under_way: HashMap<u64, Arc<Seen>>,
    recent: Recent,
    told: VecDeque<Refused>,
}

impl Board {
    pub(in crate::proxy) fn new(clock: fn() -> i64) -> Arc<Self> {
        let recent = Recent::new(Instant::now());
        let notes = Notes { next_id: 0, under_way: HashMap::new(), recent, told: VecDeque::new() };
        Arc::new(Self { clock, notes: Mutex::new(notes) })
    }

    /// A query asks to run; it is seen until the ticket is dropped.
    pub(in crate::proxy) fn enter(self: &Arc<Self>, query: Running) -> Ticket {
        let seen = Arc::new(Seen { query, waited: AtomicU64::new(WAITING), progress: Arc::default() });
        let mut notes = self.lock();
        let id = notes.next_id;
        notes.next_id += 1;
        notes.under_way.insert(id, Arc::clone(&seen));
        Ticket { board: Arc::clone(self), id, seen }
    }

    /// A query was refused or failed, or would have been refused.
    pub(in crate::proxy) fn tell(&self, owner: &Owner, fingerprint: &str, query: &str, told: Told<'_>) {
        let at_ms = (self.clock)();
        let mut notes = self.lock();
        if !told.shadow {
            notes.recent.refused(&owner.tenant, told.reason, Instant::now());
        }
        let same = |known: &Refused| {
            (known.reason, known.shadow, &*known.fingerprint) == (told.reason, told.shadow, fingerprint)
                && known.tenant == owner.tenant.as_str()
                && *known.actor == *owner.actor
        };
        let before = notes.told.iter().position(same).and_then(|at| notes.told.remove(at));
        notes.told.truncate(TOLD_MAX - 1);
        notes.told.push_front(Refused {
            at_ms,
            times: before.map_or(0, |known| known.times) + 1,
            tenant: owner.tenant.to_string(),
            actor: cut(&owner.actor, QUERY_CHARS),
            reason: told.reason,
            shadow: told.shadow,
            status: told.status,
            message: cut(told.message, MESSAGE_CHARS),
            fingerprint: fingerprint.to_owned(),
            text: cut(query, QUERY_CHARS),
        });
    }

    /// The queries that asked to run and have not ended.
    pub(in crate::proxy) fn under_way(&self) -> Vec<Arc<Seen>> {
        self.lock().under_way.values().map(Arc::clone).collect()
    }

    /// Breaks off the query that is expected to hold the most at a backend, and more than `least` bytes, of those that run
    /// there and are not being broken off already.
    pub(in crate::proxy) fn recall_heaviest(&self, backend: &str, least: u64) -> Option<Arc<Seen>> {
        let notes = self.lock();
        let runs = |seen: &&Arc<Seen>| {
            &*seen.query.owner.backend == backend && seen.waited().is_some() && !seen.progress.is_recalled()
        };
        let bytes = |seen: &&Arc<Seen>| seen.query.cost.memory.value;
        let running = notes.under_way.values().filter(runs);
        let heaviest = running.max_by_key(bytes).filter(|seen| bytes(seen) > least)?;
        heaviest.progress.recall();
        Some(Arc::clone(heaviest))
    }

    /// What tenants did in a time that ends now.
    pub(in crate::proxy) fn recent(&self) -> (Duration, Vec<(TenantId, Tally)>) {
        self.lock().recent.told(Instant::now())
    }

    /// The latest refusals, the newest first.
    pub(in crate::proxy) fn told(&self) -> Vec<Refused> {
        self.lock().told.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        // Nothing that panics runs under the lock.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

/// A query's place on the board, left when dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Ticket {
    board: Arc<Board>,
    id: u64,
    seen: Arc<Seen>,
}

impl Ticket {
    /// The query may run after having waited so long. Gives what its answer tells and is told.
    pub(in crate::proxy) fn admitted(&self, waited: Duration) -> Arc<Progress> {
        self.seen.waited.store(waited.as_millis() as u64, Relaxed);
        let Running { owner, cost, .. } = &self.seen.query;
        self.board.lock().recent.admitted(&owner.tenant, cost.samples.value, Instant::now());
        Arc::clone(&self.seen.progress)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.board.lock().under_way.remove(&self.id);
    }
}

/// A text of at most so many characters, with a sign where it was cut.
pub(in crate::proxy) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Estimate;

    fn owner(tenant: &str) -> Owner {
        let tenant = TenantId::new(tenant).unwrap();
        Owner { tenant, actor: "panel".into(), class: "adhoc".into(), backend: "main".into() }
    }

    fn running(tenant: &str) -> Running {
        let cost = QueryCost { samples: Estimate::exact(7), ..QueryCost::NOTHING };
        let (began, query) = (Instant::now(), "up".into());
        Running {
            owner: owner(tenant),
            cost,
            endpoint: Endpoint::Query,
            fingerprint: "1".into(),
            query,
            began,
            asked: began,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_is_seen_from_asking_to_its_end() {
        let board = Board::new(|| 0);
        let ticket = board.enter(running("a"));
        assert_eq!(board.under_way()[0].waited(), None);
        ticket.admitted(Duration::from_secs(2));
        let seen = board.under_way();
        assert_eq!((seen[0].waited(), seen[0].bytes()), (Some(Duration::from_secs(2)), 0));
        drop(ticket);
        assert!(board.under_way().is_empty());
        assert_eq!(board.recent().1[0].1.samples, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_heaviest_that_runs_is_recalled_and_each_once() {
        let board = Board::new(|| 0);
        let weighing = |bytes| {
            let cost = QueryCost { memory: Estimate::exact(bytes), ..QueryCost::NOTHING };
            board.enter(Running { cost, ..running("a") })
        };
        let (light, heavy, _waiting) = (weighing(1), weighing(5), weighing(9));
        let runs = [&light, &heavy].map(|ticket| ticket.admitted(Duration::ZERO));
        assert!(board.recall_heaviest("other", 0).is_none());
        let recalled =
            |board: &Board| board.recall_heaviest("main", 0).map(|seen| seen.query.cost.memory.value);
        assert!(board.recall_heaviest("main", 5).is_none());
        assert_eq!(recalled(&board), Some(5));
        assert_eq!([runs[0].is_recalled(), runs[1].is_recalled()], [false, true]);
        runs[1].recalled().await;
        assert_eq!(recalled(&board), Some(1));
        assert_eq!(recalled(&board), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_refusal_is_told_once_and_the_oldest_is_forgotten() {
        let board = Board::new(|| 5);
        let told = |message| Told { reason: "weir-max-series", status: 422, message, shadow: false };
        for i in 0..200 {
            board.tell(&owner("a"), &i.to_string(), &"x".repeat(1_000), told("no"));
        }
        board.tell(&owner("a"), "190", "x", told("no, again"));
        board.tell(&owner("b"), "190", "x", told("no"));
        let list = board.told();
        assert_eq!(list.len(), TOLD_MAX);
        assert_eq!((list[1].times, &*list[1].message), (2, "no, again"));
        assert_eq!((list[0].times, &*list[0].tenant), (1, "b"));
        assert_eq!(list[2].text.chars().count(), QUERY_CHARS + 1);
        assert_eq!(board.recent().1.len(), 2);
    }
}
