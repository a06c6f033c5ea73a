//! Connections whose clients take nothing: cut, so that what their answers hold is given back.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use axum::serve::Listener;
use tokio::{
    io,
    net::{TcpListener, TcpStream},
};
use tokio_io_timeout::TimeoutStream;

/// A listener whose connections fail when no byte of what waits to be sent was taken for so long.
pub(super) struct Stalling {
    pub(super) listener: TcpListener,
    pub(super) patience: Duration,
}

impl Listener for Stalling {
    type Io = Pin<Box<TimeoutStream<TcpStream>>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.patience));
        (Box::pin(stream), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off_and_a_slow_one_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut listener = Stalling { listener, patience: Duration::from_millis(100) };
        let address = Listener::local_addr(&listener).unwrap();
        let more_than_buffers_hold = vec![0; 32 << 20];

        let asleep = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = listener.accept().await;
        let error = stream.write_all(&more_than_buffers_hold).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(asleep);

        let mut slow = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = listener.accept().await;
        let reading = tokio::spawn(async move {
            let mut piece = vec![0; 1 << 20];
            let mut read = 0;
            while let Ok(n @ 1..) = slow.read(&mut piece).await {
                read += n;
                tokio::task::yield_now().await;
            }
            read
        });
        stream.write_all(&more_than_buffers_hold).await.unwrap();
        drop(stream);
        assert_eq!(reading.await.unwrap(), more_than_buffers_hold.len());
    }
}
