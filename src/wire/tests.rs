use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A connection that answers with so many bytes, over a pipe that holds 1 KiB.
fn connected(length: usize, ending: &CancellationToken) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = duplex(1 << 10);
    let ending = ending.clone();
    let answer = move |_| async move { Response::new(Full::new(Bytes::from(vec![b'a'; length]))) };
    (client, tokio::spawn(carry(server, Patience::default(), ending, answer)))
}

async fn answer_of(client: &mut DuplexStream, length: usize) {
    let mut read = Vec::new();
    while !read.ends_with(&vec![b'a'; length]) {
        assert_ne!(client.read_buf(&mut read).await.unwrap(), 0, "{read:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_given_up_before_an_idle_connection_is() {
    let (never, idle) = (CancellationToken::new(), Patience::default().idle);
    for (sent, asks_before, waits) in [
        (&REQUEST[..0], false, HEAD_TIME),
        (&REQUEST[..9], false, HEAD_TIME),
        (&REQUEST[..9], true, HEAD_TIME),
        (&REQUEST[..0], true, idle),
    ] {
        let (mut client, carrying) = connected(8, &never);
        if asks_before {
            client.write_all(REQUEST).await.unwrap();
            answer_of(&mut client, 8).await;
            // Longer than a head may take, which begins with its first byte.
            tokio::time::sleep(HEAD_TIME * 2).await;
        }
        let began = Instant::now();
        client.write_all(sent).await.unwrap();
        carrying.await.unwrap();
        let waited = began.elapsed() + if waits == idle { HEAD_TIME * 2 } else { Duration::ZERO };
        assert!(waited >= waits && waited < waits + Duration::from_secs(1), "{sent:?}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_answers_and_not_for_half_heads() {
    let ending = CancellationToken::new();
    let (mut half, mut idle, mut slow) =
        (connected(8, &ending), connected(8, &ending), connected(4_000, &ending));
    half.0.write_all(&REQUEST[..9]).await.unwrap();
    idle.0.write_all(REQUEST).await.unwrap();
    answer_of(&mut idle.0, 8).await;
    slow.0.write_all(REQUEST).await.unwrap();
    // All of the answer was handed out, and not a quarter of it is sent.
    slow.0.read_exact(&mut [0; 100]).await.unwrap();
    let began = Instant::now();
    ending.cancel();
    half.1.await.unwrap();
    idle.1.await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(10));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!slow.1.is_finished(), "the client still reads");
    answer_of(&mut slow.0, 3_000).await;
    slow.1.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_the_grace_period_is_cut_and_counted() {
    let ending = CancellationToken::new();
    let mut clients = Vec::new();
    let mut connections = JoinSet::new();
    for request in [&REQUEST[..9], REQUEST, REQUEST] {
        let (mut client, carrying) = connected(4_000, &ending);
        client.write_all(request).await.unwrap();
        connections.spawn(async move { carrying.await.unwrap() });
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    ending.cancel();
    let began = Instant::now();
    assert_eq!(drain(connections, Duration::from_secs(20)).await, Served { cut: 2 });
    assert_eq!(began.elapsed().as_secs(), 20);
}

/// More than sockets hold.
const LARGE: usize = 32 << 20;
/// How long a client may take nothing.
const STALLED: Duration = Duration::from_secs(1);

/// A client that was sent a large answer, and what became of its connection.
async fn sent_much() -> (TcpStream, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Acceptor::new(listener);
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let (stream, _) = listener.accept().await;
    let patience = Patience { stalled: STALLED, ..Patience::default() };
    let answer = |_| async {
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
        Response::new(StreamBody::new(frames))
    };
    (client, tokio::spawn(carry(stream, patience, CancellationToken::new(), answer)))
}

#[tokio::test]
async fn who_takes_nothing_is_cut_off() {
    let (_asleep, carrying) = sent_much().await;
    let began = Instant::now();
    carrying.await.unwrap();
    assert!(began.elapsed() >= STALLED);
}

#[tokio::test]
async fn who_reads_slowly_and_steadily_gets_all_of_the_answer() {
    let (mut client, carrying) = sent_much().await;
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
    carrying.await.unwrap();
}
