//! Profiles over HTTP, of the binary: off unless asked for, whole when given.

use std::{io::Read as _, process::Command};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use crate::support::process::AllInOne;

/// The URLs of the admin API and of the node of a process that was started with these arguments.
struct Process {
    weir: AllInOne,
    admin: String,
    node: String,
}

async fn start(data: &tempfile::TempDir, more: &[&str]) -> Process {
    let weir = AllInOne::start(data.path(), more).await;
    let (admin, node) = (format!("http://{}", weir.admin), format!("http://{}", weir.node));
    Process { weir, admin, node }
}

async fn get(url: String) -> (StatusCode, String, Bytes) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(Request::get(url).body(Full::default()).unwrap()).await.unwrap();
    let kind = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let status = response.status();
    (status, kind.unwrap_or_default(), response.into_body().collect().await.unwrap().to_bytes())
}

/// The fields of a protobuf message: number and payload; panics where it is cut or has a type that profiles lack.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let payload = match tag & 7 {
            0 => {
                let before = bytes;
                varint(&mut bytes);
                &before[..before.len() - bytes.len()]
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                let (payload, rest) = bytes.split_at(length);
                bytes = rest;
                payload
            }
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, payload));
    }
    found
}

/// The content of a gzipped profile: number of samples, and its strings.
fn read_profile(body: &[u8]) -> (usize, Vec<String>) {
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut message).unwrap();
    let fields = fields(&message);
    let samples = fields.iter().filter(|(number, _)| *number == 2).count();
    let strings = fields.iter().filter(|(number, _)| *number == 6);
    let strings: Vec<_> = strings.map(|(_, text)| String::from_utf8(text.to_vec()).unwrap()).collect();
    assert_eq!(strings[0], "", "the first string is the empty one");
    (samples, strings)
}

#[tokio::test]
async fn off_unless_switched_on() {
    let data = tempfile::tempdir().unwrap();
    let weir = start(&data, &[]).await;
    for address in [&weir.admin, &weir.node] {
        let (status, _, body) = get(format!("{address}/debug/pprof/profile?seconds=1")).await;
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("profiling: {enabled: true}"), "{body}");
    }
}

#[tokio::test]
async fn the_cpu_is_profiled() {
    let data = tempfile::tempdir().unwrap();
    let weir = start(&data, &["--profiling"]).await;
    let busy = {
        let node = weir.node.clone();
        tokio::spawn(async move {
            loop {
                get(format!("{node}/api/v1/query?query=count(%7B__name__%3D~%22.%2B%22%7D)")).await;
            }
        })
    };
    let profile = |format| get(format!("{}/debug/pprof/profile?seconds=1&format={format}", weir.admin));
    let (status, kind, body) = profile("pprof").await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "application/octet-stream"));
    let (samples, strings) = read_profile(&body);
    assert!(samples > 0 && strings.iter().any(|s| s == "nanoseconds"), "{samples} {strings:?}");
    assert!(strings.iter().any(|s| s.contains("weir::")), "{strings:?}");
    assert!(!strings.iter().any(|s| s.contains("on_signal")), "the profiler leaves itself out");

    let (status, kind, body) = profile("svg").await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "image/svg+xml"));
    let svg = String::from_utf8(body.to_vec()).unwrap();
    assert!(svg.contains("weir::node::"), "{svg}");

    let (first, second) = tokio::join!(profile("svg"), profile("svg"));
    let mut statuses = [first.0.as_u16(), second.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429], "one at a time");
    let (status, ..) = get(format!("{}/debug/pprof/profile?seconds=3600", weir.admin)).await;
    assert_eq!(status, 400);
    busy.abort();
}

#[tokio::test]
async fn the_heap_is_profiled() {
    let data = tempfile::tempdir().unwrap();
    let weir = start(&data, &["--profiling"]).await;
    // Something to hold: 20,000 series.
    let lines: Vec<String> = (0..20_000).map(|i| format!("held{{number=\"{i}\"}} 1")).collect();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let import = Request::post(format!("{}/api/v1/import/prometheus", weir.node));
    let answer = client.request(import.body(Full::from(lines.join("\n") + "\n")).unwrap()).await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());

    let (status, _, body) = get(format!("{}/debug/pprof/heap", weir.admin)).await;
    if cfg!(not(feature = "heap-profile")) {
        assert_eq!(status, 501);
        assert!(String::from_utf8_lossy(&body).contains("--features heap-profile"), "{body:?}");
        return;
    }
    assert_eq!(status, 200);
    let (samples, strings) = read_profile(&body);
    assert!(samples > 0 && strings.iter().any(|s| s == "inuse_space"), "{samples} {strings:?}");
    assert!(strings.iter().any(|s| s.contains("weir::node::")), "{strings:?}");
    assert!(!strings.iter().any(|s| s.contains("profile::heap::")), "the profiler leaves itself out");
    let (status, kind, body) = get(format!("{}/debug/pprof/heap?format=svg", weir.node)).await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "image/svg+xml"));
    assert!(String::from_utf8(body.to_vec()).unwrap().contains("weir::node::"));
}

/// Signals that mean nothing to it do not end it, its settings are good from the start, and it says that it is healthy.
#[tokio::test]
async fn a_fresh_process_has_good_settings_and_survives_signals() {
    let data = tempfile::tempdir().unwrap();
    let process = start(&data, &[]).await;
    for name in ["HUP", "USR1", "USR2"] {
        process.weir.signal(name);
    }
    let (status, _, page) = get(format!("{}/metrics", process.admin)).await;
    let page = String::from_utf8(page.to_vec()).unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("\nweir_config_last_reload_successful 1\n"), "{page}");
    let check =
        |url: &str| Command::new(env!("CARGO_BIN_EXE_weir")).args(["check-health", url]).output().unwrap();
    for url in [&process.admin, &process.node] {
        let asked = check(url);
        assert!(asked.status.success(), "{url}: {asked:?}");
    }
    assert_eq!(check("http://127.0.0.1:9").status.code(), Some(1));
}
