//! One query against its expected answer.

use std::sync::{LazyLock, atomic::AtomicBool};

use regex::Regex;
use weir::{
    base::time::EvalTimes,
    node::engine::{self, Answer, EvalError, Options, Point, Pools, Row, Value, Workers},
    promql,
    series::is_stale,
};

use super::{
    points::Item,
    script::{Case, Pattern, When},
    store::Store,
};
use crate::support::pools::pools;

/// How a case ended.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Passed,
    /// It is about native histograms.
    Native,
    Failed(String),
}

/// Values may differ by this share of their sum.
const TOLERANCE: f64 = 1e-6;

/// These depend on the range, so an instant query says something else as a range query.
static RANGE_FUNCTIONS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)\b(range|step|start|end)\s*\(\s*\)").ok());

/// Runs a case, and an instant query as a range query too.
pub(super) fn run(case: &Case, store: &Store) -> Outcome {
    let natively = case.expected.series.iter().any(|(_, items)| items.contains(&Item::Native));
    if natively {
        // Not evaluated, but read.
        return match promql::parse(&case.query) {
            Ok(_) => Outcome::Native,
            Err(error) => Outcome::Failed(format!("line {}: {}\n    {error}", case.line, case.query)),
        };
    }
    let fail = |what: String| Outcome::Failed(format!("line {}: {}\n    {what}", case.line, case.query));
    match evaluate(&case.query, case.when, store) {
        Err(Error::Native) => Outcome::Native,
        Err(Error::Other(error)) => match &case.expected.fail {
            Some(pattern) if pattern.matches(&error) => Outcome::Passed,
            _ => fail(format!("unexpected error: {error}")),
        },
        Ok(_) if case.expected.fail.is_some() => fail("expected an error".to_owned()),
        Ok(answer) => match annotations(case, &answer).and_then(|()| compare(case, case.when, &answer.value))
        {
            Err(error) => fail(error),
            Ok(()) => match as_range(case, store) {
                Ok(()) => Outcome::Passed,
                Err(error) => fail(format!("as a range query: {error}")),
            },
        },
    }
}

enum Error {
    Native,
    Other(String),
}

static POOLS: LazyLock<Pools> = LazyLock::new(|| pools(1 << 30).0);

fn evaluate(query: &str, when: When, store: &Store) -> Result<Answer, Error> {
    let ast = promql::parse(query).map_err(|e| Error::Other(e.to_string()))?;
    let times = EvalTimes { start: when.start, end: when.end, step: when.step.unwrap_or(0) as u64 };
    let cancel = AtomicBool::new(false);
    // On two threads wherever that is possible at all.
    let two = std::num::NonZero::new(2).unwrap_or(std::num::NonZero::<usize>::MIN);
    // Out of pools whose buffers always hold the rest of other queries.
    let pools = Some(POOLS.clone());
    let options = Options { workers: Workers::new(two, 0), pools, ..Options::default() };
    engine::evaluate(&ast, times, store, &options, &cancel).map_err(|error| match error {
        EvalError::NativeHistogram { .. } => Error::Native,
        other => Error::Other(other.to_string()),
    })
}

fn annotations(case: &Case, answer: &Answer) -> Result<(), String> {
    let expected = &case.expected;
    for (name, wanted, none, got) in [
        ("warning", &expected.warns, expected.no_warn, &answer.warnings),
        ("info", &expected.infos, expected.no_info, &answer.infos),
    ] {
        if none && !got.is_empty() {
            return Err(format!("unexpected {name} {got:?}"));
        }
        let missing = wanted.iter().any(|pattern: &Pattern| !got.iter().any(|text| pattern.matches(text)));
        let surplus = got.iter().any(|text| !wanted.iter().any(|pattern| pattern.matches(text)));
        if missing || (surplus && !wanted.is_empty()) {
            return Err(format!("expected {name} {wanted:?}, got {got:?}"));
        }
    }
    Ok(())
}

