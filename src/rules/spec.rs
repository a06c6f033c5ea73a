//! Rules as people write them, in the configuration and over the admin API alike.

use std::{fmt, marker::PhantomData};

use jiff::Timestamp;
use regex::RegexBuilder;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{Action, Beyond, Clamp, ExactText, Glob, Hours, Matchers, MetricName, Rule};
use crate::base::{TenantPattern, duration, units};

/// Bytes of a regular expression.
const REGEX_BYTES_MAX: usize = 1_024;
/// Bytes of a query's text.
const QUERY_BYTES_MAX: usize = 64 << 10;
/// Bytes of any other text of a rule.
const TEXT_BYTES_MAX: usize = 300;
/// Bytes of a compiled regular expression.
const COMPILED_BYTES_MAX: usize = 256 << 10;
/// Digits of a fingerprint as it is shown.
const FINGERPRINT_DIGITS: usize = 16;

/// A rule against single queries. The first one that matches wins; those of the admin API stand before those written
/// here.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleSpec {
    /// The name in messages and metrics.
    pub name: String,
    /// The conditions on a query; all that are written have to match.
    #[serde(rename = "match", deserialize_with = "mapping")]
    pub matches: MatchSpec,
    /// The action on matching queries.
    pub action: ActionName,
    /// The ceilings of `action: clamp`.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "mapping")]
    pub clamp: ClampSpec,
    /// The reason, which refused clients read.
    pub reason: String,
    /// The person to ask.
    pub owner: String,
    /// The end of the rule: `2026-12-01T08:00:00Z`. A rule that is set over the admin API needs one, and may give a
    /// time from now instead: `2h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// The action on queries that a rule matches.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionName {
    /// They are refused with 422 `weir-blocked`.
    #[default]
    Refuse,
    /// They are counted and logged as if they were refused, and run.
    Shadow,
    /// They run in the slow lane.
    Slow,
    /// They are cut to `clamp` and run; a warning in the answer says so.
    Clamp,
}

/// Which queries a rule is about. In names `*` stands for anything.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatchSpec {
    /// The fingerprint, as log, status and error show it: the same query in any layout, with any numbers and times. Rules by
    /// it, by `query` or by `regex` are passed by other texts that read the same, rules by `metric` are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The text of the query, in any layout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// A regular expression that is found in the text of the query, as it was written or in one layout (that of
    /// `format_query`, on one line). Texts beyond 64 KiB match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// A metric's name, or `prefix*`: a query or remote read with a selector that may read it, `{__name__=~"…"}` and
    /// selectors without a name included; a listing only where it names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// A selector does not say which metric it reads.
    #[serde(skip_serializing_if = "is_default")]
    pub nameless: bool,
    /// Time that the query spans, as `per_query.range` counts it.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "mapping")]
    pub range: SpanSpec,
    /// Time between two points of a graph.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "mapping")]
    pub step: SpanSpec,
    /// Time that one evaluation reaches back: `[5m]`, with the subqueries around it.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "mapping")]
    pub window: SpanSpec,
    /// A tenant, or `team-*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// A class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The UID of a dashboard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<String>,
    /// The id of a panel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panel: Option<String>,
    /// A user of Grafana.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The client's program, such as `*mcp*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// `query`, `query_range`, `query_exemplars`, `series`, `labels`, `label_values` or `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A time of day, UTC: `22:00-06:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<String>,
    /// Days of the week, UTC: `[mon, tue]`; of hours over midnight the day of their start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
}

/// Durations that match.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpanSpec {
    /// Longer than this: `7d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longer_than: Option<String>,
    /// Shorter than this: `15s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shorter_than: Option<String>,
}

/// The ceilings to which queries are cut. A query that still spans more is refused: one evaluation cannot be cut.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClampSpec {
    /// Time that a graph or a listing spans at most; the newest stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// Time between two points of a graph at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Series or names in the answer at most, where the database takes `limit`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "count")]
    #[schemars(schema_with = "count_schema")]
    pub limit: Option<u64>,
}

/// A mapping, and nothing else: serde takes a list for a struct too, its items for the fields in their order.
fn mapping<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Mapping<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Mapping<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Mapping(PhantomData))
}

