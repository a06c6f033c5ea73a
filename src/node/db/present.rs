//! The present, by a clock that an operator may step.
//!
//! The wall clock is held against a monotonic one: their difference stays the same but for a step. Deletion by age,
//! sealing and the refusal of late samples follow the earliest difference of the last six hours, so that a step forward
//! does nothing until it has lasted that long, and a step back does nothing at all. The refusal of early samples
//! follows the latest one, so that senders with sound clocks are not shut out either. Time during which the node did
//! not run counts as a step, since nobody saw it pass.

use std::{collections::VecDeque, time::Duration};

/// How long a reading of the clock bounds the present.
pub(super) const HELD: Duration = Duration::from_secs(6 * 3_600);
/// Readings are joined in this many slots of equal length.
const SLOTS: u32 = 12;
/// A clock that gains or loses this much between two readings, milliseconds, was stepped: it does not drift so fast.
const STEP_MS: u64 = 60_000;

/// Readings of the last hours.
#[derive(Debug, Default)]
pub(super) struct Readings {
    slots: VecDeque<Slot>,
    last: Option<i64>,
}

/// Differences between wall clock and monotonic clock, milliseconds.
#[derive(Clone, Copy, Debug)]
struct Slot {
    began: Duration,
    earliest: i64,
    latest: i64,
}

/// The offset from the monotonic clock to a bound of the present, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) earliest: i64,
    pub(super) latest: i64,
}

impl Readings {
    /// Takes a reading: the wall clock in milliseconds since the Unix epoch, and the monotonic clock. By how many
    /// milliseconds the wall clock was stepped since the reading before, if it was.
    pub(super) fn add(&mut self, wall_ms: i64, monotonic: Duration) -> Option<i64> {
        let difference = wall_ms.saturating_sub(ms(monotonic));
        let step = self.last.map(|last| difference.saturating_sub(last));
        self.last = Some(difference);
        let (earliest, latest) = (difference, difference);
        match self.slots.back_mut() {
            Some(slot) if monotonic.saturating_sub(slot.began) < HELD / SLOTS => {
                slot.earliest = slot.earliest.min(earliest);
                slot.latest = slot.latest.max(latest);
            }
            _ => self.slots.push_back(Slot { began: monotonic, earliest, latest }),
        }
        // A slot goes when its last reading is too old, which is when the one behind it began that long ago.
        while self.slots.get(1).is_some_and(|next| monotonic.saturating_sub(next.began) >= HELD) {
            self.slots.pop_front();
        }
        step.filter(|step| step.unsigned_abs() >= STEP_MS)
    }

    /// The bounds by all readings; 0 before the first.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            earliest: self.slots.iter().map(|slot| slot.earliest).min().unwrap_or(0),
            latest: self.slots.iter().map(|slot| slot.latest).max().unwrap_or(0),
        }
    }
}

/// A duration in milliseconds.
pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Readings every minute from one second to another, with the wall clock off by `off` milliseconds.
    fn run(readings: &mut Readings, seconds: std::ops::Range<u64>, off: i64) -> Vec<i64> {
        let each = seconds.step_by(60);
        each.filter_map(|s| readings.add(NOW + s as i64 * 1_000 + off, at(s))).collect()
    }

    #[test]
    fn a_step_forward_counts_when_it_has_lasted() {
        let mut readings = Readings::default();
        let step = 16 * 86_400_000;
        assert_eq!(run(&mut readings, 0..HOUR, 0), [0; 0]);
        assert_eq!(run(&mut readings, HOUR..6 * HOUR, step), [step]);
        assert_eq!(readings.bounds(), Bounds { earliest: NOW, latest: NOW + step });
        assert_eq!(run(&mut readings, 6 * HOUR..8 * HOUR, step), [0; 0]);
        assert_eq!(readings.bounds(), Bounds { earliest: NOW + step, latest: NOW + step });
    }

    #[test]
    fn a_step_back_counts_at_once_and_back_and_forth_changes_nothing() {
        let mut readings = Readings::default();
        let step = 16 * 86_400_000;
        run(&mut readings, 0..60, 0);
        for round in 1..1_000_u64 {
            let off = [0, step, 0, -step][round as usize % 4];
            assert_eq!(run(&mut readings, round * 60..round * 60 + 60, off).len(), 1);
            let bounds = readings.bounds();
            assert!(bounds.earliest <= NOW && bounds.latest >= NOW, "{round}: {bounds:?}");
        }
        assert!(readings.slots.len() <= SLOTS as usize + 2);
        assert_eq!(readings.bounds(), Bounds { earliest: NOW - step, latest: NOW + step });
    }

    #[test]
    fn drift_is_no_step() {
        let mut readings = Readings::default();
        for s in 0..100_000_u64 {
            assert_eq!(readings.add(NOW + s as i64 * 1_001, at(s)), None);
        }
    }
}
