//! Real databases on free loopback ports, in folders of their own, with the same seeded data in each.
//!
//! Each is started once for all tests of the binary. A shell stands guard over it: when this process ends, however it
//! ends, the guard's input ends with it, and the guard kills the database and removes its folder.

pub(crate) mod data;
pub(crate) mod kinds;
/// A store for a fleet.
#[allow(dead_code, reason = "the tests of leases pause it and restore a dump")]
#[path = "../../../../src/fleet/tests/server.rs"]
pub(crate) mod redis_server;

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use tokio::{
    sync::{Mutex, MutexGuard, OnceCell},
    time::{Instant, sleep},
};

use crate::support::sockets::{HttpClient, client};
use data::Data;

/// Longest wait for a database to come up with its data.
const UP: Duration = Duration::from_secs(60);
/// `$0` is the folder, `$@` the database. Each word on its input kills the database or starts it again.
const GUARD: &str = r#"begin() { "$@" >>"$0/log" 2>&1 & child=$!; }
end() { kill -9 "$child"; wait "$child"; }
begin "$@"
while read -r word; do
    if [ "$word" = kill ]; then end; else begin "$@"; fi
done 2>/dev/null
end 2>/dev/null
rm -rf "$0""#;

/// A running database.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) data: Data,
    guard: Child,
}

/// An answer, byte for byte.
#[derive(Debug, PartialEq)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) encoding: String,
    pub(crate) body: Bytes,
}

