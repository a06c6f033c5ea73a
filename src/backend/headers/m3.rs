//! M3Limits handed down to M3, which enforces them while it fetches.
//!
//! M3's own rules shape this file: a header wins over the form parameter of the same meaning, so a header is always
//! set; `0` means no limit while fetching and an empty answer after it, so it is never sent; a number of series *equal*
//! to the limit counts as over it, so one more is sent; each selector of a query gets the whole limit; durations are
//! Go's (`30` and `1d` are errors), and no timeout is longer than ten minutes.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

const MAX_SERIES: HeaderName = HeaderName::from_static("m3-limit-max-series");
const MAX_DOCS: HeaderName = HeaderName::from_static("m3-limit-max-docs");
const MAX_RANGE: HeaderName = HeaderName::from_static("m3-limit-max-range");
const MAX_RETURNED_SERIES: HeaderName = HeaderName::from_static("m3-limit-max-returned-series");
const MAX_RETURNED_DATAPOINTS: HeaderName = HeaderName::from_static("m3-limit-max-returned-datapoints");
const REQUIRE_EXHAUSTIVE: HeaderName = HeaderName::from_static("m3-limit-require-exhaustive");
const TIMEOUT: HeaderName = HeaderName::from_static("m3-timeout");
const LEGACY_TIMEOUT: HeaderName = HeaderName::from_static("timeout");

/// The longest timeout that M3 takes.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// The largest Go duration, nanoseconds.
const GO_DURATION_MAX: f64 = i64::MAX as f64;

/// Limits of a query; `None` leaves them to the client and to M3's own configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct M3Limits {
    /// Series fetched by each selector.
    pub series: Option<u64>,
    /// Index entries (series × index blocks) read by each selector.
    pub docs: Option<u64>,
    /// Span of time fetched.
    pub range: Option<Duration>,
    /// Series of the answer.
    pub returned_series: Option<u64>,
    /// Points of the answer.
    pub returned_datapoints: Option<u64>,
    /// Time from the start to the end.
    pub timeout: Option<Duration>,
}

/// Sets M3's limit headers so that a client can only lower them. `param` finds the client's form or
/// URL parameters (`limit`, `docsLimit`, `rangeLimit`, `returnedSeriesLimit`, `returnedDatapointsLimit`, `timeout`),
/// which are overruled by the headers and therefore heard here.
pub fn m3_push_down<'a>(headers: &mut HeaderMap, param: impl Fn(&str) -> Option<&'a str>, limits: &M3Limits) {
    let more_than = |limit: Option<u64>| limit.map(|n| n.saturating_add(1));
    let counts = [
        (MAX_SERIES, "limit", more_than(limits.series)),
        (MAX_DOCS, "docsLimit", more_than(limits.docs)),
        (MAX_RETURNED_SERIES, "returnedSeriesLimit", limits.returned_series),
        (MAX_RETURNED_DATAPOINTS, "returnedDatapointsLimit", limits.returned_datapoints),
    ];
    for (name, parameter, limit) in counts {
        let asked = asked(headers, &name, param(parameter), count);
        set(headers, name, least(asked, limit), |n| n.max(1));
    }
    let range = asked(headers, &MAX_RANGE, param("rangeLimit"), go_duration);
    set(headers, MAX_RANGE, least(range, limits.range), go_milliseconds);
    let timeout = least(asked(headers, &TIMEOUT, param("timeout"), go_duration), legacy_timeout(headers));
    set(headers, TIMEOUT, least(timeout, limits.timeout).map(|t| t.min(TIMEOUT_MAX)), go_milliseconds);
    // A limit that silently drops series would show less than the truth; a client may still ask for that.
    if limits.series.is_some() || limits.docs.is_some() {
        headers.entry(REQUIRE_EXHAUSTIVE).or_insert(HeaderValue::from_static("true"));
    }
}

/// A limit that M3 refused a query by, and the number that it had come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// [`M3Limits::series`]
    Series(u64),
    /// [`M3Limits::docs`]
    Docs(u64),
    /// [`M3Limits::range`]
    Range(Duration),
}

