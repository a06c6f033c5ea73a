//! Answers of `query_range` for parts of a time, merged: the points of each series one after the other, as they came,
//! and the series in the order in which Prometheus gives them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{backend::Kind, base::time::EvalTimes, http::ByteBudget};

/// Bytes of JSON in all answers of a backend that are being merged or sent on; up to three times that in memory, while
/// an answer of many short series is written.
const MERGING_MAX: usize = 32 << 20;
/// More series than this no graph shows, and they take more memory than their bytes.
const SERIES_MAX: usize = 10_000;

/// Why the answers to parts were not merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotMergeable {
    /// They are too long, or have too many series: the query must run as a whole.
    TooLong,
    /// One has a form that cannot be merged: the query must run as a whole.
    Odd,
    /// Other answers hold all the memory for merging.
    NoMemory,
}

impl fmt::Display for NotMergeable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the answer is too long to be merged from parts",
            Self::Odd => "an answer to a part has a form that cannot be merged",
            Self::NoMemory => "other answers hold all the memory for merging parts",
        })
    }
}

/// Memory for the answers of one backend. Each takes free memory at once or fails: to wait for it while holding some
/// would be a deadlock.
pub(in crate::backend) fn merge_budget() -> ByteBudget {
    ByteBudget::new(MERGING_MAX)
}

/// The answer merged so far.
#[derive(Debug)]
pub(super) struct Matrix {
    kind: Kind,
    series: Vec<Series>,
    /// Where a series is, by its labels as they came: a database writes them in one way.
    places: HashMap<Arc<str>, usize>,
    warnings: Vec<String>,
    infos: Vec<String>,
    bytes: usize,
    answers: usize,
}

#[derive(Debug)]
struct Series {
    metric: Arc<str>,
    /// Points, without the brackets around them.
    values: String,
    histograms: String,
    /// The last answer that it was in.
    latest: usize,
}

/// Fields that are not known here may mean anything for the whole; those that a kind of backend adds to any answer are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    data: Data<'a>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
    /// VictoriaMetrics: series read and time taken for this part. Dropped.
    stats: Option<IgnoredAny>,
    /// VictoriaMetrics (cluster): some of the storage did not answer.
    is_partial: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Data<'a> {
    /// Thanos: the time that the operators of this part took. Dropped.
    analysis: Option<IgnoredAny>,
    #[serde(borrow)]
    result_type: Cow<'a, str>,
    #[serde(borrow)]
    result: Vec<PartSeries<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartSeries<'a> {
    #[serde(borrow)]
    metric: &'a RawValue,
    #[serde(borrow, default)]
    values: Option<&'a RawValue>,
    #[serde(borrow, default)]
    histograms: Option<&'a RawValue>,
}

impl Answer<'_> {
    /// Whether it is an answer to a range query with nothing in it that only this kind of backend could explain.
    fn is_plain(&self, kind: Kind) -> bool {
        self.status == "success"
            && self.data.result_type == "matrix"
            && (self.stats.is_none() || kind == Kind::VictoriaMetrics)
            && !self.is_partial.unwrap_or(false)
            && (self.data.analysis.is_none() || kind == Kind::Thanos)
    }
}

