//! Random well-typed queries.
//!
//! Syntax that Prometheus 2.42 does not know or evaluates otherwise is left out, each with its reason, in [`EXCLUDED`].

use fastrand::Rng;

use super::data::{END, START};

/// Syntax that is never asked, and the reason.
pub(super) const EXCLUDED: &[(&str, &str)] = &[
    ("double_exponential_smoothing", "is holt_winters in 2.42"),
    ("mad_over_time, sort_by_label, sort_by_label_desc, limitk, limit_ratio", "are experimental and newer"),
    ("first_over_time, ts_of_*_over_time, info, histogram_quantiles, histogram_fraction", "are newer"),
    ("anchored, smoothed, fill, start_timestamp, min_of, max_of, duration expressions", "are newer"),
    ("stddev and stdvar of infinities", "are 0 for a single one in 2.42, NaN since 3.0"),
    ("rate of a counter that starts near zero", "extrapolates further in 2.42"),
    ("windows that begin or end at a sample", "held one more in 2.42: 3.0 made them left-open"),
    ("the name of a metric after atan2", "is kept in 2.42"),
    ("predict_linear over a range with @", "is given the samples of earlier steps again in 2.42"),
    ("timestamp of a selector with @ and offset", "finds nothing in 2.42"),
    ("dates of NaN and infinities", "are what the processor makes of them in Go"),
    ("comparisons that filter, several series for one", "are an error only if more than one passes in 2.42"),
    ("what amplifies a last digit: % of computed values, tan of powers", "each language has its own libm"),
    ("topk and bottomk among equal values", "which of them comes first is nowhere defined"),
];

/// A query and when it is asked, in seconds; a range if there is a step.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) query: String,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: i64,
}

