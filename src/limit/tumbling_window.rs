//! A number over the last one to two seconds: the current tumbling window of a second and the one before.

use std::time::Duration;

use tokio::time::Instant;

/// The length of one interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// A number that starts anew with every interval; the one of the interval before is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TumblingWindow<T> {
    began: Option<Instant>,
    now: T,
    before: T,
}

impl<T: Copy + Default> TumblingWindow<T> {
    /// The number of the interval that is under way.
    pub(super) fn at(&mut self, now: Instant) -> &mut T {
        let age = self.began.map(|began| now.saturating_duration_since(began));
        if age.is_none_or(|age| age >= INTERVAL) {
            self.before = if age.is_some_and(|age| age < 2 * INTERVAL) { self.now } else { T::default() };
            (self.began, self.now) = (Some(now), T::default());
        }
        &mut self.now
    }

    /// The numbers of this interval and of the one before.
    pub(super) fn both(&mut self, now: Instant) -> [T; 2] {
        [*self.at(now), self.before]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_for_one_to_two_seconds() {
        let (mut window, began) = (TumblingWindow::<u64>::default(), Instant::now());
        let after = |millis| began + Duration::from_millis(millis);
        *window.at(after(0)) += 3;
        *window.at(after(999)) += 4;
        assert_eq!(window.both(after(999)), [7, 0]);
        assert_eq!(window.both(after(1_100)), [0, 7]);
        assert_eq!(window.both(after(2_200)), [0, 0]);
        *window.at(after(2_300)) += 1;
        assert_eq!(window.both(after(4_300)), [0, 0], "an interval without a look in between");
    }
}
