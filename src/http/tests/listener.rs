//! Whole listeners: places, eviction and shutdown.

use std::{net::SocketAddr, sync::atomic::AtomicUsize, sync::atomic::Ordering::SeqCst};

use tokio::{net::TcpSocket, sync::oneshot, time::timeout};

use super::*;

const SOON: Duration = Duration::from_secs(10);
const HEALTH: &[u8] = b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n";
/// A request that never has an answer.
const HANG: &[u8] = b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n";

/// A server on port 0 until it is dropped.
struct Server {
    address: SocketAddr,
    connections: Arc<Connections>,
    handshakes: Arc<[AtomicUsize; 4]>,
    shutdown: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Served>,
}

const RESULTS: [&str; 4] = ["done", "failed", "late", "replaced"];

fn start(limits: ConnectionLimits, tls: Option<ServerTls>, grace: Duration) -> Server {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Connections::new(limits));
    let handshakes: Arc<[AtomicUsize; 4]> = Arc::default();
    let counted = Arc::clone(&handshakes);
    let tls = ListenerTls::new(
        move || tls.clone(),
        move |result| {
            counted[RESULTS.iter().position(|known| *known == result).unwrap()].fetch_add(1, SeqCst);
        },
    );
    let options = Options {
        connections: Arc::clone(&connections),
        timeouts: Timeouts::default(),
        tls,
        workers: Workers::here(),
        grace: move || grace,
    };
    let service = |_| {
        service_fn(|request: Request<Incoming>| async move {
            if request.uri().path() == "/hang" {
                std::future::pending::<()>().await;
            }
            Answered::Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
        })
    };
    let (shutdown, stopped) = oneshot::channel();
    let serving = tokio::spawn(serve(listener, service, options, async move {
        // Sent or dropped, it ends.
        let _ = stopped.await;
    }));
    Server { address, connections, handshakes, shutdown: Some(shutdown), serving }
}

