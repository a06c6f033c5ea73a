//! VictoriaMetrics: lines about slow queries of the open source program, and query statistics of the enterprise one.

use std::borrow::Cow;

use super::{
    fields::{address, endpoint, time, times},
    logfmt,
};
use crate::{
    base::TimeDialect,
    journal::{Actual, Record, Text},
};

const SLOW: &str = "slow query according to -search.logSlowQueryDuration";
const STATISTICS: &str = "vm_slow_query_stats";

pub(super) fn record(line: &str) -> Option<Record> {
    if let Some((_, statistics)) = line.split_once(STATISTICS) {
        return of_statistics(line, statistics);
    }
    let (_, slow) = line.split_once(SLOW)?;
    let took = between(slow, "duration=", " seconds").and_then(|text| text.parse::<f64>().ok());
    let took_ms = took.map(|seconds| (seconds * 1e3).round() as u64);
    let uri = between(slow, "requestURI: \"", "\"")?;
    let (path, parameters) = uri.split_once('?').unwrap_or((uri, ""));
    let parameters: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        form_urlencoded::parse(parameters.as_bytes()).collect();
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
    let ended = logged(line);
    let dialect = TimeDialect::VictoriaMetrics;
    let at = |name| get(name).and_then(|text| dialect.time(text, ended.unwrap_or(0)));
    let endpoint = endpoint(path);
    let end = at("end").or_else(|| at("time")).or(ended)?;
    let step = get("step").and_then(|step| dialect.duration(step)).and_then(|ms| u64::try_from(ms).ok());
    let is_range = &*endpoint == "query_range";
    let (start, step) = (at("start").unwrap_or(end - 300_000), step.unwrap_or(300_000));
    Some(Record {
        at_ms: ended.unwrap_or(end).saturating_sub_unsigned(took_ms.unwrap_or(0)),
        took_ms,
        tenant: tenant(path),
        endpoint,
        client: between(slow, "remoteAddr=\"", "\"").and_then(|text| address(text.split(',').next()?)),
        query: get("query")?.to_owned().into(),
        times: Some(times(start, end, if is_range { step } else { 0 })),
        outcome: "complete".into(),
        ..Record::default()
    })
}

fn of_statistics(line: &str, statistics: &str) -> Option<Record> {
    let fields = logfmt::fields(statistics);
    let get = |name: &str| fields.get(name).map(|value| &**value);
    let number = |name: &str| get(name).and_then(|value| value.parse::<u64>().ok());
    let instant = |name: &str| get(name).and_then(|value| value.parse::<i64>().ok());
    let (took_ms, is_range) = (number("execution_duration_ms"), get("type") != Some("instant"));
    let end = instant("end_ms").or_else(|| logged(line))?;
    let step = number("step_ms").filter(|_| is_range).unwrap_or(0);
    Some(Record {
        at_ms: logged(line).unwrap_or(end).saturating_sub_unsigned(took_ms.unwrap_or(0)),
        took_ms,
        tenant: get("tenant").map(|tenant| Text::from(tenant.to_owned())).unwrap_or_default(),
        endpoint: if is_range { "query_range" } else { "query" }.into(),
        query: get("query")?.to_owned().into(),
        times: Some(times(instant("start_ms").unwrap_or(end), end, step)),
        outcome: "complete".into(),
        actual: Actual {
            answer_bytes: None,
            series_read: number("series_fetched"),
            samples_read: number("samples_fetched"),
            ..Actual::default()
        },
        ..Record::default()
    })
}

/// When a line was logged: it begins with the time.
fn logged(line: &str) -> Option<i64> {
    time(line.split(['\t', ' ']).next()?)
}

/// The tenant in `/select/0/prometheus/…`.
fn tenant(path: &str) -> Text {
    let mut parts = path.split('/').skip_while(|part| *part != "select").skip(1);
    parts.next().map(|tenant| Text::from(tenant.to_owned())).unwrap_or_default()
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(value, _)| value)
}
