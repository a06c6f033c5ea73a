//! Questions for the type of a selector's samples.

use weir::{
    backend::{DataScope, Kind, ProbeRequest, ProbeSettings},
    base::TimeRange,
};

use super::probe::{HOUR, WINDOW, backend, request, vector};
use crate::support::fake_upstream::{Act, FakeUpstream};

/// One selector of a metric stands for all of them; one without series or answer is asked about again.
#[tokio::test]
async fn the_share_of_native_histograms_is_asked_once_for_each_metric() {
    let upstream = FakeUpstream::start(|seen| match &*seen.params("query")[0] {
        query if query.contains("floats") => vector(0),
        query if query.contains("refused") => Act::answer(400, &[], b"unknown function"),
        query if query.contains("none") => {
            Act::json(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)
        }
        query if query.contains("broken") => Act::answer(500, &[], b"broken"),
        _ => vector(1),
    })
    .await;
    let backend = backend(Kind::Prometheus, &upstream, ProbeSettings::default());
    let scope = DataScope::default();
    for (metric, selector, share, questions) in [
        (Some("n"), "n", Some(1.0), 1),
        (Some("n"), "n{job=\"a\"}", Some(1.0), 0),
        (Some("floats"), "floats", Some(0.0), 1),
        (Some("refused"), "refused", Some(0.0), 1),
        (Some("none"), "none", None, 2),
        (Some("none"), "none{job=\"a\"}", None, 2),
        (None, "{job=\"broken\"}", None, 1),
        (None, "{job=\"a\"}", Some(1.0), 1),
        (None, "{job=\"b\"}", Some(1.0), 1),
    ] {
        let before = upstream.seen().len();
        let request = ProbeRequest { metric, selector, ..request(&scope) };
        for _ in 0..3 {
            assert_eq!(backend.histogram_share(&request).await, share, "{selector}");
        }
        assert_eq!(upstream.seen().len() - before, questions, "{selector}");
    }
}

/// Series that ended minutes before the window did, without metadata: they were priced as native histograms, 115 times
/// too high.
#[tokio::test]
async fn the_share_of_native_histograms_is_asked_within_the_window_where_no_series_reach_its_end() {
    let answer = |kind: &str, result: &str| {
        Act::json(&format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":[{result}]}}}}"#))
    };
    let upstream = FakeUpstream::start(move |seen| match (seen.path(), &*seen.params("query")[0]) {
        ("/api/v1/query", _) => answer("vector", ""),
        (_, query) if query.contains("never") => answer("matrix", ""),
        (_, query) if query.contains("unasked") => Act::answer(422, &[], b"too many samples"),
        (_, query) if query.contains("floats") => answer("matrix", r#"{"values":[[1,"0"],[2,"0"]]}"#),
        _ => answer("matrix", r#"{"values":[[1,"0"],[2,"0.5"],[3,"0.25"]]}"#),
    })
    .await;
    let backend = backend(Kind::Prometheus, &upstream, ProbeSettings::default());
    let scope = DataScope::default();
    // selector, series, share; instants asked about
    for (selector, limit, share, instants) in [
        ("floats", 200, Some(0.0), 12),
        ("mixed", 200, Some(0.5), 12),
        ("never", 200, None, 12),
        ("unasked", 200, None, 12),
        ("never_many", 4_096, None, 4),
        ("never_most", 50_000, None, 1),
    ] {
        let request = ProbeRequest { metric: Some(selector), selector, limit, ..request(&scope) };
        assert_eq!(backend.histogram_share(&request).await, share, "{selector}");
        let seen = upstream.seen();
        let seen = seen.last().unwrap();
        let [start, end, step] =
            ["start", "end", "step"].map(|name| seen.params(name)[0].parse::<f64>().unwrap());
        assert_eq!(((end - start) / step).floor() as u64 + 1, instants, "{selector}");
        let (first, last) = (WINDOW.start as f64 / 1e3, WINDOW.end as f64 / 1e3);
        assert!(start > first && end < last && start + end - first - last < 1.0, "{selector}");
    }
    // Another window is asked about at once, though this one had no samples.
    let before = upstream.seen().len();
    let moved = TimeRange { start: WINDOW.start - HOUR, end: WINDOW.end - HOUR };
    let request = ProbeRequest { metric: Some("never"), selector: "never", window: moved, ..request(&scope) };
    assert_eq!(backend.histogram_share(&request).await, None);
    assert_eq!(upstream.seen().len() - before, 2);
}
