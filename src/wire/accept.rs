//! Accepting, and what is set on a socket that was accepted.

use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

/// Pause after the system refused a connection (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that the system takes on top of what it has sent. Without a bound it takes megabytes, and takes more only when
/// a third of them is gone: who reads slowly, yet steadily, would look as if it read nothing for minutes. What is under
/// way does not count, so that a fast connection is as fast as before.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// A bound socket that connections are taken from.
#[derive(Debug)]
pub struct Acceptor {
    tcp: TcpListener,
    /// Refusals of the system since the last connection.
    refused: AtomicU32,
}

impl Acceptor {
    /// Takes connections from `tcp`.
    pub const fn new(tcp: TcpListener) -> Self {
        Self { tcp, refused: AtomicU32::new(0) }
    }

    /// The next connection, before anything was said on it. May be given up and called again: nothing is lost.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
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

/// Connections that may be open at a time: `most`, and no more than half of the files that the process may open, since
/// it needs others.
pub fn places(most: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    most.min(open_files(&limits).map_or(usize::MAX, |files| files / 2)).max(1)
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
        assert!((1..=100).contains(&places(100)));
    }
}
