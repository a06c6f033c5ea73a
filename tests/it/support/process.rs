//! The binary as a process of its own: `weir node`, and the proxy with its node.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

/// The process; killed at the end, however the test ends.
pub(crate) struct NodeProcess {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
}

impl NodeProcess {
    /// Starts the binary on a free port, with its data in a folder; waits until it listens.
    pub(crate) async fn start(data: &Path, storage: &str) -> Self {
        Self::try_start(data, storage).await.unwrap_or_else(|log| panic!("{log}"))
    }

    /// The same, or the log when it does not start. The file `clock` in the folder, if there is one, has the
    /// milliseconds by which its clock is off.
    pub(crate) async fn try_start(data: &Path, storage: &str) -> Result<Self, String> {
        Self::try_configured(data, &format!("storage: {{{storage}}}\n")).await
    }

    /// The same with any configuration beside the address.
    pub(crate) async fn try_configured(data: &Path, yaml: &str) -> Result<Self, String> {
        let config = data.join("node.yaml");
        std::fs::write(&config, format!("listen: 127.0.0.1:0\n{yaml}")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["node", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(data)
            .env("WEIR_LOG", "info")
            .env("WEIR_TEST_CLOCK_OFFSET_FILE", data.join("clock"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        let (said, address) = tokio::sync::oneshot::channel();
        let reading = std::thread::spawn(move || {
            let mut said = Some(said);
            for line in lines.by_ref() {
                let url =
                    line.split_once("remote write to http://").and_then(|(_, url)| url.split('/').next());
                if let (Some(address), true) = (url, said.is_some()) {
                    // Nobody waits any more when the test has failed.
                    let _ = said.take().map(|said| said.send(address.parse::<SocketAddr>().unwrap()));
                }
                kept.lock().unwrap().extend([line.as_str(), "\n"]);
            }
        });
        match address.await {
            Ok(address) => Ok(Self { child, address, log, reading: Some(reading) }),
            Err(_) => {
                // It has closed its log.
                let _ = child.wait();
                reading.join().unwrap();
                Err(log.lock().unwrap().clone())
            }
        }
    }

    /// Sets the clock of the processes over a data folder off by this number of milliseconds.
    pub(crate) fn set_clock(data: &Path, off: i64) {
        std::fs::write(data.join("clock"), off.to_string()).unwrap();
    }

    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends it a signal of this name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end, after which all of its log is there.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.reading.take().unwrap().join().unwrap();
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A proxy as a process of its own; killed at the end, however the test ends.
pub(crate) struct ProxyProcess {
    child: Child,
    pub(crate) queries: SocketAddr,
    pub(crate) admin: SocketAddr,
    _data: tempfile::TempDir,
}

impl ProxyProcess {
    /// Starts the binary on free ports with this configuration; waits until it listens.
    pub(crate) async fn start(yaml: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("weir.yaml");
        let server = "server: {listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0}";
        std::fs::write(&config, format!("{server}\n{yaml}")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["proxy", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(data.path())
            .env("WEIR_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (ready, addresses) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let (mut ready, mut log) = (Some(ready), String::new());
            // Its pipe is read to the end, so that it never waits.
            for line in lines {
                log.extend([line.as_str(), "\n"]);
                let address = |name: &str| {
                    let (_, rest) = line.split_once(&format!("{name}="))?;
                    rest.split_whitespace().next()?.parse::<SocketAddr>().ok()
                };
                if let (Some(queries), Some(admin), true) =
                    (address("queries"), address("admin"), ready.is_some())
                {
                    // Nobody waits any more when the test has failed.
                    let _ = ready.take().map(|ready| ready.send((queries, admin)));
                }
            }
            assert!(ready.is_none(), "it did not start:\n{log}");
        });
        let (queries, admin) = addresses.await.expect("it starts");
        Self { child, queries, admin, _data: data }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The proxy and its node as one process; killed at the end, however the test ends.
pub(crate) struct AllInOne {
    child: Child,
    pub(crate) queries: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) node: SocketAddr,
    /// The URL of the query that it suggests.
    pub(crate) example: String,
}

impl AllInOne {
    /// Starts the binary on free ports, with its data in a folder and more arguments; waits for its greeting.
    pub(crate) async fn start(data: &Path, more: &[&str]) -> Self {
        let any = "127.0.0.1:0";
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["--listen", any, "--admin-listen", any, "--node-listen", any, "--data"])
            .arg(data)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let reading = tokio::task::spawn_blocking(move || {
            let mut greeting = String::new();
            for line in out.lines().map_while(Result::ok) {
                greeting.extend([line.as_str(), "\n"]);
                if line.contains("curl") {
                    break;
                }
            }
            greeting
        });
        let greeting = reading.await.unwrap();
        let address = |name: &str| {
            let line = greeting.lines().find(|line| line.trim_start().starts_with(name)).expect(name);
            let (_, url) = line.split_once("http://").expect(name);
            url.split_whitespace().next().and_then(|address| address.parse().ok()).expect(name)
        };
        let (queries, admin, node) =
            (address("queries"), address("metrics, health"), address("storage node"));
        let example = greeting.split('\'').nth(1).expect("a first command to try").to_owned();
        Self { child, queries, admin, node, example }
    }

    /// Sends it a signal of this name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Bytes of its resident set.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for AllInOne {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
