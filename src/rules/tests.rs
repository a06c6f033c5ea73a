use std::sync::Arc;

use super::*;
use crate::{
    base::{TenantId, time::EvalTimes},
    promql::{
        self, Fingerprint,
        shape::{DEFAULT_LOOKBACK_MS, Listed, Reads, Shape},
    },
};

const NOW: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;

/// A query of this many hours, with one point a minute; of none it is an instant one.
struct Asked {
    text: &'static str,
    hours: i64,
    listing: bool,
}

const fn asked(text: &'static str) -> Asked {
    Asked { text, hours: 1, listing: false }
}

impl Asked {
    fn met(&self, matches: serde_json::Value) -> bool {
        let ast = Arc::new(promql::parse(self.text).unwrap());
        let step = if self.hours == 0 { 0 } else { 60_000 };
        let times = EvalTimes { start: NOW - self.hours * HOUR, end: NOW, step };
        let mut shape = Shape::of(&ast, times, DEFAULT_LOOKBACK_MS);
        if self.listing {
            shape = Shape::unevaluated(Reads::Listing(Listed::Series), shape.selectors);
        }
        let tenants = [TenantId::new("team-a").unwrap(), TenantId::new("other").unwrap()];
        let subject = Subject {
            tenants: &tenants,
            class: "dashboards",
            endpoint: "query_range",
            dashboard: Some("abc"),
            panel: Some("7"),
            user: Some("ann"),
            user_agent: Some("prometheus-mcp/1.2"),
            fingerprint: Some(Fingerprint::of(&ast)),
            text: Some(self.text),
            shape: Some(&shape),
            listing: self.listing,
            times: Some(times),
        };
        rule(matches).unwrap().matches(&subject, NOW).unwrap()
    }
}

fn rule(matches: serde_json::Value) -> Result<Rule, (&'static str, String)> {
    let spec = serde_json::json!({"name": "r", "match": matches, "reason": "x", "expires": "1h"});
    serde_json::from_value::<RuleSpec>(spec).unwrap().read(Some(NOW))
}

#[test]
fn a_metric_is_met_whichever_way_it_is_written() {
    let listing = |text| Asked { listing: true, ..asked(text) };
    for (query, name, want) in [
        (asked("m"), "m", true),
        (asked("mm"), "m", false),
        (asked("{__name__=\"m\"}"), "m", true),
        (asked("{__name__=~\"m|n\"}"), "m", true),
        (asked("{__name__=~\"n|o\"}"), "m", false),
        (asked("{__name__=~\".*\", job=\"a\"}"), "m", true),
        (asked("{__name__!=\"n\", job=\"a\"}"), "m", true),
        (asked("{__name__!~\"m.*\", job=\"a\"}"), "m", false),
        (asked("{job=\"a\"}"), "m", true),
        (asked("max_over_time(rate(m[5m])[1h:1m])"), "m", true),
        (asked("sum(n) / on (job) group_left sum by (job) (m offset 1d)"), "m", true),
        (asked("label_replace(n, \"__name__\", \"m\", \"\", \"\")"), "m", false),
        (asked("node_cpu_seconds_total"), "node_*", true),
        (asked("{__name__=~\"node_cpu.*|x\"}"), "node_*", true),
        (asked("{__name__=~\"no.*\"}"), "node_*", true),
        (asked("{__name__=~\"kube_.*\"}"), "node_*", false),
        (asked("{__name__=~\".*_total\"}"), "node_*", true),
        (listing("m"), "m", true),
        (listing("{__name__=~\"m|n\"}"), "m", true),
        (listing("{__name__!=\"\"}"), "m", false),
        (listing("{job=\"a\"}"), "m", false),
    ] {
        assert_eq!(query.met(serde_json::json!({"metric": name})), want, "{name} {}", query.text);
    }
}

#[test]
fn selectors_without_a_name_are_found_however_they_hide_it() {
    for (query, want) in [
        ("{job=\"a\"}", true),
        ("sum(up) + sum({job=\"a\"})", true),
        ("{__name__=~\".+\", job=\"a\"}", true),
        ("{__name__=~\".*_total\"}", true),
        ("{__name__!=\"x\", job=\"a\"}", true),
        ("{__name__=~\"[a-z].*\"}", true),
        ("{__name__=~\"node_.*\"}", false),
        ("{__name__=~\"a|b\"}", false),
        ("up", false),
        ("1 + 1", false),
    ] {
        assert_eq!(asked(query).met(serde_json::json!({"nameless": true})), want, "{query}");
    }
}

