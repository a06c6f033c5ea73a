//! Makes accepted connections ready, plain or with TLS, as the settings of the moment say.
//!
//! Hands are shaken beside the accepting, so that a client that is slow at it keeps nobody waiting; in bounded time and
//! number, since a handshake costs more than anything else that a stranger can ask for.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::{respond, tls::ServerTls};
use crate::{base::ErrorKind, telemetry::metrics::Metrics, wire::Acceptor};

/// Handshakes at a time on one listener, some 20 KiB each; more connections wait in the listener's backlog.
pub(super) const HANDSHAKES_MAX: usize = 1_024;
/// Longest time for one handshake.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);

/// A connection, ready for HTTP.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// The TLS of a listener in the settings of the moment.
type CurrentTls = Box<dyn Fn() -> Option<ServerTls> + Send + Sync>;

/// A bound socket whose connections may be secured.
pub(super) struct Listener {
    tcp: Acceptor,
    /// For metrics.
    name: &'static str,
    tls: CurrentTls,
    metrics: Arc<Metrics>,
    shaking: JoinSet<Option<(Stream, SocketAddr)>>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl Listener {
    /// A listener that asks `tls` for every connection how to secure it.
    pub(super) fn new(
        tcp: TcpListener,
        name: &'static str,
        metrics: Arc<Metrics>,
        tls: impl Fn() -> Option<ServerTls> + Send + Sync + 'static,
    ) -> Self {
        Self { tcp: Acceptor::new(tcp), name, tls: Box::new(tls), metrics, shaking: JoinSet::new() }
    }

    /// The next connection that is ready. May be given up and called again: nothing is lost.
    pub(super) async fn ready(&mut self) -> (Stream, SocketAddr) {
        loop {
            let (stream, peer) = tokio::select! {
                Some(shaken) = self.shaking.join_next() => match shaken {
                    Ok(Some(ready)) => return ready,
                    _ => continue,
                },
                accepted = self.tcp.accept(), if self.shaking.len() < HANDSHAKES_MAX => accepted,
            };
            let Some(tls) = (self.tls)() else { return (Either::Left(stream), peer) };
            let (name, metrics) = (self.name, Arc::clone(&self.metrics));
            self.shaking.spawn(async move { Some((shake(tls, stream, peer, name, &metrics).await?, peer)) });
        }
    }
}

/// Secures a connection to the listener of this name; `None` when that fails or takes too long.
pub(super) async fn shake(
    tls: ServerTls,
    stream: TcpStream,
    peer: SocketAddr,
    name: &'static str,
    metrics: &Metrics,
) -> Option<Stream> {
    let shaking = async {
        let mut first = [0];
        // A handshake begins with 22, a request of HTTP with the letter of a method.
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            return Err(say_https(stream).await);
        }
        tls.accept(stream).await
    };
    let (shaken, result) = match timeout(HANDSHAKE_WAIT, shaking).await {
        Ok(Ok(stream)) => (Some(Either::Right(stream)), "done"),
        Ok(Err(error)) => {
            // A port scanner is no news; who looks for a client that fails finds it here and in the metric.
            tracing::debug!(%peer, listener = name, %error, "no TLS handshake");
            (None, "failed")
        }
        Err(_) => (None, "late"),
    };
    metrics.tls_handshake(name, result);
    shaken
}

/// Tells a client that speaks plainly what to do.
async fn say_https(mut stream: TcpStream) -> io::Error {
    let text = "this address speaks https, and the request came over http";
    let body = respond::json_error(ErrorKind::BadData, text);
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    // Whether it reads that is its own affair.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    io::Error::other(text)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// A certificate of nobody; the folder holds its files.
    fn tls() -> (ServerTls, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert_file, key_file) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert_file, made.cert.pem()).unwrap();
        std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
        let settings = super::super::tls::ServerTlsSettings { cert_file, key_file };
        (ServerTls::load(&settings).unwrap(), dir)
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_shakes_hands_is_given_up() {
        let (tls, _dir) = tls();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new(1).unwrap());
        let mut listener = Listener::new(tcp, "queries", Arc::clone(&metrics), move || Some(tls.clone()));
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let seen =
            || metrics.encode().unwrap().lines().find(|l| l.contains("result=\"late\"")).map(str::to_owned);
        let began = tokio::time::Instant::now();
        let waited = timeout(HANDSHAKE_WAIT * 3, listener.ready()).await;
        assert!(waited.is_err(), "nobody is ready");
        assert_eq!(
            seen().as_deref(),
            Some("weir_tls_handshakes_total{listener=\"queries\",result=\"late\"} 50")
        );
        assert!(listener.shaking.is_empty() && began.elapsed() >= HANDSHAKE_WAIT);
        for mut stream in silent {
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0, "closed");
        }
    }
}
