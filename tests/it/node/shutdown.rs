//! Clients of the node that send half a request, and its end while they do.

use std::{process::ExitStatus, sync::Arc, time::Duration};

use http::Request;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use weir::node::{
    db::{Db, Options},
    http::{Node, Settings, serve},
};

use crate::support::{process::NodeProcess, sockets::client};

/// A form whose last bytes do not come; the node asks for it when it has read the head.
const HALF_A_FORM: &[u8] = b"POST /api/v1/query HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
    content-type: application/x-www-form-urlencoded\r\ncontent-length: 20\r\n\r\n";

/// A grace period is thirty seconds.
const AT_ONCE: Duration = Duration::from_secs(10);

async fn ended(node: &mut NodeProcess) -> ExitStatus {
    tokio::time::timeout(AT_ONCE, node.ended()).await.expect("it ends at once")
}

#[tokio::test]
async fn half_a_head_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::start(dir.path(), "").await;
    let mut half = TcpStream::connect(node.address).await.unwrap();
    half.write_all(b"GET /api/v1/query?que").await.unwrap();
    node.signal("TERM");
    assert!(ended(&mut node).await.success(), "{}", node.log());
    assert!(node.log().contains("every query in flight was finished"), "{}", node.log());
}

#[tokio::test]
async fn signals_that_mean_nothing_to_a_node_do_not_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::start(dir.path(), "").await;
    for name in ["USR1", "USR2", "ALRM", "IO", "PIPE"] {
        node.signal(name);
    }
    TcpStream::connect(node.address).await.unwrap();
    node.signal("QUIT");
    assert!(ended(&mut node).await.success(), "{}", node.log());
    assert!(node.log().contains("every query in flight was finished"), "{}", node.log());
}

/// SIGHUP has the file read again: limits of reads change at once, and a mistake changes nothing.
#[tokio::test]
async fn a_hangup_changes_the_limits_of_reads() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), "").await;
    let url = format!("http://{}/api/v1/query_range?query=1&start=0&end=60&step=1", node.address);
    let file = dir.path().join("node.yaml");
    let status = async || {
        let request = Request::get(&url).body(Full::<bytes::Bytes>::default()).unwrap();
        client().request(request).await.unwrap().status().as_u16()
    };
    let until = async |wanted: &str, count: usize| {
        while node.log().matches(wanted).count() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let hang_up = async |text: &str, said: &str, count: usize| {
        std::fs::write(&file, format!("listen: 127.0.0.1:0\n{text}\n")).unwrap();
        node.signal("HUP");
        tokio::time::timeout(AT_ONCE, until(said, count)).await.unwrap_or_else(|_| panic!("{}", node.log()));
    };
    assert_eq!(status().await, 200);
    hang_up("reads: {steps: 30, running: 7}", "configuration reloaded", 1).await;
    assert_eq!(status().await, 400);
    until("these settings change at the next start", 1).await;
    assert!(node.log().contains("reads.running: 20 -> 7"), "{}", node.log());
    hang_up("reads: {stebs: 100}", "the configuration stays as it was", 1).await;
    assert_eq!(status().await, 400);
    hang_up("reads: {steps: 100}", "configuration reloaded", 2).await;
    assert_eq!(status().await, 200);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::start(dir.path(), "").await;
    let mut half = TcpStream::connect(node.address).await.unwrap();
    half.write_all(HALF_A_FORM).await.unwrap();
    half.read_exact(&mut [0; 25]).await.unwrap();
    node.signal("TERM");
    // It takes no connections any more when it has seen the first.
    while TcpStream::connect(node.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    node.signal("INT");
    assert!(ended(&mut node).await.success(), "{}", node.log());
    assert!(node.log().contains("by a second signal"), "{}", node.log());
}

#[tokio::test(start_paused = true)]
async fn half_a_form_is_answered_in_bounded_time() {
    let db = Arc::new(Db::in_memory(Options::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let node = Node::new(db, Settings::default()).unwrap();
    let serving = tokio::spawn(serve(listener, node, std::future::pending()));
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(HALF_A_FORM).await.unwrap();
    half.write_all(b"query=1").await.unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 408 ") && answer.contains("did not arrive in time"), "{answer}");
    serving.abort();
}
