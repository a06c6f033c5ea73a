//! The PromQL of Grafana's dashboards and of rule files. Knows nothing else of this crate: measurements use it as well.

mod variables;
mod walk;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

pub use self::variables::{Intervals, Variables};

/// Files that are read from folders.
const FILES_MAX: usize = 10_000;
/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// One expression and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Where it stands in its file: `Node / CPU`, the titles around it.
    pub place: String,
    /// The text, with Grafana's variables in it.
    pub text: String,
    /// When it is evaluated.
    pub evaluation: Evaluation,
}

/// When an expression is evaluated. Durations are as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// For each point of a graph.
    Graph {
        /// The least distance between two points.
        min_interval: Option<String>,
        /// Most points.
        max_points: Option<u64>,
    },
    /// Once, at the end of the dashboard's time.
    Instant,
    /// By a rule, again and again.
    Rule {
        /// The time between two evaluations.
        every: Option<String>,
    },
}

/// The expressions of one file.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// In the order of the file.
    pub expressions: Vec<Expression>,
    /// The variables of a dashboard, with their current values.
    pub variables: Variables,
    /// The time that a dashboard shows, such as `now-6h` and `now`.
    pub time: Option<(String, String)>,
}

impl Document {
    /// The expressions of a dashboard or a rule file; none where the text is neither JSON nor YAML.
    pub fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok().or_else(|| serde_saphyr::from_str(text).ok())?;
        let mut document = Self::default();
        walk::walk(&value, &mut document);
        Some(document)
    }

    /// Reads a file; `None` where it is none of these.
    ///
    /// # Errors
    /// It cannot be read, or is longer than 16 MiB.
    pub fn read(file: &Path) -> io::Result<Option<Self>> {
        if fs::metadata(file)?.len() > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is longer than 16 MiB"));
        }
        Ok(Self::parse(&String::from_utf8_lossy(&fs::read(file)?)))
    }
}

/// The files named, and the JSON and YAML files below the folders named, sorted.
///
/// # Errors
/// A folder cannot be read, or there are more than 10,000 files.
pub fn files(named: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut queue) = (Vec::new(), named.to_vec());
    while let Some(path) = queue.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                queue.push(entry?.path());
            }
        } else if named.contains(&path) || is_data(&path) {
            found.push(path);
        }
        if found.len() + queue.len() > FILES_MAX {
            return Err(io::Error::other(format!("more than {FILES_MAX} files")));
        }
    }
    found.sort();
    Ok(found)
}

fn is_data(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DASHBOARD: &str = r#"{"dashboard": {"title": "Node", "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [
            {"name": "job", "multi": true, "current": {"value": ["a.b", "c"]}},
            {"name": "one", "current": {"value": "x\"y"}},
            {"name": "every", "includeAll": true, "current": {"value": ["$__all"]}},
            {"name": "ds", "type": "datasource", "current": {"value": "prom"}}]},
        "panels": [
            {"title": "CPU", "interval": "30s", "maxDataPoints": 500, "targets": [
                {"expr": "rate(a{job=~\"$job\"}[$__rate_interval])"}, {"expr": "b", "instant": true}, {"expr": " "}]},
            {"title": "Row", "panels": [{"title": "Disk", "targets": [{"expr": "c"}]}]}]}}"#;

    const RULES: &str = "groups: [{name: g, interval: 30s, rules: [{alert: Down, expr: up == 0}, {record: r, expr: sum(up)}]}]";

    #[test]
    fn expressions_of_dashboards_and_rules_are_found_with_their_places() {
        let dashboard = Document::parse(DASHBOARD).unwrap();
        let places: Vec<_> = dashboard.expressions.iter().map(|e| (&*e.place, &*e.text)).collect();
        assert_eq!(
            places,
            [
                ("Node / CPU", "rate(a{job=~\"$job\"}[$__rate_interval])"),
                ("Node / CPU", "b"),
                ("Node / Row / Disk", "c"),
            ]
        );
        let graph = Evaluation::Graph { min_interval: Some("30s".into()), max_points: Some(500) };
        assert_eq!(dashboard.expressions[0].evaluation, graph);
        assert_eq!(dashboard.expressions[1].evaluation, Evaluation::Instant);
        assert_eq!(
            dashboard.expressions[2].evaluation,
            Evaluation::Graph { min_interval: None, max_points: None }
        );
        assert_eq!(dashboard.time, Some(("now-6h".into(), "now".into())));
        let rules = Document::parse(RULES).unwrap();
        let every = || Evaluation::Rule { every: Some("30s".into()) };
        let places: Vec<_> = rules.expressions.iter().map(|e| (&*e.place, &e.evaluation)).collect();
        assert_eq!(places, [("g / Down", &every()), ("g / r", &every())]);
        assert!(Document::parse("\"just a text").is_none());
        let texts = |text: &str| {
            let document = Document::parse(text).unwrap();
            document.expressions.into_iter().map(|e| e.text).collect::<Vec<_>>()
        };
        let map = serde_json::json!({"data": {"a.json": r#"{"targets": [{"expr": "sum(down)"}]}"#}});
        assert_eq!(texts(&map.to_string()), ["sum(down)"]);
        let alerts =
            r#"[{"name": "a", "query": "up == 1", "severity": "page"}, {"query": "label_values(x)"}]"#;
        assert_eq!(texts(alerts), ["up == 1"]);
    }

    #[test]
    fn variables_have_their_current_values_in_the_form_that_is_asked_for() {
        let variables = Document::parse(DASHBOARD).unwrap().variables;
        let intervals = Intervals { step_ms: 30_000, range_ms: 21_600_000, scrape_ms: 15_000 };
        for (text, filled) in [
            ("rate(a[$__rate_interval])", "rate(a[60s])"),
            ("rate(a[${__interval}])", "rate(a[30s])"),
            ("increase(a[$__range])", "increase(a[21600s])"),
            ("a * $__interval_ms / $__range_s", "a * 30000 / 21600"),
            (r#"a{b=~"$job"}"#, r#"a{b=~"(a\\.b|c)"}"#),
            (r#"a{b=~"${job:regex}"}"#, r#"a{b=~"(a\\.b|c)"}"#),
            (r#"a{b=~"${job:pipe}",c=~"[[job]]"}"#, r#"a{b=~"a.b|c",c=~"(a\\.b|c)"}"#),
            (r#"a{b="${job:csv}"}"#, r#"a{b="a.b,c"}"#),
            (r#"a{b="$one"}"#, r#"a{b="x\"y"}"#),
            (r#"a{b=~"$every",c=~"$unknown",d=~"x$"}"#, r#"a{b=~".*",c=~".*",d=~"x$"}"#),
            ("topk(5, a[$interval])", "topk(5, a[60s])"),
            ("a", "a"),
            ("a{b=\"é$\"}", "a{b=\"é$\"}"),
        ] {
            assert_eq!(variables.fill(text, &intervals), filled, "{text}");
        }
    }

    #[test]
    fn steps_are_those_of_grafana() {
        for (range_s, points, least_s, step_s) in [
            (3_600, 1_000, 15, 15),
            (21_600, 1_000, 15, 20),
            (604_800, 1_000, 15, 600),
            (60, 1_000, 1, 1),
            (86_400, 100, 15, 900),
        ] {
            let intervals = Intervals::of(range_s * 1_000, points, least_s * 1_000, 15_000);
            assert_eq!(intervals.step_ms, step_s * 1_000, "{range_s} s in {points} points");
        }
    }
}
