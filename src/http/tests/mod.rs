//! One connection over a pipe under paused time, and whole listeners on port 0.

mod listener;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, interval},
};
use tower::{Service, service_fn};

use super::{accept::Acceptor, connection::serve_connection, *};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

type Answered<B> = Result<Response<B>, Infallible>;

/// Answers every request with `length` bytes.
fn sends(
    length: usize,
) -> impl Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    service_fn(
        move |_| async move { Answered::Ok(Response::new(Full::new(Bytes::from(vec![b'a'; length])))) },
    )
}

/// A connection among others that answers with `length` bytes, over a pipe that holds 1 KiB.
fn connected(length: usize, among: &Arc<Connections>) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = duplex(1 << 10);
    let place = among.admit([127, 0, 0, 1].into()).unwrap();
    let serving =
        async move { serve_connection(server, sends(length), &place, Timeouts::default(), None).await };
    (client, tokio::spawn(serving))
}

async fn answer_of(client: &mut DuplexStream, length: usize) {
    let mut read = Vec::new();
    while !read.ends_with(&vec![b'a'; length]) {
        assert_ne!(client.read_buf(&mut read).await.unwrap(), 0, "{read:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_given_up_before_an_idle_connection_is() {
    let connections = Connections::new(ConnectionLimits::of(8));
    let (head, idle) = (Timeouts::default().head, ConnectionLimits::IDLE);
    for (sent, asks_before, waits) in [
        (&REQUEST[..0], false, head),
        (&REQUEST[..9], false, head),
        (&REQUEST[..9], true, head),
        (&REQUEST[..0], true, idle),
    ] {
        let (mut client, serving) = connected(8, &connections);
        if asks_before {
            client.write_all(REQUEST).await.unwrap();
            answer_of(&mut client, 8).await;
            // Longer than a head may take, which begins with its first byte.
            tokio::time::sleep(head * 2).await;
        }
        let began = Instant::now();
        client.write_all(sent).await.unwrap();
        serving.await.unwrap();
        let waited = began.elapsed() + if waits == idle { head * 2 } else { Duration::ZERO };
        assert!(waited >= waits && waited < waits + Duration::from_secs(1), "{sent:?}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_answers_and_not_for_half_heads() {
    let connections = Connections::new(ConnectionLimits::of(32));
    let (mut half, mut idle, mut slow) =
        (connected(8, &connections), connected(8, &connections), connected(4_000, &connections));
    half.0.write_all(&REQUEST[..9]).await.unwrap();
    idle.0.write_all(REQUEST).await.unwrap();
    answer_of(&mut idle.0, 8).await;
    slow.0.write_all(REQUEST).await.unwrap();
    // All of the answer was handed out, and not a quarter of it is sent.
    slow.0.read_exact(&mut [0; 100]).await.unwrap();
    let began = Instant::now();
    connections.end();
    half.1.await.unwrap();
    idle.1.await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(10));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!slow.1.is_finished(), "the client still reads");
    answer_of(&mut slow.0, 3_000).await;
    slow.1.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_response_is_cut_at_its_deadline_and_the_next_is_not() {
    let (mut client, server) = duplex(1 << 10);
    let connections = Connections::new(ConnectionLimits::of(1));
    let place = connections.admit([127, 0, 0, 1].into()).unwrap();
    let deadlines: [Arc<ResponseDeadline>; 2] = Default::default();
    let given = deadlines.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let deadline = &given[usize::from(request.uri().path() == "/slow")];
        deadline.set_deadline(Instant::now() + Duration::from_secs(20));
        let length = if request.uri().path() == "/slow" { 1 << 20 } else { 8 };
        let mut response = Response::new(Full::new(Bytes::from(vec![b'a'; length])));
        response.extensions_mut().insert(Timed(Arc::new(Held(Arc::clone(deadline)))));
        async { Answered::Ok(response) }
    });
    let serving =
        tokio::spawn(
            async move { serve_connection(server, service, &place, Timeouts::default(), None).await },
        );
    client.write_all(REQUEST).await.unwrap();
    answer_of(&mut client, 8).await;
    // An idle connection is nobody's late answer.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let began = Instant::now();
    client.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    serving.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 20);
    assert!(deadlines[1].is_expired() && !deadlines[0].is_expired());
}

struct Held(Arc<ResponseDeadline>);

