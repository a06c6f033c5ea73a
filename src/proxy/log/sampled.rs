//! Lines about refusals by a rate: a flood of requests is not to be a flood of lines.

use parking_lot::Mutex;

/// Lines in one second.
const LINES_MAX: u32 = 10;

/// The lines of the second that is under way.
#[derive(Debug, Default)]
pub(in crate::proxy) struct SampledLines(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    /// Seconds since the epoch.
    at: i64,
    lines: u32,
}

impl SampledLines {
    /// Whether one more may be written; `now_ms` since the epoch.
    pub(super) fn takes_one(&self, now_ms: i64) -> bool {
        let mut second = self.0.lock();
        let at = now_ms.div_euclid(1_000);
        if second.at != at {
            *second = Second { at, lines: 0 };
        }
        let takes = second.lines < LINES_MAX;
        second.lines += u32::from(takes);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_ten_lines_a_second() {
        let lines = SampledLines::default();
        for (now_ms, want) in [(0, 10), (999, 0), (1_000, 10), (5_999, 10), (6_000, 10), (-1, 10)] {
            let written = (0..100).filter(|_| lines.takes_one(now_ms)).count();
            assert_eq!(written, want, "{now_ms}");
        }
    }
}