impl Raw {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// The only user of a database: its counters move for nobody else.
pub(crate) type Alone = (MutexGuard<'static, ()>, &'static Database);

/// Prometheus, with the older part of the data in blocks and the rest in its head; `None` where it is not installed.
pub(crate) async fn prometheus(test: &str) -> Option<Alone> {
    static ONE: OnceCell<Database> = OnceCell::const_new();
    static ALONE: Mutex<()> = Mutex::const_new(());
    if !installed(test, &["prometheus", "promtool"]) {
        return None;
    }
    let alone = ALONE.lock().await;
    Some((alone, ONE.get_or_init(start_prometheus).await))
}

/// A Prometheus of its own without data, which takes remote write; `None` where it is not installed. The binary is
/// `$WEIR_TEST_PROMETHEUS`, or the one in the path.
pub(crate) async fn empty_prometheus(test: &str) -> Option<Database> {
    prometheus_with(test, "global: {scrape_interval: 1h}\n").await
}

/// The same with a configuration.
pub(crate) async fn prometheus_with(test: &str, text: &str) -> Option<Database> {
    let program = std::env::var_os("WEIR_TEST_PROMETHEUS").unwrap_or_else(|| "prometheus".into());
    let program = program.to_string_lossy();
    if !installed(test, &[&program]) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap().keep();
    let config = dir.join("prometheus.yml");
    fs::write(&config, text).unwrap();
    let address = free_address();
    let command = [
        &*program,
        &format!("--config.file={}", config.display()),
        &format!("--storage.tsdb.path={}", dir.join("data").display()),
        "--storage.tsdb.retention.time=100y",
        &format!("--web.listen-address={address}"),
        "--web.enable-remote-write-receiver",
    ];
    let database = Database::start(&dir, &address, Data::none(), &command);
    database.until_up("/-/ready").await;
    Some(database)
}

/// VictoriaMetrics with all of the data; `None` where it is not installed.
pub(crate) async fn victoria_metrics(test: &str) -> Option<Alone> {
    static ONE: OnceCell<Database> = OnceCell::const_new();
    static ALONE: Mutex<()> = Mutex::const_new(());
    if !installed(test, &["victoria-metrics"]) {
        return None;
    }
    let alone = ALONE.lock().await;
    Some((alone, ONE.get_or_init(start_victoria).await))
}

/// Names a test that is skipped since something is missing, which is a failure under `WEIR_TEST_REAL=required`.
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
pub(crate) fn skip(test: &str, missing: &str) {
    let required = std::env::var_os("WEIR_TEST_REAL").is_some_and(|value| value == "required");
    assert!(!required, "WEIR_TEST_REAL=required, and {missing}");
    println!("skipped: {test}: {missing}");
}

/// Whether all of the programs are there. Under `WEIR_TEST_REAL=required` they have to be.
pub(crate) fn installed(test: &str, programs: &[&str]) -> bool {
    for program in programs {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        if command.status().is_err() {
            skip(test, &format!("`{program}` is not installed"));
            return false;
        }
    }
    true
}

async fn start_prometheus() -> Database {
    let data = Data::new();
    let dir = tempfile::tempdir().unwrap().keep();
    let (config, history, storage) = (dir.join("prometheus.yml"), dir.join("history"), dir.join("data"));
    fs::write(&config, "global: {scrape_interval: 1h}\n").unwrap();
    let mut file = std::io::BufWriter::new(fs::File::create(&history).unwrap());
    data.open_metrics(&mut file).unwrap();
    file.flush().unwrap();
    let loaded = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
        .args([&history, &storage])
        .stdout(Stdio::null())
        .status();
    assert!(loaded.unwrap().success(), "promtool failed");
    fs::remove_file(&history).unwrap();
    let address = free_address();
    let command = [
        "prometheus",
        &format!("--config.file={}", config.display()),
        &format!("--storage.tsdb.path={}", storage.display()),
        "--storage.tsdb.retention.time=90d",
        &format!("--web.listen-address={address}"),
        "--web.enable-remote-write-receiver",
    ];
    let database = Database::start(&dir, &address, data, &command);
    database.until_up("/-/ready").await;
    for body in database.data.remote_writes() {
        write(&database.url, body).await;
    }
    database
}

/// A remote write.
pub(crate) async fn write(url: &str, body: Vec<u8>) {
    let request = Request::post(format!("{url}/api/v1/write"))
        .header("content-encoding", "snappy")
        .header("content-type", "application/x-protobuf")
        .header("x-prometheus-remote-write-version", "0.1.0");
    load(url, request.body(Full::from(body)).unwrap()).await;
}

async fn start_victoria() -> Database {
    let data = Data::new();
    let dir = tempfile::tempdir().unwrap().keep();
    let address = free_address();
    let command = [
        "victoria-metrics",
        &format!("-storageDataPath={}", dir.join("data").display()),
        &format!("-httpListenAddr={address}"),
        "-retentionPeriod=12",
        "-search.disableCache",
    ];
    let database = Database::start(&dir, &address, data, &command);
    database.until_up("/health").await;
    for body in database.data.text_imports() {
        let request = Request::post(format!("{}/api/v1/import/prometheus", database.url));
        load(&database.url, request.body(Full::from(body)).unwrap()).await;
    }
    database.get("/internal/force_flush").await;
    database
}

async fn load(url: &str, request: Request<Full<Bytes>>) {
    let status = client().request(request).await.unwrap().status();
    assert!(status.is_success(), "{url} took no data: {status}");
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Database {
    fn start(dir: &Path, address: &str, data: Data, command: &[&str]) -> Self {
        let mut guard = Command::new("sh");
        // One worker adds up floats in one order: the same question has the same answer to the last digit.
        guard.args(["-c", GUARD]).arg(dir).args(command).stdin(Stdio::piped()).env("GOMAXPROCS", "1");
        Self { url: format!("http://{address}"), data, guard: guard.spawn().unwrap() }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.order("kill");
    }

    /// Starts it again where it was, with the data that it has.
    pub(crate) fn start_again(&mut self) {
        self.order("start");
    }

    fn order(&mut self, word: &str) {
        let input = self.guard.stdin.as_mut().unwrap();
        writeln!(input, "{word}").unwrap();
    }

    async fn until_up(&self, path: &str) {
        let (client, end) = (client(), Instant::now() + UP);
        loop {
            let request = Request::get(format!("{}{path}", self.url)).body(Full::<Bytes>::default()).unwrap();
            if client.request(request).await.is_ok_and(|response| response.status() == 200) {
                return;
            }
            assert!(Instant::now() < end, "{} did not come up", self.url);
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// A GET past Weir.
    pub(crate) async fn get(&self, target: &str) -> Raw {
        raw(&client(), Method::GET, &format!("{}{target}", self.url), "", false).await
    }

    /// Sums the samples of a metric in the database's own `/metrics` whose labels hold all of `parts`.
    pub(crate) async fn own_metric(&self, name: &str, parts: &[&str]) -> f64 {
        let text = self.get("/metrics").await.body;
        sum_of(&String::from_utf8_lossy(&text), name, parts)
    }

    /// The series that a selector matches in a window, by the database's own count.
    pub(crate) async fn truth(&self, selector: &str, window: &str, at: i64) -> u64 {
        let query = encode(&format!("count(last_over_time({selector}[{window}]))"));
        let answer = self.get(&format!("/api/v1/query?query={query}&time={at}")).await.json();
        answer["data"]["result"][0]["value"][1].as_str().map_or(0, |text| text.parse().unwrap())
    }
}

/// Sums the samples of a metric in a text exposition whose labels hold all of `parts`.
pub(crate) fn sum_of(text: &str, name: &str, parts: &[&str]) -> f64 {
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && parts.iter().all(|part| line.contains(part))
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// One request; a form is sent as POST does.
pub(crate) async fn raw(client: &HttpClient, method: Method, url: &str, form: &str, gzip: bool) -> Raw {
    let mut request = Request::builder().method(method).uri(url);
    if gzip {
        request = request.header("accept-encoding", "gzip");
    }
    if !form.is_empty() {
        request = request.header("content-type", "application/x-www-form-urlencoded");
    }
    let response = client.request(request.body(Full::from(form.to_owned())).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let header =
        |name: &str| head.headers.get(name).map_or_else(String::new, |v| v.to_str().unwrap().to_owned());
    Raw {
        status: head.status.as_u16(),
        content_type: header("content-type"),
        encoding: header("content-encoding"),
        body: body.collect().await.unwrap().to_bytes(),
    }
}

pub(crate) fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
