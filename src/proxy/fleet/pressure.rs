//! The pressure that the proxies of a fleet read at the same backends: each obeys the highest.
//!
//! Readings are taken from the backend's own metrics and answers. Without leases each proxy cuts its own window by them; with
//! leases the window is one for all, and the first that cuts it cuts it for all.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::base::distress::{LOW, Signal};

/// How long a reading counts.
pub(super) const FRESH: Duration = Duration::from_secs(3);
/// Readings of others that are kept, at most.
const HEARD_MAX: usize = 2_000;

/// A signal that says the most, and its pressure from 0 to 1.
type Pressure = (Signal, f64);

/// A reading as it stands on the board.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reading {
    backend: String,
    signal: String,
    pressure: f64,
}

impl Reading {
    pub(super) fn backend(&self) -> &str {
        &self.backend
    }
}

/// Readings of this proxy and of others.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// By backend: those that say something, and when.
    own: HashMap<String, (Pressure, Instant)>,
    /// By backend and proxy, and until when they count.
    others: HashMap<(String, String), (Pressure, Instant)>,
}

impl Readings {
    /// Takes the reading of this proxy; gives the highest of all.
    pub(super) fn worst(&mut self, backend: &str, own: Option<Pressure>, now: Instant) -> Option<Pressure> {
        self.own.remove(backend);
        // A signal that lets the window grow says nothing to others.
        if let Some(own) = own.filter(|(_, pressure)| *pressure > LOW) {
            self.own.insert(backend.to_owned(), (own, now));
        }
        self.others.retain(|_, (_, until)| now < *until);
        let others =
            self.others.iter().filter(|((of, _), _)| of == backend).map(|(_, (pressure, _))| *pressure);
        others.chain(own).max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The fresh readings of this proxy, for the others.
    pub(super) fn own(&self, now: Instant) -> impl Iterator<Item = Reading> {
        let is_fresh = move |at: Instant| now.saturating_duration_since(at) < FRESH;
        let fresh = self.own.iter().filter(move |(_, (_, at))| is_fresh(*at));
        fresh.map(|(backend, ((signal, pressure), _))| Reading {
            backend: backend.clone(),
            signal: signal.as_str().to_owned(),
            pressure: *pressure,
        })
    }

    /// Takes the reading of another proxy, which counts until then. Whether it is one.
    pub(super) fn hear(&mut self, proxy: &str, reading: Reading, until: Instant) -> bool {
        let Reading { backend, signal, pressure } = reading;
        let signal = Signal::ALL.into_iter().find(|known| known.as_str() == signal);
        let Some(signal) = signal.filter(|_| (0.0..=1.0).contains(&pressure)) else { return false };
        if self.others.len() < HEARD_MAX {
            self.others.insert((backend, proxy.to_owned()), ((signal, pressure), until));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(backend: &str, signal: &str, pressure: f64) -> Reading {
        Reading { backend: backend.to_owned(), signal: signal.to_owned(), pressure }
    }

    #[tokio::test(start_paused = true)]
    async fn the_highest_fresh_reading_counts_for_its_backend() {
        let (mut readings, now) = (Readings::default(), Instant::now());
        let until = now + FRESH;
        assert!(readings.hear("b", reading("main", "saturation", 0.9), until));
        assert!(readings.hear("c", reading("main", "memory", 0.8), until));
        let worst =
            |readings: &mut Readings, own, at| readings.worst("main", own, at).map(|(_, pressure)| pressure);
        assert_eq!(worst(&mut readings, None, now), Some(0.9));
        assert_eq!(worst(&mut readings, Some((Signal::Memory, 0.95)), now), Some(0.95));
        assert_eq!(readings.worst("other", None, now), None);
        assert!(readings.hear("b", reading("main", "saturation", 0.75), until), "it fell");
        assert_eq!(worst(&mut readings, Some((Signal::Memory, 0.1)), now), Some(0.8));
        assert_eq!(worst(&mut readings, Some((Signal::Memory, 0.1)), until), Some(0.1), "they are old");
    }

    #[tokio::test(start_paused = true)]
    async fn ease_and_old_readings_are_not_passed_on_and_nonsense_is_not_taken() {
        let (mut readings, now) = (Readings::default(), Instant::now());
        readings.worst("main", Some((Signal::Pools, 0.9)), now);
        readings.worst("calm", Some((Signal::Pools, 0.5)), now);
        let said = |readings: &Readings, at| readings.own(at).map(|own| own.backend).collect::<Vec<_>>();
        assert_eq!(said(&readings, now), ["main"]);
        assert!(said(&readings, now + FRESH).is_empty(), "its backend is gone");
        for (signal, pressure) in [("moods", 0.9), ("memory", 1.1), ("memory", f64::NAN), ("memory", -1.0)] {
            assert!(!readings.hear("b", reading("main", signal, pressure), now + FRESH));
        }
        for n in 0..3_000 {
            readings.hear(&n.to_string(), reading("main", "memory", 0.9), now + FRESH);
        }
        assert_eq!(readings.others.len(), HEARD_MAX);
    }
}