impl Matrix {
    /// Nothing yet, of a backend of this kind.
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            series: Vec::new(),
            places: HashMap::new(),
            warnings: Vec::new(),
            infos: Vec::new(),
            bytes: 0,
            answers: 0,
        }
    }

    /// Bytes of the answers taken in.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in the answer for the next part of the time.
    pub(super) fn append(&mut self, answer: &[u8], times: EvalTimes) -> Result<(), NotMergeable> {
        let parsed: Answer<'_> = serde_json::from_slice(answer).map_err(|_| NotMergeable::Odd)?;
        if !parsed.is_plain(self.kind) {
            return Err(NotMergeable::Odd);
        }
        self.bytes += answer.len();
        self.answers += 1;
        for part in parsed.data.result {
            let place = self.place(part.metric.get())?;
            let series = self.series.get_mut(place).ok_or(NotMergeable::Odd)?;
            // Twice in one answer: its points would not be in order.
            if series.latest == self.answers {
                return Err(NotMergeable::Odd);
            }
            series.latest = self.answers;
            extend(&mut series.values, part.values, times)?;
            extend(&mut series.histograms, part.histograms, times)?;
        }
        for (known, new) in [(&mut self.warnings, parsed.warnings), (&mut self.infos, parsed.infos)] {
            for text in new {
                if !known.iter().any(|known| is_same_note(known, &text)) {
                    known.push(text);
                }
            }
        }
        Ok(())
    }

    /// Where the series with these labels is, from now on.
    fn place(&mut self, metric: &str) -> Result<usize, NotMergeable> {
        if let Some(place) = self.places.get(metric) {
            return Ok(*place);
        }
        let place = self.series.len();
        if place >= SERIES_MAX {
            return Err(NotMergeable::TooLong);
        }
        let metric: Arc<str> = metric.into();
        self.places.insert(Arc::clone(&metric), place);
        self.series.push(Series { metric, values: String::new(), histograms: String::new(), latest: 0 });
        Ok(place)
    }

    /// The answer for the whole time, as Prometheus writes it: series by their labels, name by name and then value.
    /// `None` where labels are none, or two series have the same.
    pub(super) fn into_json(self) -> Option<String> {
        let labels = |series: &Series| serde_json::from_str::<BTreeMap<String, String>>(&series.metric).ok();
        let keyed = self.series.iter().map(|series| Some((labels(series)?, series)));
        let mut sorted: Vec<_> = keyed.collect::<Option<_>>()?;
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        if sorted.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return None;
        }
        let mut out = String::with_capacity(self.bytes + 1_024);
        out.push_str(r#"{"status":"success","data":{"resultType":"matrix","result":["#);
        for (n, (_, series)) in sorted.into_iter().enumerate() {
            out.push_str(if n > 0 { r#",{"metric":"# } else { r#"{"metric":"# });
            out.push_str(&series.metric);
            for (name, points) in [("values", &series.values), ("histograms", &series.histograms)] {
                if !points.is_empty() {
                    out.extend([",\"", name, "\":[", points, "]"]);
                }
            }
            out.push('}');
        }
        out.push_str("]}");
        for (name, texts) in [("warnings", &self.warnings), ("infos", &self.infos)] {
            if !texts.is_empty() {
                out.extend([",\"", name, "\":", &serde_json::to_string(texts).ok()?]);
            }
        }
        out.push('}');
        Some(out)
    }
}

/// Whether two notes differ in numbers only, such as a time or a count of the part that each is about.
fn is_same_note(a: &str, b: &str) -> bool {
    let words = |text: &str| {
        let words = text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | ':' | ';' | '"'));
        words.filter(|word| word.parse::<f64>().is_err()).map(str::to_owned).collect::<Vec<_>>()
    };
    a == b || words(a) == words(b)
}

