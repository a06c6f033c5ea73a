//! Several Weirs before one database, and the balancer before them.

use crate::client::{Answer, Client, Request};
use crate::process::{Scratch, Service};
use crate::targets::WeirFile;
use crate::{Options, Result};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::observer::{LEASED, look};

/// One Weir process; it is ended before its files are removed.
#[derive(Debug)]
struct Proxy {
    service: Service,
    admin: u16,
    _scratch: Scratch,
}

impl Drop for Proxy {
    /// At once: the run is over, or a scenario wants it so.
    fn drop(&mut self) {
        let _ = self.service.kill();
    }
}

/// The proxies that run.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    options: &'a Options,
    config: String,
    proxies: Mutex<Vec<Proxy>>,
    /// Requests asked twice, since their proxy was killed before it answered.
    pub(super) retried: AtomicU64,
}

impl<'a> Fleet<'a> {
    pub(super) fn start(options: &'a Options, count: usize, config: String) -> Result<Self> {
        let fleet = Self { options, config, proxies: Mutex::default(), retried: AtomicU64::new(0) };
        (0..count).try_for_each(|_| fleet.add())?;
        Ok(fleet)
    }

    fn proxies(&self) -> MutexGuard<'_, Vec<Proxy>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more proxy.
    pub(super) fn add(&self) -> Result<()> {
        let scratch = Scratch::new()?;
        let file = WeirFile::new(&scratch)?;
        file.write(&self.config)?;
        let (service, admin) = (file.start(self.options)?, file.admin);
        self.proxies().push(Proxy { service, admin, _scratch: scratch });
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.proxies().len()
    }

    /// The ports of the query API.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.proxies().iter().map(|proxy| proxy.service.port).collect()
    }

    /// The ports of the admin API.
    pub(super) fn admins(&self) -> Vec<u16> {
        self.proxies().iter().map(|proxy| proxy.admin).collect()
    }

    /// Kills that many proxies, those that lease most; gives the bytes that they leased.
    pub(super) fn kill(&self, count: usize) -> Result<f64> {
        let leased = |port: u16| look(&mut Client::new(port, Duration::from_secs(2)))[LEASED];
        let mut all: Vec<(f64, u16)> = self.admins().into_iter().map(|port| (leased(port), port)).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all.truncate(count);
        let doomed: Vec<Proxy> = {
            let is_doomed = |proxy: &mut Proxy| all.iter().any(|(_, port)| *port == proxy.admin);
            // Out of the list first: a request that fails from now on is asked again elsewhere.
            self.proxies().extract_if(.., is_doomed).collect()
        };
        for mut proxy in doomed {
            proxy.service.kill()?;
        }
        Ok(all.iter().map(|(leased, _)| leased).sum())
    }

    /// Asks the proxy in the place that `place` gives for their number. If that one is killed before it has answered, the
    /// request is asked once more, as a balancer would.
    pub(super) fn ask(
        &self,
        request: &Request,
        place: impl Fn(usize) -> usize,
        timeout: Duration,
    ) -> io::Result<(Answer, Vec<u8>)> {
        let until = Instant::now() + timeout;
        let choose = || {
            let ports = self.ports();
            ports.get(place(ports.len())).copied().ok_or(io::ErrorKind::NotConnected)
        };
        let port = choose()?;
        let first = Client::new(port, timeout).page(request);
        if first.is_ok() || self.ports().contains(&port) {
            return first;
        }
        self.retried.fetch_add(1, Relaxed);
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        Client::new(choose()?, left).page(request)
    }
}
