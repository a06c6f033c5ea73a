//! Writing: judge, log, apply.

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Db, WriteError,
    record::{self, Accepted, AcceptedSamples},
};
use crate::node::{
    head::{self, Batch, BatchSeries, NamedBy, Refusal, RefusedSeries, Rules, Series},
    wal::LogError,
};

/// The outcome of a batch: the refused series are named, the rest is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Samples written.
    pub samples: u64,
    /// Samples that were there already, value and all.
    pub known: u64,
    /// Samples refused, of any reason.
    pub refused: u64,
    /// Exemplars refused: none are stored.
    pub exemplars_refused: u64,
    /// New series refused because the limit on series is reached.
    pub series_refused: u64,
    /// The first refusal, and which sample it met.
    pub first: Option<(Refusal, String)>,
}

impl Appended {
    fn of_refused(series: &RefusedSeries) -> Self {
        let first = series.first.clone().map(|text| (Refusal::Series, text));
        Self { refused: series.samples, first, ..Self::default() }
    }

    /// Counts a sample as refused; `series` shows which series it is of.
    fn refuse(&mut self, why: Refusal, (time, value): (i64, f64), series: impl FnOnce() -> String) {
        self.refused += 1;
        self.first.get_or_insert_with(|| (why, format!("{why}: {} at {time}: {value}", series())));
    }
}

impl Db {
    /// Why writes are refused now; `None` while they are taken. Found by the last write or by upkeep, whichever was
    /// later.
    pub fn refuses_writes(&self) -> Option<WriteError> {
        self.health.refusal()
    }

