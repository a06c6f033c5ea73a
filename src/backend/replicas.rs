//! Which replica is asked: the least loaded of those that work.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{
    condition::{Condition, Failure},
    connection::Connection,
    endpoint::Endpoint,
    places::{Claim, Place, PlaceHandle},
    pool::Pool,
    settings::{BaseUrl, Settings},
};

/// The replicas of one backend.
#[derive(Debug)]
pub(super) struct Replicas {
    each: Arc<[Arc<Replica>]>,
    /// Where the search starts, so that equals share the load.
    next: AtomicUsize,
    /// Told when a replica goes down or comes back.
    changed: Arc<Notify>,
}

/// One replica: its connections and its health.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) pool: Pool,
    in_flight: AtomicUsize,
    condition: Mutex<Condition>,
    /// Whether `condition` has something that a good answer changes: read without its lock.
    unclean: AtomicBool,
    /// All replicas of the backend, this one among them.
    all: OnceLock<Weak<[Arc<Self>]>>,
    changed: Arc<Notify>,
    /// Told when the next check should come at once.
    pub(super) check_now: Notify,
    /// Where it says whether it is ready.
    pub(super) own_word: Endpoint,
    /// Where it has its metrics.
    pub(super) metrics: Endpoint,
}

impl Replicas {
    pub(super) fn new(settings: &Settings) -> Self {
        let changed = Arc::<Notify>::default();
        let replica = |url: &BaseUrl| Arc::new(Replica::new(url.clone(), settings, Arc::clone(&changed)));
        let each: Arc<[_]> = settings.urls.iter().map(replica).collect();
        for replica in each.iter() {
            // It is empty: the replica was made above.
            let _ = replica.all.set(Arc::downgrade(&each));
        }
        Self { each, next: AtomicUsize::new(0), changed }
    }

    /// Takes over which of them fail, by URL, until the next check says otherwise.
    pub(super) fn know_of(&self, others: &Self) {
        for replica in self.each.iter() {
            if let Some(known) = others.each.iter().find(|other| other.pool.url() == replica.pool.url()) {
                let known = known.condition.lock().clone();
                replica.unclean.store(!known.is_clean(), Relaxed);
                *replica.condition.lock() = known;
            }
        }
    }

    /// The least loaded replica that works, other than `not`; when none works, the least loaded of all: a guess
    /// costs less than a refusal that may be wrong.
    pub(super) fn choose(&self, not: Option<&Arc<Replica>>) -> Option<&Arc<Replica>> {
        if let ([only], None) = (&*self.each, not) {
            return Some(only);
        }
        let now = Instant::now();
        let (before, after) = self.each.split_at(self.next.fetch_add(1, Relaxed) % self.each.len().max(1));
        let others = after.iter().chain(before).filter(|r| not.is_none_or(|not| !Arc::ptr_eq(r, not)));
        others.min_by_key(|r| (!r.works(now), r.in_flight.load(Relaxed)))
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Arc<Replica>> {
        self.each.iter()
    }

    pub(super) fn several(&self) -> bool {
        self.each.len() > 1
    }

    /// Whether any replica is believed to answer.
    pub(super) fn any_works(&self) -> bool {
        let now = Instant::now();
        self.each.iter().any(|r| r.works(now))
    }

    /// Ends when a replica went down or came back since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Replica {
    fn new(url: BaseUrl, settings: &Settings, changed: Arc<Notify>) -> Self {
        Self {
            pool: Pool::new(url, settings),
            in_flight: AtomicUsize::new(0),
            condition: Mutex::default(),
            unclean: AtomicBool::new(false),
            all: OnceLock::new(),
            changed,
            check_now: Notify::new(),
            own_word: Endpoint::default(),
            metrics: Endpoint::default(),
        }
    }

    /// Counts a request as in flight until the lease ends, before it has a connection: a waiting request is load too.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        self.in_flight.fetch_add(1, Relaxed);
        Lease { replica: Arc::clone(self), connection: None, place: None }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Its condition now.
    pub(super) fn condition(&self) -> Condition {
        self.condition.lock().clone()
    }

    fn works(&self, now: Instant) -> bool {
        self.condition.lock().works(now)
    }

    /// Whether another replica of the same backend works.
    pub(super) fn others_work(&self) -> bool {
        let now = Instant::now();
        let all = self.all.get().and_then(Weak::upgrade);
        all.is_some_and(|all| {
            all.iter().any(|other| !std::ptr::eq(&raw const **other, self) && other.works(now))
        })
    }

    /// It answered a request.
    pub(super) fn answered(&self) {
        // Read first: the ordinary case writes nothing that other cores read, and takes no lock.
        if self.unclean.load(Relaxed) {
            self.unclean.store(false, Relaxed);
            self.condition.lock().answered();
        }
    }

    /// It failed a request.
    pub(super) fn failed(&self, how: Failure, why: String) {
        let others_work = how == Failure::Unanswered && self.others_work();
        self.change(|condition| condition.failed(how, why, others_work, Instant::now()));
    }

    /// The outcome of a health check.
    pub(super) fn checked(&self, outcome: Result<(), String>) {
        self.change(|condition| condition.checked(outcome));
    }

    fn change(&self, change: impl FnOnce(&mut Condition)) {
        let now = Instant::now();
        let mut condition = self.condition.lock();
        let (worked, was_doubted) = (condition.works(now), condition.is_doubted());
        change(&mut condition);
        self.unclean.store(!condition.is_clean(), Relaxed);
        let (works, is_doubted) = (condition.works(now), condition.is_doubted());
        drop(condition);
        if works != worked {
            self.changed.notify_one();
        }
        if is_doubted && !was_doubted {
            self.check_now.notify_one();
        }
    }
}

/// A request's hold on a replica: its count, its place and its connection, until the last byte of the answer.
#[derive(Debug)]
pub(super) struct Lease {
    replica: Arc<Replica>,
    /// Dropped unless it is put back: a connection with an unread answer on it is closed.
    connection: Option<Connection>,
    place: Option<Place>,
}

impl Lease {
    pub(super) const fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Waits for a place among the replica's connections.
    pub(super) async fn take_place(&mut self, claim: Claim<'_>, deadline: Instant) -> bool {
        self.place = self.replica.pool.place(claim, deadline).await;
        self.place.is_some()
    }

    /// A handle on the place of a light request.
    pub(super) fn light_place(&self) -> Option<PlaceHandle> {
        match &self.place {
            Some(Place::Light(place)) => Some(place.handle()),
            _ => None,
        }
    }

    pub(super) fn hold(&mut self, connection: Connection) {
        self.connection = Some(connection);
    }

    /// The next frame of the answer; `None` as well when no connection is held.
    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.connection.as_mut().map_or(Poll::Ready(None), |connection| connection.poll_frame(incoming, cx))
    }

    /// The answer has ended: the connection is free for the next request.
    pub(super) fn finish(mut self) {
        if let Some(connection) = self.connection.take() {
            self.replica.pool.put_back(connection);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.replica.in_flight.fetch_sub(1, Relaxed);
    }
}
