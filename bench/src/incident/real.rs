//! Databases that are built from their sources and given with `--binary`: M3, Thanos and Cortex. Each begins empty, and
//! its data is written before every run.

use super::target::Target;
use crate::client::{Client, Request};
use crate::data::{Data, Series, generated, times};
use crate::process::{Scratch, Service, free_ports};
use crate::{Options, Result, remote, targets};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A database, and where it is asked.
#[derive(Debug)]
pub(super) struct Database {
    /// The process whose memory is watched, and which is killed at the limit.
    pub(super) main: Service,
    /// Path before `/api/v1`.
    pub(super) prefix: &'static str,
    /// Port of `/metrics`.
    pub(super) metrics: u16,
    /// Processes that `main` asks; they end after it.
    _beside: Vec<Service>,
}

impl Database {
    /// A database of one process, which answers at the root.
    pub(super) fn alone(main: Service) -> Self {
        Self { prefix: "", metrics: main.port, main, _beside: Vec::new() }
    }
}

/// Metrics of the data that M3 gets: 4,000 series, among them those that the light queries read.
const M3_METRICS: [&str; 8] = [
    "c00_total",
    "c01_total",
    "c02_total",
    "c03_total",
    "g01_level",
    "g02_level",
    "http_requests_total",
    "mem_usage",
];
/// Samples of a series in one request.
const LOADED: usize = 240;
/// A database that takes no data for this time is given up.
const READY_WITHIN: Duration = Duration::from_secs(90);

pub(super) fn start(target: Target, scratch: &Scratch, options: &Options, data: &Data) -> Result<Database> {
    let binary = options.binary.as_deref().ok_or("this target wants --binary PATH")?;
    match target {
        Target::M3 => m3(binary, scratch, options, data.end),
        Target::Thanos => thanos_over_sidecar(binary, scratch, options, data),
        Target::ThanosStore => thanos_over_store(binary, scratch, options, data),
        Target::Cortex => cortex(binary, scratch, options, data.end),
        Target::Prometheus | Target::VictoriaMetrics | Target::Node(_) => {
            Err("this target needs no --binary".into())
        }
    }
}

/// Writes the series to a database that begins empty, in time order.
fn load(port: u16, path: &str, series: &[Series], end: u64) -> Result<()> {
    let all: Vec<u64> = times(end).collect();
    for start in (0..all.len()).step_by(LOADED) {
        let range = start..(start + LOADED).min(all.len());
        remote::send(port, &remote::requests(path, series, range, &all)?)
            .map_err(|e| format!("{path}: {e}"))?;
    }
    Ok(())
}

fn with_go_limit(mut start: Command, options: &Options) -> Command {
    if let Some(bytes) = options.go_limit() {
        start.env("GOMEMLIMIT", bytes.to_string());
    }
    start
}

