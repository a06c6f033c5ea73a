//! The text exposition format, with timestamps, for bulk loads; OpenMetrics is read too, as far as samples go.

use std::borrow::Cow;

use super::{BadInput, Place};
use crate::node::head::{Batch, LabelLimits, LabelProblem};

/// What a line does not say.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Time of samples without one, in milliseconds.
    pub time_ms: i64,
    /// Whether timestamps are seconds with a fraction, as in OpenMetrics, rather than milliseconds.
    pub open_metrics: bool,
}

/// Labels of one batch, about: what a batch takes does not depend on how long its lines are.
const BATCH_LABELS: usize = 65_536;

/// Reads every sample of `text` and hands it, as a batch of many series, to `sink` about every `batch_series` lines;
/// comments, metadata and exemplars are skipped. What came before a bad line has been handed over.
///
/// # Errors
/// The first line that cannot be read, or what `sink` answered.
pub fn exposition<E: From<BadInput>>(
    text: &[u8],
    limits: LabelLimits,
    defaults: Defaults,
    batch_series: usize,
    mut sink: impl FnMut(&Batch<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut lines = text.split(|b| *b == b'\n').enumerate().peekable();
    while lines.peek().is_some() {
        let mut parsed = Vec::with_capacity(batch_series.min(4_096));
        let (mut failed, mut labels) = (None, 0);
        for (number, line) in lines.by_ref() {
            match parse_line(line, defaults, limits.labels) {
                Ok(Some(line)) => {
                    labels += line.labels.len();
                    parsed.push((number + 1, line));
                    if parsed.len() >= batch_series || labels >= BATCH_LABELS {
                        break;
                    }
                }
                Ok(None) => {}
                Err(message) => {
                    failed = Some(at(number + 1, message));
                    break;
                }
            }
        }
        let (batch, refused) = batch_of(&parsed, limits);
        sink(&batch)?;
        if let Some(bad) = refused.or(failed) {
            return Err(bad.into());
        }
    }
    Ok(())
}

fn at(line: usize, message: String) -> BadInput {
    BadInput { place: Place::Line(line), message }
}

struct Line<'a> {
    labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    time_ms: i64,
    value: f64,
}

fn batch_of<'a>(lines: &'a [(usize, Line<'_>)], limits: LabelLimits) -> (Batch<'a>, Option<BadInput>) {
    let mut batch = Batch::new(limits);
    for (number, line) in lines {
        for (name, value) in &line.labels {
            batch.label(name, value);
        }
        batch.sample(line.time_ms, line.value);
        if let Err(problem) = batch.end_series() {
            let problem: LabelProblem = problem;
            return (batch, Some(at(*number, problem.to_string())));
        }
    }
    (batch, None)
}

fn parse_line(line: &[u8], defaults: Defaults, max_labels: usize) -> Result<Option<Line<'_>>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let line = line.trim_matches([' ', '\t', '\r']);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut rest = line;
    let mut labels = Vec::new();
    let name = bare(&mut rest, |c| c == b':');
    if !name.is_empty() {
        labels.push(("__name__".into(), Cow::Borrowed(name)));
    }
    skip_blanks(&mut rest);
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        braces(&mut rest, &mut labels, max_labels)?;
    }
    if labels.is_empty() {
        return Err(format!("a metric name is expected at {:?}", shown(line)));
    }
    // An exemplar, behind ` # `, is not stored.
    let rest = rest.split_once(" # ").map_or(rest, |(before, _)| before);
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().ok_or("the value is missing")?;
    let value = number(value).ok_or_else(|| format!("{:?} is no number", shown(value)))?;
    let time_ms = words.next().map_or(Ok(defaults.time_ms), |word| time(word, defaults.open_metrics))?;
    // OpenMetrics has nothing, the text format has nothing either, after the timestamp.
    match words.next() {
        Some(more) => Err(format!("unexpected {:?} after the timestamp", shown(more))),
        None => Ok(Some(Line { labels, time_ms, value })),
    }
}

/// `name="value", "quoted name"="value", "quoted metric"` up to the closing brace.
fn braces<'a>(
    rest: &mut &'a str,
    labels: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
    max_labels: usize,
) -> Result<(), String> {
    loop {
        if labels.len() > max_labels {
            return Err(LabelProblem::TooMany(labels.len()).to_string());
        }
        skip_blanks(rest);
        if let Some(after) = rest.strip_prefix('}') {
            *rest = after;
            return Ok(());
        }
        let quoted_name = rest.starts_with('"');
        let name =
            if quoted_name { quoted(rest)? } else { Cow::Borrowed(bare(rest, |c| c == b':' || c == b'.')) };
        skip_blanks(rest);
        if let Some(after) = rest.strip_prefix('=') {
            *rest = after;
            skip_blanks(rest);
            if name.is_empty() {
                return Err("a label has an empty name".to_owned());
            }
            labels.push((name, quoted(rest)?));
        } else if quoted_name && !labels.iter().any(|(n, _)| n == "__name__") {
            labels.push(("__name__".into(), name));
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
fn quoted<'a>(rest: &mut &'a str) -> Result<Cow<'a, str>, String> {
    let Some(inside) = rest.strip_prefix('"') else {
        return Err(format!("`\"` is expected at {:?}", shown(rest)));
    };
    let mut owned = String::new();
    let mut from = inside;
    loop {
        let Some(end) = memchr::memchr2(b'"', b'\\', from.as_bytes()) else {
            return Err("a quoted text does not end".to_owned());
        };
        let (before, stop) = from.split_at_checked(end).unwrap_or((from, ""));
        if let Some(after) = stop.strip_prefix('"') {
            *rest = after;
            if owned.is_empty() {
                return Ok(Cow::Borrowed(before));
            }
            owned.push_str(before);
            return Ok(Cow::Owned(owned));
        }
        owned.push_str(before);
        let mut escaped = stop.get(1..).unwrap_or_default().chars();
        match escaped.next() {
            Some('n') => owned.push('\n'),
            Some(c @ ('\\' | '"')) => owned.push(c),
            Some(c) => owned.extend(['\\', c]),
            None => return Err("a quoted text does not end".to_owned()),
        }
        from = escaped.as_str();
    }
}

fn skip_blanks(rest: &mut &str) {
    *rest = rest.trim_start_matches([' ', '\t']);
}

fn number(word: &str) -> Option<f64> {
    // Rust also reads `infinity` and `nan` in any case, as Go does.
    word.parse().ok()
}

fn time(word: &str, open_metrics: bool) -> Result<i64, String> {
    let bad = || format!("{:?} is no timestamp", shown(word));
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
