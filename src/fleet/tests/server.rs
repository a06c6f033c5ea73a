//! A real store on the loopback: started, killed, paused, emptied and restored by tests.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// `redis-server` on a free port, with a folder for its dump; ends with the test.
pub(crate) struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// A server, or `None` where it is not installed.
    #[allow(clippy::print_stdout, reason = "a skipped test says so")]
    pub(crate) fn start(test: &str) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let Some(child) = spawn(port, &folder) else {
            let required = std::env::var_os("WEIR_TEST_REAL").is_some_and(|value| value == "required");
            assert!(!required, "WEIR_TEST_REAL=required, and `redis-server` is not installed");
            println!("skipped: {test}: `redis-server` is not installed");
            return None;
        };
        Some(Self { child, port, folder })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// As by `kill -9`.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Starts it again, with the data of its last dump.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.port, &self.folder).unwrap();
    }

    pub(crate) fn dump_file(&self) -> PathBuf {
        self.folder.path().join("dump.rdb")
    }

    /// Runs a command such as `SAVE`.
    pub(crate) fn run(&self, command: &str) {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        redis::cmd(command).exec(&mut connection).unwrap();
    }

    /// Scripts that it ran since its start.
    pub(crate) fn scripts_run(&self) -> u64 {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        let text: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).unwrap();
        let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
    }

    /// Sends a signal: `STOP` or `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }
}

fn spawn(port: u16, folder: &TempDir) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.contains("Ready to accept connections"));
    assert!(ready, "redis-server did not start");
    Some(child)
}
