//! The test language: text to commands.

use regex::Regex;
use weir::{base::duration, series::Labels};

use super::{
    points::{self, Item},
    text,
};

/// One command of a script.
#[derive(Debug)]
pub(super) enum Command {
    Clear,
    Load { gap_ms: i64, with_converted: bool, series: Vec<Loaded> },
    Eval(Box<Case>),
}

/// One series of a load.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) labels: Labels,
    pub(super) items: Vec<Item>,
    pub(super) starts: Vec<Option<i64>>,
}

/// When a query is evaluated, in milliseconds; `step` is `None` for an instant query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct When {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: Option<i64>,
}

/// A text that is to be found among annotations or errors.
#[derive(Debug)]
pub(super) enum Pattern {
    Any,
    Message(String),
    Regex(Regex),
}

impl Pattern {
    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Message(message) => message == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// The expected answer of a query.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) fail: Option<Pattern>,
    pub(super) warns: Vec<Pattern>,
    pub(super) infos: Vec<Pattern>,
    pub(super) no_warn: bool,
    pub(super) no_info: bool,
    pub(super) ordered: bool,
    pub(super) string: Option<String>,
    pub(super) scalar: Option<f64>,
    /// Where the points of a range vector lie.
    pub(super) range_vector: Option<When>,
    pub(super) series: Vec<(Labels, Vec<Item>)>,
}

/// A query and its expected answer.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) line: usize,
    pub(super) query: String,
    pub(super) when: When,
    pub(super) expected: Expected,
}

/// Parses a script; an error names its line.
pub(super) fn parse(script: &str) -> Result<Vec<Command>, String> {
    // A comment counts as an empty line: it ends a block.
    let lines: Vec<&str> =
        script.lines().map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let block = lines[at + 1..].iter().take_while(|l| !l.is_empty());
        let block: Vec<&str> = block.copied().collect();
        let number = at + 1;
        let word = line.split_whitespace().next().unwrap_or_default();
        let wrong = |e: String| format!("line {number}: {e}");
        at += 1;
        if word == "clear" {
            commands.push(Command::Clear);
        } else if word.starts_with("load") {
            commands.push(load(line, &block).map_err(wrong)?);
            at += block.len();
        } else if word.starts_with("eval") {
            let (case, used) = eval(line, &block, number).map_err(wrong)?;
            commands.push(Command::Eval(Box::new(case)));
            at += used;
        } else if !word.is_empty() {
            return Err(wrong(format!("unknown command {line:?}")));
        }
    }
    Ok(commands)
}

fn load(line: &str, block: &[&str]) -> Result<Command, String> {
    let (word, gap) = split_word(line);
    let mut series = Vec::new();
    let mut starts = Vec::new();
    for line in block {
        let (labels, rest) = text::metric(line)?;
        if let Some(rest) = rest.strip_prefix("@st") {
            starts = points::starts(rest)?;
            continue;
        }
        series.push(Loaded { labels, items: points::points(rest)?, starts: std::mem::take(&mut starts) });
    }
    Ok(Command::Load { gap_ms: duration(gap)?, with_converted: word == "load_with_nhcb", series })
}

fn eval(line: &str, block: &[&str], number: usize) -> Result<(Case, usize), String> {
    let (word, rest) = split_word(line);
    let (kind, mut rest) = split_word(rest);
    let mut expected = Expected::default();
    match word.strip_prefix("eval").unwrap_or_default() {
        "" => {}
        "_fail" => expected.fail = Some(Pattern::Any),
        "_warn" => expected.warns.push(Pattern::Any),
        "_info" => expected.infos.push(Pattern::Any),
        "_ordered" => expected.ordered = true,
        other => return Err(format!("unknown command eval{other}")),
    }
    let mut time = |name: &str| -> Result<i64, String> {
        let (word, value) = split_word(rest);
        let (value, after) = split_word(value);
        if word != name {
            return Err(format!("expected {name}"));
        }
        rest = after;
        duration(value)
    };
    let when = if kind == "instant" {
        let at = time("at")?;
        When { start: at, end: at, step: None }
    } else {
        When { start: time("from")?, end: time("to")?, step: Some(time("step")?) }
    };
    let mut used = 0;
    for line in block {
        used += 1;
        if expectation(line, &mut expected)? {
            continue;
        }
        if let Ok(value) = points::number(line) {
            expected.scalar = Some(value);
            break;
        }
        let (labels, values) = text::metric(line)?;
        let values = if values.trim().is_empty() { vec![Item::Float(0.0)] } else { points::points(values)? };
        expected.series.push((labels, values));
    }
    Ok((Case { line: number, query: rest.to_owned(), when, expected }, used))
}

/// Reads an `expect …` line; `false` if the line is something else.
fn expectation(line: &str, expected: &mut Expected) -> Result<bool, String> {
    if let Some(message) = line.strip_prefix("expected_fail_message") {
        expected.fail = Some(Pattern::Message(message.trim().to_owned()));
        return Ok(true);
    }
    if let Some(pattern) = line.strip_prefix("expected_fail_regexp") {
        expected.fail = Some(Pattern::Regex(regex(pattern)?));
        return Ok(true);
    }
    let (word, rest) = split_word(line);
    if word != "expect" {
        return Ok(false);
    }
    if let Some(range) = rest.strip_prefix("range vector") {
        let words: Vec<&str> = range.split_whitespace().collect();
        let [_, from, _, to, _, step] = words[..] else { return Err("malformed range vector".into()) };
        let (start, end) = (duration(from)?, duration(to)?);
        expected.range_vector = Some(When { start, end, step: Some(duration(step)?) });
        return Ok(true);
    }
    let (what, rest) = split_word(rest);
    if what == "string" {
        expected.string = Some(text::quoted(rest)?.0);
        return Ok(true);
    }
    let pattern = if let Some(message) = rest.strip_prefix("msg:") {
        Pattern::Message(message.trim().to_owned())
    } else if let Some(pattern) = rest.strip_prefix("regex:") {
        Pattern::Regex(regex(pattern)?)
    } else {
        Pattern::Any
    };
    match what {
        "fail" => expected.fail = Some(pattern),
        "warn" => expected.warns.push(pattern),
        "info" => expected.infos.push(pattern),
        "no_warn" => expected.no_warn = true,
        "no_info" => expected.no_info = true,
        "ordered" => expected.ordered = true,
        _ => return Err(format!("unknown expectation {line:?}")),
    }
    Ok(true)
}

fn regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern.trim()).map_err(|e| e.to_string())
}

fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn duration(text: &str) -> Result<i64, String> {
    duration::parse(text).map(|ms| ms as i64).map_err(|_| format!("{text:?} is not a duration"))
}
