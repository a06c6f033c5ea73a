//! Every kind of database that Weir knows, for real: how each is started, filled and asked.
//!
//! Debian's packages are found in the path; the others by variables that name their binaries.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bytes::Bytes;
use http::{Request, header::HeaderValue};
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Duration, Instant, sleep};

use super::{Data, Database, UP, free_address, installed};
use crate::support::sockets::client;

/// A database as somebody may run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    Prometheus,
    Prometheus3,
    VictoriaMetrics,
    VictoriaMetricsHead,
    ThanosSidecar,
    ThanosStore,
    Cortex,
    M3,
    Node,
}

/// A running one, with its helpers.
pub(crate) struct Running {
    pub(crate) setup: Setup,
    pub(crate) main: Database,
    /// The prefix that Weir and others put before `/api/v1/`.
    pub(crate) url: String,
    /// The last moment of the samples, seconds since the epoch.
    pub(crate) end: i64,
    /// Databases that it reads from, ended with it.
    _beside: Vec<Database>,
    /// The addresses from which a querier reads.
    endpoints: Vec<String>,
}

/// Most series of one query by the database's own limit, where it has such: `{job=~".+"}` has more, all others fewer.
const OWN_LIMIT: u64 = 1_630;

impl Setup {
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Prometheus | Self::Prometheus3 => "prometheus",
            Self::VictoriaMetrics | Self::VictoriaMetricsHead => "victoriametrics",
            Self::ThanosSidecar | Self::ThanosStore => "thanos",
            Self::Cortex => "cortex",
            Self::M3 => "m3",
            Self::Node => "weir",
        }
    }

    /// The binary, and whether it has to be there where real databases are required.
    #[allow(clippy::disallowed_methods, reason = "a test has no configuration")]
    fn program(self) -> (Result<String, &'static str>, bool) {
        let by = |name: &'static str| (env::var(name).map_err(|_| name), false);
        match self {
            Self::Prometheus => (Ok("prometheus".to_owned()), true),
            Self::VictoriaMetrics => (Ok("victoria-metrics".to_owned()), true),
            Self::Node => (Ok(env!("CARGO_BIN_EXE_weir").to_owned()), true),
            Self::Prometheus3 => by("WEIR_TEST_PROMETHEUS"),
            Self::VictoriaMetricsHead => by("WEIR_TEST_VICTORIAMETRICS"),
            Self::ThanosSidecar | Self::ThanosStore => by("WEIR_TEST_THANOS"),
            Self::Cortex => by("WEIR_TEST_CORTEX"),
            Self::M3 => by("WEIR_TEST_M3DBNODE"),
        }
    }

    /// Starts it with the newest samples of the seeded data; `None`, and says so, where its binary is not there.
    pub(crate) async fn start(self, test: &str) -> Option<Running> {
        let program = match self.program() {
            (Ok(program), true) if !installed(test, &[&program]) => return None,
            (Ok(program), _) => program,
            (Err(variable), _) => {
                println!("skipped: {test}: {variable} names no binary");
                return None;
            }
        };
        let needs: &[&str] = match self {
            Self::ThanosSidecar => &["prometheus"],
            Self::ThanosStore => &["promtool"],
            _ => &[],
        };
        if !installed(test, needs) {
            return None;
        }
        let running = match self {
            Self::Prometheus | Self::Prometheus3 => prometheus(self, &program).await,
            Self::VictoriaMetrics | Self::VictoriaMetricsHead => victoria_metrics(self, &program).await,
            Self::ThanosSidecar => thanos_sidecar(&program).await,
            Self::ThanosStore => thanos_store(&program).await,
            Self::Cortex => cortex(&program).await,
            Self::M3 => m3(&program).await,
            Self::Node => node(&program).await,
        };
        Some(running)
    }
}

fn folder() -> PathBuf {
    tempfile::tempdir().unwrap().keep()
}

impl Running {
    fn of(setup: Setup, main: Database, prefix: &str, beside: Vec<Database>) -> Self {
        let url = format!("{}{prefix}", main.url);
        let end = main.data.end - 60;
        Self { setup, main, url, end, _beside: beside, endpoints: Vec::new() }
    }

    /// A second querier over the databases of this one, which end with this one.
    pub(crate) async fn another_querier(&self) -> Self {
        let (Ok(program), _) = self.setup.program() else { panic!("{:?} runs", self.setup) };
        querier(self.setup, &program, &self.endpoints, self.end).await
    }

