//! A query as rules see it, and whether one is about it.

use regex::Regex;

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
    /// The same for queries that differ in their numbers only; `None` where nobody recorded it.
    pub fingerprint: Option<Fingerprint>,
    /// The text as the client wrote it; `None` where nobody recorded it.
    pub text: Option<&'a str>,
    /// Selectors, windows and steps; `None` where nobody can read them.
    pub shape: Option<&'a Shape>,
    /// It lists label sets and reads no samples.
    pub listing: bool,
    /// When it is evaluated.
    pub times: Option<EvalTimes>,
}

impl Subject<'_> {
    /// Milliseconds that it spans; `None` where that is not known.
    pub fn range_ms(&self) -> Option<u64> {
        let of_query = || self.shape.map(|shape| shape.range_seconds.saturating_mul(1_000));
        if self.listing { Some(self.between_ms()) } else { of_query() }
    }

    /// Milliseconds between its first and its last time.
    fn between_ms(&self) -> u64 {
        self.times.map_or(0, |times| times.end.saturating_sub(times.start).max(0) as u64)
    }

    /// Its text in the printer's layout; `Some(None)` for a listing, which has none, and `None` where nobody can read it.
    #[allow(clippy::option_option, reason = "unknown, none and a text are three cases")]
    fn canonical(&self) -> Option<Option<String>> {
        if self.listing {
            return Some(None);
        }
        self.shape.map(|shape| shape.ast().map(print::line))
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

    /// `None` where that is not known.
    fn is(&self, subject: &Subject<'_>) -> Option<bool> {
        if subject.text?.trim() == self.written {
            return Some(true);
        }
        let canonical = subject.canonical()?;
        Some(self.canonical.is_some() && self.canonical == canonical)
    }
}

impl Matchers {
    /// Whether all given conditions hold; the cheap ones are checked first. `None` where one that decides is about
    /// something that nobody recorded.
    pub(super) fn matches(&self, subject: &Subject<'_>, now_ms: i64) -> Option<bool> {
        let is_from = self.is_from(subject) && self.hours.is_none_or(|hours| hours.has(now_ms));
        if is_from { self.is_asked(subject) } else { Some(false) }
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

    fn is_asked(&self, subject: &Subject<'_>) -> Option<bool> {
        // A listing has a span, and no points.
        let times = subject.times.filter(|_| subject.endpoint == "query_range");
        let step = times.map(|times| times.step).filter(|step| *step > 0);
        let selectors = subject.shape.map(|shape| &shape.selectors);
        let any = |is: &dyn Fn(&SelectorShape) -> bool| selectors.map(|all| all.iter().any(is));
        let has_window = |s: &SelectorShape| subject.reach_ms(s).is_some_and(|ms| self.window.has(ms));
        let conditions: [&dyn Fn() -> Option<bool>; 8] = [
            &|| {
                if self.step.is_any() {
                    Some(true)
                } else {
                    Some(step.is_some_and(|step| self.step.has(step)))
                }
            },
            &|| match &self.fingerprint {
                None => Some(true),
                Some(wanted) => subject.fingerprint.map(|known| known.to_string() == *wanted),
            },
            &|| {
                if self.range.is_any() { Some(true) } else { subject.range_ms().map(|ms| self.range.has(ms)) }
            },
            &|| if self.window.is_any() { Some(true) } else { any(&has_window) },
            &|| if self.nameless { any(&is_nameless) } else { Some(true) },
            &|| match &self.metric {
                None => Some(true),
                Some(metric) => any(&|selector| metric.may_be_read(selector, subject.listing)),
            },
            &|| self.query.as_ref().map_or(Some(true), |text| text.is(subject)),
            &|| self.regex.as_ref().map_or(Some(true), |regex| is_found(regex, subject)),
        ];
        let mut all = Some(true);
        for condition in conditions {
            match condition() {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }
}

/// Whether a regular expression is found in the text of a query, in one layout or the other; `None` where that is not
/// known.
fn is_found(regex: &Regex, subject: &Subject<'_>) -> Option<bool> {
    let text = subject.text?;
    if text.len() > SEARCHED_BYTES_MAX || regex.is_match(text) {
        return Some(true);
    }
    Some(subject.canonical()?.is_some_and(|text| regex.is_match(&text)))
}

fn covers(pattern: &TenantPattern, tenant: &TenantId) -> bool {
    match pattern {
        TenantPattern::Name(name) => name == tenant,
        TenantPattern::Prefix(prefix) => tenant.as_str().starts_with(&**prefix),
    }
}
