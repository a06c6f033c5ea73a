//! Grafana's variables, filled in as its Prometheus data source does.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Grafana's word for "all values".
const ALL: &str = "$__all";
/// Replaces a variable whose value is not known, and one of all values.
const ANYTHING: &str = ".*";
/// Distances between points that Grafana chooses from, seconds.
const STEPS: [u64; 22] = [
    1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200,
    86_400, 604_800, 2_592_000,
];

/// The times of a graph, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// Between two points: `$__interval`.
    pub step_ms: u64,
    /// From its start to its end: `$__range`.
    pub range_ms: u64,
    /// Between two samples.
    pub scrape_ms: u64,
}

impl Intervals {
    /// Of a graph over `range_ms` in `points` points that are at least `least_ms` apart.
    pub fn of(range_ms: u64, points: u64, least_ms: u64, scrape_ms: u64) -> Self {
        let raw = range_ms / points.max(1);
        let step = STEPS.into_iter().map(|seconds| seconds * 1_000).find(|step| step * 4 >= raw * 3);
        Self { step_ms: step.unwrap_or(raw).max(least_ms), range_ms, scrape_ms }
    }

    /// `$__rate_interval`: four samples, or a step and one.
    const fn rate_ms(self) -> u64 {
        let (samples, step) = (4 * self.scrape_ms, self.step_ms + self.scrape_ms);
        if samples > step { samples } else { step }
    }

    fn built_in(self, name: &str) -> Option<String> {
        Some(match name {
            "__rate_interval" | "interval" => duration(self.rate_ms()),
            "__interval" => duration(self.step_ms),
            "__interval_ms" => self.step_ms.to_string(),
            "__range" => duration(self.range_ms),
            "__range_s" => (self.range_ms / 1_000).to_string(),
            "__range_ms" => self.range_ms.to_string(),
            "__rate_interval_ms" => self.rate_ms().to_string(),
            _ => return None,
        })
    }
}

fn duration(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

/// The variables of a dashboard.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, Variable>);

#[derive(Clone, Debug)]
struct Variable {
    values: Vec<String>,
    /// It may have several values, so that it stands in a regular expression.
    several: bool,
}

impl Variables {
    /// Takes in an object if it is a variable: it has a name, and a current value.
    pub(super) fn add(&mut self, fields: &Map<String, Value>) -> bool {
        let (Some(Value::String(name)), Some(Value::Object(current))) =
            (fields.get("name"), fields.get("current"))
        else {
            return false;
        };
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool) == Some(true);
        let values: Vec<String> = match current.get("value") {
            Some(Value::String(value)) => vec![value.clone()],
            Some(Value::Array(values)) => {
                values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let all = fields.get("allValue").and_then(Value::as_str).filter(|all| !all.is_empty());
        let values = if values.iter().any(|value| value == ALL) {
            vec![all.unwrap_or(ANYTHING).to_owned()]
        } else {
            values
        };
        let several = (flag("multi") || flag("includeAll")) && values != [all.unwrap_or(ANYTHING)];
        self.0.insert(name.clone(), Variable { values, several });
        true
    }

    /// The text with every variable filled in: `$name`, `${name}`, `${name:format}`, `[[name]]`.
    pub fn fill(&self, text: &str, intervals: &Intervals) -> String {
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(at) = rest.find(['$', '[']) {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let Some((reference, after)) = reference(from) else {
                // A dollar that ends a pattern, a bracket that opens a range.
                let (first, after) = from.split_at(1);
                out.push_str(first);
                rest = after;
                continue;
            };
            let (name, format) = reference.split_once(':').unwrap_or((reference, ""));
            out.push_str(&self.value(name.split('.').next().unwrap_or(name), format, intervals));
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn value(&self, name: &str, format: &str, intervals: &Intervals) -> String {
        let Some(variable) = self.0.get(name).filter(|variable| !variable.values.is_empty()) else {
            return intervals.built_in(name).unwrap_or_else(|| ANYTHING.to_owned());
        };
        let Variable { values, several } = variable;
        match (format, &values[..]) {
            ("pipe", _) => values.join("|"),
            ("csv" | "raw" | "text", _) => values.join(","),
            ("regex", _) if values.len() == 1 => escaped(&values[0]),
            (_, [one]) if *several => escaped(one),
            // An interval that is chosen by Grafana names another variable.
            (_, [one]) if one.starts_with("$__") => {
                intervals.built_in("__interval").unwrap_or_else(|| one.clone())
            }
            (_, [one]) if one.as_str() == ANYTHING => one.clone(),
            (_, [one]) => one.replace('\\', "\\\\").replace('"', "\\\""),
            _ => format!("({})", values.iter().map(|value| escaped(value)).collect::<Vec<_>>().join("|")),
        }
    }
}

/// The name behind a dollar, in braces or in brackets, and the text after it.
fn reference(text: &str) -> Option<(&str, &str)> {
    if let Some(inner) = text.strip_prefix("${") {
        return inner.split_once('}');
    }
    if let Some(inner) = text.strip_prefix("[[") {
        return inner.split_once("]]");
    }
    let inner = text.strip_prefix('$')?;
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
    (end > 0 && !inner.starts_with(|c: char| c.is_ascii_digit())).then(|| inner.split_at(end))
}

/// A value as a part of a regular expression inside a PromQL string.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\\\\\"),
            '"' => out.push_str("\\\""),
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' | '|' => {
                out.push_str("\\\\");
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}
