//! A small blocking HTTP/1.1 client: one thread per connection keeps the pacing exact to some 50 µs, which timers of an
//! asynchronous runtime (1 ms) do not.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes kept of a page.
const PAGE_MAX: usize = 16 << 20;

/// The answer; the body is counted, and only its beginning kept.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Header lines, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) bytes: u64,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// A stream whose reads all end at one deadline, however slowly bytes drip in.
#[derive(Debug)]
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

/// A client with one connection to a port of the loopback; it connects anew after an error, and never asks twice.
#[derive(Debug)]
pub(crate) struct Client {
    port: u16,
    timeout: Duration,
    connection: Option<BufReader<Timed>>,
}

impl Client {
    pub(crate) fn new(port: u16, timeout: Duration) -> Self {
        Self { port, timeout, connection: None }
    }

    pub(crate) fn get(&mut self, request: &Request) -> io::Result<Answer> {
        self.get_reading(request, |_| ())
    }

    /// The answer with its body, of which no more than some megabytes are kept.
    pub(crate) fn page(&mut self, request: &Request) -> io::Result<(Answer, Vec<u8>)> {
        let mut body = Vec::new();
        let answer = self.get_reading(request, |piece| {
            if body.len() < PAGE_MAX {
                body.extend_from_slice(piece);
            }
        })?;
        Ok((answer, body))
    }

    /// `on_bytes` hears of each piece of the body, and may sleep to be a slow reader.
    pub(crate) fn get_reading(
        &mut self,
        request: &Request,
        on_bytes: impl FnMut(&[u8]),
    ) -> io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        connection.get_mut().deadline = Instant::now() + self.timeout;
        connection.get_mut().stream.write_all(&request.0)?;
        let answer = read_answer(&mut connection, on_bytes)?;
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    /// Sends the request on a new connection, reads nothing for `time`, and closes it.
    pub(crate) fn abandon(&self, request: &Request, time: Duration) -> io::Result<()> {
        let mut connection = self.connect()?;
        connection.get_mut().stream.write_all(&request.0)?;
        std::thread::sleep(time);
        Ok(())
    }

    fn connect(&self) -> io::Result<BufReader<Timed>> {
        let stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, self.port).into(), self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(BufReader::with_capacity(64 << 10, Timed { stream, deadline: Instant::now() }))
    }
}

/// The bytes of a request.
#[derive(Debug, Clone)]
pub(crate) struct Request(Vec<u8>);

/// Header line of the user that Debian's vmauth asks for; the others do not mind it.
pub(crate) const AUTHORIZATION: &str = "Authorization: Basic dTpw";

impl Request {
    pub(crate) fn get(path: &str, parameters: &[(&str, &str)], tenant: &str) -> Self {
        let mut query = String::new();
        for (name, value) in parameters {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(name);
            query.push('=');
            query.push_str(&encode(value));
        }
        let head = format!(
            "GET {path}{query} HTTP/1.1\r\nHost: localhost\r\n{AUTHORIZATION}\r\nX-Scope-OrgID: {tenant}\r\n\r\n"
        );
        Self(head.into_bytes())
    }

    /// The same request with one header more.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        // Before the empty line at the end of the head, which has no body.
        self.0.truncate(self.0.len().saturating_sub(2));
        self.0.extend_from_slice(format!("{name}: {value}\r\n\r\n").as_bytes());
        self
    }

    /// The same request below a prefix of the path.
    pub(crate) fn under(&self, prefix: &str) -> Self {
        let path = self.0.iter().position(|byte| *byte == b'/').unwrap_or(0);
        let (method, rest) = self.0.split_at(path);
        Self([method, prefix.as_bytes(), rest].concat())
    }

    /// The parameters in the body.
    pub(crate) fn form(path: &str, parameters: &[(&str, &str)], tenant: &str) -> Self {
        let pairs: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let body = pairs.join("&");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\n{AUTHORIZATION}\r\nX-Scope-OrgID: {tenant}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self(head.into_bytes())
    }

    /// A body of JSON.
    pub(crate) fn post(path: &str, json: &str) -> Self {
        let length = json.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
        );
        Self(head.into_bytes())
    }

    /// A body in the text exposition format.
    pub(crate) fn text(path: &str, body: &[u8]) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Self([head.as_bytes(), body].concat())
    }

    /// A remote write; `body` is compressed with snappy.
    pub(crate) fn remote_write(path: &str, body: &[u8]) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Self([head.as_bytes(), body].concat())
    }
}

/// Percent-encodes a value of a query string.
fn encode(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

fn bad(message: &str) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

/// One line without its end; the end of the stream is an error.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    if reader.take(64 << 10).read_line(&mut text)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(text.trim_end().to_owned())
}

fn read_answer(reader: &mut impl BufRead, mut on_bytes: impl FnMut(&[u8])) -> io::Result<Answer> {
    let first = line(reader)?;
    let status = first.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| bad("no status line"))?;
    let mut headers = Vec::new();
    loop {
        let text = line(reader)?;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':').ok_or_else(|| bad("no header line"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, bytes: 0 };
    if status == 204 {
        return Ok(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = line(reader)?;
            let size = u64::from_str_radix(size.split(';').next().unwrap_or(""), 16)
                .map_err(|_| bad("no chunk size"))?;
            answer.bytes += skip(reader, size, &mut on_bytes)?;
            line(reader)?;
            if size == 0 {
                return Ok(answer);
            }
        }
    }
    let length =
        answer.header("content-length").and_then(|l| l.parse().ok()).ok_or_else(|| bad("no length"))?;
    answer.bytes = skip(reader, length, &mut on_bytes)?;
    Ok(answer)
}

/// Reads `length` bytes and drops them.
fn skip(reader: &mut impl BufRead, length: u64, on_bytes: &mut impl FnMut(&[u8])) -> io::Result<u64> {
    let mut left = length;
    while left > 0 {
        let bytes = reader.fill_buf()?;
        let piece = bytes.get(..left as usize).unwrap_or(bytes);
        let got = piece.len();
        if got == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        on_bytes(piece);
        reader.consume(got);
        left -= got as u64;
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_framings_and_leaves_the_next_answer() {
        let mut wire: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 422 No\r\nTransfer-Encoding: chunked\r\nWeir-Limit: x\r\n\r\n4;e=1\r\nabcd\r\n1\r\ne\r\n0\r\n\r\n";
        let first = read_answer(&mut wire, |_| ()).expect("with a length");
        let second = read_answer(&mut wire, |_| ()).expect("in chunks");
        assert_eq!((first.status, first.bytes), (200, 3));
        assert_eq!((second.status, second.bytes, second.header("weir-limit")), (422, 5, Some("x")));
        assert!(read_answer(&mut wire, |_| ()).is_err());
    }

    #[test]
    fn encodes_what_a_url_cannot_hold() {
        assert_eq!(encode(r#"a{b="c d"}"#), "a%7Bb%3D%22c%20d%22%7D");
    }
}
