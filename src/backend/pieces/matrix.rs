//! Answers of `query_range` for parts of a time, put together: the points of each series one after the other, as they
//! came, and the series in the order in which Prometheus gives them.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;

/// What is put together so far.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    /// By their labels, in the order in which Prometheus compares them: name by name, then value.
    series: BTreeMap<BTreeMap<String, String>, Series>,
    warnings: Vec<String>,
    infos: Vec<String>,
    bytes: usize,
    answers: usize,
}

#[derive(Debug, Default)]
struct Series {
    /// Points, without the brackets around them.
    values: String,
    histograms: String,
    /// The last answer that it was in.
    latest: usize,
}

/// Fields that are not known here may mean anything for the whole.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    data: Data<'a>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Data<'a> {
    #[serde(borrow)]
    result_type: Cow<'a, str>,
    #[serde(borrow)]
    result: Vec<Piece<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece<'a> {
    metric: BTreeMap<String, String>,
    #[serde(borrow, default)]
    values: Option<&'a RawValue>,
    #[serde(borrow, default)]
    histograms: Option<&'a RawValue>,
}

impl Matrix {
    /// Bytes of the answers taken in.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in the answer for the next part; `None` where it is no matrix that can be put together.
    pub(super) fn append(&mut self, answer: &[u8]) -> Option<()> {
        let parsed: Answer<'_> = serde_json::from_slice(answer).ok()?;
        if parsed.status != "success" || parsed.data.result_type != "matrix" {
            return None;
        }
        self.bytes += answer.len();
        self.answers += 1;
        for piece in parsed.data.result {
            let series = self.series.entry(piece.metric).or_default();
            // Twice in one answer: its points would not be in order.
            if series.latest == self.answers {
                return None;
            }
            series.latest = self.answers;
            extend(&mut series.values, piece.values)?;
            extend(&mut series.histograms, piece.histograms)?;
        }
        for (known, new) in [(&mut self.warnings, parsed.warnings), (&mut self.infos, parsed.infos)] {
            for text in new {
                if !known.contains(&text) {
                    known.push(text);
                }
            }
        }
        Some(())
    }

    /// The answer for the whole time, as Prometheus writes it.
    pub(super) fn into_json(self) -> Option<String> {
        let mut out = String::with_capacity(self.bytes + 1_024);
        out.push_str(r#"{"status":"success","data":{"resultType":"matrix","result":["#);
        for (n, (metric, series)) in self.series.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            out.push_str(r#"{"metric":"#);
            out.push_str(&serde_json::to_string(metric).ok()?);
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

/// Puts the elements of a list after those that are there.
fn extend(points: &mut String, more: Option<&RawValue>) -> Option<()> {
    let Some(more) = more else { return Some(()) };
    let inner = more.get().strip_prefix('[')?.strip_suffix(']')?.trim();
    if !points.is_empty() && !inner.is_empty() {
        points.push(',');
    }
    points.push_str(inner);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(result: &str, rest: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{result}]}}{rest}}}"#)
    }

    #[test]
    fn points_follow_each_other_and_series_are_sorted_as_prometheus_sorts_them() {
        let mut matrix = Matrix::default();
        let first = r#"{"metric":{"a":"2"},"values":[[1,"1"],[2,"NaN"]]}"#;
        let second = concat!(
            r#"{"metric":{},"values":[[3,"0"]]},{"metric":{"a":"1","b":"\u00e9\""},"values":[[3,"7"]]},"#,
            r#"{"metric":{"a":"2"},"values":[ [3,"1e+06"] ],"histograms":[[4,{"count":"1","sum":"2"}]]}"#
        );
        matrix.append(answer(first, r#","warnings":["w"]"#).as_bytes()).unwrap();
        matrix.append(answer("", "").as_bytes()).unwrap();
        matrix.append(answer(second, r#","warnings":["w","x"],"infos":["i"]"#).as_bytes()).unwrap();
        let want = concat!(
            r#"{"metric":{},"values":[[3,"0"]]},{"metric":{"a":"1","b":"é\""},"values":[[3,"7"]]},"#,
            r#"{"metric":{"a":"2"},"values":[[1,"1"],[2,"NaN"],[3,"1e+06"]],"histograms":[[4,{"count":"1","sum":"2"}]]}"#
        );
        assert_eq!(matrix.into_json().unwrap(), answer(want, r#","warnings":["w","x"],"infos":["i"]"#));
    }

    #[test]
    fn an_empty_answer_is_one() {
        let mut matrix = Matrix::default();
        matrix.append(answer("", "").as_bytes()).unwrap();
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
        ] {
            assert!(Matrix::default().append(odd.as_bytes()).is_none(), "{odd}");
        }
    }
}
