//! Numbers and durations: their extent and their value.

use crate::base::duration::{self, DurationError};

/// Longest duration in seconds: Prometheus' signed 64 bits of nanoseconds.
const DURATION_MAX_SECONDS: f64 = 9_223_372_036.0;

/// The kind of a word that begins like a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    Number,
    Duration,
    /// Neither.
    Bad,
}

/// Finds the end of a number or duration from the start of `bytes`.
pub(super) fn scan(bytes: &[u8]) -> (Scanned, usize) {
    let (ok, end) = scan_number(bytes);
    let alphanumeric = |i: usize| bytes.get(i).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if ok && !alphanumeric(end) {
        return (Scanned::Number, end);
    }
    let (ok, end) = scan_units(bytes, end);
    if ok && !alphanumeric(end) { (Scanned::Duration, end) } else { (Scanned::Bad, end) }
}

fn scan_number(bytes: &[u8]) -> (bool, usize) {
    let hex = matches!(bytes, [b'0', b'x' | b'X', ..]);
    let mut at = if hex { 2 } else { 0 };
    let (mut dot, mut exponent) = (false, false);
    while let Some(b) = bytes.get(at) {
        let next = bytes.get(at + 1);
        match b {
            b'0'..=b'9' => {}
            b'a'..=b'f' | b'A'..=b'F' if hex => {}
            b'.' => {
                if dot || hex || exponent || matches!(next, Some(b'.' | b'_')) {
                    return (false, at + 1);
                }
                dot = true;
            }
            b'e' | b'E' => {
                let sign = matches!(next, Some(b'+' | b'-'));
                let digit = bytes.get(at + 1 + usize::from(sign)).is_some_and(u8::is_ascii_digit);
                if exponent || !digit {
                    return (false, at + usize::from(exponent));
                }
                exponent = true;
                at += usize::from(sign);
            }
            b'_' => {
                let digit =
                    next.is_some_and(|b| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() });
                if !digit {
                    return (false, at + 1);
                }
            }
            _ => break,
        }
        at += 1;
    }
    (at > if hex { 2 } else { 0 }, at)
}

/// `m`, `s30ms`, … after the first digits.
fn scan_units(bytes: &[u8], mut at: usize) -> (bool, usize) {
    let is = |i: usize, set: &[u8]| bytes.get(i).is_some_and(|b| set.contains(b));
    loop {
        if !is(at, b"smhdwy") {
            return (false, at);
        }
        at += 1;
        at += usize::from(is(at, b"s"));
        let digits = bytes.iter().skip(at).take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return (true, at);
        }
        at += digits;
    }
}

/// The value of a number: decimal, hexadecimal, octal behind a zero, `Inf` or `NaN`.
pub(in crate::promql) fn number(text: &str) -> Result<f64, String> {
    if let Some(plain) = plain(text) {
        return Ok(plain);
    }
    let stripped;
    let mut digits = text;
    if text.contains('_') {
        stripped = text.replace('_', "");
        digits = &stripped;
    }
    let wrong = |why: &str| Err(format!("error parsing number: parsing {text:?}: {why}"));
    if digits.len() > 1 && digits.starts_with('0') {
        if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            let value = i64::from_str_radix(hex, 16);
            return value.map(|v| v as f64).or_else(|_| wrong("value out of range"));
        }
        if let Ok(octal) = i64::from_str_radix(digits, 8) {
            return Ok(octal as f64);
        }
    }
    match digits.parse::<f64>() {
        Ok(value) if value.is_infinite() && !text.eq_ignore_ascii_case("inf") => wrong("value out of range"),
        Ok(value) => Ok(value),
        Err(_) => wrong("invalid syntax"),
    }
}

/// Short whole numbers, which most are.
fn plain(text: &str) -> Option<f64> {
    let short = text.len() <= 9 && !(text.len() > 1 && text.starts_with('0'));
    if !short || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(f64::from(text.bytes().fold(0, |n, b| n * 10 + u32::from(b - b'0'))))
}

/// The seconds of a duration.
pub(in crate::promql) fn duration(text: &str) -> Result<f64, String> {
    let too_long = || "duration out of range".to_owned();
    let ms = duration::parse(text).map_err(|error| match error {
        DurationError::Malformed => format!("not a valid duration string: {text:?}"),
        DurationError::UnknownUnit(unit) => format!("unknown unit {unit:?} in duration {text:?}"),
        DurationError::TooLong => too_long(),
    })?;
    let seconds = ms as f64 / 1e3;
    if is_duration(seconds) { Ok(seconds) } else { Err(too_long()) }
}

/// Whether a number of seconds is a duration that Prometheus can hold.
pub(in crate::promql) fn is_duration(seconds: f64) -> bool {
    seconds.abs() <= DURATION_MAX_SECONDS
}
