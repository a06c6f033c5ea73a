//! One line: its series, its labels, its sample.

use super::{Strings, TextOptions};
use crate::{node::head::LabelProblem, series::METRIC_NAME};

/// The texts of the series and of the sample behind it.
pub(super) fn split(line: &str) -> Result<(&str, &str), String> {
    let bytes = line.as_bytes();
    // Braces of an exemplar, or a `#` inside of a value, need a look at the quotes.
    let end = if memchr::memchr(b'#', bytes).is_some() {
        end_of_series(line)
    } else {
        match memchr::memrchr(b'}', bytes) {
            Some(end) => Some(end + 1),
            None => memchr::memchr2(b' ', b'\t', bytes),
        }
    };
    let end = end.unwrap_or(line.len());
    let (series, rest) = line.split_at_checked(end).unwrap_or((line, ""));
    if series.is_empty() { Err(no_name(line)) } else { Ok((series.trim_ascii_end(), rest)) }
}

fn no_name(line: &str) -> String {
    format!("a metric name is expected at {:?}", shown(line))
}

/// Where the labels end: behind the closing brace that is not quoted, or at the first blank.
fn end_of_series(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    let name = bytes.iter().position(|b| matches!(b, b'{' | b' ' | b'\t'))?;
    let brace = name + bytes.get(name..)?.iter().position(|b| !matches!(b, b' ' | b'\t'))?;
    if bytes.get(brace) != Some(&b'{') {
        return Some(name);
    }
    let (mut at, mut quoted) = (brace + 1, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Value, time in milliseconds, and whether there is an exemplar.
pub(super) fn sample(rest: &str, options: &TextOptions<'_>) -> Result<(f64, i64, bool), String> {
    // An exemplar stands behind ` # `.
    let (rest, exemplar) = match memchr::memmem::find(rest.as_bytes(), b" # ") {
        Some(at) => (rest.get(..at).unwrap_or_default(), true),
        None => (rest, false),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().ok_or("the value is missing")?;
    let value = number(value).ok_or_else(|| format!("{:?} is not a number", shown(value)))?;
    let time = words.next().map_or(Ok(options.time_ms), |word| time(word, options.open_metrics))?;
    // OpenMetrics has nothing, the text format has nothing either, after the timestamp.
    match words.next() {
        Some(more) => Err(format!("unexpected {:?} after the timestamp", shown(more))),
        None => Ok((value, time, exemplar)),
    }
}

/// Reads the labels of a series, `name{label="value", "quoted name"="value"}` or `{"quoted metric", …}`.
pub(super) fn labels<'a>(
    series: &'a str,
    strings: &'a Strings,
    labels_max: usize,
    labels: &mut Vec<(&'a str, &'a str)>,
) -> Result<(), String> {
    let mut rest = series;
    let name = bare(&mut rest, |c| c == b':');
    if !name.is_empty() {
        labels.push((METRIC_NAME, name));
    }
    skip_blanks(&mut rest);
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        braces(&mut rest, strings, labels_max, labels)?;
    }
    if labels.is_empty() {
        return Err(no_name(series));
    }
    if rest.is_empty() { Ok(()) } else { Err(format!("a value is expected at {:?}", shown(rest))) }
}

/// The text between the braces, up to the closing one.
fn braces<'a>(
    rest: &mut &'a str,
    strings: &'a Strings,
    labels_max: usize,
    labels: &mut Vec<(&'a str, &'a str)>,
) -> Result<(), String> {
    loop {
        if labels.len() > labels_max {
            return Err(LabelProblem::TooMany(labels.len()).to_string());
        }
        skip_blanks(rest);
        if let Some(after) = rest.strip_prefix('}') {
            *rest = after;
            return Ok(());
        }
        let quoted_name = rest.starts_with('"');
        let name = if quoted_name { quoted(rest, strings)? } else { bare(rest, |c| c == b':' || c == b'.') };
        skip_blanks(rest);
        if let Some(after) = rest.strip_prefix('=') {
            *rest = after;
            skip_blanks(rest);
            if name.is_empty() {
                return Err("a label has an empty name".to_owned());
            }
            labels.push((name, quoted(rest, strings)?));
        } else if quoted_name && !labels.iter().any(|(n, _)| *n == METRIC_NAME) {
            labels.push((METRIC_NAME, name));
        } else {
            return Err(format!("`=` is expected at {:?}", shown(rest)));
        }
        skip_blanks(rest);
        match rest.strip_prefix(',') {
            Some(after) => *rest = after,
            None if rest.starts_with('}') => {}
            None => return Err(format!("`,` or `}}` is expected at {:?}", shown(rest))),
        }
    }
}

