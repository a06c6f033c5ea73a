//! Everything that is known of a backend's distress, and what it leaves of the budget: values and a clock, no HTTP.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    answers::{Answer, Answers},
    controller::{Controller, FULL, Sight, Silence},
    rate::Rates,
    reading::{held, read},
    settings::Settings,
    signal::{Reading, Signal, expected},
    truth::{DOUBT, Expected, Truth},
};
use crate::{backend::Kind, base::Allowance};

/// What one look at a backend says.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// What is left of the budget.
    pub left: Allowance,
    /// How many times more than expected queries hold, as far as that shows; 1 is as expected, or not known.
    pub error: f64,
    /// The worst that each signal said of any replica.
    pub readings: Vec<Reading>,
    /// Signals that should come and have stayed away for too long.
    pub stale: Vec<Signal>,
}

impl Look {
    /// Whether the backend is about to run out of memory, so that what runs there is not left to its end.
    pub fn runs_out(&self) -> bool {
        let of_memory = |reading: &Reading| matches!(reading.signal, Signal::Memory | Signal::Heap);
        self.readings.iter().any(|reading| of_memory(reading) && reading.pressure >= FULL)
    }

    /// Whether queries hold so much more than expected that estimates are not to be relied on.
    pub fn doubts(&self) -> bool {
        self.error > DOUBT
    }
}

/// Watches one backend.
#[derive(Clone, Debug)]
pub struct Monitor {
    kind: Kind,
    settings: Settings,
    controller: Controller,
    /// When each signal that should come last came; at first, when the watching began.
    heard: BTreeMap<Signal, Instant>,
    /// The counters of each replica.
    rates: Vec<Rates>,
    answers: Answers,
    truth: Truth,
    latest: Option<Look>,
}

impl Monitor {
    /// Begins to watch; the clocks of all signals that should come start now.
    pub fn new(kind: Kind, settings: Settings, now: Instant) -> Self {
        Self {
            kind,
            settings,
            controller: Controller::new(settings.on_stale, now),
            heard: expected(kind, &settings).map(|signal| (signal, now)).collect(),
            rates: Vec::new(),
            answers: Answers::default(),
            truth: Truth::default(),
            latest: None,
        }
    }

    /// Obeys other settings from now on; the share stays what it is.
    pub fn obey(&mut self, kind: Kind, settings: Settings, now: Instant) {
        let known = std::mem::take(&mut self.heard);
        self.heard = expected(kind, &settings)
            .map(|signal| (signal, known.get(&signal).copied().unwrap_or(now)))
            .collect();
        (self.kind, self.settings) = (kind, settings);
        self.controller.obey(settings.on_stale);
    }

    /// A query was forwarded, and this became of it.
    pub fn answered(&mut self, answer: &Answer, now: Instant) {
        self.answers.add(answer, now);
    }

    /// Looks at the metrics page of each replica, `None` where there was none, and at what queries are to hold there.
    pub fn look(&mut self, pages: &[Option<&str>], expected: Expected, now: Instant) -> Look {
        self.rates.resize_with(pages.len(), Rates::default);
        let read = |(page, rates): (Option<&str>, &mut Rates)| {
            page.map(|page| read(self.kind, page, &self.settings, rates, now)).unwrap_or_default()
        };
        let mut readings = worst_of_each(pages.iter().copied().zip(&mut self.rates).flat_map(read));
        for reading in &readings {
            self.heard.insert(reading.signal, now);
        }
        // These are never silent: they are our own.
        readings.extend(self.answers.read(&self.settings, now));
        let silent = |signal: &Signal| !readings.iter().any(|reading| reading.signal == *signal);
        let is_stale = |heard: &Instant| now.saturating_duration_since(*heard) > self.settings.stale_after;
        let stale: Vec<_> = (self.heard.iter())
            .filter(|(signal, heard)| silent(signal) && is_stale(heard))
            .map(|(signal, _)| *signal)
            .collect();
        let silence = match (stale.is_empty(), self.heard.keys().any(silent)) {
            (false, _) => Silence::Stale,
            (true, true) => Silence::Short,
            (true, false) => Silence::None,
        };
        let pressure = readings.iter().map(|reading| reading.pressure).max_by(f64::total_cmp);
        // With nothing to expect, nothing heard is ease.
        let pressure = pressure.or_else(|| self.heard.is_empty().then_some(0.0));
        let held = pages.iter().map(|page| held(self.kind, (*page)?)).sum();
        let error = self.truth.step(held, expected, now);
        let left = match self.controller.step(Sight { pressure, silence }, now) {
            Allowance::Share(share) if error > DOUBT => Allowance::Share(share.min(1.0 / error)),
            left => left,
        };
        let look = Look { left, error, readings, stale };
        self.latest = Some(look.clone());
        look
    }

    /// The latest look, if there was one.
    pub const fn latest(&self) -> Option<&Look> {
        self.latest.as_ref()
    }
}

/// The highest pressure of each signal.
fn worst_of_each(readings: impl Iterator<Item = Reading>) -> Vec<Reading> {
    let mut worst = BTreeMap::new();
    for Reading { pressure, signal } in readings {
        let known = worst.entry(signal).or_insert(pressure);
        *known = known.max(pressure);
    }
    worst.into_iter().map(|(signal, pressure)| Reading { pressure, signal }).collect()
}