impl AsRef<ResponseDeadline> for Held {
    fn as_ref(&self) -> &ResponseDeadline {
        &self.0
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_the_grace_period_is_over_is_told_so() {
    let (mut client, server) = duplex(1 << 10);
    let connections = Connections::new(ConnectionLimits::of(1));
    let place = connections.admit([127, 0, 0, 1].into()).unwrap();
    let service = service_fn(|_: Request<Incoming>| std::future::pending::<Answered<Full<Bytes>>>());
    let serving =
        tokio::spawn(
            async move { serve_connection(server, service, &place, Timeouts::default(), None).await },
        );
    client.write_all(REQUEST).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    connections.end();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(connections.expire(), 1);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("\"Weir is shutting down, and"),
        "{answer}"
    );
    serving.await.unwrap();
}

#[tokio::test]
async fn requests_that_reach_no_service_get_json() {
    let long = "a".repeat(70_000);
    let get = "GET / HTTP/1.1\r\n";
    for (request, status, said) in [
        (format!("{get}\r\n"), 400, "names no host"),
        (format!("{get}host: x\r\nhost: y\r\n\r\n"), 400, "several Host headers"),
        (format!("{get}host: x y\r\n\r\n"), 400, "a character that no host has"),
        (format!("{get}host: x\r\n a\x01: b\r\n\r\n"), 400, "not well-formed HTTP/1.1"),
        ("GARBAGE\r\n\r\n".to_owned(), 400, "not well-formed HTTP/1.1"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400, "no other version is spoken here"),
        (format!("{get}host: x\r\na: {long}\r\n\r\n"), 431, "longer than 64KiB"),
        (format!("{get}host: x\r\n{}\r\n", "a: b\r\n".repeat(200)), 431, "more than 100 headers"),
        (format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"), 431, "as the form of a POST"),
    ] {
        let (mut client, serving) = connected(8, &Connections::new(ConnectionLimits::of(1)));
        let mut answer = String::new();
        let (mut read, mut write) = tokio::io::split(&mut client);
        let (sent, got) = tokio::join!(write.write_all(request.as_bytes()), read.read_to_string(&mut answer));
        // Nobody may be left to read the rest of the refused request.
        drop(sent);
        got.unwrap();
        drop(client);
        serving.await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request:.40}: {answer}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request:.40}: {head}");
        assert!(head.to_lowercase().contains("connection: close"), "{head}");
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(json["error"].as_str().unwrap().contains(said), "{json}");
    }
    // HTTP/1.0 knows no Host.
    let (mut client, _serving) = connected(8, &Connections::new(ConnectionLimits::of(1)));
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    answer_of(&mut client, 8).await;
}

/// More than sockets hold.
const LARGE: usize = 32 << 20;
/// How long a client may take nothing.
const STALLED: Duration = Duration::from_secs(1);

/// A client that was sent a large answer, and the end of its connection.
async fn sent_much() -> (TcpStream, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = Acceptor::new(listener);
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let (stream, peer) = acceptor.accept().await;
    let timeouts = Timeouts { stalled: STALLED, ..Timeouts::default() };
    let service = service_fn(|_: Request<Incoming>| async {
        let piece = Bytes::from(vec![b'a'; 1 << 16]);
        let (pieces, mut taken) = mpsc::channel::<Bytes>(1);
        tokio::spawn(async move {
            for _ in 0..LARGE / piece.len() {
                if pieces.send(piece.clone()).await.is_err() {
                    return;
                }
            }
        });
        let frames = futures_util::stream::poll_fn(move |cx| {
            taken.poll_recv(cx).map(|piece| piece.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))))
        });
        Answered::Ok(Response::new(StreamBody::new(frames)))
    });
    let place = Connections::new(ConnectionLimits::of(1)).admit(peer.ip()).unwrap();
    (client, tokio::spawn(async move { serve_connection(stream, service, &place, timeouts, None).await }))
}

#[tokio::test]
async fn who_takes_nothing_is_cut_off() {
    let (_asleep, serving) = sent_much().await;
    let began = Instant::now();
    serving.await.unwrap();
    assert!(began.elapsed() >= STALLED);
}

#[tokio::test]
async fn who_reads_slowly_and_steadily_gets_all_of_the_answer() {
    let (mut client, serving) = sent_much().await;
    let began = Instant::now();
    let mut pace = interval(Duration::from_millis(10));
    let mut piece = vec![0; 1 << 20];
    let mut read = 0;
    while read < LARGE {
        let slow = began.elapsed() < STALLED * 3;
        let most = if slow { 3 << 10 } else { piece.len() };
        match client.read(&mut piece[..most]).await {
            Ok(more @ 1..) => read += more,
            ended => panic!("{ended:?} after {read} bytes, {:?}", began.elapsed()),
        }
        if slow {
            pace.tick().await;
        }
    }
    drop(client);
    serving.await.unwrap();
}
