//! The node in a control group that allows little more than its pool: it refuses reads that do not fit, and lives.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};

use crate::support::{process::NodeProcess, sockets::client, weir::now_ms};

const MIB: u64 = 1 << 20;
const POOL: u64 = 12 * MIB;
const SERIES: usize = 1_500;
const SAMPLES: i64 = 40;
const STEP_MS: i64 = 15_000;
const CLIENTS: usize = 20;

/// A group that is removed with this value.
struct Group(PathBuf);

impl Group {
    /// `None` where this process may not make one.
    fn new(test: &str, bytes: u64) -> Option<Self> {
        let versions = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/unified", "memory.max"),
        ];
        for (root, limit) in versions {
            let group = Self(Path::new(root).join(format!("weir-test-{}", std::process::id())));
            if fs::create_dir(&group.0).is_ok() && fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                // Swap would hide that the limit is passed.
                let _ = fs::write(group.0.join("memory.swappiness"), "0");
                let _ = fs::write(group.0.join("memory.swap.max"), "0");
                return Some(group);
            }
        }
        println!("skipped: {test} makes a control group, which is not allowed here");
        None
    }

    fn enter(&self, process: u32) {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Where it is not empty yet it stays, as an empty folder.
        let _ = fs::remove_dir(&self.0);
    }
}

async fn send(request: Request<Full<Bytes>>) -> (u16, Bytes) {
    let response = client().request(request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

async fn fill(address: SocketAddr, start: i64) {
    for samples in (0..SAMPLES).collect::<Vec<_>>().chunks(10) {
        let mut text = String::new();
        for number in 0..SERIES {
            for sample in samples {
                let (value, time) = (sample * (number as i64 % 7), start + sample * STEP_MS);
                writeln!(text, "m{{path=\"/p{number}\"}} {value} {time}").unwrap();
            }
        }
        let request = Request::post(format!("http://{address}/api/v1/import/prometheus"));
        assert_eq!(send(request.body(Full::from(text)).unwrap()).await.0, 204);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_heavy_queries_does_not_get_the_node_killed() {
    // Its idle memory is charged before it enters the group.
    let limit = POOL / 4 * 5 + 32 * MIB;
    let test = "a_crowd_of_heavy_queries_does_not_get_the_node_killed";
    let Some(group) = Group::new(test, limit) else { return };
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("storage: {{sync: never}}\npool: {{memory: {POOL}, wait: 250ms}}\n");
    let mut node = NodeProcess::try_configured(dir.path(), &yaml).await.unwrap();
    let start = now_ms() - SAMPLES * STEP_MS;
    fill(node.address, start).await;
    group.enter(node.id());
    let (from, to) = (start / 1_000, (start + SAMPLES * STEP_MS) / 1_000);
    let target = format!(
        "http://{}/api/v1/query_range?query=topk({SERIES},m)&start={from}&end={to}&step=15",
        node.address
    );
    let asked = (0..CLIENTS).map(|_| send(Request::get(&*target).body(Full::default()).unwrap()));
    let answers = tokio::time::timeout(Duration::from_secs(60), futures_util::future::join_all(asked));
    let answers = answers.await.expect("all of them are answered in time");
    let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    let health = Request::get(format!("http://{}/-/healthy", node.address)).body(Full::default()).unwrap();
    assert_eq!(send(health).await.0, 200);
    node.kill();
}