fn compare(case: &Case, when: When, value: &Value) -> Result<(), String> {
    let expected = &case.expected;
    match value {
        Value::String(text) => {
            let same = expected.string.as_deref() == Some(text);
            if same { Ok(()) } else { Err(format!("got the string {text:?}")) }
        }
        Value::Scalar(value) => match expected.scalar {
            Some(wanted) if nearly(wanted, *value) => Ok(()),
            wanted => Err(format!("expected the scalar {wanted:?}, got {value}")),
        },
        _ if expected.scalar.is_some() => Err(format!("expected a scalar, got {value:?}")),
        Value::Vector(points) => vector(case, points),
        Value::Matrix(rows) => matrix(case, expected.range_vector.unwrap_or(when), rows),
    }
}

fn vector(case: &Case, points: &[Point]) -> Result<(), String> {
    let wanted = &case.expected.series;
    for (place, point) in points.iter().enumerate() {
        let found = wanted.iter().position(|(labels, _)| *labels == point.labels);
        let Some(at) = found else { return Err(format!("unexpected {} {}", point.labels, point.value)) };
        if case.expected.ordered && at != place {
            return Err(format!("{} is at place {place}, not {at}", point.labels));
        }
        match wanted[at].1.first() {
            Some(Item::Float(value)) if nearly(*value, point.value) => {}
            other => return Err(format!("expected {other:?} for {}, got {}", point.labels, point.value)),
        }
    }
    let missing = wanted.iter().find(|(labels, _)| !points.iter().any(|point| point.labels == *labels));
    missing.map_or(Ok(()), |(labels, _)| Err(format!("{labels} is missing")))
}

fn matrix(case: &Case, when: When, rows: &[Row]) -> Result<(), String> {
    let wanted = &case.expected.series;
    if !rows.is_sorted_by(|a, b| a.labels < b.labels) {
        return Err("the series are not sorted by labels".to_owned());
    }
    for row in rows {
        let Some((_, items)) = wanted.iter().find(|(labels, _)| *labels == row.labels) else {
            return Err(format!("unexpected {} {:?}", row.labels, row.points));
        };
        let times = (0..).map(|i| when.start + i * when.step.unwrap_or(0));
        let floats = times.zip(items).filter_map(|(time, item)| match item {
            Item::Float(value) => Some((time, *value)),
            Item::Gap | Item::Native => None,
        });
        let floats: Vec<(i64, f64)> = floats.collect();
        let same = floats.len() == row.points.iter().count()
            && floats.iter().zip(row.points.iter()).all(|(a, b)| a.0 == b.0 && nearly(a.1, b.1));
        if !same {
            return Err(format!("expected {floats:?} for {}, got {:?}", row.labels, row.points));
        }
    }
    let missing = wanted.iter().find(|(labels, _)| !rows.iter().any(|row| row.labels == *labels));
    missing.map_or(Ok(()), |(labels, _)| Err(format!("{labels} is missing")))
}

/// The same query as the middle of three steps.
fn as_range(case: &Case, store: &Store) -> Result<(), String> {
    let expected = &case.expected;
    let depends = RANGE_FUNCTIONS.as_ref().is_some_and(|regex| regex.is_match(&case.query));
    if case.when.step.is_some() || depends || expected.string.is_some() || expected.range_vector.is_some() {
        return Ok(());
    }
    let at = case.when.start;
    let when = When { start: at - 60_000, end: at + 60_000, step: Some(60_000) };
    let answer = match evaluate(&case.query, when, store) {
        Ok(answer) => answer,
        // A step beside the one in question may touch one.
        Err(Error::Native) => return Ok(()),
        Err(Error::Other(error)) => return Err(error),
    };
    let Value::Matrix(rows) = answer.value else { return Err("expected a matrix".to_owned()) };
    if expected.ordered {
        return Ok(());
    }
    let value_at = |row: &Row| row.points.iter().find(|(t, _)| *t == at).map(|(_, v)| v);
    if expected.scalar.is_some() {
        let value = rows.first().and_then(value_at).ok_or("no value at the step")?;
        return compare(case, case.when, &Value::Scalar(value));
    }
    let points =
        rows.iter().filter_map(|row| Some(Point { labels: row.labels.clone(), value: value_at(row)? }));
    compare(case, case.when, &Value::Vector(points.collect()))
}

fn nearly(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan() && is_stale(a) == is_stale(b);
    }
    if a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}
