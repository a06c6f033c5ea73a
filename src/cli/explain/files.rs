//! The cost of the expressions of dashboards and rule files.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};

use super::{Asker, Times, output, target, text_of};
use crate::{
    base::{TimeDialect, duration, units},
    cli::{
        clock::now_ms,
        exit::{BAD_INPUT, FAILED},
    },
    expressions::{Document, Evaluation, Expression, Intervals, files},
};

/// The span of a graph without a time: six hours.
const RANGE_MS: u64 = 6 * 3_600_000;
/// The points of a panel on a screen.
const POINTS: u64 = 1_000;
/// The least time between two points.
const SCRAPE_MS: u64 = 15_000;
/// How often a rule is evaluated where its group does not say.
const RULE_EVERY: &str = "1m";

/// One expression and its verdict.
struct Explained<'d> {
    file: &'d Path,
    expression: &'d Expression,
    /// The expression with its variables filled in.
    query: String,
    /// When it is evaluated, for people.
    when: String,
    /// The answer of `query_cost`, or why there is none.
    answer: Result<Value, String>,
}

impl Explained<'_> {
    fn is_admitted(&self) -> bool {
        self.answer.as_ref().is_ok_and(|answer| answer["data"]["verdict"]["admitted"] == true)
    }
}

/// Prints the cost of each expression, and fails if one would be refused or cannot be read.
pub(super) async fn explain(
    named: &[PathBuf],
    range: Option<&str>,
    as_json: bool,
    asker: &Asker,
) -> ExitCode {
    let range = match range.map(duration::parse).transpose() {
        Ok(range) => range,
        Err(error) => return output::err(format_args!("--range: {error}"), BAD_INPUT),
    };
    let (mut lines, mut rows, mut over) = (String::new(), Vec::new(), 0_u64);
    let paths = match files(named) {
        Ok(paths) => paths,
        Err(error) => return output::err(error, BAD_INPUT),
    };
    for path in &paths {
        let read = Document::read(path).map_err(|error| error.to_string());
        let document =
            match read.and_then(|document| document.ok_or_else(|| "neither JSON nor YAML".to_owned())) {
                Ok(document) => document,
                // A folder holds other files, too.
                Err(error) if !named.contains(path) => {
                    let _ = output::err(format_args!("{}: skipped: {error}", path.display()), 0);
                    continue;
                }
                Err(error) => return output::err(format_args!("{}: {error}", path.display()), BAD_INPUT),
            };
        for expression in &document.expressions {
            let explained = one(path, &document, expression, range, asker).await;
            over += u64::from(!explained.is_admitted());
            if as_json {
                rows.push(row(&explained));
            } else {
                line(&mut lines, &explained);
            }
        }
    }
    let code = if over > 0 { FAILED } else { 0 };
    if as_json {
        return output::out(Value::from(rows), code);
    }
    let _ = write!(lines, "{} of these would be refused or cannot be read.", units::count(over));
    output::out(lines, code)
}

async fn one<'d>(
    file: &'d Path,
    document: &Document,
    expression: &'d Expression,
    range: Option<u64>,
    asker: &Asker,
) -> Explained<'d> {
    let now = now_ms();
    let (start, end) = shown(document, range, now);
    let range_ms = end.saturating_sub(start).max(1) as u64;
    let (points, least) = match &expression.evaluation {
        Evaluation::Graph { min_interval, max_points } => {
            (max_points.unwrap_or(POINTS), min_interval.as_deref())
        }
        Evaluation::Instant | Evaluation::Rule { .. } => (POINTS, None),
    };
    let least_ms =
        least.and_then(|least| duration::parse(least.trim_start_matches('>')).ok()).unwrap_or(SCRAPE_MS);
    let intervals = Intervals::of(range_ms, points, least_ms, SCRAPE_MS);
    let query = document.variables.fill(&expression.text, &intervals);
    let seconds = |ms: i64| crate::base::time::seconds(ms);
    let (times, when) = match &expression.evaluation {
        Evaluation::Graph { .. } => {
            let step = crate::base::time::seconds(intervals.step_ms as i64);
            let span = |ms| duration::text(std::time::Duration::from_millis(ms));
            let when = format!("over {}, step {}", span(range_ms), span(intervals.step_ms));
            (Times::Graph { start: seconds(start), end: seconds(end), step }, when)
        }
        Evaluation::Instant => (Times::Instant(Some(seconds(end))), "at one moment".to_owned()),
        Evaluation::Rule { every } => {
            (Times::Instant(None), format!("every {}", every.as_deref().unwrap_or(RULE_EVERY)))
        }
    };
    let answer = asker.ask(&target(&query, &times)).await;
    Explained { file, expression, query, when, answer }
}

