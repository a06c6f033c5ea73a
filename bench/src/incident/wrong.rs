//! Estimates made wrong on purpose: the store of what was learned says a fraction of the truth, and the label table is off.
//!
//! Weir learns from a backend that lies, ends, and begins again before the real one with what it kept. Nothing in Weir
//! itself knows of this.

use super::load::Query;
use crate::client::Client;
use crate::process::Scratch;
use crate::targets::weir;
use crate::{Options, Result};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

/// Series of a heavy query in truth.
const TRUTH: u64 = 20_000;
/// Longest body of a request that is read.
const BODY_MAX: u64 = 1 << 20;

/// Leaves in the scratch folder's `weir-data` that the queries touch a `factor`-th of what they do. `config` makes a
/// configuration for a backend on a port.
pub(super) fn teach(
    scratch: &Scratch,
    options: &Options,
    queries: impl Iterator<Item = Query>,
    (factor, end): (u64, u64),
    config: impl Fn(u16) -> String,
) -> Result<()> {
    let series = TRUTH / factor;
    let service = weir(scratch, options, &config(liar(series)?))?;
    let mut client = Client::new(service.port, Duration::from_secs(10));
    for query in queries {
        let (answer, body) = client.page(&query.request("/api/v1/query_range_cost", end))?;
        let told = estimated(&body);
        if answer.status != 200 || told.0 != series {
            return Err(format!("Weir was to learn {series} series, and says {}", told.0).into());
        }
    }
    Ok(())
}

/// Series and bytes of memory that an answer of `query_range_cost` tells.
pub(super) fn estimated(body: &[u8]) -> (u64, u64) {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let number = |name: &str| json["data"]["estimate"][name].as_u64().unwrap_or(0);
    (number("seriesTouched"), number("memoryBytes"))
}

/// A backend with so many series, whatever it is asked; it has no label table.
fn liar(series: u64) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let mut list = String::from(r#"{"status":"success","data":["#);
    for n in 0..series {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(list, r#"{comma}{{"__name__":"series","n":"{n}"}}"#);
    }
    list.push_str("]}");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let list = list.clone();
            std::thread::spawn(move || lie(&stream, &list));
        }
    });
    Ok(port)
}

fn lie(stream: &TcpStream, list: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut reader.by_ref().take(length.min(BODY_MAX)), &mut std::io::sink())?;
        let (status, body) = match first.split(' ').nth(1).unwrap_or_default() {
            path if path.starts_with("/api/v1/status/tsdb") => ("404 Not Found", "{}"),
            path if path.starts_with("/api/v1/status/buildinfo") => {
                ("200 OK", r#"{"status":"success","data":{"version":"3.0.0"}}"#)
            }
            path if path.starts_with("/api/v1/series") => ("200 OK", list),
            _ => ("200 OK", r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut writer = stream;
        writer.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    }
}
