//! Requests that a stand-in for a database reads off a connection, and passes on.

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

/// Longest body of a request that is read.
const BODY_MAX: u64 = 1 << 20;

/// A request as it came, without its `Connection` header.
#[derive(Debug)]
pub(crate) struct Received {
    /// Without the empty line.
    head: String,
    body: Vec<u8>,
}

impl Received {
    /// The next request of a connection; `None` at its end.
    pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = String::new();
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
        let mut length = 0_u64;
        loop {
            let start = head.len();
            if reader.read_line(&mut head)? == 0 {
                return Ok(None);
            }
            let line = head[start..].to_ascii_lowercase();
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" || line.starts_with("connection:") {
                head.truncate(start);
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = Vec::new();
        reader.by_ref().take(length.min(BODY_MAX)).read_to_end(&mut body)?;
        Ok(Some(Self { head, body }))
    }

    /// With its query string.
    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The parameters of the path, or else of the body.
    pub(crate) fn parameters(&self) -> String {
        let of_path = self.path().split_once('?').map(|(_, parameters)| parameters.to_owned());
        of_path.unwrap_or_else(|| String::from_utf8_lossy(&self.body).into_owned())
    }

    /// Sends it to the database; the connection ends with the answer.
    pub(crate) fn send(&self, database: u16) -> io::Result<TcpStream> {
        let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, database))?;
        upstream.write_all(&[self.head.as_bytes(), b"Connection: close\r\n\r\n", &self.body].concat())?;
        Ok(upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_request_after_the_other() {
        let mut wire: &[u8] =
            b"GET /api/v1/query?query=up HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n\
            POST /api/v1/query HTTP/1.1\r\nContent-Length: 8\r\n\r\nquery=up";
        let mut read = || Received::read(&mut wire).expect("a request");
        let (get, post) = (read().expect("the first"), read().expect("the second"));
        assert_eq!((get.path(), get.head.contains("Connection")), ("/api/v1/query?query=up", false));
        assert_eq!([get.parameters(), post.parameters()], ["query=up", "query=up"]);
        assert!(read().is_none());
    }
}
