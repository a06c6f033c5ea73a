//! The floor: a pass-through on bare hyper with kept upstream connections, a thread per core and nothing else. The cost
//! above it is Weir's own.

use crate::Result;
use http_body_util::BodyExt;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

type Body = http_body_util::combinators::BoxBody<Bytes, hyper::Error>;
type Kept = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

/// Listens on the first port given and passes everything on to the second, until the process is ended.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<()> {
    let ports: Vec<u16> = words.map(|word| word.parse()).collect::<std::result::Result<_, _>>()?;
    let [listen, upstream] = ports[..] else { return Err("floor wants two ports".into()) };
    let threads = std::thread::available_parallelism()?.get();
    let workers: Vec<_> = (0..threads).map(|_| std::thread::spawn(move || work(listen, upstream))).collect();
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")??;
    }
    Ok(())
}

fn work(listen: u16, upstream: u16) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, serve(listen, upstream))
}

async fn serve(listen: u16, upstream: u16) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, listen).into())?;
    let (listener, kept) = (socket.listen(1_024)?, Kept::default());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let kept = Rc::clone(&kept);
        let service = service_fn(move |request| pass(request, upstream, Rc::clone(&kept)));
        // A client that leaves is no news.
        spawn_local(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn pass(request: Request<Incoming>, upstream: u16, kept: Kept) -> Result<Response<Body>> {
    let free = {
        let mut kept = kept.borrow_mut();
        kept.retain(|connection| !connection.is_closed());
        kept.iter().position(SendRequest::is_ready).map(|at| kept.swap_remove(at))
    };
    let mut connection = match free {
        Some(connection) => connection,
        None => connect(upstream).await?,
    };
    let response = connection.send_request(request).await?;
    // It is ready again once the body has been read.
    kept.borrow_mut().push(connection);
    Ok(response.map(BodyExt::boxed))
}

async fn connect(upstream: u16) -> Result<SendRequest<Incoming>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
    stream.set_nodelay(true)?;
    let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
    spawn_local(driver);
    Ok(connection)
}
