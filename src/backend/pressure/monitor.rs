//! Everything that is known of a backend's distress: values and a clock, no HTTP.

use std::{collections::BTreeMap, ops::Add as _};

use tokio::time::Instant;

use super::{
    HELD_FOR,
    estimates::Estimates,
    memory::{Level, Memory},
    page::Page,
    rate::Rates,
    reading::{self, read},
    settings::{OnStale, Settings},
};
use crate::{
    backend::Kind,
    base::distress::{Distress, Load, Signal},
};

/// The pressure of a backend, and its signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// 0: at ease; 1: at its limit.
    pub pressure: f64,
    /// The signal.
    pub signal: Signal,
}

/// The most that signals other than memory and pools say: there is too much to do, which shrinks the window, but one
/// query more ends nothing.
const MOST: f64 = 0.97;

impl Reading {
    /// `used` of something of which `limit` is all there may be; a limit of 0 is none.
    pub(super) fn new(signal: Signal, used: f64, limit: f64) -> Self {
        let most = if matches!(signal, Signal::Memory | Signal::Pools) { 1.0 } else { MOST };
        let pressure = if limit > 0.0 { (used / limit).clamp(0.0, most) } else { 0.0 };
        Self { pressure, signal }
    }
}

/// One observation of a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The input of the window.
    pub distress: Distress,
    /// The worst that each signal said of any replica.
    pub readings: Vec<Reading>,
    /// Signals that should come and have stayed away for too long.
    pub stale: Vec<Signal>,
    /// Memory reaches its limit before anything but cancelling a query has an effect.
    pub runs_out: bool,
    /// The memory of a replica with nothing heavy running, where it is high.
    pub at_rest: Option<Level>,
}

/// Watches one backend.
#[derive(Clone, Debug)]
pub struct Monitor {
    kind: Kind,
    settings: Settings,
    /// When each signal that should come last came; at first, when the watching began.
    heard: BTreeMap<Signal, Instant>,
    /// The counters and the memory of each replica.
    replicas: Vec<(Rates, Memory)>,
    estimates: Estimates,
    /// When the backend last ran queries of others.
    others: Option<Instant>,
    latest: Option<Observation>,
}

impl Monitor {
    /// Begins to watch; the clocks of all signals that should come start now.
    pub fn new(kind: Kind, settings: Settings, now: Instant) -> Self {
        Self {
            kind,
            settings,
            heard: expected(kind, &settings).map(|signal| (signal, now)).collect(),
            replicas: Vec::new(),
            estimates: Estimates::default(),
            others: None,
            latest: None,
        }
    }

    /// Obeys other settings from now on.
    pub fn obey(&mut self, kind: Kind, settings: Settings, now: Instant) {
        let known = std::mem::take(&mut self.heard);
        self.heard = expected(kind, &settings)
            .map(|signal| (signal, known.get(&signal).copied().unwrap_or(now)))
            .collect();
        (self.kind, self.settings) = (kind, settings);
    }

    /// Reads the metrics page of each replica, `None` where there was none, and the load in flight until then.
    pub fn observe(&mut self, pages: &[Option<&str>], in_flight: Load, now: Instant) -> Observation {
        self.replicas.resize_with(pages.len(), Default::default);
        let ours = self.are_ours(pages, in_flight, now);
        let busy = in_flight.heavy_bytes > 0;
        let (mut readings, mut runs_out, mut at_rest) = (Vec::new(), false, None);
        for (page, (rates, memory)) in pages.iter().zip(&mut self.replicas) {
            let Some(page) = page.map(Page) else { continue };
            readings.extend(read(self.kind, page, &self.settings, rates, now));
            if let Some(level) = reading::memory(page, &self.settings) {
                let verdict = memory.step(level, busy, now);
                readings.push(Reading::new(Signal::Memory, verdict.pressure, 1.0));
                runs_out |= verdict.runs_out;
                at_rest = at_rest.or(verdict.at_rest);
            }
        }
        for reading in &readings {
            self.heard.insert(reading.signal, now);
        }
        let readings = worst_of_each(readings);
        let (stale, distress) = self.silence(&readings, now);
        let worst = readings.iter().max_by(|a, b| a.pressure.total_cmp(&b.pressure));
        let held = pages.iter().map(|page| reading::held(self.kind, (*page).map(Page)?)).sum();
        let places = pages.iter().filter_map(|page| reading::places(self.kind, (*page).map(Page)?));
        let distress = Distress {
            places: places.reduce(f64::add).filter(|places| *places >= 1.0).map(|places| places as u64),
            pressure: worst.map(|worst| (worst.signal, worst.pressure)),
            underestimate: self.estimates.step(held, in_flight, ours, now),
            ..distress
        };
        let observation =
            Observation { distress, readings, stale, runs_out: runs_out && in_flight.queries > 0, at_rest };
        self.latest = Some(observation.clone());
        observation
    }

    /// Whether the backend ran no query lately but those that Weir sent. Where it does not count its queries, nobody
    /// knows whose they are.
    fn are_ours(&mut self, pages: &[Option<&str>], in_flight: Load, now: Instant) -> bool {
        let running = pages.iter().filter_map(|page| reading::running(self.kind, (*page).map(Page)?));
        let running = running.reduce(f64::add);
        if running.is_some_and(|running| running > in_flight.queries as f64) {
            self.others = Some(now);
        }
        let lately = |at: Instant| now.saturating_duration_since(at) <= HELD_FOR;
        running.is_some() && !self.others.is_some_and(lately)
    }

    /// The signals that stay away for too long, and the reaction. Silence is no sign of ease: at once it ends all
    /// growth, and in the end the configured reaction follows.
    fn silence(&self, readings: &[Reading], now: Instant) -> (Vec<Signal>, Distress) {
        let silent = |signal: &Signal| !readings.iter().any(|reading| reading.signal == *signal);
        let is_stale = |heard: &Instant| now.saturating_duration_since(*heard) > self.settings.stale_after;
        let stale = self.heard.iter().filter(|(signal, heard)| silent(signal) && is_stale(heard));
        let stale: Vec<_> = stale.map(|(signal, _)| *signal).collect();
        let (silent, ceiling) = match (stale.is_empty(), self.settings.on_stale) {
            (true, _) => (self.heard.keys().any(silent), None),
            (false, OnStale::Hold) => (true, None),
            (false, OnStale::ShrinkTo(share)) => (true, Some(share)),
            (false, OnStale::Ignore) => (false, None),
        };
        (stale, Distress { silent, ceiling, ..Distress::NONE })
    }

    /// The latest look, if there was one.
    pub const fn latest(&self) -> Option<&Observation> {
        self.latest.as_ref()
    }
}

/// The signals that a backend of a kind must give: without them its state is not known. Any other signal counts once it
/// was given, and is missed from then on.
fn expected(kind: Kind, settings: &Settings) -> impl Iterator<Item = Signal> {
    let memory = settings.memory_limit.is_some() || kind == Kind::VictoriaMetrics;
    let own = (kind == Kind::Weir).then_some(Signal::Pools);
    memory.then_some(Signal::Memory).into_iter().chain(own)
}

/// The highest pressure of each signal.
fn worst_of_each(readings: Vec<Reading>) -> Vec<Reading> {
    let mut worst = BTreeMap::new();
    for Reading { pressure, signal } in readings {
        let known = worst.entry(signal).or_insert(pressure);
        *known = known.max(pressure);
    }
    worst.into_iter().map(|(signal, pressure)| Reading { pressure, signal }).collect()
}
