//! The fallback for other dialects: a PromQL query that reads at least the series that a text names.

use std::borrow::Cow;

use super::{
    Limits, ParseError,
    ast::{Ast, Expr, Span},
    function::find,
    matchers::is_keyword,
    metricsql::unescaped,
    parse, parse_with,
    print::quoted,
    shape::DEFAULT_SUBQUERY_STEP_MS,
};
use crate::base::duration;

/// More selectors than this are one that matches everything.
const SELECTORS_MAX: usize = 100;
/// Most functions of a dialect that are read.
const FUNCTIONS_MAX: usize = 8;
/// Further back than any sample, and still a duration of PromQL: 100 years.
const REACH_MAX_MS: u64 = 100 * 365 * 86_400_000;
/// A selector of every series.
const EVERYTHING: &str = r#"{__name__=~".+"}"#;
/// Followed by a list of labels.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// No metrics, in any position.
const WORDS: [&str; 15] = [
    "and",
    "or",
    "unless",
    "atan2",
    "bool",
    "default",
    "if",
    "ifnot",
    "limit",
    "with",
    "inf",
    "nan",
    "keep_metric_names",
    "start",
    "end",
];

/// A query that reads at least the series that `text` names, each as far back as `lookback_ms` and all durations of the
/// text together, and at every step of the finest subquery in the text. Never fails on odd text: a selector that is not
/// PromQL counts with its metric's name, or as everything.
///
/// Subqueries within subqueries become one over all of their ranges at the finest of their steps. That bounds them, and
/// their product would not be true: engines walk an inner grid once over the whole span of the outer one.
///
/// # Errors
/// Beyond the limits of [`parse`]; a time or a string in a place where no dialect has one, at which VictoriaMetrics 1.79 ends.
pub fn approximate(text: &str, lookback_ms: u64, step_ms: u64) -> Result<Ast, ParseError> {
    let mut sketch = Sketch {
        text,
        at: 0,
        selectors: Vec::new(),
        strings: Vec::new(),
        functions: Vec::new(),
        reach_ms: lookback_ms.max(1),
        step_ms,
        grid: None,
    };
    sketch.read()?;
    if sketch.selectors.len() > SELECTORS_MAX {
        sketch.selectors = vec![EVERYTHING.to_owned()];
    }
    let read = |selector: &String| {
        let capped = |ms: u64| ms.min(REACH_MAX_MS);
        let read = format!("last_over_time({selector}[{}ms])", capped(sketch.reach_ms));
        let Some(Grid { span_ms, step_ms }) = &sketch.grid else { return read };
        format!("last_over_time({read}[{}ms:{}ms])", capped(*span_ms), capped(*step_ms))
    };
    let reads: Vec<_> = sketch.selectors.iter().map(read).collect();
    let reads = if reads.is_empty() { "vector(0)".to_owned() } else { reads.join(" or ") };
    if sketch.strings.is_empty() && sketch.functions.is_empty() {
        return parse(&reads);
    }
    // A function may make a series for each string, and labels of all of them.
    let arguments = "\"\", ".repeat(sketch.strings.len());
    let called = sketch.functions.iter().fold(reads, |inner, name| format!("{name}({arguments}{inner})"));
    let labelled = format!("labels({}{called})", sketch.strings.concat());
    parse_with(&labelled, &Limits { unknown_functions: true, ..Limits::default() })
}

struct Sketch<'t> {
    text: &'t str,
    at: usize,
    selectors: Vec<String>,
    /// Literals outside of selectors, each with a comma behind it.
    strings: Vec<String>,
    /// Functions that PromQL does not have.
    functions: Vec<String>,
    reach_ms: u64,
    /// The step, which `i` stands for behind a number; 0 for an instant query.
    step_ms: u64,
    /// All subqueries as one.
    grid: Option<Grid>,
}

struct Grid {
    span_ms: u64,
    /// Never 0.
    step_ms: u64,
}

