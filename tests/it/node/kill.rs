//! The node as a process, killed while it writes: every acknowledged sample is there afterwards, once.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use crate::{
    support::sockets::{HttpClient, client},
    support::{process::NodeProcess, weir::now_ms},
};

/// Clients that write at the same time.
const WRITERS: usize = 3;
/// Samples of one request, each of a series of its own.
const BATCH: usize = 5;
/// Kills of a normal run; `WEIR_TEST_KILLS=100` asks for more.
const KILLS: usize = 10;
/// Milliseconds between two samples of a series.
const EVERY: i64 = 100;
const DAY: i64 = 86_400_000;

#[allow(clippy::disallowed_methods, reason = "a test has no configuration")]
fn kills() -> usize {
    std::env::var("WEIR_TEST_KILLS").map_or(KILLS, |text| text.parse().unwrap())
}

/// The samples of a writer: request `i` has the value `i` at `start + i * EVERY` in each of its series.
#[derive(Default)]
struct Sent {
    /// Requests begun.
    begun: AtomicU64,
    /// Requests acknowledged, in order, and all others before them.
    acknowledged: AtomicU64,
}

async fn send(client: &HttpClient, request: Request<Full<Bytes>>) -> Option<(u16, Bytes)> {
    let response = client.request(request).await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.into_body().collect().await.ok()?.to_bytes()))
}

/// Writes one request after the other until one fails.
async fn write(address: std::net::SocketAddr, writer: usize, start: i64, sent: Arc<Sent>) {
    let client = client();
    loop {
        let i = sent.begun.fetch_add(1, SeqCst);
        let mut text = String::new();
        for series in 0..BATCH {
            writeln!(text, "k{{writer=\"{writer}\",series=\"{series}\"}} {i} {}", start + i as i64 * EVERY)
                .unwrap();
        }
        let request = Request::post(format!("http://{address}/api/v1/import/prometheus"));
        match send(&client, request.body(Full::from(text)).unwrap()).await {
            Some((204, _)) => sent.acknowledged.store(i + 1, SeqCst),
            Some((status, body)) => panic!("{status}: {body:?}"),
            None => return,
        }
    }
}

