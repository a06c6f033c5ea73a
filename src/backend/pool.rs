//! The connections to one replica: HTTP/1, kept alive, bounded in number.
//!
//! A pool of our own over hyper's connections rather than hyper-util's client: the target is written as it came (no
//! absolute URI is built and taken apart per request), a connection needs no task and goes back when its answer ends,
//! and it is known whether a failed request had left at all.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::either::Either;

use super::{
    connect::{first_open, in_order},
    connection::{Connection, Stream},
    error::Cause,
    places::{Claim, LightPlaces, Place, Places},
    settings::{BaseUrl, Settings},
    tls::{self, Tls},
};
use crate::base::{WORKERS_MAX, WorkerId};

/// Longest time for a replica to show that it lives.
const ALIVE_WITHIN: Duration = Duration::from_millis(250);
/// How long a connection has to stay open for that: the system closes a dead process's sockets one after another, and a
/// forwarder accepts first and finds nobody behind it then.
const ALIVE_FOR: Duration = Duration::from_millis(20);

/// The lane whose places a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Queries that were priced, and probes.
    Queries,
    /// Metadata, rules, build information.
    Light,
}

impl Lane {
    /// Every lane, for metrics.
    pub const ALL: [Self; 2] = [Self::Queries, Self::Light];

    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Light => "light",
        }
    }
}

/// The connections to one replica.
#[derive(Debug)]
pub(super) struct Pool {
    url: BaseUrl,
    tls: Option<Tls>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    /// The address of the URL's host that was connected to last.
    worked: Mutex<Option<SocketAddr>>,
    /// One place per connection in use; idle ones hold none, and the holder of a place takes an idle connection before
    /// connections outnumber places.
    places: Places,
    light_places: LightPlaces,
    /// By worker; of each, the last used is the first reused.
    idle: Vec<Mutex<Vec<Idle>>>,
    /// Of all workers together.
    idle_count: AtomicUsize,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// The outcome of a request.
pub(super) enum SendOutcome {
    /// The head of an answer, and the connection that is still delivering its body.
    Answered(Response<Incoming>, Connection),
    /// No answer; `left` says whether the replica may have seen the request, on a kept connection as well.
    Failed { cause: Cause, left: bool },
}

impl Pool {
    pub(super) fn new(url: BaseUrl, settings: &Settings) -> Self {
        let places = Places::new(settings.max_connections);
        Self {
            url,
            tls: settings.tls.clone(),
            connect_timeout: settings.connect_timeout,
            idle_timeout: settings.idle_timeout,
            worked: Mutex::new(None),
            places,
            light_places: LightPlaces::new(settings.light_connections),
            idle: (0..WORKERS_MAX).map(|_| Mutex::default()).collect(),
            idle_count: AtomicUsize::new(0),
        }
    }

    /// Waits for a place among the connections; `None` when there was none before the deadline.
    pub(super) async fn place(&self, claim: Claim<'_>, deadline: Instant) -> Option<Place> {
        Place::take((&self.places, &self.light_places), claim, deadline).await
    }

    /// Places taken now, of how many.
    pub(super) fn taken(&self, lane: Lane) -> (usize, usize) {
        let places = match lane {
            Lane::Queries => &self.places,
            Lane::Light => &self.light_places.all,
        };
        (places.taken(), places.max)
    }

    /// Sends over an idle connection or a new one and waits for the head of the answer.
    ///
    /// A kept connection may be closed by the other side in the moment in which it is used again. A request that was
    /// not written, or a `repeatable` one that got no byte back, goes out once more then, over a new connection.
    pub(super) async fn exchange(
        &self,
        mut request: Box<Request<Full<Bytes>>>,
        deadline: Instant,
        repeatable: bool,
    ) -> SendOutcome {
        let began = Instant::now();
        let (mut kept_failed, mut seen) = (false, false);
        loop {
            let kept = if kept_failed { None } else { self.checkout(began) };
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                // In a box: a handshake is kilobytes of state, and most requests need none.
                None => match Box::pin(self.connect(deadline)).await {
                    Ok(connection) => connection,
                    Err(cause) => return SendOutcome::Failed { cause, left: seen },
                },
            };
            let copy = (is_kept && repeatable).then(|| request.clone());
            match connection.exchange(request, deadline).await {
                Some(Ok(response)) => return SendOutcome::Answered(response, connection),
                Some(Err(mut failed)) => {
                    let unsent = failed.take_message().map(Box::new);
                    seen |= unsent.is_none();
                    let copy = copy.filter(|_| !failed.error().is_parse());
                    match unsent.or(copy).filter(|_| is_kept) {
                        Some(again) => (request, kept_failed) = (again, true),
                        None => {
                            let cause = Cause::NoAnswer(innermost(failed.error()));
                            return SendOutcome::Failed { cause, left: seen };
                        }
                    }
                }
                // Dropping the connection with the answer still due closes it: the replica stops working.
                None => return SendOutcome::Failed { cause: Cause::Late(began.elapsed()), left: true },
            }
        }
    }

