//! `weir --config`: the proxy and a node in one process, by one file.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use weir::journal::Reader;

use crate::support::sockets::client;

/// The process; killed at the end, however the test ends.
struct Process {
    child: Child,
    queries: String,
    admin: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start(data: &std::path::Path, config: &str) -> Process {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["--listen", "127.0.0.1:0", "--config", config, "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(out).lines().map_while(Result::ok);
        let urls = lines.filter_map(|line| {
            line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)
        });
        urls.take(2).collect::<Vec<_>>()
    });
    let [queries, admin] = <[String; 2]>::try_from(reading.await.unwrap()).expect("it says where it listens");
    Process { child, queries, admin }
}

async fn ask(request: Request<Full<Bytes>>) -> (u16, String) {
    let (head, body) = client().request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn one_file_configures_proxy_and_node_and_is_read_again() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("weir.yaml");
    let config = |range: &str| {
        let text = format!(
            "server: {{admin_listen: 127.0.0.1:0}}\nlimits: {{default: {{per_query: {{range: {range}}}}}}}\n\
             node: {{listen: 127.0.0.1:0, reads: {{steps: 50}}}}\n"
        );
        fs::write(&file, text).unwrap();
    };
    config("90m");
    let mut process = start(data.path(), file.to_str().unwrap()).await;
    let get = |hours: u64, step: u64| {
        let end = hours * 3_600;
        let target = format!("{}/api/v1/query_range?query=up&start=0&end={end}&step={step}", process.queries);
        ask(Request::get(target).body(Full::default()).unwrap())
    };
    let (status, body) = get(2, 600).await;
    assert!(status == 422 && body.contains("weir-max-range"), "{body}");
    let (status, body) = get(1, 60).await;
    assert!(status != 200 && body.contains("50"), "the node's own limit: {status} {body}");
    config("3h");
    let reload = Request::post(format!("{}/-/reload", process.admin)).body(Full::default()).unwrap();
    let (status, body) = ask(reload).await;
    assert!(status == 200 && body.contains("limits.default.per_query.range"), "{body}");
    assert_eq!(get(2, 600).await.0, 200);
    let ended = Command::new("kill").arg(process.child.id().to_string()).status();
    assert!(ended.unwrap().success());
    assert!(process.child.wait().unwrap().success());
    let records: Vec<_> = Reader::open(data.path()).unwrap().map(Result::unwrap).collect();
    let verdicts: Vec<_> = records.iter().map(|record| record.verdict.to_string()).collect();
    assert_eq!(verdicts, ["weir-max-range", "admitted", "admitted"]);
}