/// Start and end of a dashboard's time.
fn shown(document: &Document, range: Option<u64>, now: i64) -> (i64, i64) {
    let (from, to) = document.time.as_ref().map_or(("", "now"), |(from, to)| (from, to));
    let end = moment(to, now).unwrap_or(now);
    let start = match range {
        Some(range) => Some(end.saturating_sub_unsigned(range)),
        None => moment(from, now).filter(|start| *start < end),
    };
    (start.unwrap_or(end.saturating_sub_unsigned(RANGE_MS)), end)
}

/// `now`, `now-6h`, `now-1d/d` (its day is taken for that moment), or an absolute time.
fn moment(text: &str, now: i64) -> Option<i64> {
    let Some(offset) = text.strip_prefix("now") else { return TimeDialect::Prometheus.time(text, now) };
    let offset = offset.split('/').next().unwrap_or_default();
    if offset.is_empty() {
        return Some(now);
    }
    let ago = offset.strip_prefix('-').and_then(|ago| duration::parse(ago).ok());
    // Grafana's months are no unit of durations.
    let months = || offset.strip_prefix('-')?.strip_suffix('M')?.parse::<u64>().ok();
    Some(now.saturating_sub_unsigned(ago.or_else(|| months().map(|n| n * 31 * 86_400_000))?))
}

fn line(out: &mut String, explained: &Explained<'_>) {
    let Explained { file, expression, query, when, answer } = explained;
    // Writing to a string does not fail.
    let _ =
        writeln!(out, "{}: {} ({when})\n  {}", file.display(), expression.place, query.replace('\n', " "));
    match answer {
        Err(message) => _ = writeln!(out, "  cannot be read: {message}"),
        Ok(answer) => {
            let (estimate, verdict) = (&answer["data"]["estimate"], &answer["data"]["verdict"]);
            let number = |name: &str| estimate[name].as_u64().unwrap_or(0);
            let _ = writeln!(
                out,
                "  {} series ({}), {} samples, {} of memory: {}",
                units::count(number("seriesTouched")),
                text_of(&estimate["known"]),
                units::count(number("samplesScanned")),
                units::bytes(number("memoryBytes")),
                if explained.is_admitted() {
                    "may run".to_owned()
                } else {
                    format!("refused. {}", text_of(&verdict["message"]))
                },
            );
        }
    }
}

fn row(explained: &Explained<'_>) -> Value {
    let Explained { file, expression, query, when, answer } = explained;
    let mut row = json!({
        "file": file.display().to_string(),
        "place": expression.place,
        "query": query,
        "when": when,
        "admitted": explained.is_admitted(),
    });
    match answer {
        Ok(answer) => {
            row["estimate"] = answer["data"]["estimate"].clone();
            row["verdict"] = answer["data"]["verdict"].clone();
        }
        Err(message) => row["error"] = message.as_str().into(),
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_grafana() {
        let now = 1_700_000_000_000;
        for (text, ago_ms) in [
            ("now", Some(0)),
            ("now-6h", Some(21_600_000)),
            ("now-1d/d", Some(86_400_000)),
            ("now/d", Some(0)),
            ("now-2M", Some(62 * 86_400_000)),
            ("2023-11-14T22:13:10Z", Some(10_000)),
            ("yesterday", None),
        ] {
            assert_eq!(moment(text, now), ago_ms.map(|ago: i64| now - ago), "{text}");
        }
        let mut document = Document::default();
        assert_eq!(shown(&document, None, now), (now - RANGE_MS as i64, now));
        document.time = Some(("now-2d".to_owned(), "now-1d".to_owned()));
        assert_eq!(shown(&document, None, now), (now - 2 * 86_400_000, now - 86_400_000));
        assert_eq!(shown(&document, Some(1_000), now), (now - 86_401_000, now - 86_400_000));
    }
}
