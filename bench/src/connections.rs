//! The sizing rule of a proxy: bytes for each idle connection and for each answer that its client does not read, and
//! the memory that comes back when they are gone.

use crate::process::{Scratch, need, rss};
use crate::report::{Bar, Table, finish};
use crate::targets::{SMALL, open_weir, upstream, weir};
use crate::{Options, Result};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Connections that are kept idle.
const IDLE: usize = 8_000;
/// Answers that nobody reads.
const UNREAD: usize = 100;
/// Bytes of each: far more than sockets hold.
const ANSWER: usize = 64 << 20;
/// Time within which memory is to come back.
const SETTLE: Duration = Duration::from_secs(30);

pub(crate) fn run(options: &Options) -> Result<()> {
    need(&["nginx"])?;
    options.need_weir()?;
    let scratch = Scratch::new()?;
    let upstream = upstream(&scratch)?;
    std::fs::write(scratch.dir().join("big.json"), big_answer())?;
    let proxy = weir(&scratch, options, &open_weir(upstream.port))?;
    let memory = || rss(proxy.pid()).unwrap_or(0);
    // Memory that the first requests leave behind belongs to no connection.
    drop(ask(proxy.port, SMALL, 200)?);
    sleep(Duration::from_secs(2));
    let base = memory();
    let idle = ask(proxy.port, SMALL, IDLE)?;
    let with_idle = memory();
    drop(idle);
    let after_idle = settled(base, &memory);
    let unread = ask_big(proxy.port)?;
    sleep(Duration::from_secs(3));
    let with_unread = memory();
    drop(unread);
    let after_unread = settled(base, &memory);
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let mut table = Table::new(&["", "resident, MiB", "KiB for each"]);
    let each = |with: u64, count: usize| with.saturating_sub(base) as f64 / 1024.0 / count as f64;
    table.row(["at rest".into(), mib(base), String::new()]);
    let idle_each = each(with_idle, IDLE);
    table.row([format!("{IDLE} idle connections"), mib(with_idle), format!("{idle_each:.1}")]);
    table.row(["after them".into(), mib(after_idle), String::new()]);
    let unread_each = each(with_unread, UNREAD);
    table.row([
        format!("{UNREAD} answers of 64 MiB that nobody reads"),
        mib(with_unread),
        format!("{unread_each:.0}"),
    ]);
    table.row(["after them".into(), mib(after_unread), String::new()]);
    let stays = |after: u64| after.saturating_sub(base) as f64 / f64::from(1 << 20);
    let bars = [
        Bar::at_most("KiB for each idle connection", idle_each, 24.0),
        Bar::at_most("KiB for each answer that nobody reads", unread_each, 512.0),
        Bar::at_most("MiB that stay after the idle connections", stays(after_idle), 16.0),
        Bar::at_most("MiB that stay after the answers", stays(after_unread), 24.0),
    ];
    let results = json!({"rest": base, "idle": with_idle, "after_idle": after_idle, "unread": with_unread, "after_unread": after_unread});
    finish("connections", options, &["weir"], &[&table], &bars, &results)
}

/// An answer that the proxy takes for one: spaces are JSON too.
fn big_answer() -> Vec<u8> {
    let mut answer = br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.to_vec();
    answer.resize(ANSWER, b' ');
    answer
}

/// Kept connections, each with one answer read.
fn ask(port: u16, path: &str, count: usize) -> Result<Vec<TcpStream>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", crate::client::AUTHORIZATION);
    let mut kept = Vec::with_capacity(count);
    let mut answer = [0; 4096];
    for _ in 0..count {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(request.as_bytes())?;
        if stream.read(&mut answer)? == 0 {
            return Err("a connection was closed before its answer".into());
        }
        kept.push(stream);
    }
    Ok(kept)
}

/// Connections on which a large answer is on its way, and is not read.
fn ask_big(port: u16) -> Result<Vec<TcpStream>> {
    let path = "/api/v1/query_range?query=up&start=1700000000&end=1700000060&step=15";
    ask(port, path, UNREAD)
}

/// The resident set when it is back near `base`, or when the time is over.
fn settled(base: u64, memory: &impl Fn() -> u64) -> u64 {
    let began = Instant::now();
    while memory() > base + (4 << 20) && began.elapsed() < SETTLE {
        sleep(Duration::from_millis(500));
    }
    memory()
}