    /// Whether the replica takes a new connection and keeps it open: a process that has ended does not.
    pub(super) async fn is_alive(&self, deadline: Instant) -> bool {
        let before = deadline.min(Instant::now() + ALIVE_WITHIN);
        let Ok(mut connection) = Box::pin(self.connect(before)).await else { return false };
        sleep(ALIVE_FOR).await;
        connection.is_free()
    }

    /// An idle connection of this thread, or of another when no more may be opened.
    fn checkout(&self, now: Instant) -> Option<Connection> {
        let worker = WorkerId::current();
        self.checkout_at(worker, now).or_else(|| {
            let others = || (1..WORKERS_MAX).find_map(|n| self.checkout_at(worker.after(n), now));
            self.is_full().then(others).flatten()
        })
    }

    /// Whether one more would be one too many; the caller's own place counts already.
    fn is_full(&self) -> bool {
        let [(queries, max), (light, light_max)] = Lane::ALL.map(|lane| self.taken(lane));
        let idle = self.idle_count();
        idle > 0 && idle + queries + light > max + light_max
    }

    fn checkout_at(&self, worker: WorkerId, now: Instant) -> Option<Connection> {
        loop {
            let Idle { mut connection, since } = self.idle(worker).pop()?;
            self.idle_count.fetch_sub(1, SeqCst);
            if now.saturating_duration_since(since) <= self.idle_timeout && connection.is_free() {
                return Some(connection);
            }
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Connection, Cause> {
        let began = Instant::now();
        let before = deadline.min(began + self.connect_timeout);
        let opening = async {
            let found = lookup_host(self.url.address()).await.map_err(|e| Cause::Connect(e.to_string()))?;
            let addresses = in_order(found, *self.worked.lock());
            let time = before.saturating_duration_since(began);
            first_open(&addresses, time, |address| self.open(address)).await
        };
        match timeout_at(before, opening).await {
            Ok(Ok((address, connection))) => {
                *self.worked.lock() = Some(address);
                Ok(connection)
            }
            Ok(Err(cause)) => {
                Err(cause.unwrap_or_else(|| Cause::Connect("its name has no address".to_owned())))
            }
            // A deadline that short is the client's wish and says nothing of the replica.
            Err(_) if before == deadline => Err(Cause::Late(began.elapsed())),
            Err(_) => Err(Cause::ConnectTimeout(self.connect_timeout)),
        }
    }

    /// Opens a connection to one address, TLS and HTTP included: an address may swallow packets at any layer.
    async fn open(&self, address: SocketAddr) -> Result<Connection, Cause> {
        let stream = TcpStream::connect(address).await.map_err(|e| Cause::Connect(e.to_string()))?;
        // A request is one small write; waiting for more to send with it only adds latency.
        stream.set_nodelay(true).map_err(|e| Cause::Connect(e.to_string()))?;
        if !self.url.secure() {
            return begin(Either::Left(stream)).await;
        }
        let Some(tls) = &self.tls else {
            return Err(Cause::Connect("its URL says https, and TLS is not set up".to_owned()));
        };
        let (host, _) = self.url.address();
        let stream = tls.connect(host, stream).await.map_err(|e| Cause::Connect(innermost(&e)))?;
        begin(Either::Right(stream)).await
    }

    /// Takes a connection back whose answer has ended.
    pub(super) fn put_back(&self, mut connection: Connection) {
        let max = self.places.max + self.light_places.all.max;
        let one_more = |idle| (idle < max).then_some(idle + 1);
        if !connection.is_free() || self.idle_count.fetch_update(SeqCst, SeqCst, one_more).is_err() {
            return;
        }
        let worker = connection.worker;
        self.idle(worker).push(Idle { connection, since: Instant::now() });
    }

    /// Closes connections that nobody used for the idle timeout, or that the other side has closed.
    pub(super) fn prune(&self, now: Instant) {
        for idle in &self.idle {
            let stale = |idle: &mut Idle| {
                !idle.connection.is_free() || now.saturating_duration_since(idle.since) > self.idle_timeout
            };
            let closed: Vec<Idle> = idle.lock().extract_if(.., stale).collect();
            self.idle_count.fetch_sub(closed.len(), SeqCst);
        }
    }

    /// Connections open and unused.
    pub(super) fn idle_count(&self) -> usize {
        self.idle_count.load(SeqCst)
    }

    pub(super) const fn url(&self) -> &BaseUrl {
        &self.url
    }

    fn idle(&self, worker: WorkerId) -> MutexGuard<'_, Vec<Idle>> {
        self.idle[worker.index()].lock()
    }
}

async fn begin(stream: Stream) -> Result<Connection, Cause> {
    Connection::begin(stream).await.map_err(|e| Cause::Connect(innermost(&e)))
}

/// The sentence at the bottom of an error's chain, which is where the reason is.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(reason) = tls::explain(error) {
        return reason;
    }
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
