//! Queries that take far more than their selectors show, scaled down so that a database survives each.

use super::{Case, data::NATIVE};

/// `label_replace` of label `a` of an inner expression by this many references to itself.
fn grown(inner: &str, references: usize) -> String {
    format!(r#"label_replace({inner},"a","{}","a","(.*)")"#, "$1".repeat(references))
}

pub(super) fn cases(histograms: bool) -> Vec<Case> {
    let text = |length: usize| format!(r#"label_replace(vector(1),"a","{}","","")"#, "x".repeat(length));
    let instants = [
        "sum_over_time(vector(1)[20000s:10ms])".to_owned(),
        "sum_over_time(absent(nope)[20000s:10ms])".to_owned(),
        "sum_over_time((nope or vector(0))[20000s:10ms])".to_owned(),
        "sum_over_time(vector(time())[20000s:10ms])".to_owned(),
        grown(&grown(&text(500), 200), 200),
        grown(&text(5_000), 4_000),
        r#"label_join(label_join(label_join(g0_level,"a","","a","job","a"),"a","","a","a","a"),"a","","a","a","a","a")"#
            .to_owned(),
        "sum(sum_over_time((g0_level @ end())[1h:1s]))".to_owned(),
        "sum(sum_over_time(last_over_time(g0_level[1m:1m])[1h:1s]))".to_owned(),
        "sum(max_over_time(sum_over_time(g0_level[30m:5s])[1h:5s]))".to_owned(),
        r#"count(count_values("v", g0_level))"#.to_owned(),
        "g0_level[2h]".to_owned(),
        "g0_level[2h:5s]".to_owned(),
    ];
    let ranges = [
        "sum((g0_level @ end()) or vector(time()))",
        r#"label_replace(abs(ceil(floor(g0_level))), "x", "$1", "job", "(.*)")"#,
        "sum(abs(ceil(floor(sqrt(g0_level)))))",
        "sum by (job, instance, path) (g0_level) + (sum by (job, instance, path) (g1_level) + sum by (job, instance, path) (c0_total))",
        "g0_level * on () group_left (instance) topk(1, g1_level)",
        "topk by (path) (20, g0_level)",
        "quantile by (job) (0.9, g0_level)",
        "sort(g0_level)",
        "absent_over_time(g0_level[5m])",
        "-g0_level",
        "g0_level and g1_level",
        "g0_level > 0 or g1_level",
        r#"count(count_values("v", g0_level{job="api",path="/p1"}))"#,
        r#"count(count_values("v", round(g0_level, 100)))"#,
    ];
    let natives = ["", "rate", "sum by (job)", "histogram_quantile(0.9, rate", "histogram_count"];
    let natives = natives.into_iter().map(|of| match of {
        "" => NATIVE.to_owned(),
        "rate" => format!("rate({NATIVE}[5m])"),
        "histogram_quantile(0.9, rate" => format!("{of}({NATIVE}[5m]))"),
        _ => format!("{of}({NATIVE})"),
    });
    let case = |query: String, points| Case { query, points, hostile: true };
    let instants = instants.into_iter().map(|query| case(query, 1));
    let ranges = ranges.into_iter().map(|query| case(query.to_owned(), 1_441));
    let natives = natives.filter(|_| histograms).map(|query| case(query, 241));
    instants.chain(ranges).chain(natives).collect()
}
