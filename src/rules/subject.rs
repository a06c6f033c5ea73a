//! A query as rules see it, and whether one is about it.

use super::{ExactText, Matchers, metric::is_nameless};
use crate::{
    base::{TenantId, TenantPattern, time::EvalTimes},
    promql::{
        Fingerprint, print,
        shape::{SelectorShape, Shape},
    },
};

/// Bytes of a text that a regular expression is held against. A longer one matches each of them: a text that cannot be
/// searched must not be a way around a rule.
pub(super) const SEARCHED_BYTES_MAX: usize = 64 << 10;

/// A query as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The tenants that pay: several where several tenants' data are read at once.
    pub tenants: &'a [TenantId],
    /// Its class.
    pub class: &'a str,
    /// The endpoint, such as `query_range`.
    pub endpoint: &'a str,
    /// The dashboard's UID.
    pub dashboard: Option<&'a str>,
    /// The panel's id.
    pub panel: Option<&'a str>,
    /// The user of Grafana.
    pub user: Option<&'a str>,
    /// The client's program.
    pub user_agent: Option<&'a str>,
    /// The same for queries that differ in their numbers only.
    pub fingerprint: Fingerprint,
    /// The text as the client wrote it.
    pub text: &'a str,
    /// Selectors, windows and steps.
    pub shape: &'a Shape,
    /// It lists label sets and reads no samples.
    pub listing: bool,
    /// When it is evaluated.
    pub times: Option<EvalTimes>,
}

impl Subject<'_> {
    /// Milliseconds that it spans.
    pub fn range_ms(&self) -> u64 {
        if self.listing { self.between_ms() } else { self.shape.range_seconds.saturating_mul(1_000) }
    }

    /// Milliseconds between its first and its last time.
    fn between_ms(&self) -> u64 {
        self.times.map_or(0, |times| times.end.saturating_sub(times.start).max(0) as u64)
    }

    /// Its text in the printer's layout.
    fn canonical(&self) -> Option<String> {
        self.shape.ast().map(print::line)
    }

    /// Milliseconds that one evaluation of a selector reaches back by ranges and subqueries; `None` for a selector of
    /// the newest sample.
    fn reach_ms(&self, selector: &SelectorShape) -> Option<u64> {
        let over_all = selector.window.len_ms().saturating_sub(self.between_ms());
        let reach = over_all.max(selector.window_per_eval_ms);
        let is_plain = !selector.ranged && reach <= selector.window_per_eval_ms;
        (!is_plain).then_some(reach)
    }
}

impl ExactText {
    pub(super) fn new(text: &str) -> Self {
        let canonical = crate::promql::parse(text).ok().map(|ast| print::line(&ast));
        Self { written: text.trim().to_owned(), canonical }
    }

    fn is(&self, subject: &Subject<'_>) -> bool {
        self.written == subject.text.trim()
            || self.canonical.as_ref().is_some_and(|text| subject.canonical().as_ref() == Some(text))
    }
}

impl Matchers {
    /// Whether all given conditions hold; the cheap ones are checked first.
    pub(super) fn matches(&self, subject: &Subject<'_>, now_ms: i64) -> bool {
        self.is_from(subject) && self.hours.is_none_or(|hours| hours.has(now_ms)) && self.is_asked(subject)
    }

    fn is_from(&self, subject: &Subject<'_>) -> bool {
        let is = |glob: &Option<super::Glob>, known: Option<&str>| {
            glob.as_ref().is_none_or(|glob| known.is_some_and(|known| glob.matches(known)))
        };
        let tenant = self.tenant.as_ref();
        tenant.is_none_or(|pattern| subject.tenants.iter().any(|tenant| covers(pattern, tenant)))
            && is(&self.class, Some(subject.class))
            && is(&self.dashboard, subject.dashboard)
            && is(&self.panel, subject.panel)
            && is(&self.user, subject.user)
            && (self.user_agent.is_none()
                || is(&self.user_agent, subject.user_agent.map(str::to_ascii_lowercase).as_deref()))
            && self.endpoint.as_ref().is_none_or(|endpoint| endpoint == subject.endpoint)
    }

    fn is_asked(&self, subject: &Subject<'_>) -> bool {
        let selectors = &subject.shape.selectors;
        // A listing has a span, and no points.
        let times = subject.times.filter(|_| subject.endpoint == "query_range");
        let step = times.map(|times| times.step).filter(|step| *step > 0);
        let has_window =
            || selectors.iter().filter_map(|s| subject.reach_ms(s)).any(|ms| self.window.has(ms));
        (self.range.is_any() || self.range.has(subject.range_ms()))
            && (self.step.is_any() || step.is_some_and(|step| self.step.has(step)))
            && (self.window.is_any() || has_window())
            && (!self.nameless || selectors.iter().any(is_nameless))
            && self.fingerprint.as_ref().is_none_or(|wanted| subject.fingerprint.to_string() == *wanted)
            && self.metric.as_ref().is_none_or(|metric| {
                selectors.iter().any(|selector| metric.may_be_read(selector, subject.listing))
            })
            && self.query.as_ref().is_none_or(|text| text.is(subject))
            && self.regex.as_ref().is_none_or(|regex| {
                subject.text.len() > SEARCHED_BYTES_MAX
                    || regex.is_match(subject.text)
                    || subject.canonical().is_some_and(|text| regex.is_match(&text))
            })
    }
}

fn covers(pattern: &TenantPattern, tenant: &TenantId) -> bool {
    match pattern {
        TenantPattern::Name(name) => name == tenant,
        TenantPattern::Prefix(prefix) => tenant.as_str().starts_with(&**prefix),
    }
}