/// The limit that an error of M3 is about; `None` where it is another than the one handed down: a lower
/// one of the client's, or M3's own.
///
/// M3 writes `query exceeded limit: require_exhaustive=true, series_limit=5, series_matched=5, docs_limit=0,
/// docs_matched=256`, or `range_limit=10s, range_matched=1h0m0s`.
pub fn exceeded(error: &str, limits: &M3Limits) -> Option<Exceeded> {
    let (_, facts) = error.split_once("query exceeded limit: ")?;
    let field = |name: &str| {
        let value = facts.split([',', ' ', '}']).find_map(|fact| fact.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default()
    };
    let over = |sent: Option<u64>, limit, matched| {
        let (limit, matched) = (count(field(limit))?, count(field(matched))?);
        (sent?.checked_add(1) == Some(limit) && matched >= limit).then_some(matched)
    };
    let range = || {
        let (limit, matched) = (go_duration(field("range_limit"))?, go_duration(field("range_matched"))?);
        (limits.range == Some(limit) && matched > limit).then_some(Exceeded::Range(matched))
    };
    let series = over(limits.series, "series_limit", "series_matched").map(Exceeded::Series);
    series.or_else(|| over(limits.docs, "docs_limit", "docs_matched").map(Exceeded::Docs)).or_else(range)
}

/// The lower of the client's values in header and parameter; values that M3 would not read are ignored.
fn asked<T: Ord>(
    headers: &HeaderMap,
    name: &HeaderName,
    parameter: Option<&str>,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.chain(parameter).filter_map(read).min()
}

fn legacy_timeout(headers: &mut HeaderMap) -> Option<Duration> {
    go_duration(headers.remove(LEGACY_TIMEOUT)?.to_str().ok()?)
}

fn least<T: Ord>(asked: Option<T>, limit: Option<T>) -> Option<T> {
    asked.into_iter().chain(limit).min()
}

fn set<T, S: ToString>(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: Option<T>,
    written: impl Fn(T) -> S,
) {
    let value = value.and_then(|v| HeaderValue::from_str(&written(v).to_string()).ok());
    match value {
        Some(value) => drop(headers.insert(name, value)),
        // The client's value is zero or nothing that M3 reads.
        None => drop(headers.remove(name)),
    }
}

fn count(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|n| *n > 0)
}

fn go_milliseconds(duration: Duration) -> String {
    let most = (GO_DURATION_MAX / 1e6) as u128;
    format!("{}ms", duration.as_millis().clamp(1, most))
}

