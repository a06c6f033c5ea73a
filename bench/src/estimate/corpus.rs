//! The selectors that are estimated, in all sizes, each in some forms of query, whose windows are worked out by hand
//! here.

/// Selectors over the data of the bench: one metric, parts of it, many metrics, nothing.
pub(super) const SELECTORS: [&str; 34] = [
    "c00_total",
    "mem_usage",
    "req_dur_bucket",
    r#"c01_total{job="api"}"#,
    r#"c01_total{job!="api"}"#,
    r#"c01_total{job=~"api|db"}"#,
    r#"c01_total{job!~"api|db"}"#,
    r#"c02_total{instance="10.0.0.3:9100"}"#,
    r#"c02_total{instance=~"10.0.0.[1-4]:9100"}"#,
    r#"c02_total{path="/p1",job="web"}"#,
    r#"c02_total{path=~"/p[0-4]"}"#,
    r#"req_dur_bucket{le="+Inf"}"#,
    r#"req_dur_bucket{le=~"0.*"}"#,
    r#"req_dur_bucket{job="db",le="0.1"}"#,
    r#"{job="api"}"#,
    r#"{job=~"api|web"}"#,
    r#"{job="api",path="/p3"}"#,
    r#"{instance="10.0.0.7:9100"}"#,
    r#"{path="/p9"}"#,
    r#"{path=~"/p[0-4]"}"#,
    r#"{__name__=~"g0[1-9]_level"}"#,
    r#"{__name__=~"g0[1-9]_level",path=~"/p[0-4]"}"#,
    r#"{__name__=~"c0.*"}"#,
    r#"{__name__=~"c1[0-4]_total",job="queue"}"#,
    r#"{__name__=~"c.*_total"}"#,
    r#"{__name__=~"c.*|g.*"}"#,
    r#"{__name__!~"c.*",job="cache"}"#,
    r#"{__name__=~"c.*|g.*|h.*|m.*|r.*"}"#,
    r#"{le="5"}"#,
    "no_such_metric",
    r#"c03_total{nothing="x"}"#,
    r#"mem_usage{job=~".*e.*"}"#,
    r#"http_requests_total{path!~"/p[1-9]"}"#,
    r#"http_requests_total{job="api",instance="10.0.0.1:9100",path="/p0"}"#,
];

/// A way to ask for a selector, which stands for `S` in the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) what: &'static str,
    text: &'static str,
    /// Hours from the first step to the last; 0: an instant query.
    hours: u64,
    pub(super) step: u64,
    /// For each time that the selector stands in the text: seconds that it looks back from a step, and its offset.
    /// Without a range, that is the lookback of five minutes.
    windows: &'static [(u64, u64)],
    /// Works on series of several names as well.
    pub(super) names: bool,
}

const HOUR: u64 = 3600;
const LOOKBACK: u64 = 300;

const fn form(
    what: &'static str,
    text: &'static str,
    (hours, step): (u64, u64),
    windows: &'static [(u64, u64)],
    names: bool,
) -> Form {
    Form { what, text, hours, step, windows, names }
}

const FORMS: [Form; 11] = [
    form("selector, 5 h", "S", (5, 300), &[(LOOKBACK, 0)], true),
    form("sum by, 5 h", "sum by(job)(S)", (5, 60), &[(LOOKBACK, 0)], true),
    form("count, instant", "count(S)", (0, 0), &[(LOOKBACK, 0)], true),
    form("range, instant", "last_over_time(S[6h])", (0, 0), &[(6 * HOUR, 0)], true),
    form("sum by last_over_time, 1 h", "sum by(job)(last_over_time(S[5m]))", (1, 15), &[(300, 0)], true),
    form("topk, 1 h", "topk(5, S)", (1, 60), &[(LOOKBACK, 0)], true),
    form("offset, 1 h", "sum(S offset 2h)", (1, 60), &[(LOOKBACK, 2 * HOUR)], true),
    form("two windows, 1 h", "sum(S) - sum(S offset 1h)", (1, 60), &[(LOOKBACK, 0), (LOOKBACK, HOUR)], true),
    form("sum of rate, 3 h", "sum by(job)(rate(S[5m]))", (3, 60), &[(300, 0)], false),
    form("max_over_time, 3 h", "max(max_over_time(S[1h]))", (3, 300), &[(HOUR, 0)], false),
    // Thirty minutes of steps a minute apart, each of which looks back five minutes.
    form("subquery, 3 h", "max_over_time(sum(rate(S[5m]))[30m:1m])", (3, 300), &[(30 * 60 + 300, 0)], false),
];

/// A query, and the true size of its reads.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) form: Form,
    pub(super) selector: &'static str,
    pub(super) query: String,
    /// First and last second asked for; the same of an instant query.
    pub(super) range: (u64, u64),
    /// First and last second read, for each time that the selector stands in the query.
    pub(super) windows: Vec<(u64, u64)>,
}

/// Each selector in three or four forms, so that each form meets selectors of all sizes.
pub(super) fn cases(end: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, selector) in SELECTORS.into_iter().enumerate() {
        for form in FORMS.iter().skip(n % 3).step_by(3) {
            // Functions that drop the name fail on series that differ in nothing else.
            if form.names || !selector.starts_with('{') {
                cases.push(Case::new(*form, selector, end));
            }
        }
    }
    cases
}

impl Case {
    fn new(form: Form, selector: &'static str, end: u64) -> Self {
        let range = (end - form.hours * HOUR, end);
        let windows = form.windows.iter();
        let windows = windows.map(|(back, offset)| (range.0 - back - offset, range.1 - offset)).collect();
        Self { form, selector, query: form.text.replace('S', selector), range, windows }
    }

    pub(super) fn instant(&self) -> bool {
        self.form.hours == 0
    }

    /// The parameters of the query, for its own path and for that of its cost.
    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let query = ("query", self.query.clone());
        if self.instant() {
            return vec![query, ("time", self.range.1.to_string())];
        }
        let [start, end, step] = [self.range.0, self.range.1, self.form.step].map(|n| n.to_string());
        vec![query, ("start", start), ("end", end), ("step", step)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_knows_its_windows() {
        let cases = cases(100_000);
        assert!(cases.len() >= 60, "{}", cases.len());
        let two = cases.iter().find(|c| c.form.what == "two windows, 1 h").expect("is in the corpus");
        assert_eq!(two.windows, [(100_000 - 3_900, 100_000), (100_000 - 7_500, 96_400)]);
        assert!(two.query.starts_with("sum(") && two.query.contains(" - sum("), "{}", two.query);
        // The letter that stands for the selector stands nowhere else.
        assert!(FORMS.iter().all(|f| f.text.matches('S').count() == f.windows.len()));
    }
}
