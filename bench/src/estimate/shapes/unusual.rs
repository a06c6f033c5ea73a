//! Queries of kinds that the grammar does not make: rare functions, deep nesting, many short selectors, chains, and
//! times that are moved twice.

use super::{Case, data::NATIVE};

/// Name dropping, relabelling and joins inside of subqueries, on both versions.
const QUERIES: &[&str] = &[
    // `@` and `offset` inside of an expression that is moved itself.
    "max_over_time(sum_over_time((g0_level @ end() offset 5m)[10m:5s] @ start() offset -1h)[5m:10s])",
    "sum(max_over_time((g0_level offset 10m + g1_level @ start())[30m:15s] offset 5m))",
    "last_over_time(rate(c0_total[5m] @ end())[1h:10s])",
    "avg_over_time((c0_total @ start() or c1_total @ end())[20m:5s])",
    "sum by (job) (max_over_time(abs(g0_level @ end())[1h:10s]))",
    // Subqueries of subqueries over joins.
    "max_over_time(avg_over_time((g0_level * on (instance, job, path) group_left () g1_level)[10m:15s])[30m:30s])",
    "sum_over_time((sum_over_time((g0_level + g1_level)[5m:15s]) / sum_over_time((c0_total + c1_total)[5m:15s]))[20m:30s])",
    "max_over_time(min_over_time(max_over_time(min_over_time(g0_level[1m:15s])[2m:15s])[4m:15s])[8m:15s])",
    "sum(rate((sum by (job, instance, path) (c0_total))[10m:15s])) / sum(rate((sum by (job) (c1_total))[10m:15s]))",
    "g0_level * on (job, instance, path) group_left () max_over_time(g1_level[10m:15s])",
    "sum by (job) (g0_level * on (job, instance, path) group_right () g1_level)",
    "g0_level * on (job) group_left (path) topk by (job) (1, g1_level)",
    "g0_level unless on (job) (g1_level > 1e9) or on (instance) c0_total",
    // Long strings in subqueries.
    "max_over_time(label_join(g0_level, \"x\", \"----------------------------------------------------------------\", \"job\", \"instance\", \"path\", \"job\", \"instance\", \"path\")[10m:15s])",
    "count_over_time(label_replace(g0_level, \"x\", \"$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1\", \"instance\", \"(.*)\")[10m:15s])",
    "label_replace(label_join(label_replace(g0_level, \"x\", \"$1$1$1$1$1$1$1$1\", \"instance\", \"(.*)\"), \"y\", \"x\", \"x\", \"x\", \"x\", \"x\"), \"z\", \"$1$1$1$1\", \"y\", \"(.*)\")",
    "sum by (x) (label_replace(g0_level, \"x\", \"$1-$2\", \"instance\", \"(.*):(.*)\"))",
    "label_replace(g0_level, \"x\", \"$1\", \"path\", \"(.*)\") + on (x, job, instance) label_replace(g1_level, \"x\", \"$1\", \"path\", \"(.*)\")",
    "count by (x, y) (label_join(label_replace(g0_level, \"x\", \"$1\", \"path\", \"(.*)\"), \"y\", \"/\", \"job\", \"x\", \"instance\"))",
    // Operands without a series, and with one.
    "absent_over_time(g0_level{job=\"none\",instance=\"a-long-name-of-an-instance-that-does-not-exist\",path=\"/a/long/path\"}[1h])",
    "absent(g0_level) or absent(nope{a=\"1\",b=\"2\",c=\"3\",d=\"4\"})",
    "max_over_time(absent(nope{a=\"1\",b=\"2\"})[1h:1s])",
    "\"a string\"",
    "vector(scalar(sum(g0_level))) + vector(scalar(sum(g1_level)))",
    "sum_over_time(vector(scalar(g0_level{job=\"api\",path=\"/p1\"}))[1h:1s])",
    "max_over_time(vector(scalar(sum(g0_level)))[2h:1s])",
    "avg_over_time((scalar(sum(g0_level)) * vector(1))[1h:5s])",
    "g0_level + scalar(sum(g1_level)) * scalar(count(c0_total))",
    // Rare functions.
    "quantile by () (0.9, quantile_over_time(0.9, g0_level[20m]))",
    "quantile by (job) (scalar(avg(g0_level)) / 1000, g1_level)",
    "quantile without (instance) (0.5, rate(c0_total[5m]))",
    "predict_linear(g0_level[30m], 3600) > g1_level",
    "deriv(rate(c0_total[5m])[20m:15s])",
    "holt_winters(g0_level[20m], 0.5, 0.5)",
    "resets(c0_total[1h]) + changes(g0_level[1h])",
    "idelta(g0_level[5m]) or irate(c0_total[5m])",
    "stdvar_over_time(g0_level[30m]) / stddev_over_time(g1_level[30m])",
    "quantile_over_time(scalar(avg(g0_level)) / 1000, g1_level[20m])",
    "topk by (job) (scalar(count(g0_level)) / 50, g1_level)",
    "bottomk(3, g0_level) or topk(3, g0_level) or topk by (job) (2, c0_total)",
    "count_values without (instance, path) (\"v\", changes(g0_level[1m]))",
    "count_values by (job) (\"v\", floor(g0_level / 1000))",
    "sum(count_values(\"v\", round(g0_level, 100)))",
    "clamp_min(clamp_max(g0_level, scalar(max(g1_level))), scalar(min(g1_level)))",
    "timestamp(timestamp(g0_level))",
    "sort_desc(sort(sort_desc(g0_level)))",
    "histogram_quantile(0.9, rate(d_bucket[5m]))",
    "histogram_quantile(scalar(avg(g0_level)) / 1000, sum by (le, job, instance) (rate(d_bucket[5m])))",
    "sum by (le) (d_bucket) / ignoring (le) group_left () sum(d_bucket)",
    "g0_level == bool g1_level != bool c0_total",
    "-(-(-(-g0_level)))",
    "+g0_level ^ 2 % 7 - -g1_level",
    "day_of_year(timestamp(g0_level)) * hour(g1_level)",
    "group(g0_level) by (job, instance, path) * on (job, instance, path) g1_level",
    // By labels alone.
    "{job=\"api\",path=\"/p1\"}",
    "sum by (__name__) ({job=\"api\",path=~\"/p[12]\"})",
    "{__name__=~\"g.*_level\",job=\"api\"}",
    "count({job=\"db\",path!=\"\"})",
    "rate({__name__=~\"c.*_total\"}[5m])",
];

