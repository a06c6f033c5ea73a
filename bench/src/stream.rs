//! A large answer: its throughput, and the memory of the proxy meanwhile.

use crate::client::{Client, Request};
use crate::process::{Scratch, Service, need};
use crate::report::{Bar, Table, finish, mib, quantile, spread};
use crate::targets::{open_weir, proxy, upstream, weir_of};
use crate::{Options, Result};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

const BYTES: u64 = 200_000_000;
const SLOW_READERS: u32 = 8;
/// Of each slow reader, in bytes per second: all of them are done in 10 s.
const SLOW_RATE: f64 = 20e6;
/// Those that are measured, without [`BEFORE`] where there is no earlier build.
const PROXIES: [&str; 3] = ["weir", "vmauth", BEFORE];
const BEFORE: &str = "before";

pub(crate) fn run(options: &Options) -> Result<()> {
    need(&["nginx", "vmauth"])?;
    let scratch = Scratch::new()?;
    let size = write_answer(&scratch)?;
    let upstream = upstream(&scratch)?;
    let query = [("query", "up"), ("start", "1700000000"), ("end", "1700003600"), ("step", "15")];
    let request = Request::get("/api/v1/query_range", &query, "bench");

    let proxies = &PROXIES[..if options.before.is_some() { 3 } else { 2 }];
    let started = |name: &str| match &options.before {
        Some(binary) if name == BEFORE => weir_of(BEFORE, binary, &scratch, &open_weir(upstream.port)),
        _ => proxy(name, &scratch, options, upstream.port),
    };
    let mut rates = vec![Vec::new(); 1 + proxies.len()];
    let mut fast_peaks = vec![0; proxies.len()];
    let mut idle = vec![0; proxies.len()];
    for _ in 0..options.rounds {
        rates[0].push(fetch(upstream.port, &request, size)?);
        for (n, name) in proxies.iter().enumerate() {
            // A new process each time, since the peak of a process never falls.
            let target = started(name)?;
            idle[n] = target.peak_rss();
            rates[n + 1].push(fetch(target.port, &request, size)?);
            fast_peaks[n] = target.peak_rss().max(fast_peaks[n]);
        }
    }
    let mut table =
        Table::new(&["target", "one reader, MB/s", "idle MiB", "peak MiB", "peak MiB, 8 slow readers"]);
    table.row(["direct".into(), spread(&rates[0], 0), "-".into(), "-".into(), "-".into()]);
    let mut results = vec![json!({"target": "direct", "mb_per_second": rates[0]})];
    for (n, name) in proxies.iter().enumerate() {
        let target = started(name)?;
        let slow = slow_readers(&target, &request, size)?;
        let rate = spread(&rates[n + 1], 0);
        table.row([(*name).into(), rate, mib(idle[n]), mib(fast_peaks[n]), mib(slow)]);
        results.push(json!({"target": name, "mb_per_second": rates[n + 1], "idle_rss": idle[n],
            "peak_rss": fast_peaks[n], "peak_rss_slow_readers": slow}));
    }
    let median = |n: usize| quantile(&rates[n], 0.5);
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let mut bars = vec![
        Bar::at_most("peak memory of Weir with one reader under 40 MB", mb(fast_peaks[0]), 40.0),
        Bar::at_least("Weir's rate over vmauth's at least 1", median(1) / median(2), 1.0),
    ];
    if let Some(slow) = results[1]["peak_rss_slow_readers"].as_u64() {
        bars.push(Bar::at_most("with 8 slow ones under 48 MB", mb(slow), 48.0));
    }
    if options.before.is_some() {
        bars.push(Bar::at_least("Weir's rate over the build before", median(1) / median(3), 0.97));
        bars.push(Bar::at_most(
            "peak memory with one reader over the build before",
            fast_peaks[0] as f64 / fast_peaks[2] as f64,
            1.03,
        ));
    }
    finish("stream", options, &["weir", "vmauth", "nginx"], &[&table], &bars, &json!(results))
}

/// Writes a range query's answer of about 200 MB; the return value is its exact size.
fn write_answer(scratch: &Scratch) -> Result<u64> {
    let path = scratch.dir().join("big.json");
    let mut file = BufWriter::new(File::create(&path)?);
    let mut rng = fastrand::Rng::with_seed(7);
    file.write_all(br#"{"status":"success","data":{"resultType":"matrix","result":["#)?;
    let mut written = 0;
    for series in 0.. {
        let mut text = if series == 0 { String::new() } else { ",".to_owned() };
        text +=
            &format!(r#"{{"metric":{{"__name__":"up","instance":"10.0.0.1:{series}","job":"a"}},"values":["#);
        for step in 0..241 {
            let comma = if step == 0 { "" } else { "," };
            text += &format!(r#"{comma}[{},"{}"]"#, 1_700_000_000 + step * 15, rng.u32(..1_000_000));
        }
        text += "]}";
        file.write_all(text.as_bytes())?;
        written += text.len() as u64;
        if written >= BYTES {
            break;
        }
    }
    file.write_all(b"]}}")?;
    file.flush()?;
    Ok(path.metadata()?.len())
}

/// Megabytes per second of one answer.
fn fetch(port: u16, request: &Request, size: u64) -> Result<f64> {
    let begin = Instant::now();
    let answer = Client::new(port, Duration::from_secs(60)).get(request)?;
    whole(answer.status, answer.bytes, size)?;
    Ok(size as f64 / 1e6 / begin.elapsed().as_secs_f64())
}

fn whole(status: u16, bytes: u64, size: u64) -> Result<()> {
    if status == 200 && bytes == size {
        return Ok(());
    }
    Err(format!("expected 200 with {size} bytes, got {status} with {bytes}").into())
}

/// Peak of the target's memory while readers take the answer slowly.
fn slow_readers(target: &Service, request: &Request, size: u64) -> Result<u64> {
    std::thread::scope(|scope| {
        let read = || -> Result<()> {
            let (begin, mut bytes) = (Instant::now(), 0);
            let answer = Client::new(target.port, Duration::from_secs(60)).get_reading(request, |more| {
                bytes += more.len() as u64;
                let due = Duration::from_secs_f64(bytes as f64 / SLOW_RATE);
                std::thread::sleep(due.saturating_sub(begin.elapsed()));
            })?;
            whole(answer.status, answer.bytes, size)
        };
        let readers: Vec<_> = (0..SLOW_READERS).map(|_| scope.spawn(read)).collect();
        readers.into_iter().try_for_each(|reader| reader.join().map_err(|_| "a reader panicked")?)
    })?;
    Ok(target.peak_rss())
}