/// Puts the elements of a list after those that are there, if the first of them belongs to this part of the time: a
/// database that did not heed it gave the whole.
fn extend(points: &mut String, more: Option<&RawValue>, times: EvalTimes) -> Result<(), NotMergeable> {
    let Some(more) = more else { return Ok(()) };
    let inner =
        more.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(NotMergeable::Odd)?.trim();
    if inner.is_empty() {
        return Ok(());
    }
    let first = inner.strip_prefix('[').and_then(|rest| rest.split(',').next()).map(str::trim);
    let first_ms =
        first.and_then(|text| text.parse::<f64>().ok()).map(|seconds| (seconds * 1e3).round() as i64);
    if !first_ms.is_some_and(|ms| (times.start..=times.end).contains(&ms)) {
        return Err(NotMergeable::Odd);
    }
    if !points.is_empty() {
        points.push(',');
    }
    points.push_str(inner);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(result: &str, rest: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{result}]}}{rest}}}"#)
    }

    /// Seconds from and to.
    const fn times(start: i64, end: i64) -> EvalTimes {
        EvalTimes { start: start * 1_000, end: end * 1_000, step: 1_000 }
    }

    #[test]
    fn points_follow_each_other_and_series_are_sorted_as_prometheus_sorts_them() {
        let mut matrix = Matrix::new(Kind::Prometheus);
        let first = r#"{"metric":{"a":"2"},"values":[[1,"1"],[2,"NaN"]]}"#;
        let second = concat!(
            r#"{"metric":{},"values":[[3,"0"]]},{"metric":{"a":"1","b":"\u00e9\""},"values":[[3,"7"]]},"#,
            r#"{"metric":{"a":"2"},"values":[ [3,"1e+06"] ],"histograms":[[4,{"count":"1","sum":"2"}]]}"#
        );
        matrix.append(answer(first, r#","warnings":["w"]"#).as_bytes(), times(1, 2)).unwrap();
        matrix.append(answer("", "").as_bytes(), times(2, 3)).unwrap();
        let last = answer(second, r#","warnings":["w","x"],"infos":["i"]"#);
        matrix.append(last.as_bytes(), times(3, 4)).unwrap();
        let want = concat!(
            r#"{"metric":{},"values":[[3,"0"]]},{"metric":{"a":"1","b":"\u00e9\""},"values":[[3,"7"]]},"#,
            r#"{"metric":{"a":"2"},"values":[[1,"1"],[2,"NaN"],[3,"1e+06"]],"histograms":[[4,{"count":"1","sum":"2"}]]}"#
        );
        assert_eq!(matrix.into_json().unwrap(), answer(want, r#","warnings":["w","x"],"infos":["i"]"#));
    }

    #[test]
    fn what_a_kind_of_backend_adds_is_dropped_and_stops_others() {
        let thanos =
            r#"{"status":"success","data":{"resultType":"matrix","result":[],"analysis":{"name":"[x]"}}}"#;
        let victoria = answer("", r#","isPartial":false,"stats":{"seriesFetched":"1"}"#);
        let partial = answer("", r#","isPartial":true"#);
        for (kind, text, merges) in [
            (Kind::Thanos, thanos, true),
            (Kind::Prometheus, thanos, false),
            (Kind::VictoriaMetrics, &victoria, true),
            (Kind::Prometheus, &victoria, false),
            (Kind::VictoriaMetrics, &partial, false),
        ] {
            let mut matrix = Matrix::new(kind);
            assert_eq!(matrix.append(text.as_bytes(), times(0, 1)).is_ok(), merges, "{kind:?} {text}");
            if merges {
                assert_eq!(matrix.into_json().unwrap(), answer("", ""));
            }
        }
    }

    #[test]
    fn notes_about_each_part_are_merged_into_one() {
        let mut matrix = Matrix::new(Kind::Prometheus);
        for note in
            ["ignored 3 samples at 1.5 (1:7)", "ignored 12 samples at 61.5 (1:7)", "rate of no counter: a2"]
        {
            let text = answer("", &format!(r#","infos":["{note}"]"#));
            matrix.append(text.as_bytes(), times(0, 1)).unwrap();
        }
        let want = r#","infos":["ignored 3 samples at 1.5 (1:7)","rate of no counter: a2"]"#;
        assert_eq!(matrix.into_json().unwrap(), answer("", want));
    }

    #[test]
    fn an_empty_answer_is_one() {
        let mut matrix = Matrix::new(Kind::Prometheus);
        matrix.append(answer("", "").as_bytes(), times(0, 1)).unwrap();
        assert_eq!(matrix.into_json().unwrap(), answer("", ""));
    }

    #[test]
    fn what_is_not_understood_is_not_put_together() {
        let twice = r#"{"metric":{},"values":[[1,"1"]]},{"metric":{},"values":[[1,"1"]]}"#;
        for odd in [
            "",
            "[]",
            r#"{"status":"error","errorType":"x","error":"y"}"#,
            r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
            &answer("", r#","stats":{}"#),
            &answer(r#"{"metric":{},"values":7}"#, ""),
            &answer(r#"{"metric":{},"value":[1,"1"]}"#, ""),
            &answer(twice, ""),
            // Of another time than was asked for.
            &answer(r#"{"metric":{},"values":[[3,"1"]]}"#, ""),
        ] {
            assert_eq!(
                Matrix::new(Kind::Prometheus).append(odd.as_bytes(), times(1, 2)),
                Err(NotMergeable::Odd),
                "{odd}"
            );
        }
        let mut matrix = Matrix::new(Kind::Prometheus);
        for labels in [r#"{"a":"1","b":"2"}"#, r#"{"b":"2","a":"1"}"#] {
            let odd = answer(&format!(r#"{{"metric":{labels},"values":[[1,"1"]]}}"#), "");
            matrix.append(odd.as_bytes(), times(1, 2)).unwrap();
        }
        assert_eq!(matrix.into_json(), None);
    }
}
