//! TLS handshakes: beside accepting, in bounded number and time, since a stranger can ask for nothing more expensive.

use std::{future::poll_fn, io, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_rustls::server::TlsStream;

use super::{
    connections::{ConnectionLimits, Connections, Place},
    reject::Rejection,
    tls::ServerTls,
};

/// Handshakes at a time on one listener, some 20 KiB each. A newcomer replaces the oldest; a handshake takes a
/// few milliseconds, so that thousands of silent connections a second leave time for those that speak.
const HANDSHAKES: ConnectionLimits = ConnectionLimits::of(1_024);
/// Longest time for one handshake.
pub(super) const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Places for the handshakes of one listener.
pub(super) fn handshakes() -> Arc<Connections> {
    Connections::new(HANDSHAKES)
}

/// Secures a connection; reports the outcome: `done`, `failed`, `late`, or `replaced` by a newer one.
pub(super) async fn shake(
    tls: ServerTls,
    stream: TcpStream,
    place: Place,
) -> (Option<TlsStream<TcpStream>>, &'static str) {
    let shaking = async {
        let mut first = [0];
        // A handshake begins with 22, a request of HTTP with the letter of a method.
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            return Err(refuse_plain(stream).await);
        }
        tls.accept(stream).await
    };
    let replaced = poll_fn(|cx| place.activity.poll_end(cx));
    tokio::select! {
        biased;
        shaken = timeout(HANDSHAKE_TIME, Box::pin(shaking)) => match shaken {
            Ok(Ok(stream)) => (Some(stream), "done"),
            Ok(Err(error)) => {
                // A port scanner is no news; a failing client is found here and in the metric.
                tracing::debug!(%error, "no TLS handshake");
                (None, "failed")
            }
            Err(_) => (None, "late"),
        },
        () = replaced => (None, "replaced"),
    }
}

/// Answers a client that speaks plain HTTP with how to reach this address.
async fn refuse_plain(mut stream: TcpStream) -> io::Error {
    // Whether it reads that is its own affair.
    let _ = stream.write_all(&Rejection::NotTls.bytes()).await;
    let _ = stream.shutdown().await;
    io::Error::other("a request came over plain HTTP")
}
