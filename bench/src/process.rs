//! Children of the benchmark: started on free ports of the loopback, measured from /proc, ended by id.

use crate::{
    Result,
    client::{Client, Request},
};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A child process that ends with this value.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    child: Child,
}

impl Service {
    /// Starts `command`, its output going to a file in `dir`, and waits until `ready` answers with 200.
    pub(crate) fn start(
        name: &'static str,
        port: u16,
        dir: &Path,
        command: Command,
        ready: &Request,
    ) -> Result<Self> {
        Self::start_until(name, port, dir, command, || {
            Client::new(port, Duration::from_secs(5)).get(ready).is_ok_and(|answer| answer.status == 200)
        })
    }

    /// The same for a program that does not speak HTTP.
    pub(crate) fn start_until(
        name: &'static str,
        port: u16,
        dir: &Path,
        mut command: Command,
        is_ready: impl Fn() -> bool,
    ) -> Result<Self> {
        let path = dir.join(format!("{name}.log"));
        let log = File::create(&path)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().map_err(|e| format!("{name}: {e}"))?;
        let mut service = Self { name, port, child };
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline && service.child.try_wait()?.is_none() {
            if is_ready() {
                return Ok(service);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(&path).unwrap_or_default();
        Err(format!("{name} does not get ready: {}", log.lines().last().unwrap_or("it says nothing")).into())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once, as the kernel does when memory runs out.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops the process where it stands, or lets it go on.
    pub(crate) fn pause(&self, paused: bool) -> Result<()> {
        let signal = if paused { "-STOP" } else { "-CONT" };
        Command::new("kill").args([signal, &self.pid().to_string()]).status()?;
        Ok(())
    }

    /// User and system time of the process and all below it, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        // The kernel shows 100 ticks a second to programs, on every architecture of today.
        ticks(self.pid()) as f64 / 100.0
    }

    /// Largest resident set so far, in bytes.
    pub(crate) fn peak_rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.unwrap_or(0) << 10
    }
}

impl Drop for Service {
    /// Asks first, since nginx has children of its own to end; then insists.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.pid().to_string()).status();
        }
        for _ in 0..60 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.kill();
    }
}

/// Nanoseconds that the threads of a process ran, by their names.
pub(crate) fn by_thread(pid: u32) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let ran = read("schedstat").split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        *all.entry(read("comm").trim().to_owned()).or_default() += ran.unwrap_or(0);
    }
    all
}

/// User and system time of one process, in seconds.
pub(crate) fn times(pid: u32) -> [f64; 2] {
    own_ticks(pid).map(|ticks| ticks as f64 / 100.0)
}

/// User and system time.
fn own_ticks(pid: u32) -> [u64; 2] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything; user and system time are the 12th and 13th field after it.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace().skip(11).map(|field| field.parse().unwrap_or(0));
    [fields.next().unwrap_or(0), fields.next().unwrap_or(0)]
}

fn ticks(pid: u32) -> u64 {
    let own: u64 = own_ticks(pid).iter().sum();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    own + children.split_whitespace().filter_map(|child| child.parse().ok()).map(ticks).sum::<u64>()
}

/// Resident set in bytes; `None` once the process is gone.
pub(crate) fn rss(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    (pages > 0).then_some(pages * 4096)
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The first of `count` neighbouring ports that were free a moment ago.
pub(crate) fn free_ports(count: u16) -> Result<u16> {
    for _ in 0..100 {
        let first = free_port()?;
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if first < u16::MAX - count && (first..first + count).all(free) {
            return Ok(first);
        }
    }
    Err(format!("no {count} neighbouring ports are free").into())
}

/// Fails with the command that installs the missing program.
pub(crate) fn need(programs: &[&str]) -> Result<()> {
    let missing: Vec<_> = programs.iter().filter(|p| find(p).is_none()).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|p| package(p)).collect();
    Err(format!("not found: {}; install with: apt-get install {}", missing.join(", "), packages.join(" "))
        .into())
}

/// Debian's package of a program.
pub(crate) fn package(program: &str) -> &str {
    match program {
        "promtool" => "prometheus",
        "vmauth" => "victoria-metrics",
        other => other,
    }
}

/// The program in PATH, or where Debian puts servers.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A command for a program that [`need`] has found.
pub(crate) fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| program.into()))
}

/// A folder for the files of one run, removed afterwards.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let dir =
            std::env::temp_dir().join(format!("weir-bench-{}-{:x}", std::process::id(), fastrand::u32(..)));
        fs::create_dir(&dir)?;
        Ok(Self(dir))
    }

    /// Writes a file and says where it is.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