/// A number, or its text (`50_000`), as which the configuration passes on every number.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a whole number such as `50_000`")]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Option::deserialize(deserializer)? {
        None => Ok(None),
        Some(Written::Number(number)) => Ok(Some(number)),
        Some(Written::Text(text)) => units::parse_count(&text)
            .map(Some)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is not a whole number such as `50_000`"))),
    }
}

fn count_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": ["string", "number"], "format": "count", "examples": ["50_000", "5M"]})
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The endpoints that rules know.
const ENDPOINTS: [&str; 7] =
    ["query", "query_range", "query_exemplars", "series", "labels", "label_values", "read"];

impl RuleSpec {
    /// Reads a rule as JSON.
    ///
    /// # Errors
    /// Where it is no mapping, has an unknown key, or a value of another type.
    pub fn from_json(text: &[u8]) -> serde_json::Result<Self> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let spec = mapping(&mut json)?;
        json.end()?;
        Ok(spec)
    }

    /// The rule as it is obeyed. One that is set at run time (`now_ms`) has to expire, and may say for how long it
    /// holds.
    ///
    /// # Errors
    /// The key and its mistake.
    pub fn read(&self, now_ms: Option<i64>) -> Result<Rule, (&'static str, String)> {
        let mut spec = self.clone();
        if !is_name(&spec.name) {
            return Err(("name", "needs 1 to 100 letters, digits, `-`, `_` and `.`".to_owned()));
        }
        for (key, text) in [("reason", &spec.reason), ("owner", &spec.owner)] {
            if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
                return Err((key, format!("is longer than {TEXT_BYTES_MAX} bytes, or more than one line")));
            }
        }
        if now_ms.is_some() && spec.reason.is_empty() {
            return Err(("reason", "is missing: whoever is refused reads it".to_owned()));
        }
        let expires_ms = spec.expires.as_deref().map(|text| expiry(text, now_ms)).transpose();
        let expires_ms = expires_ms.map_err(|why| ("expires", why))?;
        if let Some(now_ms) = now_ms {
            match expires_ms {
                None => {
                    return Err(("expires", "is missing: a rule set at run time needs an end".to_owned()));
                }
                Some(at) if at <= now_ms => return Err(("expires", "has passed".to_owned())),
                Some(_) => {}
            }
        }
        spec.expires = expires_ms.and_then(|ms| Some(Timestamp::from_millisecond(ms).ok()?.to_string()));
        if spec.matches == MatchSpec::default() {
            return Err((
                "match",
                "is empty: a rule against every query is no rule; write a limit".to_owned(),
            ));
        }
        let matchers = spec.matches.read().map_err(|why| ("match", why))?;
        let action = spec.action().map_err(|why| ("clamp", why))?;
        Ok(Rule { spec, action, expires_ms, matchers })
    }

    fn action(&self) -> Result<Action, String> {
        let clamp = &self.clamp;
        if self.action != ActionName::Clamp {
            let is_unused = is_default(clamp);
            let action = match self.action {
                ActionName::Refuse | ActionName::Clamp => Action::Refuse,
                ActionName::Shadow => Action::Shadow,
                ActionName::Slow => Action::Slow,
            };
            return if is_unused { Ok(action) } else { Err("is for `action: clamp` only".to_owned()) };
        }
        if is_default(clamp) {
            return Err("is missing: say to which `range`, `step` or `limit` queries are cut".to_owned());
        }
        if clamp.limit == Some(0) {
            return Err("`limit: 0` is no limit to the database; write a number above 0".to_owned());
        }
        Ok(Action::Clamp(Clamp {
            range_ms: span(clamp.range.as_deref())?,
            step_ms: span(clamp.step.as_deref())?,
            limit: clamp.limit,
        }))
    }
}

