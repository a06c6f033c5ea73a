//! Queries of every construct, made at random from a seed. Weir's own tests read this file too.

use fastrand::Rng;

/// Names of the data that the queries read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema {
    /// All with the same labels, so that they match one to one.
    pub(super) counters: &'static [&'static str],
    pub(super) gauges: &'static [&'static str],
    /// Classic buckets, with `le`.
    pub(super) buckets: &'static [&'static str],
    /// Native histograms; may be empty.
    pub(super) natives: &'static [&'static str],
    pub(super) labels: &'static [&'static str],
    /// Matchers that narrow a selector down.
    pub(super) matchers: &'static [&'static str],
    /// The newer version: its functions, modifiers and operators.
    pub(super) newer: bool,
}

/// Elementwise functions of one vector.
const MATH: &[&str] = &[
    "abs",
    "ceil",
    "exp",
    "floor",
    "ln",
    "log10",
    "log2",
    "sgn",
    "sqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "deg",
    "rad",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "year",
    "timestamp",
];
/// Functions of one range.
const OVER_TIME: &[&str] = &[
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "deriv",
    "changes",
    "resets",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "last_over_time",
    "present_over_time",
    "absent_over_time",
];
const AGGREGATIONS: &[&str] = &["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"];
const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "%", "^", "atan2"];
const COMPARISONS: &[&str] = &["==", "!=", ">", "<", ">=", "<="];
const RANGES: &[&str] = &["1m", "5m", "20m", "1h"];

/// Makes queries.
#[derive(Debug)]
pub(super) struct Grammar {
    rng: Rng,
    schema: Schema,
}

impl Grammar {
    pub(super) fn new(seed: u64, schema: Schema) -> Self {
        Self { rng: Rng::with_seed(seed), schema }
    }

    /// A query of one value a series, or of one value.
    pub(super) fn query(&mut self) -> String {
        let depth = self.rng.u32(1..5);
        match self.rng.u32(0..20) {
            0 => self.scalar(depth),
            _ => self.vector(depth),
        }
    }

    /// A selector with its range.
    pub(super) fn windows(&mut self) -> String {
        format!("{}[{}]", self.selector(), self.pick(RANGES))
    }

    fn pick(&mut self, of: &[&'static str]) -> &'static str {
        of.get(self.rng.usize(0..of.len().max(1))).copied().unwrap_or("")
    }

    fn metric(&mut self) -> &'static str {
        let Schema { counters, gauges, .. } = self.schema;
        if self.rng.bool() { self.pick(counters) } else { self.pick(gauges) }
    }

    fn matched(&mut self, metric: &str) -> String {
        match self.rng.u32(0..3) {
            0 => format!("{metric}{{{}}}", self.pick(self.schema.matchers)),
            _ => metric.to_owned(),
        }
    }

    /// `@` and `offset`.
    fn moved(&mut self) -> &'static str {
        self.pick(&["", "", "", "", "", " offset 5m", " @ end()", " @ start()", " offset -1m"])
    }

    fn selector(&mut self) -> String {
        let metric = self.metric();
        self.matched(metric)
    }

    fn scalar(&mut self, depth: u32) -> String {
        let inner = depth.saturating_sub(1);
        match self.rng.u32(0..if depth == 0 { 3 } else { 6 }) {
            0 => self.rng.u32(0..100).to_string(),
            1 => "time()".to_owned(),
            2 => "pi()".to_owned(),
            3 => format!("scalar({})", self.vector(inner)),
            4 => format!("-({})", self.scalar(inner)),
            _ => format!("({} {} {})", self.scalar(inner), self.pick(&["+", "-", "*"]), self.scalar(inner)),
        }
    }

    /// Labels to group by, or to match on.
    fn labels(&mut self) -> String {
        let few = self.rng.usize(0..3).min(self.schema.labels.len());
        let start = self.rng.usize(0..self.schema.labels.len().max(1));
        let labels = self.schema.labels.iter().cycle().skip(start).take(few);
        labels.copied().collect::<Vec<_>>().join(", ")
    }

    fn grouping(&mut self) -> String {
        match self.rng.u32(0..4) {
            0 => String::new(),
            1 => format!(" without ({})", self.labels()),
            _ => format!(" by ({})", self.labels()),
        }
    }

    fn vector(&mut self, depth: u32) -> String {
        if depth == 0 {
            let selector = self.selector();
            return format!("{selector}{}", self.moved());
        }
        let inner = depth - 1;
        match self.rng.u32(0..24) {
            0..=3 => self.aggregation(inner),
            4..=6 => self.binary(inner),
            7..=9 => self.over_time(inner),
            10..=11 => {
                let (function, vector) = (self.pick(MATH), self.vector(inner));
                format!("{function}({vector})")
            }
            12 => {
                let (vector, scalar) = (self.vector(inner), self.scalar(inner));
                match self.rng.u32(0..3) {
                    0 => format!("clamp_max({vector}, {scalar})"),
                    1 => format!("clamp({vector}, 1, {scalar})"),
                    _ => format!("round({vector}, 5)"),
                }
            }
            13 => self.relabelled(inner),
            14 => {
                let (function, vector) = (self.pick(&["sort", "sort_desc"]), self.vector(inner));
                format!("{function}({vector})")
            }
            15 => match self.rng.u32(0..4) {
                0 => format!("vector({})", self.scalar(inner)),
                1 => format!("absent({})", self.vector(inner)),
                2 => "vector(time())".to_owned(),
                _ => format!("(nope or {})", self.vector(inner)),
            },
            16 => self.histogram(inner),
            17 => self.native(inner),
            18 => self.subquery(inner),
            19 => format!("-{}", self.vector(0)),
            20 => format!("({})", self.vector(inner)),
            21 => {
                let (aggregate, selector) = (self.pick(AGGREGATIONS), self.selector());
                format!("{aggregate}(rate({selector}[{}]))", self.pick(RANGES))
            }
            22 => self.chosen(inner),
            _ => self.vector(inner),
        }
    }

