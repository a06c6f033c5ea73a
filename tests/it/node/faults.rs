//! Faults of the disk, the clock and the operator, met by the binary: nothing acknowledged is lost, and each is seen.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use crate::{
    support::sockets::client,
    support::{process::NodeProcess, weir::now_ms},
};

const DAY: i64 = 86_400_000;
/// Upkeep runs every five seconds.
const SOON: Duration = Duration::from_secs(20);

async fn send(request: Request<Full<Bytes>>) -> (u16, String) {
    let response = client().request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    send(Request::get(format!("http://{address}{path}")).body(Full::default()).unwrap()).await
}

async fn import(address: SocketAddr, text: &str) -> (u16, String) {
    let request = Request::post(format!("http://{address}/api/v1/import/prometheus"));
    send(request.body(Full::from(text.to_owned())).unwrap()).await
}

/// Samples of a series within the last 400 days.
async fn count(address: SocketAddr, name: &str) -> u64 {
    // The node's own clock may be off.
    let time = now_ms() / 1_000;
    let query = format!("/api/v1/query?query=count_over_time({name}[400d])&time={time}");
    let (status, body) = get(address, &query).await;
    assert_eq!(status, 200, "{body}");
    let json: Value = serde_json::from_str(&body).unwrap();
    json["data"]["result"][0]["value"][1].as_str().map_or(0, |text| text.parse().unwrap())
}

/// The value of a metric of the node, by the beginning of its line.
async fn metric(address: SocketAddr, name: &str) -> f64 {
    let page = get(address, "/metrics").await.1;
    let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse().unwrap()
}