/// Samples by writer and series.
async fn read(address: std::net::SocketAddr) -> BTreeMap<(usize, usize), Vec<(i64, u64)>> {
    let time = now_ms() / 1_000 + 60;
    let request = Request::get(format!("http://{address}/api/v1/query?query=k[3h]&time={time}"));
    let (status, body) = send(&client(), request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(status, 200, "{body:?}");
    let json: Value = serde_json::from_slice(&body).unwrap();
    let rows = json["data"]["result"].as_array().unwrap().iter().map(|row| {
        let label = |name: &str| row["metric"][name].as_str().unwrap().parse::<usize>().unwrap();
        let points = row["values"].as_array().unwrap().iter().map(|point| {
            let time = (point[0].as_f64().unwrap() * 1_000.0).round() as i64;
            (time, point[1].as_str().unwrap().parse().unwrap())
        });
        ((label("writer"), label("series")), points.collect())
    });
    rows.collect()
}

/// Everything acknowledged is there, nothing twice, nothing that was never sent, and every request whole or not at all.
fn check(
    found: &BTreeMap<(usize, usize), Vec<(i64, u64)>>,
    writer: usize,
    start: i64,
    sent: &Sent,
    past: &mut Vec<u64>,
) {
    let (acknowledged, begun) = (sent.acknowledged.load(SeqCst), sent.begun.load(SeqCst));
    let none = Vec::new();
    let first = found.get(&(writer, 0)).unwrap_or(&none);
    for series in 0..BATCH {
        let samples = found.get(&(writer, series)).unwrap_or(&none);
        assert_eq!(samples, first, "writer {writer}: a request was written in part");
    }
    for (time, value) in first {
        assert_eq!(*time, start + *value as i64 * EVERY, "writer {writer}: a sample that nobody sent");
        assert!(*value < begun, "writer {writer}: a sample before it was sent");
    }
    assert!(first.is_sorted_by(|a, b| a.0 < b.0), "writer {writer}: a sample twice");
    let values: Vec<u64> = first.iter().map(|sample| sample.1).collect();
    // A write under way at an earlier kill may be missing, and nothing else.
    let missing: Vec<u64> = (0..acknowledged).filter(|i| values.binary_search(i).is_err()).collect();
    assert!(missing.iter().all(|i| past.contains(i)), "writer {writer}: acknowledged and lost: {missing:?}");
    past.push(begun - 1);
}

/// Kills a node that is written to, again and again; `step` is asked for how far its clock is off from then on.
async fn killed_while_writing(kills: usize, storage: &str, mut step: impl FnMut(usize) -> i64) -> String {
    let data = tempfile::tempdir().unwrap();
    let start = now_ms() - 2_400_000;
    let sent: Vec<Arc<Sent>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let mut past = vec![Vec::new(); WRITERS];
    let mut random = fastrand::Rng::with_seed(kills as u64);
    let mut log = String::new();
    for kill in 0..=kills {
        let mut node = NodeProcess::start(data.path(), storage).await;
        let found = read(node.address).await;
        if kill > 0 {
            for (writer, sent) in sent.iter().enumerate() {
                check(&found, writer, start, sent, &mut past[writer]);
            }
        }
        let writing: Vec<_> = sent
            .iter()
            .enumerate()
            .map(|(writer, sent)| tokio::spawn(write(node.address, writer, start, Arc::clone(sent))))
            .collect();
        // Some die before their first answer, some in the middle of a group.
        tokio::time::sleep(Duration::from_micros(random.u64(0..30_000))).await;
        NodeProcess::set_clock(data.path(), step(kill));
        tokio::time::sleep(Duration::from_micros(random.u64(0..30_000))).await;
        node.kill();
        for writer in writing {
            writer.await.unwrap();
        }
        log += &node.log();
    }
    let acknowledged: u64 = sent.iter().map(|sent| sent.acknowledged.load(SeqCst)).sum();
    assert!(acknowledged > kills as u64, "hardly anything was written: {acknowledged}");
    println!("{kills} kills, {acknowledged} acknowledged requests of {BATCH} samples, all of them there");
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    killed_while_writing(kills(), "sync: always", |_| 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_without_sync_either() {
    killed_while_writing(KILLS / 2, "sync: never", |_| 0).await;
}

/// Every start seals and merges the files of the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_it_seals_and_merges_and_its_clock_is_stepped_lose_nothing() {
    let kills = kills();
    let mut random = fastrand::Rng::with_seed(71);
    // Nothing is sealed for hours after a step back, so that those come last.
    let step = move |kill: usize| match random.u8(0..4) {
        0 => 0,
        1 => 16 * DAY,
        2 => 400 * DAY,
        _ if kill > kills * 3 / 4 => -16 * DAY,
        _ => DAY,
    };
    let log = killed_while_writing(kills, "sync: never, block: 2s, out_of_order: 1s", step).await;
    assert!(log.contains("the node was away for long"), "{log}");
    assert!(!log.contains("deleting blocks") && !log.contains("missing"), "{log}");
}

/// Files that hold samples.
fn files_of(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![folder.to_owned()];
    while let Some(folder) = queue.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                queue.push(path);
            } else if fs::metadata(&path).unwrap().len() > 0 && !path.ends_with("manifest.json") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_named_and_cost_what_they_held() {
    let data = tempfile::tempdir().unwrap();
    let start = now_ms() - 1_200_000;
    let sent = Arc::new(Sent::default());
    let mut node = NodeProcess::start(data.path(), "sync: never").await;
    let writing = tokio::spawn(write(node.address, 0, start, Arc::clone(&sent)));
    while sent.acknowledged.load(SeqCst) < 40 {
        tokio::task::yield_now().await;
    }
    node.kill();
    writing.await.unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let mut flipped = 0;
    for _ in 0..5 {
        let files = files_of(&data.path().join("node"));
        let path = &files[random.usize(..files.len())];
        let mut bytes = fs::read(path).unwrap();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
        fs::write(path, bytes).unwrap();
        flipped += 1;
        let mut node = NodeProcess::start(data.path(), "sync: never").await;
        let found = read(node.address).await;
        // A record a flip, of the forty and more; the remaining samples are those sent.
        for series in 0..BATCH {
            let samples = &found[&(0, series)];
            assert!(samples.len() as u64 + flipped >= 40, "{} of 40 after {flipped} flips", samples.len());
            assert!(
                samples.iter().all(|(time, value)| *time == start + *value as i64 * EVERY),
                "{samples:?}"
            );
        }
        let log = node.log();
        assert!(log.contains("are lost") || log.contains("torn") || samples_at_end(&found), "{log}");
        node.kill();
    }
}

/// Whether the flip only cost the end of the log, which looks like a write that was under way.
fn samples_at_end(found: &BTreeMap<(usize, usize), Vec<(i64, u64)>>) -> bool {
    found.values().all(|samples| samples.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1))
}