    fn aggregation(&mut self, depth: u32) -> String {
        let (op, grouping, vector) = (self.pick(AGGREGATIONS), self.grouping(), self.vector(depth));
        format!("{op}{grouping} ({vector})")
    }

    fn chosen(&mut self, depth: u32) -> String {
        let (grouping, vector) = (self.grouping(), self.vector(depth));
        match self.rng.u32(0..if self.schema.newer { 6 } else { 4 }) {
            0 => format!("topk{grouping} ({}, {vector})", self.rng.u32(1..60)),
            1 => format!("bottomk{grouping} ({}, {vector})", self.rng.u32(1..60)),
            2 => format!("quantile{grouping} (0.9, {vector})"),
            // New values at every step make a series each: only expressions with few values.
            3 => format!(
                "count_values{grouping} (\"v\", {}({vector}))",
                self.pick(&["sgn", "hour", "day_of_week"])
            ),
            4 => format!("limitk{grouping} ({}, {vector})", self.rng.u32(1..60)),
            _ => format!("limit_ratio{grouping} (0.5, {vector})"),
        }
    }

    fn over_time(&mut self, depth: u32) -> String {
        let range = if self.rng.u32(0..3) == 0 {
            let (vector, range) = (self.vector(depth.min(2)), self.pick(RANGES));
            format!("({vector})[{range}:{}]", self.pick(&["", "15s", "1m"]))
        } else {
            let windows = self.windows();
            format!("{windows}{}", self.moved())
        };
        match self.rng.u32(0..12) {
            0 => format!("quantile_over_time(0.9, {range})"),
            1 => format!("predict_linear({range}, 600)"),
            2 if self.schema.newer => format!("double_exponential_smoothing({range}, 0.5, 0.5)"),
            2 => format!("holt_winters({range}, 0.5, 0.5)"),
            3 if self.schema.newer => format!("mad_over_time({range})"),
            _ => format!("{}({range})", self.pick(OVER_TIME)),
        }
    }

    fn subquery(&mut self, depth: u32) -> String {
        let (outer, inner) = (self.pick(OVER_TIME), self.vector(depth.min(2)));
        format!("{outer}(({inner})[{}:{}])", self.pick(RANGES), self.pick(&["10s", "30s", "1m", "5m"]))
    }

    fn binary(&mut self, depth: u32) -> String {
        let (left, right) = (self.vector(depth), self.vector(depth));
        match self.rng.u32(0..9) {
            0 => format!("({left}) {} {}", self.pick(ARITHMETIC), self.scalar(depth)),
            1 => format!("({left}) {} {}", self.pick(COMPARISONS), self.scalar(depth)),
            2 => format!("({left}) {} bool {}", self.pick(COMPARISONS), self.scalar(depth)),
            3 => format!("({left}) and ({right})"),
            4 => format!("({left}) unless ({right})"),
            5 => format!("({left}) or ({right})"),
            6 => {
                let (many, op) = (self.selector(), self.pick(ARITHMETIC));
                format!("{many} {op} on (job) group_left () sum by (job) ({right})")
            }
            7 => format!("({left}) {} ignoring (path) ({right})", self.pick(COMPARISONS)),
            _ => {
                let (a, b) = (self.metric(), self.metric());
                format!("{a} {} {b}", self.pick(ARITHMETIC))
            }
        }
    }

    fn relabelled(&mut self, depth: u32) -> String {
        let vector = self.vector(depth);
        match self.rng.u32(0..3) {
            0 => format!(r#"label_join({vector}, "all", "-", "job", "instance", "path")"#),
            1 => {
                let text = "$1-".repeat(self.rng.usize(1..200));
                format!(r#"label_replace({vector}, "long", "{text}", "instance", "(.*)")"#)
            }
            _ => format!(r#"label_replace({vector}, "other", "$1", "job", "(.*)")"#),
        }
    }

    fn histogram(&mut self, depth: u32) -> String {
        let (metric, range) = (self.pick(self.schema.buckets), self.pick(RANGES));
        match self.rng.u32(0..3) {
            0 => format!("histogram_quantile(0.9, sum by (le) (rate({metric}[{range}])))"),
            1 => format!("histogram_quantile(0.5, rate({metric}[{range}]))"),
            _ => {
                let quantile = self.scalar(depth.min(1));
                format!("histogram_quantile({quantile}, sum by (le, job) (rate({metric}[{range}])))")
            }
        }
    }

    fn native(&mut self, depth: u32) -> String {
        if self.schema.natives.is_empty() {
            return self.vector(depth);
        }
        let (metric, range) = (self.pick(self.schema.natives), self.pick(RANGES));
        match self.rng.u32(0..6) {
            0 => metric.to_owned(),
            1 => format!("rate({metric}[{range}])"),
            2 => format!("sum by (job) ({metric})"),
            3 => format!("histogram_quantile(0.9, sum(rate({metric}[{range}])))"),
            4 => format!("histogram_count({metric})"),
            _ => format!("histogram_sum(rate({metric}[{range}]))"),
        }
    }
}