impl<'t> Sketch<'t> {
    fn read(&mut self) -> Result<(), ParseError> {
        while let Some(byte) = self.peek() {
            match byte {
                b'"' | b'\'' | b'`' => self.literal(byte)?,
                b'#' => _ = self.take_while(|b| b != b'\n'),
                b'{' => self.selector(""),
                b'[' => self.bracket()?,
                b'0'..=b'9' => self.number(),
                _ if is_name(byte) || byte == b'\\' => self.name()?,
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    fn error(&self, start: usize, message: String) -> ParseError {
        ParseError::new(self.text, Span { start: start as u32, end: self.at as u32 }, message)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'t str {
        let start = self.at;
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// A string that may become part of a label. It stands alone, in a list, or is joined to another string.
    fn literal(&mut self, quote: u8) -> Result<(), ParseError> {
        let start = self.at;
        self.skip_string(quote);
        let text = self.text.get(start..self.at).unwrap_or_default();
        let (before, after) = (self.text.get(..start), self.text.get(self.at..));
        let (before, after) = (before.unwrap_or_default().trim_end(), after.unwrap_or_default().trim_start());
        let quotes = ['"', '\'', '`'];
        let joins = |rest: &str| rest.starts_with(quotes);
        let begins = before.is_empty()
            || before.ends_with(['(', ',', '='])
            || before.strip_suffix('+').is_some_and(|rest| rest.trim_end().ends_with(quotes));
        let ends = after.is_empty()
            || after.starts_with([')', ',', '#'])
            || after.strip_prefix('+').is_some_and(|rest| joins(rest.trim_start()));
        if !(begins && ends) {
            return Err(self.error(start, "a string is no operand".to_owned()));
        }
        if parse(text).is_ok() {
            self.strings.push(format!("{text}, "));
        }
        Ok(())
    }

    fn skip_string(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' && quote != b'`' { 2 } else { 1 };
            if byte == quote {
                return;
            }
        }
    }

    /// A number, or a duration, which may be the reach of anything.
    fn number(&mut self) {
        let text = self.take_while(|b| b.is_ascii_alphanumeric() || b == b'.');
        self.reach_ms = self.reach_ms.saturating_add(duration_ms(text, self.step_ms).unwrap_or(0));
    }

    /// A range, or a subquery: one with a colon, or, in MetricsQL, any range of something that is no selector.
    fn bracket(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        let of_result = self.text.get(..self.at).unwrap_or_default().trim_end().ends_with([')', ']']);
        self.at += 1;
        let inner = self.take_while(|b| b != b']');
        self.at += 1;
        let (range, step) = inner.split_once(':').map_or((inner, None), |(range, step)| (range, Some(step)));
        let no_time = |word: &str| self.error(start, format!("{word:?} is no duration"));
        let range = self.spans(range).map_err(no_time)?.into_iter().fold(0, u64::saturating_add);
        let steps = step.map(|step| self.spans(step)).transpose().map_err(no_time)?;
        if step.is_none() && !of_result {
            self.reach_ms = self.reach_ms.saturating_add(range);
            return Ok(());
        }
        let step = steps.and_then(|steps| steps.into_iter().filter(|ms| *ms > 0).min());
        let default = if self.step_ms > 0 { self.step_ms } else { DEFAULT_SUBQUERY_STEP_MS };
        let (step, range) = (step.unwrap_or(default), range.max(1));
        self.grid = Some(match &self.grid {
            Some(grid) => {
                Grid { span_ms: grid.span_ms.saturating_add(range), step_ms: grid.step_ms.min(step) }
            }
            None => Grid { span_ms: range, step_ms: step },
        });
        Ok(())
    }

    /// The spans of time in a pair of brackets, where a bare number is seconds; the first word that is none is the error.
    fn spans<'s>(&self, text: &'s str) -> Result<Vec<u64>, &'s str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_'));
        let span = |word: &'s str| {
            let number = word.replace('_', "");
            let seconds = || Some((number.parse::<f64>().ok()? * 1e3) as u64);
            duration_ms(word, self.step_ms).or_else(seconds).ok_or(word)
        };
        words.filter(|word| !word.is_empty()).map(span).collect()
    }

    /// The time behind `offset`, which may be negative.
    fn offset(&mut self) -> Result<(), ParseError> {
        self.take_while(|b| b.is_ascii_whitespace() || matches!(b, b'-' | b'('));
        let start = self.at;
        let word = self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
        let spans = self.spans(word).map_err(|word| self.error(start, format!("{word:?} is no duration")))?;
        self.reach_ms = spans.into_iter().fold(self.reach_ms, u64::saturating_add);
        Ok(())
    }

    fn name(&mut self) -> Result<(), ParseError> {
        let name = self.identifier();
        self.take_while(|b| b.is_ascii_whitespace());
        let word = name.to_ascii_lowercase();
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        match rest {
            [b'(', ..] if GROUPING.contains(&&*word) => self.skip_list(),
            _ if word == "offset" => self.offset()?,
            _ if GROUPING.contains(&&*word) || WORDS.contains(&&*word) => {}
            [b'(', ..]
                if self.functions.len() < FUNCTIONS_MAX && find(&word).is_none() && !is_keyword(&word) =>
            {
                self.functions.push(name);
            }
            [b'(', ..] => {}
            // The name of a `WITH` template.
            [b'=', next, ..] if !matches!(next, b'=' | b'~') => {}
            [b'{', ..] => self.selector(&name),
            _ => self.selectors.push(selector_of(&name)),
        }
        Ok(())
    }

    /// A list of labels, which may be strings.
    fn skip_list(&mut self) {
        while let Some(byte) = self.peek().filter(|byte| *byte != b')') {
            match byte {
                b'"' | b'\'' | b'`' => self.skip_string(byte),
                _ => self.at += 1,
            }
        }
    }

    /// A name, in which MetricsQL takes dots, letters of any script, and any character behind a backslash, also as `\x5f` and
    /// `\u005f`.
    fn identifier(&mut self) -> String {
        let mut name = String::new();
        loop {
            name += self.take_while(|b| is_name(b) || b.is_ascii_digit() || b == b'.');
            if self.peek() != Some(b'\\') {
                return name;
            }
            let rest = self.text.get(self.at + 1..).unwrap_or_default();
            let (escaped, length) = unescaped(rest);
            name.extend(escaped);
            self.at += 1 + length;
        }
    }

    /// From an opening brace to its end.
    fn selector(&mut self, name: &str) {
        let start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' | b'\'' | b'`' => self.skip_string(byte),
                _ => self.at += 1,
            }
            if byte == b'}' {
                break;
            }
        }
        let whole = format!("{name}{}", self.text.get(start..self.at).unwrap_or_default());
        self.selectors.push(match (is_selector(&whole), name) {
            (true, _) => whole,
            (false, "") => EVERYTHING.to_owned(),
            (false, name) => selector_of(name),
        });
    }
}