#[test]
fn texts_are_met_whatever_their_layout() {
    let same =
        ["sum by (job) (rate(m[5m]))", "sum(rate(m[5m])) by(job)", "sum by (job)(\n rate( m[5m] ) # why\n)"];
    let fingerprint = Fingerprint::of(&promql::parse(same[0]).unwrap()).to_string();
    for query in same {
        assert!(asked(query).met(serde_json::json!({"query": same[0]})), "{query}");
        assert!(asked(query).met(serde_json::json!({"fingerprint": fingerprint})), "{query}");
        assert!(asked(query).met(serde_json::json!({"regex": "rate\\(m\\["})), "{query}");
    }
    let other = asked("sum by (job) (rate(m[10m]))");
    assert!(!other.met(serde_json::json!({"query": same[0]})), "another number is another text");
    assert!(other.met(serde_json::json!({"fingerprint": fingerprint})), "and the same fingerprint");
}

#[test]
fn spans_are_what_the_query_reads() {
    let longer = |key: &str, span: &str| serde_json::json!({key: {"longer_than": span}});
    let shorter = |key: &str, span: &str| serde_json::json!({key: {"shorter_than": span}});
    let instant = |text| Asked { hours: 0, ..asked(text) };
    for (query, matches, want) in [
        (asked("m"), longer("range", "59m"), true),
        (asked("m"), longer("range", "1h"), false),
        (instant("max_over_time(m[30d:1h])"), longer("range", "7d"), true),
        (asked("m"), shorter("step", "2m"), true),
        (asked("m"), longer("step", "1m"), false),
        (instant("m"), shorter("step", "2m"), false),
        (asked("rate(m[1d])"), longer("window", "12h"), true),
        (asked("rate(m[5m])"), longer("window", "12h"), false),
        (asked("max_over_time(rate(m[5m])[7d:5m])"), longer("window", "1d"), true),
        (asked("rate(m[1m])"), shorter("window", "2m"), true),
        (asked("m"), shorter("window", "10m"), false),
        (asked("m"), longer("window", "1m"), false),
    ] {
        assert_eq!(query.met(matches.clone()), want, "{} {matches}", query.text);
    }
}

#[test]
fn everything_that_is_written_has_to_match() {
    for (key, yes, no) in [
        ("tenant", "team-*", "team-b"),
        ("tenant", "other", "oth"),
        ("class", "dashboards", "rules"),
        ("dashboard", "abc", "ab"),
        ("panel", "7", "8"),
        ("user", "an*", "bob"),
        ("user_agent", "*mcp*", "Grafana*"),
        ("endpoint", "query_range", "query"),
        ("hours", "00:00-24:00", "00:00-00:01"),
    ] {
        assert!(asked("m").met(serde_json::json!({key: yes})), "{key}");
        assert!(!asked("m").met(serde_json::json!({key: no})), "{key}");
        assert!(!asked("m").met(serde_json::json!({key: yes, "metric": "n"})), "{key}");
    }
}

#[test]
fn rules_that_cannot_be_meant_are_refused() {
    for (matches, why) in [
        (serde_json::json!({}), "empty"),
        (serde_json::json!({"regex": "("}), "regex"),
        (serde_json::json!({"regex": "a".repeat(2_000)}), "1024 bytes"),
        (serde_json::json!({"regex": "(a{1000}){1000}"}), "regex"),
        (serde_json::json!({"fingerprint": "xyz"}), "fingerprint"),
        (serde_json::json!({"metric": "*"}), "metric"),
        (serde_json::json!({"metric": "a*b"}), "metric"),
        (serde_json::json!({"endpoint": "write"}), "endpoint"),
        (serde_json::json!({"tenant": "a*b"}), "tenant"),
        (serde_json::json!({"range": {"longer_than": "1 week"}}), "duration"),
        (serde_json::json!({"user": ""}), "name"),
    ] {
        let (key, message) = rule(matches.clone()).unwrap_err();
        assert_eq!(key, "match", "{matches}");
        assert!(message.contains(why), "{matches}: {message}");
    }
    let spec = |change: serde_json::Value| {
        let mut spec =
            serde_json::json!({"name": "r", "match": {"metric": "m"}, "reason": "x", "expires": "1h"});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value::<RuleSpec>(spec).unwrap()
    };
    let at_run_time = [
        (serde_json::json!({"name": "a b"}), "name"),
        (serde_json::json!({"reason": ""}), "reason"),
        (serde_json::json!({"reason": "two\nlines"}), "reason"),
        (serde_json::json!({"expires": null}), "expires"),
        (serde_json::json!({"expires": "2020-01-01T00:00:00Z"}), "expires"),
        (serde_json::json!({"expires": "soon"}), "expires"),
        (serde_json::json!({"action": "clamp"}), "clamp"),
        (serde_json::json!({"clamp": {"limit": 5}}), "clamp"),
        (serde_json::json!({"action": "clamp", "clamp": {"limit": 0}}), "clamp"),
    ];
    for (change, key) in at_run_time {
        assert_eq!(spec(change.clone()).read(Some(NOW)).unwrap_err().0, key, "{change}");
    }
    let tomorrow = spec(serde_json::json!({"expires": "tomorrow"})).read(Some(NOW)).unwrap_err();
    assert!(tomorrow.1.contains("such as `12h`"), "{}", tomorrow.1);
    assert_eq!(spec(serde_json::json!({})).read(None).unwrap_err().0, "expires", "a start would prolong it");
    let stays = serde_json::json!({"expires": null});
    assert_eq!(spec(stays).read(None).unwrap().expires_ms, None);
}