    /// Writes a batch; when it returns, the accepted samples are as safe as the log's policy promises. Series that the
    /// batch refused count as refused here.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn append(&self, batch: &Batch<'_>) -> Result<Appended, WriteError> {
        let _under_way = self.gate.read();
        let mut outcome = Appended::of_refused(batch.refused());
        outcome.exemplars_refused = batch.refused_exemplars();
        if !batch.metadata().is_empty() {
            self.metadata.lock().take(batch.metadata());
        }
        let accepted = self.judge(batch, &mut outcome);
        self.log(&accepted)?;
        self.apply_all(&accepted, &mut outcome);
        self.appended.fetch_add(outcome.samples, Ordering::Relaxed);
        self.refused.fetch_add(outcome.refused, Ordering::Relaxed);
        Ok(outcome)
    }

    fn judge<'b>(&self, batch: &'b Batch<'_>, outcome: &mut Appended) -> Vec<Accepted<'b>> {
        let rules = self.rules();
        let mut accepted = Vec::with_capacity(batch.len());
        let known: Vec<Option<Cow<'b, Arc<Series>>>> = {
            let registry = self.registry();
            batch
                .series()
                .map(|series| match series.named {
                    NamedBy::Known(known) if !known.is_removed() => Some(Cow::Borrowed(known)),
                    _ => registry.find(&series.labels()).cloned().map(Cow::Owned),
                })
                .collect()
        };
        for (written, known) in batch.series().zip(known) {
            let shown = || head::shown(&written.labels());
            // A series is made only for a sample that may stay.
            let series = match known {
                Some(series) => series,
                None if !written.samples.iter().any(|s| s.0 >= rules.oldest && s.0 <= rules.newest) => {
                    for sample in written.samples {
                        let late = sample.0 < rules.oldest;
                        let why = if late { Refusal::TooOld } else { Refusal::TooFarAhead };
                        outcome.refuse(why, *sample, shown);
                    }
                    continue;
                }
                None => match self.make(&written.labels()) {
                    Some(series) => Cow::Owned(series),
                    None => {
                        outcome.series_refused += 1;
                        for sample in written.samples {
                            outcome.refuse(Refusal::SeriesLimit, *sample, shown);
                        }
                        continue;
                    }
                },
            };
            if let NamedBy::Text(text) = written.named {
                self.known.learn(text, &series);
            }
            let samples = judge_series(&series, written, rules, outcome);
            if !samples.is_empty() {
                accepted.push(Accepted { series, samples });
            }
        }
        accepted
    }

    fn make(&self, labels: &[(&str, &str)]) -> Option<Arc<Series>> {
        let mut registry = self.registry_mut();
        if registry.len() >= self.options.max_series {
            return registry.find(labels).cloned();
        }
        registry.find_or_insert(labels)
    }

    fn rules(&self) -> Rules {
        let span = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let late = self.options.out_of_order_ms;
        let latest = self.latest_present().max((self.options.clock)());
        Rules {
            oldest: self.oldest(),
            late_from: if late == 0 { i64::MAX } else { self.end().saturating_sub(span(late)) },
            newest: latest.saturating_add(span(self.options.max_ahead_ms)),
        }
    }

    /// An acknowledged batch is in the log; a batch that could not be logged is not visible.
    fn log(&self, accepted: &[Accepted<'_>]) -> Result<(), WriteError> {
        let Some(wal) = &self.wal else { return Ok(()) };
        if accepted.is_empty() {
            return Ok(());
        }
        if let Err(error) = wal.append(&record::of_write(accepted)) {
            // The records of the log may be lost with its file; the memory's content is written anew once that is
            // possible.
            self.log_differs.fetch_or(matches!(error, LogError::Gone(_)), Ordering::Relaxed);
            let error = WriteError::from(error);
            self.health.write_failed(&error);
            return Err(error);
        }
        self.health.write_taken();
        self.account_for_segment();
        for one in accepted {
            if !one.series.is_logged() {
                one.series.logged_once_more();
            }
        }
        Ok(())
    }

    fn apply_all(&self, accepted: &[Accepted<'_>], outcome: &mut Appended) {
        let before = outcome.refused;
        for one in accepted {
            self.apply(one, outcome);
        }
        if outcome.refused > before && lost_to_another_write(accepted) {
            self.log_differs.store(true, Ordering::Relaxed);
        }
    }

    /// Adds accepted samples. A sample whose time another write took meanwhile, or an earlier one of this write, with
    /// another value is refused after all, although the log has it.
    fn apply(&self, accepted: &Accepted<'_>, outcome: &mut Appended) {
        let mut newest = i64::MIN;
        let mut held = accepted.series.held();
        for &(time, value) in &accepted.samples {
            newest = newest.max(time);
            if held.runs.insert(time, value) {
                continue;
            }
            outcome.samples -= 1;
            if held.runs.at(time).is_some_and(|other| other.to_bits() == value.to_bits()) {
                outcome.known += 1;
                continue;
            }
            let shown = || {
                let labels = accepted.series.labels().iter();
                head::shown(&labels.map(|l| (&*l.name, &*l.value)).collect::<Vec<_>>())
            };
            outcome.refuse(Refusal::Duplicate, (time, value), shown);
        }
        self.newest.fetch_max(newest, Ordering::Relaxed);
    }

    /// Adds samples that are in the log. One for a time that another write took first is dropped.
    pub(super) fn put_back(&self, series: &Series, samples: impl Iterator<Item = (i64, f64)>) {
        let mut newest = i64::MIN;
        let mut held = series.held();
        for (time, value) in samples {
            held.runs.insert(time, value);
            newest = newest.max(time);
        }
        self.newest.fetch_max(newest, Ordering::Relaxed);
    }
}

/// Whether another write took the time of a sample first: in the log it may come later, and then a restart would put
/// back this one. The order within a write is the same in both.
fn lost_to_another_write(accepted: &[Accepted<'_>]) -> bool {
    let mut seen = HashSet::new();
    accepted.iter().any(|one| {
        let held = one.series.held();
        one.samples.iter().any(|(time, value)| {
            let other = held.runs.at(*time).is_some_and(|other| other.to_bits() != value.to_bits());
            seen.insert((one.series.id(), *time)) && other
        })
    })
}

fn judge_series(
    series: &Series,
    written: BatchSeries<'_, '_>,
    rules: Rules,
    outcome: &mut Appended,
) -> AcceptedSamples {
    let held = series.held();
    let mut kept = AcceptedSamples::with_capacity(written.samples.len());
    let mut pending: Option<(i64, f64)> = None;
    for sample in written.samples {
        match held.check(sample.0, sample.1, pending, rules) {
            Ok(true) => {
                kept.push(*sample);
                if pending.is_none_or(|p| p.0 < sample.0) {
                    pending = Some(*sample);
                }
            }
            Ok(false) => outcome.known += 1,
            Err(why) => outcome.refuse(why, *sample, || head::shown(&written.labels())),
        }
    }
    outcome.samples += kept.len() as u64;
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::db::Options;

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn what_a_race_refused_does_not_come_back_with_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { clock: || NOW, ..Options::default() };
        let db = Db::open(dir.path(), options).unwrap().0;
        let batch = |values: &[f64]| {
            let mut batch = Batch::new(options.labels);
            for value in values {
                batch.label("__name__", "up");
                batch.sample(NOW, *value);
                batch.end_series().unwrap();
            }
            batch
        };
        let held = |db: &Db| db.registry().find(&[("__name__", "up")]).unwrap().held().runs.at(NOW);
        // The second write is faster between the log and the memory.
        let mut outcome = Appended::default();
        let one = batch(&[1.0]);
        let accepted = db.judge(&one, &mut outcome);
        db.log(&accepted).unwrap();
        assert_eq!(db.append(&batch(&[2.0])).unwrap().samples, 1);
        db.apply_all(&accepted, &mut outcome);
        assert_eq!((outcome.samples, outcome.refused, held(&db)), (0, 1, Some(2.0)));
        db.maintain().unwrap();
        drop(db);
        assert_eq!(held(&Db::open(dir.path(), options).unwrap().0), Some(2.0));
    }

    #[test]
    fn the_log_is_rewritten_for_races_only() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { clock: || NOW, ..Options::default() };
        let db = Db::open(dir.path(), options).unwrap().0;
        // A sender that repeats itself is no race.
        let mut batch = Batch::new(options.labels);
        for value in [1.0, 2.0, 1.0] {
            batch.label("__name__", "up");
            batch.sample(NOW, value);
            batch.end_series().unwrap();
        }
        let outcome = db.append(&batch).unwrap();
        assert_eq!((outcome.samples, outcome.known, outcome.refused), (1, 1, 1));
        assert!(!db.log_differs.load(Ordering::Relaxed));
        db.log_differs.store(true, Ordering::Relaxed);
        db.maintain().unwrap();
        assert!(!db.log_differs.load(Ordering::Relaxed), "once is enough");
    }
}