impl Server {
    /// A connection from 127.0.0.`client`.
    async fn connect(&self, client: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, client], 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// The status and body of the answer to a request; `None` if the connection ends without one.
    async fn ask(&self, stream: &mut TcpStream, request: &[u8]) -> Option<String> {
        // It may be closed already.
        let _ = stream.write_all(request).await;
        let mut answer = vec![0; 4_096];
        let read = timeout(SOON, stream.read(&mut answer)).await.expect("an answer or an end");
        let read = read.ok().filter(|length| *length > 0)?;
        Some(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    async fn until(&self, done: impl Fn(Counts) -> bool) {
        timeout(SOON, async {
            while !done(self.connections.counts()) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{:?}", self.connections.counts()));
    }
}

#[tokio::test]
async fn kept_connections_of_one_client_lock_nobody_out() {
    let server = start(ConnectionLimits { per_client: 6, ..ConnectionLimits::of(8) }, None, SOON);
    let mut kept = Vec::new();
    for _ in 0..40 {
        let mut stream = server.connect(1).await;
        assert!(server.ask(&mut stream, REQUEST).await.unwrap().ends_with("ok"));
        kept.push(stream);
    }
    assert_eq!(server.connections.counts().open, 6, "no more than its share");
    for client in 2..7 {
        let mut other = server.connect(client).await;
        assert!(server.ask(&mut other, REQUEST).await.unwrap().ends_with("ok"));
        kept.push(other);
    }
    let counts = server.connections.counts();
    assert!(counts.open == 8 && counts.refused == 0, "{counts:?}");
    // The first of all had to go, the last of its client stayed as long as there was room.
    assert_eq!(server.ask(&mut kept[0], REQUEST).await, None);
    assert!(server.ask(&mut kept[39], REQUEST).await.unwrap().ends_with("ok"));
}

#[tokio::test]
async fn health_is_answered_when_every_connection_is_busy() {
    let server = start(ConnectionLimits { per_client: 4, ..ConnectionLimits::of(4) }, None, SOON);
    let mut busy = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect(1).await;
        stream.write_all(HANG).await.unwrap();
        busy.push(stream);
    }
    server.until(|counts| counts.open == 4).await;
    // Until the last of them is known to be asked.
    let mut other = server.connect(1).await;
    timeout(SOON, async {
        loop {
            match server.ask(&mut other, REQUEST).await {
                Some(answer) if answer.starts_with("HTTP/1.1 503") => {
                    break assert!(answer.contains("per_client"));
                }
                _ => other = server.connect(1).await,
            }
        }
    })
    .await
    .unwrap();
    // Neither its own flood of silent connections nor that of others changes it.
    let mut silent = Vec::new();
    for n in 0..200 {
        silent.push(server.connect(1 + n % 50).await);
    }
    for client in [1, 2] {
        let mut probe = server.connect(client).await;
        assert!(server.ask(&mut probe, HEALTH).await.unwrap().starts_with("HTTP/1.1 200"));
    }
    busy.pop();
    server.until(|counts| counts.open < 4 + 64 + 1).await;
    let mut other = server.connect(3).await;
    timeout(SOON, async {
        while !server.ask(&mut other, REQUEST).await.is_some_and(|answer| answer.ends_with("ok")) {
            other = server.connect(3).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_shutdown_answers_who_waits_and_counts_what_it_cut() {
    let mut server = start(ConnectionLimits::of(64), None, Duration::from_millis(200));
    let (mut idle, mut waiting) = (server.connect(1).await, server.connect(1).await);
    assert!(server.ask(&mut idle, REQUEST).await.unwrap().ends_with("ok"));
    waiting.write_all(HANG).await.unwrap();
    timeout(SOON, async {
        // Until the request is known to be asked.
        while server.connections.counts().open < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    tokio::task::yield_now().await;
    drop(server.shutdown.take());
    let mut said = String::new();
    timeout(SOON, waiting.read_to_string(&mut said)).await.unwrap().unwrap();
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("grace period"), "{said}");
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap_or(0), 0);
    assert_eq!(server.serving.await.unwrap(), Served { cut: 1 });
}

/// A certificate of nobody; the folder holds its files.
fn tls() -> (ServerTls, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert_file, key_file) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert_file, made.cert.pem()).unwrap();
    std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
    (
        ServerTls::load(&ServerTlsSettings { cert_file, key_file, ..ServerTlsSettings::default() }).unwrap(),
        dir,
    )
}

#[tokio::test]
async fn a_flood_of_silent_handshakes_starves_no_real_one() {
    let (tls, _dir) = tls();
    let server = start(ConnectionLimits::of(64), Some(tls), SOON);
    let mut silent = Vec::new();
    // More than the share of one client, and real ones of the same client between them.
    for n in 0..400 {
        silent.push(server.connect(1).await);
        if n % 100 == 99 {
            let mut plain = server.connect(1).await;
            let said = server.ask(&mut plain, REQUEST).await.unwrap();
            assert!(said.starts_with("HTTP/1.1 400") && said.contains("speaks https"), "{said}");
        }
    }
    let [done, failed, late, replaced] = server.handshakes.each_ref().map(|count| count.load(SeqCst));
    assert_eq!((done, failed, late), (0, 4, 0));
    assert!(replaced >= 140, "{replaced} of 400 silent ones made room");
    assert_eq!(server.connections.counts().open, 0, "none of them counts as a connection");
}

#[tokio::test(start_paused = true)]
async fn who_never_shakes_hands_is_given_up() {
    let (tls, _dir) = tls();
    let server = start(ConnectionLimits::of(64), Some(tls), SOON);
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(server.connect(1).await);
    }
    let began = Instant::now();
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0, "closed");
    }
    assert!(began.elapsed() >= Duration::from_secs(5) && began.elapsed() < Duration::from_secs(6));
    assert_eq!(server.handshakes[2].load(SeqCst), 50);
}