/// Selectors by the operations on them.
const COUNTERS: &[&str] = &[
    "requests_total",
    r#"requests_total{code="200"}"#,
    r#"requests_total{job=~"a.*|web",code!="500"}"#,
    r#"requests_total{instance!~"h[01]"}"#,
    "lat_bucket",
];
const GAUGES: &[&str] = &[
    "mem",
    r#"mem{job="api"}"#,
    r#"mem{job!~"w.*"}"#,
    "flag",
    r#"rank{instance=~"h0|h2"}"#,
    r#"mem{job="none"}"#,
];
const ODD: &[&str] = &["temp", r#"temp{zone="b"}"#, r#"{__name__="temp",instance="h3"}"#];
const LABELS: [&str; 4] = ["job", "instance", "code", "zone"];
/// Multiples of 15 s: with queries at 7 s past one, no subquery begins at one of its own steps.
const RANGES: [&str; 6] = ["1m", "150s", "5m", "10m", "30m", "1h"];
/// For subqueries inside subqueries, which are asked at full steps.
const INNER: [&str; 3] = ["127s", "307s", "607s"];

pub(super) struct Generator {
    rng: Rng,
    /// Subqueries around the expression being made.
    nested: u8,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), nested: 0 }
    }

    pub(super) fn asked(&mut self) -> Asked {
        self.nested = 0;
        let at = (START + 600 + self.rng.i64(0..(END - START) / 15 - 40) * 15) + 7;
        let depth = self.rng.u8(1..4);
        let query = match self.rng.u8(..20) {
            0 => self.scalar(depth),
            1 => return Asked { query: self.ordered(), start: at, end: at, step: 0 },
            2 => return Asked { query: self.range(0), start: at, end: at, step: 0 },
            3 => self.inexact(),
            _ => self.vector(depth),
        };
        if self.rng.bool() {
            return Asked { query, start: at, end: at, step: 0 };
        }
        let step = *self.pick(&[15, 60, 135, 300]);
        Asked { query, start: at, end: at + step * self.rng.i64(1..16), step }
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.rng.usize(..from.len())]
    }

    fn name(&mut self, from: &[&str]) -> String {
        (*self.pick(from)).to_owned()
    }

    /// A query whose rows have an order.
    fn ordered(&mut self) -> String {
        let top = self.rng.u8(1..6);
        match self.rng.u8(..4) {
            0 => format!("sort({})", self.vector(1)),
            1 => format!("sort_desc({})", self.vector(1)),
            2 => format!("topk({top}, rank)"),
            _ => format!("bottomk({top}, rank)"),
        }
    }

    /// Functions whose last digit depends on who computes it, over exact values and under nothing that amplifies it.
    fn inexact(&mut self) -> String {
        let functions = [
            "exp", "ln", "log2", "log10", "sin", "cos", "tan", "atan", "asin", "acos", "sinh", "cosh",
            "tanh", "asinh", "acosh", "atanh",
        ];
        let (function, selector) = (self.name(&functions), self.selector());
        match self.rng.u8(..4) {
            0 => format!("{selector} ^ {}", self.scalar(0)),
            1 => format!("abs({selector} atan2 {})", self.scalar(0)),
            2 => format!("abs({} atan2 {selector})", self.scalar(0)),
            _ => format!("{function}({selector})"),
        }
    }

    fn selector(&mut self) -> String {
        let from = *self.pick(&[COUNTERS, GAUGES, GAUGES, ODD]);
        self.name(from)
    }

    /// ` offset …` or ` @ …`, mostly nothing.
    fn modifiers(&mut self) -> String {
        let at = START + self.rng.i64(0..(END - START) / 15) * 15 + 7;
        match self.rng.u8(..16) {
            0 => format!(" offset {}", self.name(&RANGES)),
            1 => format!(" offset -{}", self.name(&["45s", "5m"])),
            2 => format!(" @ {at}"),
            3 => format!(" @ {at} offset {}", self.name(&["1m", "10m"])),
            4 => self.name(&[" @ start()", " @ end()"]),
            _ => String::new(),
        }
    }

    /// A range vector of samples or a subquery.
    fn range(&mut self, depth: u8) -> String {
        if depth > 0 && self.nested < 2 && self.rng.u8(..3) == 0 {
            return self.subquery(depth);
        }
        let selector = self.selector();
        format!("{selector}[{}]{}", self.name(&RANGES), self.modifiers())
    }

    fn subquery(&mut self, depth: u8) -> String {
        let range = if self.nested > 0 { self.name(&INNER) } else { self.name(&RANGES) };
        self.nested += 1;
        let inner = self.vector(depth - 1);
        self.nested -= 1;
        let step = self.name(&["", "30s", "1m", "105s"]);
        let modifiers = if self.nested == 0 { self.modifiers() } else { String::new() };
        format!("({inner})[{range}:{step}]{modifiers}")
    }

    fn counters(&mut self) -> String {
        format!("{}[{}]{}", self.name(COUNTERS), self.name(&RANGES), self.modifiers())
    }

    fn scalar(&mut self, depth: u8) -> String {
        if depth == 0 {
            return self.name(&["0", "1", "2.5", "-3", "60", "1e3", "0.25", "Inf", "NaN"]);
        }
        match self.rng.u8(..7) {
            0 => format!("scalar({})", self.vector(depth - 1)),
            1 => "time()".to_owned(),
            2 => "pi()".to_owned(),
            3 => format!("-({})", self.scalar(depth - 1)),
            4 => {
                let op = self.name(&["== bool", "> bool", "<= bool", "!= bool"]);
                format!("({} {op} {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
            _ => {
                let op = self.name(&["+", "-", "*", "/"]);
                format!("({} {op} {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
        }
    }

    fn vector(&mut self, depth: u8) -> String {
        if depth == 0 {
            return format!("{}{}", self.selector(), self.modifiers());
        }
        match self.rng.u8(..16) {
            0 => format!("{}{}", self.selector(), self.modifiers()),
            1..=3 => self.over_time(depth),
            4 | 5 => {
                let function = self.name(&["rate", "increase", "irate", "resets"]);
                format!("{function}({})", self.counters())
            }
            6..=8 => self.aggregation(depth),
            9 | 10 => self.with_scalar(depth),
            11 | 12 => self.matched(depth),
            13 => self.special(depth),
            _ => self.elementwise(depth),
        }
    }

    fn over_time(&mut self, depth: u8) -> String {
        let functions = [
            "avg_over_time",
            "sum_over_time",
            "min_over_time",
            "max_over_time",
            "count_over_time",
            "last_over_time",
            "present_over_time",
            "stddev_over_time",
            "stdvar_over_time",
            "changes",
            "delta",
            "idelta",
            "deriv",
            "resets",
            "absent_over_time",
            "quantile_over_time",
            "predict_linear",
        ];
        let function = self.name(&functions);
        let range = self.range(depth - 1);
        match &*function {
            "quantile_over_time" => {
                format!("quantile_over_time({}, {range})", self.name(&["0", "0.3", "0.9", "1", "1.5"]))
            }
            "predict_linear" => {
                let (selector, range) = (self.selector(), self.name(&RANGES));
                format!("predict_linear({selector}[{range}], {})", self.name(&["60", "3600", "-300"]))
            }
            _ => format!("{function}({range})"),
        }
    }

    fn grouping(&mut self) -> String {
        let (a, b) = (self.name(&LABELS), self.name(&LABELS));
        match self.rng.u8(..5) {
            0 => String::new(),
            1 => format!(" without ({a})"),
            2 => format!(" without ({a}, {b})"),
            3 => format!(" by ({a}, {b})"),
            _ => format!(" by ({a})"),
        }
    }

    fn aggregation(&mut self, depth: u8) -> String {
        let grouping = self.grouping();
        let inner = self.vector(depth - 1);
        match self.rng.u8(..12) {
            0 => format!("quantile{grouping} ({}, {inner})", self.name(&["0", "0.25", "0.5", "0.99", "-1"])),
            1 => format!("count_values{grouping} (\"value\", {})", self.name(GAUGES)),
            2 => format!("topk{grouping} ({}, rank)", self.rng.u8(1..5)),
            3 => format!("bottomk{grouping} ({}, rank{})", self.rng.u8(1..5), self.modifiers()),
            4 => {
                let function = self.name(&["stddev", "stdvar"]);
                format!("{function}{grouping} ({})", self.name(GAUGES))
            }
            _ => {
                format!("{}{grouping} ({inner})", self.name(&["sum", "avg", "min", "max", "count", "group"]))
            }
        }
    }

    fn with_scalar(&mut self, depth: u8) -> String {
        let ops = ["+", "-", "*", "/", "==", "!=", ">", "<", ">=", "<=", "> bool", "== bool", "<= bool"];
        if self.rng.u8(..10) == 0 {
            return format!("({} % {})", self.selector(), self.scalar(0));
        }
        let op = self.name(&ops);
        let (vector, scalar) = (self.vector(depth - 1), self.scalar(depth.min(2) - 1));
        if self.rng.bool() {
            format!("({vector} {op} {scalar})")
        } else {
            format!("({scalar} {op} {vector})")
        }
    }

    /// An operation on two vectors.
    fn matched(&mut self, depth: u8) -> String {
        let (left, right) = (self.vector(depth - 1), self.vector(depth - 1));
        match self.rng.u8(..3) {
            0 => {
                let op = self.name(&["and", "or", "unless"]);
                let how = self.name(&[
                    "",
                    "on (job, instance) ",
                    "ignoring (code, zone, le) ",
                    "on (job) ",
                    "on () ",
                ]);
                format!("({left} {op} {how}{right})")
            }
            1 => {
                let op = self.name(&["==", "!=", ">", "<", ">=", "<="]);
                match self.rng.u8(..3) {
                    0 => format!("({left} {op} on (job) group_left () sum by (job) ({right}))"),
                    1 => format!(
                        "(max by (job, instance) ({left}) {op} on (job, instance) group_right () {right})"
                    ),
                    _ => format!("(min by (job, instance) ({left}) {op} max by (instance, job) ({right}))"),
                }
            }
            _ => self.arithmetic(&left, &right),
        }
    }

    fn arithmetic(&mut self, left: &str, right: &str) -> String {
        let op = self.name(&["+", "-", "*", "/", ">= bool", "!= bool", "== bool"]);
        match self.rng.u8(..7) {
            0 => format!("({left} {op} {right})"),
            1 => format!("({left} {op} on (job, instance) {right})"),
            2 => format!("({left} {op} ignoring (code, zone, le) {right})"),
            3 => format!("({left} {op} on (job) group_left () sum by (job) ({right}))"),
            4 => format!("(max by (job, instance) ({left}) {op} on (job, instance) group_right () {right})"),
            5 => {
                let zones = "max by (instance, zone) (temp{zone=\"a\"})";
                format!("({left} {op} on (instance) group_left (zone) {zones})")
            }
            _ => format!("({left} {op} on (job) {right})"),
        }
    }

    fn special(&mut self, depth: u8) -> String {
        match self.rng.u8(..9) {
            0 => format!(
                "histogram_quantile({}, sum by (le, job) (rate(lat_bucket[{}])))",
                self.name(&["0", "0.5", "0.9", "1", "2"]),
                self.name(&RANGES)
            ),
            1 => format!("absent({})", self.vector(depth - 1)),
            2 => {
                let inner = self.vector(depth - 1);
                let both = inner.contains('@') && inner.contains("offset");
                format!("timestamp({})", if both { self.selector() } else { inner })
            }
            3 => format!("vector({})", self.scalar(depth - 1)),
            4 => format!(r#"label_replace({}, "to", "$1-x", "instance", "h(.*)")"#, self.vector(depth - 1)),
            5 => format!(r#"label_join({}, "to", "/", "job", "instance")"#, self.vector(depth - 1)),
            6 => format!(r#"label_replace({}, "__name__", "named", "job", ".*")"#, self.name(GAUGES)),
            7 => format!("-{}", self.selector()),
            _ => format!("histogram_quantile(0.9, lat_bucket{})", self.modifiers()),
        }
    }

    fn elementwise(&mut self, depth: u8) -> String {
        let functions = [
            "abs",
            "ceil",
            "floor",
            "sqrt",
            "sgn",
            "deg",
            "rad",
            "round",
            "minute",
            "hour",
            "day_of_week",
            "day_of_month",
            "day_of_year",
            "days_in_month",
            "month",
            "year",
            "clamp",
            "clamp_min",
            "clamp_max",
            "round5",
        ];
        let function = self.name(&functions);
        if ["minute", "hour", "month", "year"].contains(&&*function) || function.starts_with("day") {
            let finite = *self.pick(&[COUNTERS, GAUGES]);
            return format!("{function}({} * 977)", self.name(finite));
        }
        let inner = self.vector(depth - 1);
        match &*function {
            "clamp" => format!("clamp({inner}, -2, {})", self.name(&["-3", "5", "100"])),
            "clamp_min" | "clamp_max" => format!("{function}({inner}, {})", self.name(&["-1", "0", "7.5"])),
            "round5" => format!("round({inner}, {})", self.name(&["5", "0.5", "0.1"])),
            _ => format!("{function}({inner})"),
        }
    }
}