impl MatchSpec {
    fn read(&self) -> Result<Matchers, String> {
        let names = [&self.class, &self.dashboard, &self.panel, &self.user, &self.user_agent, &self.metric];
        if names.into_iter().flatten().any(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX) {
            return Err(format!("a name has 1 to {TEXT_BYTES_MAX} bytes"));
        }
        let glob = |text: &Option<String>| text.as_deref().map(Glob::new);
        let metric = self.metric.as_deref();
        if metric
            .is_some_and(|name| name.trim_end_matches('*').is_empty() || name[..name.len() - 1].contains('*'))
        {
            return Err("`metric` is a name, or its beginning and one `*`".to_owned());
        }
        if let Some(endpoint) = self.endpoint.as_ref().filter(|name| !ENDPOINTS.contains(&name.as_str())) {
            return Err(format!("`{endpoint}` is not an endpoint; those are {}", ENDPOINTS.join(", ")));
        }
        Ok(Matchers {
            fingerprint: self.fingerprint.as_deref().map(fingerprint).transpose()?,
            query: self.query.as_deref().map(query).transpose()?,
            regex: self.regex.as_deref().map(regex).transpose()?,
            metric: metric.map(MetricName::new),
            nameless: self.nameless,
            range: self.range.read()?,
            step: self.step.read()?,
            window: self.window.read()?,
            tenant: self.tenant.as_deref().map(tenant).transpose()?,
            class: glob(&self.class),
            dashboard: glob(&self.dashboard),
            panel: glob(&self.panel),
            user: glob(&self.user),
            // Matched in any case: see `Matchers::is_from`.
            user_agent: glob(&self.user_agent.as_ref().map(|text| text.to_ascii_lowercase())),
            endpoint: self.endpoint.clone(),
            hours: Hours::read(self.hours.as_deref(), &self.days)?,
        })
    }
}

impl SpanSpec {
    fn read(&self) -> Result<Beyond, String> {
        Ok(Beyond {
            longer_than: span(self.longer_than.as_deref())?,
            shorter_than: span(self.shorter_than.as_deref())?,
        })
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=100).contains(&name.len()) && name.bytes().all(is_part)
}

/// A time, or from now on a duration.
fn expiry(text: &str, now_ms: Option<i64>) -> Result<i64, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_millisecond());
    }
    match (now_ms, duration::parse(text)) {
        (Some(now_ms), Ok(ms)) => {
            let at = now_ms.saturating_add_unsigned(ms);
            Timestamp::from_millisecond(at).map_err(|_| format!("`{text}` ends beyond any calendar"))?;
            Ok(at)
        }
        (None, Ok(_)) => Err(format!(
            "`{text}` would begin anew with each start; write a time such as `2026-12-01T08:00:00Z`"
        )),
        (Some(_), Err(_)) => Err(format!(
            "`{text}` is neither a time from now, such as `12h`, nor one such as `2026-12-01T08:00:00Z`"
        )),
        (None, Err(_)) => Err(format!("`{text}` is not a time such as `2026-12-01T08:00:00Z`")),
    }
}

fn span(text: Option<&str>) -> Result<Option<u64>, String> {
    let Some(text) = text else { return Ok(None) };
    match duration::parse(text.trim()) {
        Ok(ms) if ms > 0 => Ok(Some(ms)),
        _ => Err(format!("`{text}` is not a duration such as `15s` or `7d`")),
    }
}

fn fingerprint(text: &str) -> Result<String, String> {
    if text.len() == FINGERPRINT_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("`{text}` is not a fingerprint: {FINGERPRINT_DIGITS} hexadecimal digits"))
}

fn query(text: &str) -> Result<ExactText, String> {
    if text.trim().is_empty() || text.len() > QUERY_BYTES_MAX {
        return Err(format!("`query` has 1 to {QUERY_BYTES_MAX} bytes; match longer ones by `fingerprint`"));
    }
    Ok(ExactText::new(text))
}

fn regex(text: &str) -> Result<regex::Regex, String> {
    if text.is_empty() || text.len() > REGEX_BYTES_MAX {
        return Err(format!("`regex` has 1 to {REGEX_BYTES_MAX} bytes"));
    }
    RegexBuilder::new(text)
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| format!("`regex`: {error}"))
}

fn tenant(text: &str) -> Result<TenantPattern, String> {
    TenantPattern::new(text).ok_or_else(|| format!("`{text}` is not a tenant, and not `team-*`"))
}
