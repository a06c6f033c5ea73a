//! Open-loop load: requests are due at times that do not depend on the answers.

use crate::client::{Answer, Client, Request};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The end of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// When it was due, in seconds since the start.
    pub(crate) at: f64,
    /// From then, or from the moment it was sent if its connection was free in time, to the last byte.
    pub(crate) ms: f64,
    /// Its status; zero without an answer.
    pub(crate) status: u16,
    /// Milliseconds that it waited in Weir and that the backend took, as Weir says; zero if it does not.
    pub(crate) weir_ms: [f64; 2],
}

/// A steady load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) port: u16,
    /// Requests per second of all connections.
    pub(crate) rate: f64,
    pub(crate) connections: u32,
    pub(crate) timeout: Duration,
}

impl Pace {
    /// Runs from `start` until `stop` is set, each connection asking in turn and jittered by half its gap, by a fixed
    /// seed. `request` makes the request of a connection's number and turn.
    pub(crate) fn run(
        &self,
        start: Instant,
        stop: &AtomicBool,
        request: impl Fn(u32, u64) -> Request + Sync,
    ) -> Vec<Sample> {
        self.run_with(start, stop, |number| {
            let mut client = Client::new(self.port, self.timeout);
            let request = &request;
            move |turn| client.get(&request(number, turn)).ok()
        })
    }

    /// The same where each connection asks in its own way: `connect` makes that of a connection's number, which gives the
    /// answer to the request of a turn.
    pub(crate) fn run_with<Ask: FnMut(u64) -> Option<Answer>>(
        &self,
        start: Instant,
        stop: &AtomicBool,
        connect: impl Fn(u32) -> Ask + Sync,
    ) -> Vec<Sample> {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.connections)
                .map(|n| (n, &connect))
                .map(|(n, connect)| scope.spawn(move || self.one(n, start, stop, connect(n))))
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
        })
    }

    fn one(
        &self,
        number: u32,
        start: Instant,
        stop: &AtomicBool,
        mut ask: impl FnMut(u64) -> Option<Answer>,
    ) -> Vec<Sample> {
        let mut rng = fastrand::Rng::with_seed(u64::from(number));
        let mut samples = Vec::new();
        for turn in 0_u64.. {
            let place = turn as f64 * f64::from(self.connections) + f64::from(number) + rng.f64() / 2.0;
            let at = place / self.rate;
            let due = start + Duration::from_secs_f64(at);
            let late = Instant::now() > due;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let from = if late { due } else { Instant::now() };
            let answer = ask(turn);
            let ms = from.elapsed().as_secs_f64() * 1e3;
            let (status, weir_ms) = answer.map_or((0, [0.0; 2]), |answer| (answer.status, timing(&answer)));
            samples.push(Sample { at, ms, status, weir_ms });
        }
        samples
    }
}

/// The parts of Weir's wait and of the backend in `Server-Timing`.
pub(crate) fn timing(answer: &Answer) -> [f64; 2] {
    let text = answer.header("server-timing").unwrap_or_default();
    ["weir-wait;dur=", "backend;dur="].map(|name| {
        let rest = text.split_once(name).map_or("", |(_, rest)| rest);
        rest.split([',', ';']).next().and_then(|ms| ms.trim().parse().ok()).unwrap_or(0.0)
    })
}

/// Milliseconds of the samples that were answered with 200.
pub(crate) fn answered(samples: &[Sample]) -> Vec<f64> {
    samples.iter().filter(|s| s.status == 200).map(|s| s.ms).collect()
}

/// Number of samples that were not.
pub(crate) fn failed(samples: &[Sample]) -> usize {
    samples.iter().filter(|s| s.status != 200).count()
}