/// Asks until `/-/ready` has this status; returns the body.
async fn until_ready_is(address: SocketAddr, status: u16) -> String {
    let asking = async {
        loop {
            let (now, said) = get(address, "/-/ready").await;
            if now == status {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, asking).await.unwrap_or_else(|_| panic!("never {status}"))
}

fn lines(name: &str, from: i64, count: i64) -> String {
    let mut text = String::new();
    for i in 0..count {
        writeln!(text, "{name} {i} {}", from + i * 1_000).unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_deletes_nothing_and_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let storage = "sync: never, block: 30s, out_of_order: 10s";
    let start = now_ms() - 600_000;
    let mut node = NodeProcess::start(dir.path(), storage).await;
    assert_eq!(import(node.address, &lines("before", start, 300)).await.0, 204);
    node.kill();
    let mut node = NodeProcess::start(dir.path(), storage).await;
    NodeProcess::set_clock(dir.path(), 16 * DAY);
    // A sample of its own time, sixteen days ahead; as a Weir that stores its own metrics does.
    assert_eq!(import(node.address, "own 1\n").await.0, 204);
    let stepped_and_sealed = async {
        for name in ["weir_node_clock_steps_total", "weir_node_blocks"] {
            while metric(node.address, name).await == 0.0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    tokio::time::timeout(SOON, stepped_and_sealed).await.unwrap();
    for (name, off) in [("ahead", 16 * DAY), ("right", 0), ("behind", -16 * DAY)] {
        NodeProcess::set_clock(dir.path(), off);
        let text = lines(name, now_ms() - 60_000, 50);
        assert_eq!(import(node.address, &text).await, (204, String::new()), "{off}");
        assert_eq!(count(node.address, "before").await, 300, "{off}");
        if off == 0 {
            assert!(node.log().contains("the clock was stepped"), "{}", node.log());
            node.kill();
            node = NodeProcess::start(dir.path(), storage).await;
        }
    }
    NodeProcess::set_clock(dir.path(), 0);
    for name in ["ahead", "right", "behind"] {
        assert_eq!(count(node.address, name).await, 50);
    }
    assert!(!node.log().contains("deleting blocks"), "{}", node.log());
}

/// Mounts a small file system in memory; `None` where this is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(test: &str, size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: {test} mounts a file system, which is not allowed here");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.path()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A process that still uses it ends with the test.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_seen_and_costs_nothing() {
    let Some(disk) = SmallDisk::new("a_full_disk_is_seen_and_costs_nothing", "6m") else { return };
    let mut node = NodeProcess::start(disk.path(), "").await;
    until_ready_is(node.address, 200).await;
    fs::write(disk.path().join("stone"), vec![1; 5 << 20]).unwrap();
    let (start, mut written) = (now_ms() - 1_000_000, 0);
    let refused = loop {
        let text = lines(&format!("m{{x=\"{}\"}}", "y".repeat(1_000 + written as usize)), start, 100);
        match import(node.address, &text).await {
            (204, _) => written += 100,
            refused => break refused,
        }
    };
    assert!(refused.0 == 503 && refused.1.contains("the disk is full: writes are refused"), "{refused:?}");
    let said = until_ready_is(node.address, 503).await;
    assert_eq!(said, "The node is not ready: the disk is full: writes are refused, reads go on.\n");
    assert!(metric(node.address, "weir_node_writes_failed_total{reason=\"disk_full\"}").await >= 1.0);
    let (free, size) = ("weir_node_disk_free_bytes", "weir_node_disk_size_bytes");
    assert!(metric(node.address, free).await < metric(node.address, size).await);
    assert_eq!(get(node.address, "/-/healthy").await.0, 200);

    fs::remove_file(disk.path().join("stone")).unwrap();
    until_ready_is(node.address, 200).await;
    assert_eq!(import(node.address, &lines("later", start, 10)).await.0, 204);
    assert!(metric(node.address, "weir_node_upkeep_last_success_timestamp_seconds").await > 1.7e9);
    node.kill();
    let node = NodeProcess::start(disk.path(), "").await;
    let (_, body) = get(node.address, "/api/v1/query?query=sum(count_over_time(m[1h]))").await;
    assert!(body.contains(&format!("\"{written}\"")), "{written}: {body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_disk_ends_the_start_in_words() {
    let Some(disk) = SmallDisk::new("a_read_only_disk_ends_the_start_in_words", "6m") else { return };
    let mut node = NodeProcess::start(disk.path(), "").await;
    node.kill();
    disk.remount("ro");
    let child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["node", "--data"])
        .arg(disk.path())
        .args(["--config"])
        .arg(disk.path().join("node.yaml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    let folder = disk.path().join("node");
    assert!(said.contains(folder.to_str().unwrap()) && said.contains("Read-only file system"), "{said}");
    assert!(!child.status.success());
}

/// A file system in a file, which its kernel can be made to take for broken.
struct LoopDisk {
    image: tempfile::NamedTempFile,
    dir: tempfile::TempDir,
}

impl LoopDisk {
    fn new(test: &str) -> Option<Self> {
        let (image, dir) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
        image.as_file().set_len(16 << 20).unwrap();
        let made =
            Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image.path()).stderr(Stdio::null()).status();
        let disk = Self { image, dir };
        if made.is_ok_and(|status| status.success()) && disk.mount() {
            return Some(disk);
        }
        println!("skipped: {test} mounts a file system of a file, which is not possible here");
        None
    }

    fn mount(&self) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(self.image.path()).arg(self.dir.path());
        mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Makes the file system read-only, open files too, as the kernel does after an error of the disk.
    fn abort(&self) {
        let status = Command::new("mount").args(["-o", "remount,abort"]).arg(self.dir.path()).status();
        assert!(status.unwrap().success());
    }

    fn unmount(&self) {
        let _ = Command::new("umount").arg(self.dir.path()).stderr(Stdio::null()).status();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_turns_read_only_is_seen_and_loses_nothing() {
    let Some(disk) = LoopDisk::new("a_disk_that_turns_read_only_is_seen_and_loses_nothing") else { return };
    let mut node = NodeProcess::start(disk.dir.path(), "").await;
    let start = now_ms() - 100_000;
    assert_eq!(import(node.address, &lines("a", start, 10)).await.0, 204);
    disk.abort();
    let refused = import(node.address, &lines("b", start, 10)).await;
    assert!(
        refused.0 == 503 && refused.1.contains("the disk is read-only: writes are refused"),
        "{refused:?}"
    );
    let said = until_ready_is(node.address, 503).await;
    assert_eq!(said, "The node is not ready: the disk is read-only: writes are refused, reads go on.\n");
    assert!(metric(node.address, "weir_node_writes_failed_total{reason=\"read_only\"}").await >= 1.0);
    assert_eq!((count(node.address, "a").await, count(node.address, "b").await), (10, 0));
    assert_eq!(get(node.address, "/-/healthy").await.0, 200);
    let failed = async {
        while metric(node.address, "weir_node_upkeep_failures_total").await == 0.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, failed).await.unwrap();
    node.kill();
    disk.unmount();
    assert!(disk.mount());
    let mut node = NodeProcess::start(disk.dir.path(), "").await;
    assert_eq!(count(node.address, "a").await, 10);
    node.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_into_a_deleted_folder_are_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), "").await;
    let start = now_ms() - 100_000;
    assert_eq!(import(node.address, &lines("a", start, 10)).await.0, 204);
    fs::remove_dir_all(dir.path().join("node")).unwrap();
    let refused = import(node.address, &lines("b", start, 10)).await;
    assert!(refused.0 == 503 && refused.1.contains("was deleted, moved or replaced"), "{refused:?}");
    let said = until_ready_is(node.address, 503).await;
    assert!(said.contains("put the data folder back and start the node again"), "{said}");
    assert_eq!(metric(node.address, "weir_node_writes_failed_total{reason=\"deleted\"}").await, 1.0);
    assert_eq!((count(node.address, "a").await, count(node.address, "b").await), (10, 0));
    let failed = async {
        while metric(node.address, "weir_node_upkeep_failures_total").await == 0.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, failed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_went_missing_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::start(dir.path(), "").await;
    assert_eq!(import(node.address, &lines("a", now_ms() - 100_000, 10)).await.0, 204);
    node.kill();
    fs::write(dir.path().join("node/wal/0000000001.wal"), "").unwrap();
    let mut node = NodeProcess::start(dir.path(), "").await;
    let log = node.log();
    assert!(
        log.contains("files are missing") && log.contains("0000000001.wal of the log has 0 bytes"),
        "{log}"
    );
    assert_eq!(metric(node.address, "weir_node_files_missing").await, 1.0);
    node.kill();
    fs::remove_file(dir.path().join("node/manifest.json")).unwrap();
    let node = NodeProcess::start(dir.path(), "").await;
    assert!(node.log().contains("there is no manifest.json"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_has_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let _node = NodeProcess::start(dir.path(), "").await;
    let refused = NodeProcess::try_start(dir.path(), "").await.err().unwrap();
    assert!(refused.contains("is in use by another Weir: give each its own with `--data`"), "{refused}");

    let config = dir.path().join("weir.yaml");
    fs::write(
        &config,
        "server: {listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0}\nbackends: [{name: a, urls: [\"http://127.0.0.1:1\"]}]\n",
    )
    .unwrap();
    let proxy = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["proxy", "--config"]).arg(&config).arg("--data").arg(dir.path());
        command.env("WEIR_LOG", "info").stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut first = proxy();
    let mut said = std::io::BufReader::new(first.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0);
    }
    let second = proxy().wait_with_output().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    let refused = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && refused.contains("is in use by another Weir"), "{refused}");
}
