//! Estimates made wrong on purpose: between Weir and the database stands a liar, which answers Weir's questions about
//! the number of series with a fraction of the truth, and passes everything else on. Nothing in Weir itself knows of
//! this.

use crate::Result;
use crate::relay::Received;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// Series of a heavy query in truth.
const TRUTH: u64 = 20_000;

/// Series and bytes of memory in an answer of `query_range_cost`.
pub(super) fn estimated(body: &[u8]) -> (u64, u64) {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let number = |name: &str| json["data"]["estimate"][name].as_u64().unwrap_or(0);
    (number("seriesTouched"), number("memoryBytes"))
}

/// A port that stands for the database on another one, and lists a `factor`-th of the series; it has no label table.
pub(super) fn liar(database: u16, factor: u64) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let mut list = String::from(r#"{"status":"success","data":["#);
    for n in 0..TRUTH / factor {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(list, r#"{comma}{{"__name__":"series","n":"{n}"}}"#);
    }
    list.push_str("]}");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let list = list.clone();
            std::thread::spawn(move || answer(&stream, database, &list));
        }
    });
    Ok(port)
}

/// Answers the requests of a connection, until one is passed on.
fn answer(stream: &TcpStream, database: u16, list: &str) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    while let Some(request) = Received::read(&mut reader)? {
        let (status, lie) = match request.path() {
            path if path.starts_with("/api/v1/status/tsdb") => ("404 Not Found", "{}"),
            path if path.starts_with("/api/v1/status/buildinfo") => {
                ("200 OK", r#"{"status":"success","data":{"version":"3.0.0"}}"#)
            }
            path if path.starts_with("/api/v1/series") => ("200 OK", list),
            _ => return io::copy(&mut request.send(database)?, &mut writer).map(drop),
        };
        let length = lie.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        writer.write_all(&[head.as_bytes(), lie.as_bytes()].concat())?;
    }
    Ok(())
}