#[test]
fn a_rule_is_a_mapping_of_mappings_and_its_count_a_number_or_text() {
    for list in [
        "[]",
        r#"["r"]"#,
        r#"{"match": ["0123456789abcdef"]}"#,
        r#"{"clamp": ["1h"]}"#,
        r#"{"match": {"range": ["1h"]}}"#,
        r#"{"name": "r"} []"#,
    ] {
        assert!(RuleSpec::from_json(list.as_bytes()).is_err(), "{list}");
    }
    for (limit, want) in [
        ("5", Some(5)),
        (r#""5""#, Some(5)),
        (r#""50_000""#, Some(50_000)),
        ("null", None),
        (r#""5k""#, Some(5_000)),
    ] {
        let text = format!(r#"{{"clamp": {{"limit": {limit}}}}}"#);
        assert_eq!(RuleSpec::from_json(text.as_bytes()).unwrap().clamp.limit, want, "{limit}");
    }
    for limit in ["-1", "1.5", r#""x""#, "[]"] {
        let text = format!(r#"{{"clamp": {{"limit": {limit}}}}}"#);
        assert!(RuleSpec::from_json(text.as_bytes()).is_err(), "{limit}");
    }
}

#[test]
fn a_rule_ends_when_it_says_and_the_first_wins() {
    let named = |name: &str, expires: &str, action: &str| {
        let spec = serde_json::json!({
            "name": name, "match": {"metric": "m"}, "reason": "x", "expires": expires, "action": action
        });
        Arc::new(serde_json::from_value::<RuleSpec>(spec).unwrap().read(Some(NOW)).unwrap())
    };
    let rules = RuleSet {
        at_run_time: vec![named("first", "1h", "shadow"), named("second", "2h", "refuse")],
        configured: vec![named("third", "3h", "slow")],
    };
    let ast = Arc::new(promql::parse("m").unwrap());
    let shape = Shape::of(&ast, EvalTimes::instant(NOW), DEFAULT_LOOKBACK_MS);
    let subject = Subject {
        tenants: &[],
        class: "",
        endpoint: "query",
        dashboard: None,
        panel: None,
        user: None,
        user_agent: None,
        fingerprint: Some(Fingerprint::of(&ast)),
        text: Some("m"),
        shape: Some(&shape),
        listing: false,
        times: None,
    };
    for (hours, want) in [(0, Some("first")), (1, Some("second")), (2, Some("third")), (3, None)] {
        let found = rules.find(&subject, NOW + hours * HOUR).map(|rule| rule.name());
        assert_eq!(found, want);
    }
    assert_eq!(rules.at_run_time[0].spec.expires.as_deref(), Some("2027-01-15T09:00:00Z"));
    assert_eq!(
        rules.at_run_time[0].sentence(),
        "rule `first` (x; no owner; expires at 2027-01-15T09:00:00Z)"
    );
}

#[test]
fn a_rule_about_a_lost_text_neither_matches_nor_passes() {
    let subject = Subject {
        tenants: &[],
        class: "adhoc",
        endpoint: "query_range",
        dashboard: Some("abc"),
        panel: None,
        user: None,
        user_agent: None,
        fingerprint: None,
        text: None,
        shape: None,
        listing: false,
        times: Some(EvalTimes { start: NOW - HOUR, end: NOW, step: 60_000 }),
    };
    for (matches, want) in [
        (serde_json::json!({"dashboard": "abc"}), Some(true)),
        (serde_json::json!({"dashboard": "abc", "metric": "m"}), None),
        (serde_json::json!({"dashboard": "abc", "fingerprint": "0123456789abcdef"}), None),
        (serde_json::json!({"regex": "up"}), None),
        (serde_json::json!({"query": "up"}), None),
        (serde_json::json!({"nameless": true}), None),
        (serde_json::json!({"range": {"longer_than": "7d"}}), None),
        (serde_json::json!({"step": {"shorter_than": "15s"}, "regex": "up"}), Some(false)),
        (serde_json::json!({"dashboard": "other", "regex": "up"}), Some(false)),
    ] {
        assert_eq!(rule(matches.clone()).unwrap().matches(&subject, NOW), want, "{matches}");
    }
}
