//! The store of leases: a redis-server on the loopback that keeps nothing on disk unless it is asked for a dump.

use crate::Result;
use crate::process::{Scratch, Service, command, free_port};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Store {
    port: u16,
    service: Option<Service>,
    scratch: Scratch,
}

impl Store {
    pub(crate) fn new() -> Result<Self> {
        let mut store = Self { port: free_port()?, service: None, scratch: Scratch::new()? };
        store.start()?;
        Ok(store)
    }

    /// Starts it on its port; a dump in its folder is loaded.
    pub(super) fn start(&mut self) -> Result<()> {
        let mut start = command("redis-server");
        start.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
        start.arg(self.port.to_string()).arg("--dir").arg(self.scratch.dir());
        let port = self.port;
        let is_ready = || ask(port, "PING").is_ok();
        self.service = Some(Service::start_until("redis", port, self.scratch.dir(), start, is_ready)?);
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.service.take().map_or(Ok(()), |mut service| service.kill())
    }

    pub(super) fn pause(&self, paused: bool) -> Result<()> {
        self.service.as_ref().map_or(Ok(()), |service| service.pause(paused))
    }

    /// Sends a command without arguments.
    pub(super) fn ask(&self, command: &str) -> Result<()> {
        ask(self.port, command)
    }
}

fn ask(port: u16, command: &str) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.starts_with('+') { Ok(()) } else { Err(format!("redis: {command}: {}", line.trim()).into()) }
}
