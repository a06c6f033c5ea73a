//! The connections to one replica: HTTP/1, kept alive, bounded in number.
//!
//! A pool of our own over hyper's connections rather than hyper-util's client: the target is written as it came
//! (no absolute URI is built and taken apart per request), a connection goes back when its answer ends without a
//! task per request, and it is known whether a failed request had left at all.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use super::{
    error::Cause,
    settings::{BaseUrl, Settings},
    tls::{self, Tls},
};

/// A connection whose answer has ended needs a moment of its own task before it takes the next request.
const SETTLE: Duration = Duration::from_millis(10);

pub(super) type Sender = http1::SendRequest<Full<Bytes>>;

/// Whose places a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What was weighed, and probes.
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

/// Connections that may be in use at a time.
#[derive(Clone, Debug)]
struct Places {
    free: Arc<Semaphore>,
    max: usize,
}

impl Places {
    fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), max }
    }
}

/// The connections to one replica.
#[derive(Debug)]
pub(super) struct Pool {
    url: BaseUrl,
    tls: Option<Tls>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    /// One place per connection in use; idle ones hold none, and a place looks for an idle one first, so that
    /// connections never outnumber places.
    places: Places,
    /// Places of light requests, beside the others, so that neither waits for the other.
    light_places: Places,
    /// The last used is the first reused.
    idle: Mutex<Vec<Idle>>,
    most_idle: usize,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

/// What became of a request.
pub(super) enum Sent {
    /// The head of an answer, and the connection that is still delivering its body.
    Answered(Response<Incoming>, Sender),
    /// No answer; `left` says whether the replica may have seen the request.
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
            most_idle: places.max,
            places,
            light_places: Places::new(settings.light_connections),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Waits for a place among the connections; `None` when there was none before the deadline.
    pub(super) async fn place(&self, lane: Lane, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let free = &self.places(lane).free;
        if let Ok(place) = Arc::clone(free).try_acquire_owned() {
            return Some(place);
        }
        timeout_at(deadline, Arc::clone(free).acquire_owned()).await.ok()?.ok()
    }

    const fn places(&self, lane: Lane) -> &Places {
        match lane {
            Lane::Queries => &self.places,
            Lane::Light => &self.light_places,
        }
    }

    /// Places taken now, of how many.
    pub(super) fn taken(&self, lane: Lane) -> (usize, usize) {
        let Places { free, max } = self.places(lane);
        (max.saturating_sub(free.available_permits()), *max)
    }

    /// Sends over an idle connection or a new one and waits for the head of the answer.
    ///
    /// A kept connection may turn out to be closed before the request was written: that request goes out again, on
    /// the next connection.
    pub(super) async fn exchange(&self, mut request: Request<Full<Bytes>>, deadline: Instant) -> Sent {
        let began = Instant::now();
        loop {
            let (mut sender, kept) = match self.checkout(began).await {
                Some(sender) => (sender, true),
                None => match self.connect(deadline).await {
                    Ok(sender) => (sender, false),
                    Err(cause) => return Sent::Failed { cause, left: false },
                },
            };
            match timeout_at(deadline, sender.try_send_request(request)).await {
                Ok(Ok(response)) => return Sent::Answered(response, sender),
                Ok(Err(mut failed)) => match failed.take_message() {
                    Some(unsent) if kept => request = unsent,
                    unsent => {
                        let cause = Cause::NoAnswer(innermost(failed.error()));
                        return Sent::Failed { cause, left: unsent.is_none() };
                    }
                },
                // Dropping the sender with the answer still due closes the connection: the replica stops working.
                Err(_) => return Sent::Failed { cause: Cause::Late(began.elapsed()), left: true },
            }
        }
    }

    async fn checkout(&self, now: Instant) -> Option<Sender> {
        loop {
            let Idle { mut sender, since } = self.idle().pop()?;
            if sender.is_closed() || now.saturating_duration_since(since) > self.idle_timeout {
                continue;
            }
            if sender.is_ready() || matches!(timeout(SETTLE, sender.ready()).await, Ok(Ok(()))) {
                return Some(sender);
            }
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Sender, Cause> {
        let began = Instant::now();
        let before = deadline.min(began + self.connect_timeout);
        let opening = async {
            let stream =
                TcpStream::connect(self.url.address()).await.map_err(|e| Cause::Connect(e.to_string()))?;
            // A request is one small write; waiting for more to send with it only adds latency.
            stream.set_nodelay(true).map_err(|e| Cause::Connect(e.to_string()))?;
            if !self.url.secure() {
                return speak(stream).await;
            }
            let Some(tls) = &self.tls else {
                return Err(Cause::Connect("its URL says https, and TLS is not set up".to_owned()));
            };
            let (host, _) = self.url.address();
            speak(tls.connect(host, stream).await.map_err(|e| Cause::Connect(innermost(&e)))?).await
        };
        match timeout_at(before, opening).await {
            Ok(opened) => opened,
            // A deadline that short is the client's wish and says nothing of the replica.
            Err(_) if before == deadline => Err(Cause::Late(began.elapsed())),
            Err(_) => Err(Cause::ConnectTimeout(self.connect_timeout)),
        }
    }

    /// Takes a connection back whose answer has ended.
    pub(super) fn put_back(&self, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let since = Instant::now();
        let mut idle = self.idle();
        if idle.len() < self.most_idle {
            idle.push(Idle { sender, since });
        }
    }

    /// Closes connections that nobody used for the idle timeout.
    pub(super) fn prune(&self, now: Instant) {
        let stale = |idle: &mut Idle| {
            idle.sender.is_closed() || now.saturating_duration_since(idle.since) > self.idle_timeout
        };
        let closed: Vec<Idle> = self.idle().extract_if(.., stale).collect();
        drop(closed);
    }

    /// Connections open and unused.
    pub(super) fn idle_count(&self) -> usize {
        self.idle().len()
    }

    pub(super) const fn url(&self) -> &BaseUrl {
        &self.url
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing panics while it is held; a poisoned list would still be a list.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins HTTP on an open stream.
async fn speak(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Sender, Cause> {
    let (sender, connection) = http1::Builder::new()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| Cause::Connect(innermost(&e)))?;
    // It ends when the peer closes or when the sender is dropped; its errors reach the waiting request.
    drop(tokio::spawn(connection));
    Ok(sender)
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