    /// Sends the newest samples to the place where it takes remote writes, as a tenant where it has such.
    async fn filled(self, write: &str, tenants: &[&str]) -> Self {
        for body in self.main.data.remote_writes() {
            for tenant in tenants {
                let request = Request::post(write)
                    .header("content-encoding", "snappy")
                    .header("content-type", "application/x-protobuf")
                    .header("x-prometheus-remote-write-version", "0.1.0")
                    .header("x-scope-orgid", HeaderValue::from_str(tenant).unwrap())
                    .body(Full::from(body.clone()));
                super::load(write, request.unwrap()).await;
            }
        }
        self.until_answered().await;
        self
    }

    /// Waits until a query finds samples.
    pub(crate) async fn until_answered(&self) {
        let end = Instant::now() + UP;
        loop {
            let (status, body) =
                self.ask(&format!("/api/v1/query?query=count(level_0)&time={}", self.end)).await;
            if status == 200 && String::from_utf8_lossy(&body).contains("\"200\"") {
                return;
            }
            assert!(Instant::now() < end, "{:?} does not answer: {status} {body:?}", self.setup);
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A GET past Weir, as the tenant of those who name none; status 0 where nobody answers.
    pub(crate) async fn ask(&self, target: &str) -> (u16, Bytes) {
        let request = Request::get(format!("{}{target}", self.url)).header("x-scope-orgid", "anonymous");
        let Ok(response) = client().request(request.body(Full::<Bytes>::default()).unwrap()).await else {
            return (0, Bytes::new());
        };
        let status = response.status().as_u16();
        (
            status,
            response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
        )
    }
}

async fn prometheus(setup: Setup, program: &str) -> Running {
    let (database, write) = bare_prometheus(program, "", &["--query.max-samples=500000"]).await;
    Running::of(setup, database, "", Vec::new()).filled(&write, &[""]).await
}

/// A Prometheus, and where it takes remote writes.
async fn bare_prometheus(program: &str, external: &str, flags: &[&str]) -> (Database, String) {
    let (dir, address) = (folder(), free_address());
    let config = dir.join("prometheus.yml");
    fs::write(&config, format!("global: {{scrape_interval: 1h{external}}}\n")).unwrap();
    let own = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", dir.join("data").display()),
        format!("--web.listen-address={address}"),
        "--web.enable-remote-write-receiver".to_owned(),
        "--storage.tsdb.min-block-duration=2h".to_owned(),
        "--storage.tsdb.max-block-duration=2h".to_owned(),
    ];
    let command: Vec<&str> =
        [program].into_iter().chain(own.iter().map(String::as_str)).chain(flags.iter().copied()).collect();
    let database = Database::start(&dir, &address, Data::new(), &command);
    database.until_up("/-/ready").await;
    let write = format!("{}/api/v1/write", database.url);
    (database, write)
}

async fn victoria_metrics(setup: Setup, program: &str) -> Running {
    let (dir, address) = (folder(), free_address());
    let own =
        [format!("-storageDataPath={}", dir.join("data").display()), format!("-httpListenAddr={address}")];
    let more = [
        "-search.maxSamplesPerQuery=65000",
        "-retentionPeriod=12",
        "-search.disableCache",
        "-search.latencyOffset=0s",
    ];
    let command: Vec<&str> =
        [program].into_iter().chain(own.iter().map(String::as_str)).chain(more).collect();
    let database = Database::start(&dir, &address, Data::new(), &command);
    database.until_up("/health").await;
    let write = format!("{}/api/v1/write", database.url);
    Running::of(setup, database, "", Vec::new()).filled(&write, &[""]).await
}

async fn node(program: &str) -> Running {
    let (dir, address) = (folder(), free_address());
    let config = dir.join("node.yaml");
    fs::write(&config, format!("listen: {address}\nreads: {{series: {OWN_LIMIT}}}\n")).unwrap();
    let (config, data) = (config.display().to_string(), dir.join("data").display().to_string());
    let command = [program, "node", "--config", &config, "--data", &data];
    let database = Database::start(&dir, &address, Data::new(), &command);
    database.until_up("/-/ready").await;
    let write = format!("{}/api/v1/write", database.url);
    Running::of(Setup::Node, database, "", Vec::new()).filled(&write, &[""]).await
}

/// A querier over two replicas with sidecars.
async fn thanos_sidecar(program: &str) -> Running {
    let (mut beside, mut writes, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
    for replica in ["a", "b"] {
        let labels = format!(", external_labels: {{cluster: c1, replica: {replica}}}");
        let (database, write) = bare_prometheus("prometheus", &labels, &[]).await;
        let (dir, grpc, http) = (folder(), free_address(), free_address());
        let own = [
            format!("--prometheus.url={}", database.url),
            format!("--grpc-address={grpc}"),
            format!("--http-address={http}"),
            format!("--store.limits.request-series={OWN_LIMIT}"),
            format!("--tsdb.path={}", dir.display()),
        ];
        let command: Vec<&str> =
            [program, "sidecar"].into_iter().chain(own.iter().map(String::as_str)).collect();
        let sidecar = Database::start(&dir, &http, Data::none(), &command);
        beside.extend([database, sidecar]);
        writes.push(write);
        endpoints.push(format!("--endpoint={grpc}"));
    }
    for write in &writes {
        let data = &beside[0].data;
        for body in data.remote_writes() {
            super::write(write.trim_end_matches("/api/v1/write"), body).await;
        }
    }
    let end = beside[0].data.end - 60;
    Running { _beside: beside, ..querier(Setup::ThanosSidecar, program, &endpoints, end).await }
}

/// A querier over a store gateway that has the older samples.
async fn thanos_store(program: &str) -> Running {
    let (dir, grpc, http) = (folder(), free_address(), free_address());
    let (text, blocks, bucket) = (dir.join("text"), dir.join("blocks"), dir.join("bucket.yml"));
    let data = Data::new();
    let mut file = std::io::BufWriter::new(fs::File::create(&text).unwrap());
    data.open_metrics(&mut file).unwrap();
    drop(file);
    let made = ["tsdb", "create-blocks-from", "openmetrics", "--quiet"];
    run(Command::new("promtool").args(made).args([&text, &blocks]));
    fs::write(
        &bucket,
        format!("type: FILESYSTEM\nconfig: {{directory: '{}'}}\n", dir.join("bucket").display()),
    )
    .unwrap();
    let upload = format!("--objstore.config-file={}", bucket.display());
    for replica in ["a", "b"] {
        let label = format!("--label=replica=\"{replica}\"");
        let path = format!("--path={}", blocks.display());
        let marked = blocks.join("thanos.shipper.json");
        // Else the second upload finds all of it done.
        let _ = fs::remove_file(marked);
        run(Command::new(program).args([
            "tools",
            "bucket",
            "upload-blocks",
            &path,
            &upload,
            "--label=cluster=\"c1\"",
            &label,
        ]));
        fresh_ids(&blocks);
    }
    let own = [
        format!("--data-dir={}", dir.join("store").display()),
        upload.clone(),
        format!("--grpc-address={grpc}"),
        format!("--http-address={http}"),
        format!("--store.limits.request-series={OWN_LIMIT}"),
        "--sync-block-duration=1s".to_owned(),
        "--ignore-deletion-marks-delay=0s".to_owned(),
    ];
    let command: Vec<&str> = [program, "store"].into_iter().chain(own.iter().map(String::as_str)).collect();
    let store = Database::start(&dir, &http, data, &command);
    let end = store.data.head_start() - 60;
    let querier = querier(Setup::ThanosStore, program, &[format!("--endpoint={grpc}")], end).await;
    Running { _beside: vec![store], ..querier }
}

/// Makes the blocks of a folder anew under other names: a bucket holds each name once.
fn fresh_ids(blocks: &Path) {
    for block in fs::read_dir(blocks).unwrap().map(|entry| entry.unwrap().path()) {
        let Some(id) = block.file_name().and_then(|name| name.to_str()).filter(|name| name.len() == 26)
        else {
            continue;
        };
        // The time in front stays; the last character is another.
        let other = format!("{}{}", &id[..25], if id.ends_with('Z') { 'Y' } else { 'Z' });
        let meta = block.join("meta.json");
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&meta).unwrap()).unwrap();
        json["ulid"] = other.clone().into();
        json["compaction"]["sources"] = serde_json::json!([other]);
        if let Some(fields) = json.as_object_mut() {
            fields.remove("thanos");
        }
        fs::write(&meta, json.to_string()).unwrap();
        fs::rename(&block, blocks.join(other)).unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn querier(setup: Setup, program: &str, endpoints: &[String], end: i64) -> Running {
    let (dir, address, grpc) = (folder(), free_address(), free_address());
    let own = [
        format!("--http-address={address}"),
        format!("--grpc-address={grpc}"),
        "--query.replica-label=replica".to_owned(),
    ];
    let command: Vec<&str> =
        [program, "query"].into_iter().chain(own.iter().chain(endpoints).map(String::as_str)).collect();
    let main = Database::start(&dir, &address, Data::new(), &command);
    main.until_up("/-/ready").await;
    let running = Running { end, endpoints: endpoints.to_vec(), ..Running::of(setup, main, "", Vec::new()) };
    running.until_answered().await;
    running
}

async fn cortex(program: &str) -> Running {
    let (dir, address, grpc) = (folder(), free_address(), free_address());
    let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();
    for name in ["rules", "alerts", "bucket"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    let text = include_str!("cortex.yaml")
        .replace("$HTTP", &port(&address))
        .replace("$GRPC", &port(&grpc))
        .replace("$DIR", &dir.display().to_string())
        .replace("$LIMIT", &OWN_LIMIT.to_string());
    let config = dir.join("cortex.yml");
    fs::write(&config, text).unwrap();
    let config = format!("-config.file={}", config.display());
    let command = [program, &config, "-tenant-federation.enabled=true"];
    let main = Database::start(&dir, &address, Data::new(), &command);
    main.until_up("/ready").await;
    let write = format!("{}/api/v1/push", main.url);
    Running::of(Setup::Cortex, main, "/prometheus", Vec::new()).filled(&write, &["anonymous", "t1"]).await
}

async fn m3(program: &str) -> Running {
    let (dir, address) = (folder(), free_address());
    let mut text =
        include_str!("m3.yaml").replace("$COORDINATOR", &address).replace("$DIR", &dir.display().to_string());
    let node = free_address();
    text = text.replace("$NODE", &node).replace("$LIMIT", &OWN_LIMIT.to_string());
    while let Some(at) = text.find("$ADDRESS") {
        let (name, free) = (text[at..at + "$ADDRESS0".len()].to_owned(), free_address());
        text = text.replace(&name, &free);
    }
    let config = dir.join("m3.yml");
    fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    // Else it keeps the memory of a burst of writes.
    let command = ["env", "GOMEMLIMIT=700MiB", program, "-f", &config];
    let main = Database::start(&dir, &address, Data::new(), &command);
    let services = format!("{}/api/v1/services/m3db", main.url);
    let post = async |path: &str, body: serde_json::Value| {
        let request = Request::post(format!("{services}{path}")).body(Full::from(body.to_string())).unwrap();
        let Ok(response) = client().request(request).await else { return String::new() };
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8_lossy(&body).into_owned()
    };
    let end = Instant::now() + UP;
    let (placement, namespace) = m3_shape(&node);
    for (path, body, done) in [
        ("/placement/init", placement, "m3db_local"),
        ("/namespace", namespace, "\"default\""),
        ("/namespace/ready", serde_json::json!({"name": "default"}), "\"ready\":true"),
    ] {
        loop {
            let said = post(path, body.clone()).await;
            if said.contains(done) || said.contains("already") {
                break;
            }
            assert!(Instant::now() < end, "{path}: {said}");
            sleep(Duration::from_millis(300)).await;
        }
    }
    main.until_up("/api/v1/query?query=absent(nothing)").await;
    let write = format!("{}/api/v1/prom/remote/write", main.url);
    Running::of(Setup::M3, main, "", Vec::new()).filled(&write, &[""]).await
}

/// One node with one namespace of two-hour blocks.
fn m3_shape(node: &str) -> (serde_json::Value, serde_json::Value) {
    let (host, port) = node.rsplit_once(':').unwrap();
    let placement = serde_json::json!({"num_shards": 4, "replication_factor": 1, "instances": [{
        "id": "m3db_local", "isolation_group": "local", "zone": "embedded", "weight": 100, "endpoint": node,
        "hostname": host, "port": port.parse::<u16>().unwrap(),
    }]});
    let namespace = serde_json::json!({"name": "default", "options": {
        "bootstrapEnabled": true, "flushEnabled": true, "writesToCommitLog": true, "cleanupEnabled": true,
        "snapshotEnabled": true, "repairEnabled": false, "coldWritesEnabled": true,
        "retentionOptions": {
            "retentionPeriodDuration": "48h", "blockSizeDuration": "2h", "bufferFutureDuration": "10m",
            "bufferPastDuration": "10m", "blockDataExpiry": true, "blockDataExpiryAfterNotAccessPeriodDuration": "5m",
        },
        "indexOptions": {"enabled": true, "blockSizeDuration": "2h"},
        "aggregationOptions": {"aggregations": [{"aggregated": false}]},
    }});
    (placement, namespace)
}
