//! A database's page of metrics without some of them: Weir without one of its signals.

use crate::Result;
use crate::client::{Client, Request};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

/// A port with the page of another one, less the metrics whose names hold one of these words.
pub(super) fn without(database: u16, words: &'static [&'static str]) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream, database, words));
        }
    });
    Ok(port)
}

fn answer(stream: &TcpStream, database: u16, words: &[&str]) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let (_, body) =
        Client::new(database, Duration::from_secs(5)).page(&Request::get("/metrics", &[], "bench"))?;
    let page = left(&String::from_utf8_lossy(&body), words);
    let length = page.len();
    write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}")
}

fn left(page: &str, words: &[&str]) -> String {
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    let is_left = |line: &&str| !words.iter().any(|word| name(line).contains(word));
    page.lines().filter(is_left).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_what_is_left() {
        let page = "a_queries{x=\"b\"} 1\nb 2\nc_more{y=\"a_queries\"} 3\n";
        assert_eq!(left(page, &["queries", "b"]), "c_more{y=\"a_queries\"} 3\n");
    }
}