fn is_selector(text: &str) -> bool {
    parse(text).is_ok_and(|ast| matches!(ast.expr(ast.root), Expr::Selector(_)))
}

/// A selector of a metric with any characters in its name.
fn selector_of(name: &str) -> String {
    if is_selector(name) { name.to_owned() } else { format!("{{__name__={}}}", quoted(name)) }
}

/// A byte that a name may begin with; all of a letter beyond ASCII.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':') || !byte.is_ascii()
}

/// A duration of MetricsQL: `1h30m`, `1.5d`, `5i`, in either case but for `M`, a million; `None` for anything else.
fn duration_ms(text: &str, step_ms: u64) -> Option<u64> {
    let lower = if text.contains('M') { Cow::Borrowed(text) } else { Cow::Owned(text.to_ascii_lowercase()) };
    // A cast from float saturates.
    duration::parse_fractional(&lower, Some(step_ms)).map(|ms| ms.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_durations_are_found() {
        for (text, want) in [
            ("rate(a)", "last_over_time(a[1000ms])"),
            ("sum(a) by (job, b) keep_metric_names", "last_over_time(a[1000ms])"),
            (r#"a{job="x" or job="y"}[1m] offset 1m"#, "last_over_time(a[121000ms])"),
            (r#"{job="x" or job="y"}"#, r#"last_over_time({__name__=~".+"}[1000ms])"#),
            (r#"WITH (x = {a="}"}) x{"#, r#"last_over_time({a="}"}[1000ms]) or last_over_time(x[1000ms])"#),
            ("rate(a[300])", "last_over_time(a[301000ms])"),
            ("rate(a[5i:2])", "last_over_time(last_over_time(a[1000ms])[75000ms:2000ms])"),
            ("rate(a[1h:] default 0)", "last_over_time(last_over_time(a[1000ms])[3600000ms:15000ms])"),
            ("rate(sum(a)[1h] default 0)", "last_over_time(last_over_time(a[1000ms])[3600000ms:15000ms])"),
            (
                "max_over_time(sum_over_time(a[5m])[1h:1m])[1d:10s] default b",
                "last_over_time(last_over_time(a[301000ms])[90000000ms:10000ms]) or \
                 last_over_time(last_over_time(b[301000ms])[90000000ms:10000ms])",
            ),
            ("a[99999999999y]", "last_over_time(a[3153600000000ms])"),
            ("a[1e99:1e99]", "last_over_time(last_over_time(a[1000ms])[3153600000000ms:3153600000000ms])"),
            ("a[5m", "last_over_time(a[301000ms])"),
            ("a[:]", "last_over_time(last_over_time(a[1000ms])[1ms:15000ms])"),
            ("a[1h1.5m] + 5 + 3M + 0x1F + 1e3", "last_over_time(a[3691000ms])"),
            ("time() default 5 # a", "vector(0)"),
            ("range_avg(a) default 0", "labels(range_avg(last_over_time(a[1000ms])))"),
            (
                r#"label_set(a, "b", 'c"', "d") if b"#,
                r#"labels("b", 'c"', "d", label_set("", "", "", last_over_time(a[1000ms]) or last_over_time(b[1000ms])))"#,
            ),
            (
                r#"aggr_over_time(("min_over_time", "max_over_time"), a[5m])"#,
                r#"labels("min_over_time", "max_over_time", aggr_over_time("", "", last_over_time(a[301000ms])))"#,
            ),
            ("\"a", "vector(0)"),
            (
                r#"sum(a) by ("b)") or sum(c) default 0"#,
                "last_over_time(a[1000ms]) or last_over_time(c[1000ms])",
            ),
            ("sum_over_time(a[1Y]) default 0", "last_over_time(a[31536001000ms])"),
            ("sum_over_time(a[1_000]) default 0", "last_over_time(a[1001000ms])"),
            (
                r#"label_set(a, "b", "c" + "d") if 1"#,
                r#"labels("b", "c", "d", label_set("", "", "", last_over_time(a[1000ms])))"#,
            ),
            (r"sum(load\_total)", "last_over_time(load_total[1000ms])"),
            (r"l\oad\x5ftotal{a='b'}", "last_over_time(load_total{a='b'}[1000ms])"),
            (
                r"\u006coad + foo\-bar",
                r#"last_over_time(load[1000ms]) or last_over_time({__name__="foo-bar"}[1000ms])"#,
            ),
            (r"m\x2fx{a='b'", r#"last_over_time({__name__="m/x"}[1000ms])"#),
            (r"r\ate(a) default 0", "last_over_time(a[1000ms])"),
            (r"a\", "last_over_time(a[1000ms])"),
            ("sum(load.total)", r#"last_over_time({__name__="load.total"}[1000ms])"#),
            ("température + 1.5", r#"last_over_time({__name__="température"}[1000ms])"#),
        ] {
            assert_eq!(&*approximate(text, 1_000, 15_000).unwrap().text, want, "{text}");
        }
        for text in [
            "load_total[1M]",
            "load_total[1Ki] default 0",
            "load_total offset 1M",
            "a[5m offset 1]",
            "\"a\" + (b)",
            "sum(\"a\" + (b))",
            "a + \"b\"",
            "\"a\" default b",
            "b or \"a\"",
        ] {
            assert!(approximate(text, 1_000, 15_000).is_err(), "{text}");
        }
        assert!(approximate(&"a+".repeat(5_000), 1_000, 0).unwrap().text.contains("__name__"));
    }
}
