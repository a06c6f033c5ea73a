//! Time as PromQL has it: milliseconds since the Unix epoch, inclusive ranges.

/// An inclusive range of timestamps in milliseconds since the Unix epoch; `start <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First millisecond.
    pub start: i64,
    /// Last millisecond.
    pub end: i64,
}

impl TimeRange {
    /// The range between two instants, whichever comes first.
    pub fn new(a: i64, b: i64) -> Self {
        Self { start: a.min(b), end: a.max(b) }
    }

    /// Length in milliseconds; saturates.
    pub const fn len_ms(self) -> u64 {
        self.end.saturating_sub(self.start) as u64
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// The time parameters of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EvalTimes {
    /// First evaluation, milliseconds.
    pub start: i64,
    /// Last possible evaluation, milliseconds; equal to `start` for an instant query.
    pub end: i64,
    /// Milliseconds between evaluations; 0 for an instant query.
    pub step: u64,
}

impl EvalTimes {
    /// An instant query at `t`.
    pub const fn instant(t: i64) -> Self {
        Self { start: t, end: t, step: 0 }
    }

    /// Number of evaluations: `(end - start) / step + 1`, 1 for an instant query.
    pub const fn steps(self) -> u64 {
        if self.step == 0 || self.end < self.start {
            return 1;
        }
        self.end.saturating_sub(self.start) as u64 / self.step + 1
    }
}

/// A time in milliseconds as the query API takes it: Unix seconds with a fraction.
pub fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03}", ms / 1_000, ms % 1_000)
}