/// One m3dbnode with its coordinator and etcd inside.
fn m3(binary: &Path, scratch: &Scratch, options: &Options, end: u64) -> Result<Database> {
    let base = free_ports(9)?;
    let config = scratch.write("m3.yaml", &m3_config(base, scratch.dir()))?;
    let mut start = Command::new(binary);
    start.arg("-f").arg(config);
    let start = with_go_limit(start, options);
    let up = Request::get("/api/v1/services/m3db/namespace", &[], "bench");
    let main = Service::start("m3", base, scratch.dir(), start, &up)?;
    let mut client = Client::new(base, Duration::from_secs(30));
    let node = base + 3;
    let placement = format!(
        r#"{{"num_shards":4,"replication_factor":1,"instances":[{{"id":"m3db_local","isolation_group":"local","zone":"embedded",
"weight":100,"endpoint":"127.0.0.1:{node}","hostname":"127.0.0.1","port":{node}}}]}}"#
    );
    for (path, body) in [
        ("/api/v1/services/m3db/placement/init", placement.as_str()),
        ("/api/v1/services/m3db/namespace", M3_NAMESPACE),
    ] {
        let (answer, text) =
            client.page(&Request::post(path, body)).map_err(|e| format!("m3: {path}: {e}"))?;
        if answer.status != 200 {
            return Err(format!("m3: {path}: {}", String::from_utf8_lossy(&text)).into());
        }
    }
    let ready = Request::post("/api/v1/services/m3db/namespace/ready", r#"{"name":"default"}"#);
    wait(|| Ok(String::from_utf8_lossy(&client.page(&ready)?.1).contains(r#""ready":true"#)))?;
    wait(|| {
        Ok(client.get(&Request::get("/api/v1/query", &[("query", "vector(1)")], "bench"))?.status == 200)
    })?;
    let series: Vec<Series> =
        generated()?.into_iter().filter(|one| M3_METRICS.contains(&one.name.as_str())).collect();
    load(base, "/api/v1/prom/remote/write", &series, end)?;
    Ok(Database { prefix: "", metrics: base + 2, main, _beside: Vec::new() })
}

/// Asks twice a second until it says yes.
fn wait(mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    while Instant::now() < deadline {
        if ask().unwrap_or(false) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Err("the database takes no data".into())
}

/// Short retention and few shards: each block of each shard holds files open.
const M3_NAMESPACE: &str = r#"{"name":"default","options":{"bootstrapEnabled":true,"flushEnabled":true,
"writesToCommitLog":true,"cleanupEnabled":true,"snapshotEnabled":true,"repairEnabled":false,"coldWritesEnabled":true,
"retentionOptions":{"retentionPeriodDuration":"48h","blockSizeDuration":"2h","bufferFutureDuration":"10m",
"bufferPastDuration":"10m","blockDataExpiry":true,"blockDataExpiryAfterNotAccessPeriodDuration":"5m"},
"indexOptions":{"enabled":true,"blockSizeDuration":"2h"},"aggregationOptions":{"aggregations":[{"aggregated":false}]}}}"#;

fn m3_config(base: u16, dir: &Path) -> String {
    let port = |n: u16| format!("127.0.0.1:{}", base + n);
    let (client, peer, dir) = (port(7), port(8), dir.display());
    format!(
        "coordinator:
  listenAddress: {}
  logging: {{level: warn}}
  metrics:
    scope: {{prefix: coordinator}}
    prometheus: {{handlerPath: /metrics, listenAddress: \"{}\"}}
    sanitization: prometheus
    samplingRate: 1.0
  tagOptions: {{idScheme: quoted}}
db:
  logging: {{level: warn}}
  metrics:
    prometheus: {{handlerPath: /metrics}}
    sanitization: prometheus
    samplingRate: 1.0
    extended: detailed
  listenAddress: {}
  clusterListenAddress: {}
  httpNodeListenAddress: {}
  httpClusterListenAddress: {}
  debugListenAddress: {}
  hostID: {{resolver: config, value: m3db_local}}
  filesystem: {{filePathPrefix: \"{dir}/m3db\"}}
  discovery:
    config:
      services: [{{service: {{env: default_env, zone: embedded, service: m3db, cacheDir: \"{dir}/m3kv\",
        etcdClusters: [{{zone: embedded, endpoints: [\"{client}\"]}}]}}}}]
      seedNodes:
        rootDir: {dir}/etcd
        listenPeerUrls: [\"http://{peer}\"]
        listenClientUrls: [\"http://{client}\"]
        initialAdvertisePeerUrls: [\"http://{peer}\"]
        advertiseClientUrls: [\"http://{client}\"]
        initialCluster: [{{hostID: m3db_local, endpoint: \"http://{peer}\"}}]
",
        port(0),
        port(1),
        port(3),
        port(4),
        port(5),
        port(6),
        port(2),
    )
}

/// A querier over one Prometheus with its sidecar.
fn thanos_over_sidecar(binary: &Path, scratch: &Scratch, options: &Options, data: &Data) -> Result<Database> {
    let prometheus = targets::prometheus_of_a_cluster(scratch, data)?;
    let base = free_ports(2)?;
    let mut start = Command::new(binary);
    start.arg("sidecar").arg("--log.level=warn");
    start.arg(format!("--tsdb.path={}", scratch.dir().join("prometheus").display()));
    start.arg(format!("--prometheus.url=http://127.0.0.1:{}", prometheus.port));
    start
        .args([format!("--http-address=127.0.0.1:{base}"), format!("--grpc-address=127.0.0.1:{}", base + 1)]);
    let ready = Request::get("/-/ready", &[], "bench");
    let sidecar = Service::start("sidecar", base, scratch.dir(), start, &ready)?;
    querier(binary, scratch, options, vec![sidecar, prometheus])
}

/// A querier over a store gateway, over a bucket with the same blocks.
fn thanos_over_store(binary: &Path, scratch: &Scratch, options: &Options, data: &Data) -> Result<Database> {
    let (blocks, bucket) = (scratch.dir().join("blocks"), scratch.dir().join("bucket"));
    data.copy(&blocks)?;
    let text = format!("type: FILESYSTEM\nconfig: {{directory: \"{}\"}}\n", bucket.display());
    let config = scratch.write("bucket.yaml", &text)?;
    let mut upload = Command::new(binary);
    upload.args(["tools", "bucket", "upload-blocks", "--label=cluster=\"a\""]);
    upload.arg(format!("--path={}", blocks.display()));
    upload.arg(format!("--objstore.config-file={}", config.display()));
    let output = upload.output()?;
    if !output.status.success() {
        return Err(format!("thanos: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let base = free_ports(2)?;
    let mut start = Command::new(binary);
    start.args(["store", "--log.level=warn", "--sync-block-duration=15s"]);
    start.arg(format!("--data-dir={}", scratch.dir().join("store").display()));
    start.arg(format!("--objstore.config-file={}", config.display()));
    start
        .args([format!("--http-address=127.0.0.1:{base}"), format!("--grpc-address=127.0.0.1:{}", base + 1)]);
    let ready = Request::get("/-/ready", &[], "bench");
    let store = Service::start("store", base, scratch.dir(), start, &ready)?;
    querier(binary, scratch, options, vec![store])
}

/// The first of `beside` is the store that it asks; its gRPC port follows its HTTP port.
fn querier(binary: &Path, scratch: &Scratch, options: &Options, beside: Vec<Service>) -> Result<Database> {
    let store = beside.first().map_or(0, |service| service.port + 1);
    let base = free_ports(2)?;
    let mut start = Command::new(binary);
    start.args(["query", "--log.level=warn", "--query.replica-label=replica"]);
    start.arg(format!("--endpoint=127.0.0.1:{store}"));
    start
        .args([format!("--http-address=127.0.0.1:{base}"), format!("--grpc-address=127.0.0.1:{}", base + 1)]);
    let start = with_go_limit(start, options);
    let ready = Request::get("/-/ready", &[], "bench");
    let main = Service::start("thanos", base, scratch.dir(), start, &ready)?;
    let mut client = Client::new(base, Duration::from_secs(30));
    // It knows its store some seconds after it is ready.
    let labels = Request::get("/api/v1/labels", &[], "bench");
    wait(|| Ok(String::from_utf8_lossy(&client.page(&labels)?.1).contains("__name__")))?;
    Ok(Database { prefix: "", metrics: base, main, _beside: beside })
}

/// One process with all of its targets.
fn cortex(binary: &Path, scratch: &Scratch, options: &Options, end: u64) -> Result<Database> {
    let base = free_ports(2)?;
    for dir in ["rules", "bucket", "alerts"] {
        std::fs::create_dir_all(scratch.dir().join(dir))?;
    }
    let config = scratch.write("cortex.yaml", &cortex_config(base, scratch.dir()))?;
    let mut start = Command::new(binary);
    start.arg(format!("-config.file={}", config.display())).current_dir(scratch.dir());
    let start = with_go_limit(start, options);
    let main = Service::start("cortex", base, scratch.dir(), start, &Request::get("/ready", &[], "bench"))?;
    load(base, "/api/v1/push", &generated()?, end)?;
    Ok(Database { prefix: "/prometheus", metrics: base, main, _beside: Vec::new() })
}

fn cortex_config(base: u16, dir: &Path) -> String {
    let (grpc, dir) = (base + 1, dir.display());
    format!(
        "target: all
auth_enabled: false
server: {{http_listen_address: 127.0.0.1, http_listen_port: {base}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc},
  log_level: warn, grpc_server_max_recv_msg_size: 104857600, grpc_server_max_send_msg_size: 104857600}}
distributor: {{shard_by_all_labels: true, ring: {{instance_addr: 127.0.0.1, kvstore: {{store: inmemory}}}}}}
ingester_client: {{grpc_client_config: {{max_recv_msg_size: 104857600, max_send_msg_size: 104857600}}}}
ingester: {{lifecycler: {{address: 127.0.0.1, min_ready_duration: 0s, final_sleep: 0s, num_tokens: 512,
  ring: {{kvstore: {{store: inmemory}}, replication_factor: 1}}}}}}
blocks_storage:
  backend: filesystem
  filesystem: {{dir: {dir}/bucket}}
  tsdb: {{dir: {dir}/tsdb}}
  bucket_store: {{sync_dir: {dir}/tsdb-sync, sync_interval: 30s}}
compactor: {{data_dir: {dir}/compactor, sharding_ring: {{instance_addr: 127.0.0.1, kvstore: {{store: inmemory}}}}}}
store_gateway: {{sharding_ring: {{instance_addr: 127.0.0.1, kvstore: {{store: inmemory}}}}}}
frontend_worker: {{match_max_concurrent: true, frontend_address: \"127.0.0.1:{grpc}\"}}
ruler: {{enable_api: true, rule_path: {dir}/rules-tmp, ring: {{instance_addr: 127.0.0.1, kvstore: {{store: inmemory}}}}}}
ruler_storage: {{backend: local, local: {{directory: {dir}/rules}}}}
alertmanager: {{external_url: \"http://127.0.0.1:{base}/alertmanager\", data_dir: {dir}/alerts-data,
  cluster: {{listen_address: \"\"}}}}
alertmanager_storage: {{backend: local, local: {{path: {dir}/alerts}}}}
limits: {{ingestion_rate: 10000000, ingestion_burst_size: 20000000, max_series_per_metric: 0, max_series_per_user: 0}}
"
    )
}
