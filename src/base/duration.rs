//! Durations in text: one table of units, and the two grammars that databases read.

use std::{fmt, fmt::Write as _, time::Duration};

/// The units of PromQL, the largest first, in milliseconds.
pub const UNITS: [(&str, u64); 7] = [
    ("y", 31_536_000_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units below a millisecond, which Go has and PromQL has not.
const SMALL_UNITS: [(&str, f64); 3] = [("us", 1e-3), ("µs", 1e-3), ("ns", 1e-6)];

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationError<'t> {
    /// No number in front of a unit, units out of order, a unit twice, or nothing at all.
    Malformed,
    /// A unit that there is not.
    UnknownUnit(&'t str),
    /// More milliseconds than 64 bits hold.
    TooLong,
}

impl fmt::Display for DurationError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not a valid duration string"),
            Self::UnknownUnit(unit) => write!(f, "unknown unit {unit:?}"),
            Self::TooLong => f.write_str("duration out of range"),
        }
    }
}

impl std::error::Error for DurationError<'_> {}

/// The milliseconds of a duration as Prometheus reads it: `1h30m`, whole numbers, units in falling order, each once; or
/// `0`.
///
/// # Errors
/// The mistake in it.
pub fn parse(text: &str) -> Result<u64, DurationError<'_>> {
    if text == "0" {
        return Ok(0);
    }
    let (mut rest, mut units, mut total) = (text, UNITS.iter(), None);
    while !rest.is_empty() {
        let (count, after) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let (unit, after) = after.split_at(after.bytes().take_while(u8::is_ascii_alphabetic).count());
        if count.is_empty() || unit.is_empty() {
            return Err(DurationError::Malformed);
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err(DurationError::UnknownUnit(unit));
        }
        let Some((_, size)) = units.find(|(name, _)| *name == unit) else {
            return Err(DurationError::Malformed);
        };
        let part = count.parse::<u64>().ok().and_then(|n| n.checked_mul(*size));
        let sum = part.and_then(|part| total.unwrap_or(0_u64).checked_add(part));
        total = Some(sum.ok_or(DurationError::TooLong)?);
        rest = after;
    }
    total.ok_or(DurationError::Malformed)
}

/// The milliseconds of a duration as Go and MetricsQL read it: fractions, units in any order. With `step_ms`, `i` is a
/// step.
pub fn parse_fractional(text: &str, step_ms: Option<u64>) -> Option<f64> {
    let (mut rest, mut total) = (text, None);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let whole = || UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms as f64);
        let small = || SMALL_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
        let step = || step_ms.filter(|_| unit == "i").map(|ms| ms as f64);
        let size = whole().or_else(small).or_else(step)?;
        total = Some(total.unwrap_or(0.0) + number.parse::<f64>().ok()? * size);
        rest = after;
    }
    total
}

/// Prints a duration for people: `1h30m`, `15s`, `250ms`. Years and weeks read worse than days in a limit's message.
pub fn text(duration: Duration) -> String {
    let mut out = String::new();
    write(duration.as_millis() as u64, |unit, _| matches!(unit, "y" | "w"), &mut out);
    out
}

/// Writes milliseconds as Prometheus does: years and weeks only where nothing is left over.
pub fn write_canonical(ms: u64, out: &mut String) {
    write(ms, |unit, left| matches!(unit, "y" | "w") && left != 0, out);
}

/// `skips` says of a unit, and of the milliseconds that it would leave over, that it is not used.
fn write(ms: u64, skips: impl Fn(&str, u64) -> bool, out: &mut String) {
    if ms == 0 {
        out.push_str("0s");
    }
    let mut left = ms;
    for (unit, size) in UNITS {
        if left >= size && !skips(unit, left % size) {
            // Writing to a string does not fail.
            let _ = write!(out, "{}{unit}", left / size);
            left %= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_grammar() {
        for (text, want) in [
            ("1h30m", Ok(5_400_000)),
            ("250ms", Ok(250)),
            ("31d", Ok(2_678_400_000)),
            ("1y", Ok(31_536_000_000)),
            ("0", Ok(0)),
            ("30m1h", Err(DurationError::Malformed)),
            ("1m1m", Err(DurationError::Malformed)),
            ("1.5m", Err(DurationError::Malformed)),
            ("h", Err(DurationError::Malformed)),
            ("15", Err(DurationError::Malformed)),
            ("", Err(DurationError::Malformed)),
            ("1x", Err(DurationError::UnknownUnit("x"))),
            ("1i", Err(DurationError::UnknownUnit("i"))),
            ("99999999999999999999s", Err(DurationError::TooLong)),
            ("999999999999y", Err(DurationError::TooLong)),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }

    #[test]
    fn fractions_and_any_order() {
        for (text, want) in [
            ("1.5m", Some(90_000.0)),
            ("30m1h", Some(5_400_000.0)),
            ("2i", Some(30_000.0)),
            ("1h1.5m", Some(3_690_000.0)),
            ("1500us", Some(1.5)),
            ("3M", None),
            ("5", None),
            ("m", None),
            ("1..5m", None),
            ("", None),
        ] {
            assert_eq!(parse_fractional(text, Some(15_000)), want, "{text}");
        }
        assert_eq!(parse_fractional("2i", None), None);
    }

    #[test]
    fn printing() {
        assert_eq!(text(Duration::from_secs(5_400)), "1h30m");
        assert_eq!(text(Duration::from_millis(15_250)), "15s250ms");
        assert_eq!(text(Duration::from_secs(31 * 86_400)), "31d");
        assert_eq!(text(Duration::ZERO), "0s");
        for (ms, want) in
            [(604_800_000, "1w"), (691_200_000, "8d"), (31_536_000_000, "1y"), (90_000, "1m30s")]
        {
            let mut out = String::new();
            write_canonical(ms, &mut out);
            assert_eq!(out, want);
        }
    }
}
