//! Mimir, Cortex and Thanos: a line of `key=value` for each query. Their keys differ in a few names.

use std::{borrow::Cow, collections::HashMap};

use super::{
    Format,
    fields::{address, endpoint, go_ms, time, times},
};
use crate::{
    base::{TimeDialect, duration},
    journal::{Actual, Record, Text},
};

/// Fields of one line; more are no query's.
const FIELDS_MAX: usize = 200;

/// The fields of a line.
pub(super) fn fields(line: &str) -> HashMap<&str, Cow<'_, str>> {
    let (mut fields, mut rest) = (HashMap::new(), line.trim_start());
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = value(after);
        // Words before a key stand for themselves.
        let key = key.rsplit(' ').next().unwrap_or(key);
        fields.insert(key, value);
        rest = after.trim_start();
        if fields.len() == FIELDS_MAX {
            break;
        }
    }
    fields
}

/// A value and the text after it. Quoted ones are JSON strings, as Go's loggers write them.
fn value(text: &str) -> (Cow<'_, str>, &str) {
    if !text.starts_with('"') {
        let (value, rest) = text.split_once(' ').unwrap_or((text, ""));
        return (Cow::Borrowed(value), rest);
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<String>();
    match stream.next() {
        Some(Ok(value)) => (Cow::Owned(value), &text[stream.byte_offset()..]),
        _ => (Cow::Borrowed(""), ""),
    }
}

pub(super) fn record(format: Format, line: &str) -> Option<Record> {
    let fields = fields(line);
    let get = |names: &'static [&'static str]| first(&fields, names);
    let text = |names| get(names).map_or_else(Text::default, |value| Text::from(value.to_owned()));
    let number = |names| get(names).and_then(|value| value.parse::<f64>().ok()).map(|n| n as u64);
    let query = get(&["param_query", "query"])?;
    let path = get(&["path"]).unwrap_or_default();
    let logged = get(&["ts", "time"]).and_then(time);
    let took = get(&["response_time"]).and_then(go_ms).or_else(|| number(&["time_taken_ms"]));
    let start = get(&["param_start", "start"]);
    // Mimir writes times that it parsed as RFC 3339, and the step beside them in milliseconds.
    let is_parsed = format == Format::Mimir && start.is_some_and(|start| start.contains('T'));
    let step = get(&["param_step", "step"]).and_then(|step| step_ms(step, is_parsed)).unwrap_or(0);
    let at = get(&["param_end", "param_time", "end"]).and_then(time).or(logged);
    let times = at.map(|end| times(start.and_then(time).unwrap_or(end), end, step));
    let wait = get(&["queue_time_seconds"]).and_then(|value| value.parse::<f64>().ok());
    let status = number(&["status_code"]).and_then(|status| u16::try_from(status).ok());
    let failed = status.is_some_and(|status| status >= 400) || get(&["status"]) == Some("failed");
    let is_cortex = format == Format::Cortex;
    Some(Record {
        at_ms: logged.or(at).unwrap_or(0).saturating_sub_unsigned(took.unwrap_or(0)),
        took_ms: took,
        wait_ms: wait.map(|seconds| (seconds * 1e3) as u64),
        tenant: text(&["user", "tenant"]),
        endpoint: endpoint(path),
        user: text(&["remote_user", "grafana_user"]),
        dashboard: text(&["dashboard_uid", "grafana_dashboard_uid", "dashboard"]),
        panel: text(&["panel_id", "grafana_panel_id", "panel"]),
        user_agent: text(&["user_agent"]),
        client: get(&["remote_addr"]).and_then(address),
        query: query.to_owned().into(),
        times,
        outcome: if failed { "failed" } else { "complete" }.into(),
        status,
        actual: Actual {
            answer_bytes: number(&["response_size_bytes"]),
            series_read: number(&["fetched_series_count"]),
            // Samples that the others count are read again for each step.
            samples_read: number(&["fetched_samples_count"]).filter(|_| is_cortex),
            ..Actual::default()
        },
        ..Record::default()
    })
}

/// The first of these fields that is there.
fn first<'f>(fields: &'f HashMap<&str, Cow<'_, str>>, names: &[&'static str]) -> Option<&'f str> {
    names.iter().find_map(|name| fields.get(name)).map(|value| &**value)
}

/// A step, in milliseconds.
fn step_ms(text: &str, is_parsed: bool) -> Option<u64> {
    match text.parse::<f64>() {
        Ok(ms) if is_parsed => Some(ms as u64),
        Ok(seconds) => Some((seconds * 1e3).round() as u64),
        Err(_) => duration::parse(text)
            .ok()
            .or_else(|| TimeDialect::Prometheus.duration(text).and_then(|ms| u64::try_from(ms).ok())),
    }
}
