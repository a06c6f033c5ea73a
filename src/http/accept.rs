//! Binding, accepting, and the options of an accepted socket.

use std::{
    fs, io,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the system completes and keeps until they are accepted. The usual 128 is one burst of dashboards.
const BACKLOG: u32 = 1_024;
/// Pause after the system refused a connection (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that the system takes on top of those it has sent. Without a bound it takes megabytes and asks for more only
/// after sending a third of them, so that a slow, steady reader would look stalled for minutes.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// A listener on `address`; port 0 takes a free one.
///
/// # Errors
/// The system refuses the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart need not wait for connections of the process before it to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A bound socket that connections are taken from.
#[derive(Debug)]
pub(super) struct Acceptor {
    tcp: TcpListener,
    /// Refusals of the system since the last connection.
    refused: AtomicU32,
}

impl Acceptor {
    pub(super) const fn new(tcp: TcpListener) -> Self {
        Self { tcp, refused: AtomicU32::new(0) }
    }

    /// The next connection, before anything was said on it. Cancel safe.
    pub(super) async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.tcp.accept().await {
                Ok((stream, peer)) => {
                    let refused = self.refused.swap(0, Relaxed);
                    if refused > 0 {
                        tracing::warn!(refused, "connections are accepted again");
                    }
                    prepare(&stream);
                    return (stream, peer);
                }
                Err(error) => {
                    // One line for a whole outage: it may last.
                    if self.refused.fetch_add(1, Relaxed) == 0 {
                        tracing::warn!(%error, "no connection accepted; clients wait until the system allows one");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A socket without either works too.
fn prepare(stream: &TcpStream) {
    // Answers are written whole or in large pieces; waiting for more only adds latency.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
}

/// `max` connections, but at most half of the files that the process may open, since it needs others.
pub fn within_open_files(max: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    max.min(open_files(&limits).map_or(usize::MAX, |files| files / 2)).max(1)
}

fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_open_files_are_left_for_others() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files   128   4096   files \n";
        assert_eq!((open_files(limits), open_files("")), (Some(128), None));
        assert_eq!(open_files("Max open files   unlimited unlimited files"), None);
        assert!((1..=100).contains(&within_open_files(100)));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_burst_of_connections_waits_in_the_backlog() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let output = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let system_max: u64 = output.trim().parse().unwrap();
        let mut clients = Vec::new();
        // More than the usual backlog of 128, and nobody accepts.
        for _ in 0..300.min(system_max) {
            let connecting = TcpStream::connect(("127.0.0.1", port));
            clients.push(tokio::time::timeout(Duration::from_secs(5), connecting).await.unwrap().unwrap());
        }
    }
}
