//! Thousands of connections to a whole process: the memory that they take, and the memory that comes back.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep},
};

use crate::support::process::AllInOne;

/// Idle connections, where this process may open that number of files.
const CONNECTIONS: usize = 2_000;
/// Client addresses that they come from, since each has but a share.
const CLIENTS: u8 = 8;
/// The time in which memory must come back.
const SETTLE: Duration = Duration::from_secs(30);

/// A connection from 127.0.0.`client` that was answered once and is kept.
async fn kept(address: SocketAddr, client: u8, request: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, client], 0))).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    assert_ne!(stream.read(&mut [0; 1_024]).await.unwrap(), 0);
    stream
}

/// Connections that this process can open, half of its files.
fn most() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let files = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
    CONNECTIONS.min(files / 2)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_comes_back_after_thousands_of_idle_connections() {
    let data = tempfile::tempdir().unwrap();
    let process = AllInOne::start(data.path(), &[]).await;
    let request = b"GET /api/v1/query?query=1 HTTP/1.1\r\nhost: x\r\n\r\n";
    for address in [process.queries, process.node] {
        // The memory kept after the first request belongs to no connection.
        drop(kept(address, 1, request).await);
        let before = process.resident();
        let mut connections = Vec::new();
        while connections.len() < most() {
            let some = (1..=CLIENTS).map(|client| kept(address, client, request));
            connections.extend(futures_util::future::join_all(some).await);
        }
        let grown = process.resident().saturating_sub(before);
        let each = grown / connections.len() as u64;
        assert!(each < 48 << 10, "{each} bytes for each of {} connections", connections.len());
        drop(connections);
        let ended = Instant::now();
        let left = || process.resident().saturating_sub(before);
        while left() > grown / 4 {
            assert!(ended.elapsed() < SETTLE, "{} of {grown} bytes stay", left());
            sleep(Duration::from_millis(100)).await;
        }
    }
}
