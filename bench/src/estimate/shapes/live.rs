//! The memory that a database holds while it answers one query.
//!
//! Of a Go process: the largest heap that its collector marked. It collects whenever the heap grew by a fifth, and says so in its
//! log. Of Weir's own node: the most that its pool ever lent, which is that of one query, since it is started anew for each.

use crate::client::{Client, Request};
use crate::process::{Service, rss};
use crate::targets::metric;
use crate::{Options, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes kept of the end of an answer: its statistics.
const TAIL: usize = 8 << 10;
const WATCH: Duration = Duration::from_millis(20);

/// A database that reports its live heap.
pub(super) struct Database {
    pub(super) service: Service,
    memory: Memory,
}

/// How its memory is known.
enum Memory {
    /// From the log of its collector.
    Collector(PathBuf),
    /// From its pool, after a start with this program, configuration and data.
    Pool(Start),
}

/// How a node is started.
pub(super) struct Start {
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
    pub(super) data: PathBuf,
}

impl Start {
    fn service(&self, port: u16) -> Result<Service> {
        let mut command = Command::new(&self.program);
        command.arg("node").arg("--config").arg(&self.config).arg("--data").arg(&self.data);
        let folder = self.config.parent().ok_or("a configuration lies in a folder")?;
        Service::start("node", port, folder, command, &Request::get("/-/ready", &[], "bench"))
    }
}

/// One query, measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) status: u16,
    /// It had no answer within its time.
    pub(super) late: bool,
    /// Live bytes over an idle process.
    pub(super) live: u64,
    pub(super) peak_samples: Option<u64>,
    pub(super) answer_bytes: u64,
    pub(super) ms: f64,
}

impl Database {
    /// Starts `command` with a collector that works often and logs the bytes that it marks.
    pub(super) fn start(
        name: &'static str,
        port: u16,
        dir: &Path,
        mut command: Command,
        ready: &Request,
    ) -> Result<Self> {
        command.env("GOGC", "20").env("GODEBUG", "gctrace=1");
        let service = Service::start(name, port, dir, command, ready)?;
        Ok(Self { service, memory: Memory::Collector(dir.join(format!("{name}.log"))) })
    }

    /// Starts a node.
    pub(super) fn node(start: Start, port: u16) -> Result<Self> {
        Ok(Self { service: start.service(port)?, memory: Memory::Pool(start) })
    }

    /// The heap marked by a collection now. Two collections empty the pools of free buffers.
    fn idle(&self, log: &Path) -> Result<u64> {
        for _ in 0..2 {
            let collect = Request::get("/debug/pprof/heap", &[("gc", "1")], "bench");
            Client::new(self.service.port, TIMEOUT).get(&collect)?;
        }
        Ok(all_marked(log, 0)?.last().copied().unwrap_or(0))
    }

    /// Asks one query; the process is ended if it passes the limit.
    pub(super) fn ask(&mut self, options: &Options, request: &Request) -> Result<Measured> {
        let before = match &self.memory {
            Memory::Collector(log) => Some((log.clone(), self.idle(log)?, fs::metadata(log)?.len() as usize)),
            Memory::Pool(start) => {
                let port = self.service.port;
                self.service.kill()?;
                self.service = start.service(port)?;
                None
            }
        };
        let (done, pid, limit) = (AtomicBool::new(false), self.service.pid(), options.limit_mib << 20);
        let port = self.service.port;
        let (answer, tail, ms) = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if rss(pid).is_some_and(|bytes| bytes > limit) {
                        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
                        return;
                    }
                    std::thread::sleep(WATCH);
                }
            });
            let (began, mut tail) = (std::time::Instant::now(), Vec::new());
            let answer = Client::new(port, options.deadline).get_reading(request, |bytes| {
                tail.extend_from_slice(bytes);
                let old = tail.len().saturating_sub(TAIL);
                tail.drain(..old);
            });
            done.store(true, Ordering::Relaxed);
            (answer, tail, began.elapsed().as_secs_f64() * 1e3)
        });
        let live = match before {
            Some((log, idle, from)) => {
                all_marked(&log, from)?.into_iter().max().unwrap_or(0).saturating_sub(idle)
            }
            None => metric(port, "/metrics", "weir_pool_peak_bytes")?.unwrap_or(0.0) as u64,
        };
        let Ok(answer) = answer else {
            let late = self.is_alive();
            return Ok(Measured { live: limit, late, ms, ..Measured::default() });
        };
        let tail = String::from_utf8_lossy(&tail);
        let peak = tail.rsplit_once("\"peakSamples\":").map(|(_, rest)| rest);
        let digits = peak.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        Ok(Measured {
            status: answer.status,
            late: false,
            live,
            // A point of the node's is not one of Prometheus' 16 bytes.
            peak_samples: digits.and_then(|digits| digits.parse().ok()).filter(|_| !self.is_node()),
            answer_bytes: answer.bytes,
            ms,
        })
    }

    fn is_node(&self) -> bool {
        matches!(self.memory, Memory::Pool(_))
    }

    pub(super) fn is_alive(&self) -> bool {
        rss(self.service.pid()).is_some()
    }
}

/// Bytes marked by each collection that the log tells of from this place on.
fn all_marked(log: &Path, from: usize) -> Result<Vec<u64>> {
    let log = fs::read(log)?;
    let log = String::from_utf8_lossy(log.get(from..).unwrap_or_default());
    Ok(log.lines().filter_map(marked).collect())
}

/// `gc 7 @1.2s 3%: … ms clock, … ms cpu, 40->42->38 MB, 41 MB goal, …`: the last of the three is what was marked.
fn marked(line: &str) -> Option<u64> {
    let (before, _) = line.strip_prefix("gc ")?.split_once(" MB, ")?;
    before.rsplit_once("->")?.1.parse::<u64>().ok().map(|mib| mib << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_tells_what_it_marked() {
        let line = "gc 12 @3.4s 1%: 0.1+2.3+0.0 ms clock, 0.2+1/2/3+0 ms cpu, 40->42->38 MB, 41 MB goal, 0 MB stacks, 4 P";
        assert_eq!(marked(line), Some(38 << 20));
        assert_eq!(marked("level=info msg=\"gc done\""), None);
    }
}
