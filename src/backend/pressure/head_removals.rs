//! The number of series that left a Prometheus' head since a moment, by its own metrics page. Any other series outside
//! of the head had no sample since: the head's own counts plus these bound the series of any window since then.
//!
//! Blocks that were put into its folder from outside never were in the head, so that this is an observation, no bound.

use std::collections::VecDeque;

use super::page::Page;

/// Changes that are kept: the head lets go of series once in two hours, so these are some weeks.
const CHANGES_MAX: usize = 512;
/// An older look than this says nothing of now, milliseconds.
const MAX_AGE_MS: i64 = 300_000;

/// The heads of the replicas; those of one backend hold the same data.
#[derive(Clone, Debug, Default)]
pub struct HeadRemovals {
    replicas: Vec<Option<Head>>,
}

#[derive(Clone, Debug)]
struct Head {
    /// When the process began to count, milliseconds since the epoch.
    started_ms: i64,
    looked_ms: i64,
    /// The counts with the time of each change, oldest first; never empty.
    removed: VecDeque<(i64, f64)>,
}

impl HeadRemovals {
    /// Looks at the metrics page of each replica, `None` where there was none.
    pub fn observe(&mut self, pages: &[Option<&str>], now_ms: i64) {
        self.replicas.resize_with(pages.len(), Option::default);
        for (head, page) in self.replicas.iter_mut().zip(pages) {
            let Some(page) = page.map(Page) else { continue };
            let removed = page.sum("prometheus_tsdb_head_series_removed_total");
            let started = page.sum("process_start_time_seconds");
            let Some((removed, started)) = removed.zip(started) else { continue };
            let started_ms = (started * 1e3) as i64;
            match head {
                Some(head) if head.started_ms == started_ms => head.count(removed, now_ms),
                // The counts of the process before it are unknown.
                _ => {
                    let removed = VecDeque::from([(now_ms, removed)]);
                    *head = Some(Head { started_ms, looked_ms: now_ms, removed });
                }
            }
        }
    }

    /// When the last replica to start began to count, milliseconds since the epoch: the pages say nothing of data from before.
    /// `None` where none was seen.
    pub fn count_since_ms(&self) -> Option<i64> {
        self.replicas.iter().flatten().map(|head| head.started_ms).max()
    }

    /// The series that left the head since then, of the replica that lost most; `None` where a replica has not counted
    /// since then, or not lately.
    pub fn gone_since(&self, since_ms: i64, now_ms: i64) -> Option<u64> {
        let each = self.replicas.iter().map(|head| head.as_ref()?.gone_since(since_ms, now_ms));
        each.collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

impl Head {
    fn count(&mut self, removed: f64, now_ms: i64) {
        self.looked_ms = now_ms;
        if self.removed.back().is_none_or(|(_, last)| *last != removed) {
            self.removed.push_back((now_ms, removed));
        }
        if self.removed.len() > CHANGES_MAX {
            self.removed.pop_front();
        }
    }

    fn gone_since(&self, since_ms: i64, now_ms: i64) -> Option<u64> {
        let fresh = now_ms.saturating_sub(self.looked_ms) <= MAX_AGE_MS;
        let (_, latest) = self.removed.back().filter(|_| fresh && self.started_ms <= since_ms)?;
        // Before the first look: all that the process ever counted.
        let then = self.removed.iter().rev().find(|(at, _)| *at <= since_ms).map_or(0.0, |(_, n)| *n);
        Some((latest - then).max(0.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn page(started: i64, removed: u64) -> String {
        format!(
            "prometheus_tsdb_head_series 700\nprometheus_tsdb_head_series_removed_total {removed}\n\
             process_start_time_seconds {}\n",
            started / 1_000
        )
    }

    #[test]
    fn what_left_the_head_is_counted_from_any_moment_that_the_process_knows() {
        let mut removals = HeadRemovals::default();
        assert_eq!(removals.gone_since(0, 0), None);
        for (hour, removed) in [(10, 500), (11, 500), (12, 530), (13, 530), (14, 600)] {
            removals.observe(&[Some(&page(2 * HOUR, removed))], hour * HOUR);
        }
        let now = 14 * HOUR;
        // Hour of the window's start; series gone since.
        let cases =
            [(1, None), (2, Some(600)), (9, Some(600)), (10, Some(100)), (12, Some(70)), (14, Some(0))];
        for (hour, gone) in cases {
            assert_eq!(removals.gone_since(hour * HOUR, now), gone, "since hour {hour}");
        }
        assert_eq!(removals.gone_since(12 * HOUR, now + 2 * MAX_AGE_MS), None, "no look for too long");
    }

    #[test]
    fn a_restart_begins_anew_and_the_worst_replica_counts() {
        let mut removals = HeadRemovals::default();
        removals.observe(&[Some(&page(0, 40)), Some(&page(0, 90))], HOUR);
        assert_eq!(removals.gone_since(0, HOUR), Some(90));
        removals.observe(&[Some(&page(0, 40)), Some(&page(2 * HOUR, 1))], 3 * HOUR);
        assert_eq!(removals.gone_since(0, 3 * HOUR), None, "one of them knows only an hour");
        assert_eq!(removals.gone_since(2 * HOUR, 3 * HOUR), Some(1));
        removals.observe(&[Some("up 1\n")], 3 * HOUR);
        assert_eq!(removals.gone_since(2 * HOUR, 3 * HOUR), Some(0), "a page without it changes nothing");
    }

    #[test]
    fn changes_are_bounded() {
        let mut removals = HeadRemovals::default();
        for n in 0..5_000_i64 {
            removals.observe(&[Some(&page(0, n as u64))], n * 1_000);
        }
        assert_eq!(removals.replicas[0].as_ref().unwrap().removed.len(), CHANGES_MAX);
        assert_eq!(removals.gone_since(1_000, 5_000_000), Some(4_999), "what was forgotten counts whole");
    }
}