/// A name without quotes; empty when there is none.
fn bare<'a>(rest: &mut &'a str, also: impl Fn(u8) -> bool) -> &'a str {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || also(b);
    let end = rest.bytes().position(|b| !inner(b)).unwrap_or(rest.len());
    let digit_first = rest.starts_with(|c: char| c.is_ascii_digit());
    let (name, after) = rest.split_at_checked(if digit_first { 0 } else { end }).unwrap_or(("", *rest));
    *rest = after;
    name
}

/// A quoted string with the escapes `\\`, `\"` and `\n`; other backslashes stand for themselves.
fn quoted<'a>(rest: &mut &'a str, strings: &'a Strings) -> Result<&'a str, String> {
    let Some(inside) = rest.strip_prefix('"') else {
        return Err(format!("`\"` is expected at {:?}", shown(rest)));
    };
    let no_end = || "a quoted text does not end".to_owned();
    let (mut end, mut escaped) = (0, false);
    loop {
        let found = inside.get(end..).and_then(|from| memchr::memchr2(b'"', b'\\', from.as_bytes()));
        end += found.ok_or_else(no_end)?;
        if inside.as_bytes().get(end) == Some(&b'"') {
            break;
        }
        escaped = true;
        // The one behind it may be longer than a byte, but is none of these two then.
        end +=
            1 + inside.get(end + 1..).and_then(|after| after.chars().next()).ok_or_else(no_end)?.len_utf8();
    }
    let (text, after) = inside.split_at_checked(end).unwrap_or((inside, ""));
    *rest = after.get(1..).unwrap_or_default();
    Ok(if escaped { unescaped(text, strings) } else { text })
}

/// A text with its escapes undone.
pub(super) fn unescaped<'a>(text: &'a str, strings: &'a Strings) -> &'a str {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return text;
    }
    let mut out = bumpalo::collections::String::with_capacity_in(text.len(), strings);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some(c @ ('\\' | '"'))) => out.push(c),
            _ => {
                out.push(c);
                continue;
            }
        }
        chars.next();
    }
    out.into_bump_str()
}

fn skip_blanks(rest: &mut &str) {
    if rest.starts_with([' ', '\t']) {
        *rest = rest.trim_start_matches([' ', '\t']);
    }
}

fn number(word: &str) -> Option<f64> {
    // Whole numbers are the most common ones, and exact up to this length.
    if word.len() <= 15 && word.bytes().all(|b| b.is_ascii_digit()) {
        return digits(word).map(|number| number as f64);
    }
    // Rust also reads `infinity` and `nan` in any case, as Go does.
    word.parse().ok()
}

/// A number of at most 18 digits.
fn digits(word: &str) -> Option<i64> {
    let number = word.bytes().fold(0, |number, b| number * 10 + i64::from(b - b'0'));
    (!word.is_empty()).then_some(number)
}

fn time(word: &str, open_metrics: bool) -> Result<i64, String> {
    let bad = || format!("{:?} is not a timestamp", shown(word));
    if open_metrics || word.contains('.') {
        let ms = number(word).ok_or_else(bad)? * 1_000.0;
        let fits = ms.is_finite() && ms.abs() < i64::MAX as f64;
        return if fits { Ok(ms.round() as i64) } else { Err(bad()) };
    }
    word.parse().map_err(|_| bad())
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}
