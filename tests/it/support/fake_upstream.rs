//! A scripted backend, byte by byte: answers, dies, hangs, dawdles, talks rubbish.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

/// The reaction to one request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Write these bytes, keep the connection.
    Raw(Vec<u8>),
    /// Write these bytes, close the connection.
    ThenDie(Vec<u8>),
    /// Close the connection and the listener, as a process that ends.
    EndProcess,
    /// Write these bytes, then nothing until the peer goes away.
    ThenHang(Vec<u8>),
    /// Write the pieces one after the other with a pause before each, keep the connection.
    Slow(Vec<Vec<u8>>, Duration),
}

impl Act {
    /// A whole answer with a length.
    pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut raw = head(status, headers, Some(body.len()));
        raw.extend_from_slice(body);
        Self::Raw(raw)
    }

    /// A whole JSON answer, status 200.
    pub(crate) fn json(body: &str) -> Self {
        Self::answer(200, &[("content-type", "application/json")], body.as_bytes())
    }

    /// Read the request and close the connection.
    pub(crate) const fn die() -> Self {
        Self::ThenDie(Vec::new())
    }

    /// Read the request and never answer.
    pub(crate) const fn hang() -> Self {
        Self::ThenHang(Vec::new())
    }

    /// Promise `promised` bytes, send only `sent`, close the connection.
    pub(crate) fn die_mid_body(promised: usize, sent: &[u8]) -> Self {
        let mut raw = head(200, &[], Some(promised));
        raw.extend_from_slice(sent);
        Self::ThenDie(raw)
    }
}

/// The head of an answer; chunked without a length.
pub(crate) fn head(status: u16, headers: &[(&str, &str)], length: Option<usize>) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    match length {
        Some(length) => text.extend(["content-length: ", &length.to_string(), "\r\n\r\n"]),
        None => text.push_str("transfer-encoding: chunked\r\n\r\n"),
    }
    text.into_bytes()
}

/// One chunk of a chunked body; an empty one ends it.
pub(crate) fn chunk(data: &[u8]) -> Vec<u8> {
    let mut raw = format!("{:x}\r\n", data.len()).into_bytes();
    raw.extend_from_slice(data);
    raw.extend_from_slice(b"\r\n");
    raw
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// How many requests came before it.
    pub(crate) index: usize,
}

impl Seen {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The values of a parameter of the URL.
    pub(crate) fn params(&self, name: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, q)| q);
        let pairs = form_urlencoded::parse(query.as_bytes());
        pairs.filter(|(n, _)| n == name).map(|(_, v)| v.into_owned()).collect()
    }

    /// The path without the parameters.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

type Script = Arc<dyn Fn(&Seen) -> Act + Send + Sync>;

#[derive(Default)]
struct Log {
    /// Whether the script answers the trivial query of health checks too; else it succeeds, and nobody sees it.
    sees_checks: bool,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    gone: AtomicUsize,
    changed: Notify,
    ended: Notify,
}

/// Serves its script until it is dropped.
pub(crate) struct FakeUpstream {
    pub(crate) address: SocketAddr,
    log: Arc<Log>,
    _connections: JoinSet<()>,
}

impl FakeUpstream {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::start_with(Log::default(), script).await
    }

    /// The same with a script that is also asked the trivial query of health checks.
    pub(crate) async fn start_checked(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::start_with(Log { sees_checks: true, ..Log::default() }, script).await
    }

    async fn start_with(log: Log, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (log, script): (_, Script) = (Arc::new(log), Arc::new(script));
        let mut tasks = JoinSet::new();
        let logged = Arc::clone(&log);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = tokio::select! {
                accepted = listener.accept() => accepted,
                () = logged.ended.notified() => return,
            } {
                logged.connections.fetch_add(1, SeqCst);
                connections.spawn(serve(stream, Arc::clone(&script), Arc::clone(&logged)));
            }
        });
        Self { address, log, _connections: tasks }
    }

    /// A URL where nothing listens.
    pub(crate) fn nobody() -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.seen.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections.load(SeqCst)
    }

    /// Waits until `count` requests have arrived.
    pub(crate) async fn received(&self, count: usize) {
        self.until(|log| log.seen.lock().unwrap().len() >= count).await;
    }

    /// Waits until a request with this in its target or body has arrived.
    pub(crate) async fn asked(&self, text: &str) {
        let has = |seen: &Seen| {
            seen.target.contains(text) || seen.body.windows(text.len()).any(|part| part == text.as_bytes())
        };
        self.has_seen(has).await;
    }

    /// Waits until such a request has arrived.
    pub(crate) async fn has_seen(&self, is_it: impl Fn(&Seen) -> bool) {
        self.until(|log| log.seen.lock().unwrap().iter().any(&is_it)).await;
    }

    /// Waits until `count` peers have left while they were owed bytes.
    pub(crate) async fn abandoned(&self, count: usize) {
        self.until(|log| log.gone.load(SeqCst) >= count).await;
    }

    /// Peers that left while they were owed bytes.
    pub(crate) fn gone(&self) -> usize {
        self.log.gone.load(SeqCst)
    }

    async fn until(&self, done: impl Fn(&Log) -> bool) {
        let waiting = async {
            loop {
                let changed = self.log.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if done(&self.log) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("what the test waits for");
    }
}

async fn serve(mut stream: TcpStream, script: Script, log: Arc<Log>) {
    let mut buffer = Vec::new();
    while let Some(mut seen) = read_request(&mut stream, &mut buffer).await {
        let is_check = seen.header("user-agent").is_some_and(|agent| agent.ends_with("(health check)"));
        let act = if is_check && seen.path().ends_with("/api/v1/query") && !log.sees_checks {
            Act::json(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)
        } else {
            let mut all = log.seen.lock().unwrap();
            seen.index = all.len();
            all.push(seen.clone());
            script(&seen)
        };
        log.changed.notify_waiters();
        match act {
            Act::Raw(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::ThenDie(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Act::EndProcess => {
                // Its end drops this connection with all others.
                log.ended.notify_one();
                return std::future::pending().await;
            }
            Act::ThenHang(bytes) => {
                let _ = stream.write_all(&bytes).await;
                // Nothing more is due from the peer: whatever ends this read is its leaving.
                let _ = stream.read(&mut [0; 1]).await;
                log.gone.fetch_add(1, SeqCst);
                log.changed.notify_waiters();
                return;
            }
            Act::Slow(pieces, pause) => {
                for piece in pieces {
                    tokio::time::sleep(pause).await;
                    if stream.write_all(&piece).await.is_err() {
                        log.gone.fetch_add(1, SeqCst);
                        log.changed.notify_waiters();
                        return;
                    }
                }
            }
        }
    }
}

/// Reads one request with its body; `None` when the peer is done or breaks off.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = text.split("\r\n");
    let mut request = lines.next()?.split(' ');
    let (method, target) = (request.next()?.to_owned(), request.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer.drain(..length).collect();
    Some(Seen { method, target, headers, body, index: 0 })
}