/// The newer version's own.
const NEWER: &[&str] = &[
    "limitk(50, g0_level) + limit_ratio(0.5, g0_level)",
    "sum(limit_ratio(-0.3, rate(c0_total[5m])))",
    "sort_by_label(g0_level, \"instance\", \"path\")",
    "sort_by_label_desc(label_replace(g0_level, \"x\", \"$1\", \"path\", \"(.*)\"), \"x\")",
    "double_exponential_smoothing(g0_level[30m], 0.3, 0.7)",
    "mad_over_time(g0_level[30m])",
    "mad_over_time(rate(c0_total[5m])[20m:15s])",
    "ts_of_max_over_time(g0_level[20m]) - ts_of_min_over_time(g0_level[20m])",
    "ts_of_last_over_time(g0_level[20m]) + ts_of_first_over_time(g1_level[20m])",
    "first_over_time(g0_level[20m]) / last_over_time(g0_level[20m])",
    "info(g0_level)",
    "info(rate(c0_total[5m]), {__name__=\"g1_level\"})",
];

/// The same of native histograms.
const HISTOGRAMS: &[&str] = &[
    "sum(rate(N[5m])) - sum(rate(N[5m] offset 10m))",
    "N * 2 + N",
    "sum by (job) (N) / count by (job) (N)",
    "max_over_time(histogram_quantile(0.9, sum by (job) (rate(N[5m])))[20m:1m])",
    "histogram_fraction(0, 0.5, rate(N[5m])) + histogram_avg(rate(N[5m]))",
    "last_over_time(N[5m])",
    "avg(N) by (instance)",
    "-N",
    "N and on (job) g0_level",
    "topk(5, histogram_sum(N))",
    "{__name__=~\"n_.*\"}",
    "sum_over_time(N[10m])",
    "label_replace(rate(N[5m]), \"x\", \"$1\", \"job\", \"(.*)\")",
    "sum(sum_over_time(N[5m:15s]))",
];

pub(super) fn cases(histograms: bool, newer: bool) -> Vec<Case> {
    let many = (0..40).map(|n| format!("sum(g0_level{{path=\"/p{}\"}})", n % 10)).collect::<Vec<_>>();
    let chain = (0..30).map(|n| format!("g0_level{{path=\"/p{}\"}}", n % 10)).collect::<Vec<_>>();
    let own = [many.join(" + "), chain.join(" or "), chain.join(" and "), chain.join(" unless ")];
    let plain = QUERIES.iter().map(|query| (*query).to_owned()).chain(own);
    let newer = NEWER.iter().filter(|_| newer).map(|query| (*query).to_owned());
    let histograms = HISTOGRAMS.iter().filter(|_| histograms).map(|query| query.replace('N', NATIVE));
    let case = |query: String, points| Case { query, points, hostile: false };
    let graphs = plain.chain(newer).map(|query| case(query, 721));
    graphs.chain(histograms.map(|query| case(query, 241))).collect()
}