/// Reads a positive Go duration: `1h30m`, `1.5s`, `300ms`. Anything else, a bare number too, is none.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("\u{b5}s", 1e3),
        ("\u{3bc}s", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = rest.get(..letters)?;
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos += number * scale;
        rest = rest.get(letters..)?;
    }
    (1.0..=GO_DURATION_MAX).contains(&nanos).then(|| Duration::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases = [
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1_500)),
            (".5s", Some(500)),
            ("300ms", Some(300)),
            ("+2m", Some(120_000)),
            ("30", None),
            ("1d", None),
            ("0s", None),
            ("-1s", None),
            ("", None),
            ("1.2.3s", None),
            ("s", None),
            ("9999999999h", None),
        ];
        for (text, expected) in cases {
            assert_eq!(go_duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    /// The limits for the backend, from the headers and parameters of the client.
    #[test]
    fn a_client_can_only_lower_a_limit() {
        let limits = M3Limits {
            series: Some(1_000),
            range: Some(Duration::from_secs(3_600)),
            timeout: Some(Duration::from_secs(30)),
            ..M3Limits::default()
        };
        let cases: &[(&str, &str, &str, &str)] = &[
            // header, its value, the parameter of the same meaning, the headers sent
            ("m3-limit-max-series", "", "", "1001"),
            ("m3-limit-max-series", "10", "", "10"),
            ("m3-limit-max-series", "", "10", "10"),
            ("m3-limit-max-series", "500", "10", "10"),
            ("m3-limit-max-series", "5000000", "7000000", "1001"),
            ("m3-limit-max-series", "0", "0", "1001"),
            ("m3-limit-max-series", "many", "-1", "1001"),
            ("m3-limit-max-range", "2h", "", "3600000ms"),
            ("m3-limit-max-range", "10m", "", "600000ms"),
            ("m3-timeout", "", "", "30000ms"),
            ("m3-timeout", "5s", "", "5000ms"),
            ("m3-timeout", "30", "1d", "30000ms"),
            ("m3-timeout", "1h", "1h", "30000ms"),
            ("m3-limit-max-docs", "12", "", "12"),
            ("m3-limit-max-docs", "0", "", "-"),
            ("m3-limit-max-returned-series", "", "", "-"),
        ];
        for (name, header, parameter, expected) in cases {
            let mut headers = HeaderMap::new();
            if !header.is_empty() {
                headers.insert(*name, header.parse().unwrap());
            }
            let param = |_: &str| (!parameter.is_empty()).then_some(*parameter);
            m3_push_down(&mut headers, param, &limits);
            let sent = headers.get(*name).map_or("-", |v| v.to_str().unwrap());
            assert_eq!(sent, *expected, "{name}: {header} / {parameter}");
            assert_eq!(headers["m3-limit-require-exhaustive"], "true");
        }
    }

    /// The texts are those of an m3dbnode of May 2026.
    #[test]
    fn errors_of_m3_are_about_the_limit_that_was_handed_down() {
        let node = |facts: &str| {
            format!(
                "unable to satisfy consistency requirements, shards=16: failed to meet consistency level unstrict_majority \
                 with 0/1 success, 1 nodes responded, errors: [error fetching tagged from host m3db_local: \
                 Error({{Type:BAD_REQUEST Message:query exceeded limit: require_exhaustive=true, {facts} Flags:1}})]"
            )
        };
        let by_series = node("series_limit=5, series_matched=5, docs_limit=0, docs_matched=256");
        let by_docs = node("series_limit=100000, series_matched=256, docs_limit=6, docs_matched=256");
        let by_range = node("range_limit=10s, range_matched=1h0m0s");
        let series = |n| M3Limits { series: Some(n), docs: Some(5), ..M3Limits::default() };
        let range = |s| M3Limits { range: Some(Duration::from_secs(s)), ..M3Limits::default() };
        for (error, limits, want) in [
            (&by_series, series(4), Some(Exceeded::Series(5))),
            // The client's own, or M3's: not the one that was handed down.
            (&by_series, series(400), None),
            (&by_series, M3Limits::default(), None),
            (&by_docs, series(400), Some(Exceeded::Docs(256))),
            (&by_range, range(10), Some(Exceeded::Range(Duration::from_secs(3_600)))),
            (&by_range, range(60), None),
            (&"query timed out in query execution".to_owned(), series(4), None),
        ] {
            assert_eq!(exceeded(error, &limits), want, "{error}");
        }
    }

    #[test]
    fn no_timeout_is_longer_than_m3_takes_and_none_is_zero() {
        let sent = |timeout, legacy: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(legacy) = legacy {
                headers.insert("timeout", legacy.parse().unwrap());
            }
            m3_push_down(&mut headers, |_| None, &M3Limits { timeout, ..M3Limits::default() });
            assert!(!headers.contains_key("timeout"));
            headers.get("m3-timeout").map(|v| v.to_str().unwrap().to_owned())
        };
        assert_eq!(sent(Some(Duration::from_secs(9_999)), None).as_deref(), Some("600000ms"));
        assert_eq!(sent(Some(Duration::ZERO), None).as_deref(), Some("1ms"));
        assert_eq!(sent(Some(Duration::from_secs(9)), Some("2s")).as_deref(), Some("2000ms"));
        assert_eq!(sent(None, None), None);
    }
}
