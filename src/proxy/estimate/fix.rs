//! A query that passes in place of one that is refused. Cheaper forms of it are tried, each priced and judged as any query is, and
//! the first that passes is offered.

use std::time::Duration;

use bytes::Bytes;
use tokio::{task::yield_now, time::timeout};

use crate::{
    base::time::{EvalTimes, seconds},
    limit::{Charged, LimitName, MemoryThresholds, Refusal},
    promql::{
        self,
        ast::Ast,
        rewrite,
        shorten::{self, Measure},
    },
    proxy::{
        exchange::Common,
        query::{ParsedQuery, offload::INLINE_BYTES_MAX},
        respond::Fix,
        route::Endpoint,
        rules::layer as rules,
        shared::{Pricing, QueryReader},
    },
};

/// Forms of one query that are tried.
const TRIES_MAX: usize = 8;
/// Queries for which forms are tried at a time; the others are refused without a fix.
pub(in crate::proxy) const FIX_SEARCHES_MAX: usize = 4;
/// The longest that a refusal waits for its fix.
const SEARCH_TIME: Duration = Duration::from_secs(1);
/// Points of a line that a longer step leaves, at least.
const POINTS: u64 = 250;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// Steps that are offered, milliseconds.
const STEPS_MS: [u64; 13] = [
    15_000,
    30_000,
    MINUTE_MS,
    2 * MINUTE_MS,
    5 * MINUTE_MS,
    10 * MINUTE_MS,
    15 * MINUTE_MS,
    30 * MINUTE_MS,
    HOUR_MS,
    2 * HOUR_MS,
    6 * HOUR_MS,
    12 * HOUR_MS,
    24 * HOUR_MS,
];
/// Lengths to which its time and its windows are cut, milliseconds.
const SPANS_MS: [u64; 4] = [24 * HOUR_MS, 6 * HOUR_MS, HOUR_MS, 15 * MINUTE_MS];

/// A cheaper form: the share of its time and of its windows, its step, and whether it is made one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    span_ms: Option<u64>,
    longer_step: bool,
    aggregated: bool,
}

/// The texts that take the place of one that is too large by itself, those that change the least first, and whether each
/// is a part of it.
fn texts(refusal: &Refusal, ast: &Ast) -> Vec<(String, bool)> {
    let measure = match refusal.limit {
        LimitName::MaxText => Some(Measure::Bytes),
        LimitName::MaxNodes => Some(Measure::Nodes),
        LimitName::MaxMatchers => Some(Measure::Matchers),
        LimitName::MaxRegex => Some(Measure::Regex),
        LimitName::MaxSelectors => Some(Measure::Selectors),
        // Brackets are doubled, or all of them are needed.
        LimitName::MaxDepth => None,
        _ => return Vec::new(),
    };
    let tidied = shorten::tidied(ast).map(|text| (text, false));
    let has_regex = matches!(measure, Some(Measure::Bytes | Measure::Regex));
    let covered = shorten::covered(ast).filter(|_| has_regex).map(|text| (text, false));
    let part = measure.and_then(|measure| shorten::part(ast, measure, refusal.max));
    let part = part.map(|text| (text.to_owned(), true));
    [tidied, covered, part].into_iter().flatten().collect()
}

/// The forms for a refusal, those that change the least first.
fn changes(refusal: &Refusal, is_range: bool) -> Vec<Change> {
    let change = |span_ms, longer_step, aggregated| Change { span_ms, longer_step, aggregated };
    let mut changes = Vec::new();
    match refusal.limit {
        // These have nothing to do with its time, nor with its answer: it is its text that changes.
        LimitName::MaxText
        | LimitName::MaxNodes
        | LimitName::MaxDepth
        | LimitName::MaxMatchers
        | LimitName::MaxRegex
        | LimitName::MaxSelectors => return changes,
        LimitName::MaxRange => {
            let most = Some(refusal.max.saturating_mul(1_000));
            changes.extend([change(most, true, false), change(most, true, true)]);
        }
        // As many series are read in any form of it.
        LimitName::MaxSeries => {}
        _ => {
            changes.extend(is_range.then_some(change(None, true, false)));
            changes.push(change(None, false, true));
            changes.extend(is_range.then_some(change(None, true, true)));
        }
    }
    changes.extend(SPANS_MS.into_iter().enumerate().flat_map(|(i, span)| {
        let plain = (i == 0).then_some(change(Some(span), true, false));
        plain.into_iter().chain([change(Some(span), true, true)])
    }));
    changes
}

/// The parameters of a form, and its description.
struct Form {
    fix: Fix,
    params: Vec<(&'static str, String)>,
}

/// A form of a query; `None` where it would be the query itself.
fn form(query: &ParsedQuery, ast: &Ast, is_range: bool, change: Change) -> Option<Form> {
    let mut text = query.text.clone();
    let mut params = Vec::new();
    let mut fix = Fix::default();
    if let Some(cut) = change.span_ms.and_then(|span| rewrite::with_windows(ast, i64::try_from(span).ok()?)) {
        text = cut;
    }
    if change.aggregated
        && let Ok(ast) = promql::parse(&text)
    {
        text = rewrite::aggregated(&ast).unwrap_or(text);
    }
    let is_same_text = text == query.text;
    if is_range && let Some(times) = query.times {
        let EvalTimes { start, end, step } = times;
        let asked = end.saturating_sub(start).max(0) as u64;
        let span = change.span_ms.map_or(asked, |span| span.min(asked));
        let least = span / POINTS;
        let longer = STEPS_MS.into_iter().find(|step| *step >= least).unwrap_or(least);
        let step = if change.longer_step { step.max(longer) } else { step };
        if is_same_text && span == asked && step == times.step {
            return None;
        }
        let (start, end) = (plain(end.saturating_sub_unsigned(span)), plain(end));
        let step = plain(i64::try_from(step).unwrap_or(i64::MAX));
        params.extend([("start", start.clone()), ("end", end.clone()), ("step", step.clone())]);
        (fix.start, fix.end, fix.step) = (Some(start), Some(end), Some(step));
    } else if is_same_text {
        return None;
    }
    params.push(("query", text.clone()));
    fix.query = text;
    Some(Form { fix, params })
}

/// Seconds, with a fraction only where there is one.
fn plain(ms: i64) -> String {
    let text = seconds(ms);
    text.strip_suffix(".000").map(str::to_owned).unwrap_or(text)
}

/// The forms of a query for a refusal.
fn forms(query: &ParsedQuery, ast: &Ast, is_range: bool, refusal: &Refusal) -> Vec<Form> {
    let of_text = |(text, part): (String, bool)| {
        let params = vec![("query", text.clone())];
        Form { fix: Fix { query: text, part, ..times(query, is_range) }, params }
    };
    let texts = texts(refusal, ast).into_iter().map(of_text);
    let changed = changes(refusal, is_range).into_iter();
    texts.chain(changed.filter_map(|change| form(query, ast, is_range, change))).collect()
}

/// The times of a query as they are.
fn times(query: &ParsedQuery, is_range: bool) -> Fix {
    let Some(EvalTimes { start, end, step }) = query.times.filter(|_| is_range) else {
        return Fix::default();
    };
    let step = plain(i64::try_from(step).unwrap_or(i64::MAX));
    Fix { start: Some(plain(start)), end: Some(plain(end)), step: Some(step), ..Fix::default() }
}

/// The form of a listing that looks through too much time: its last part.
fn shorter_listing(query: &ParsedQuery, refusal: &Refusal) -> Vec<Form> {
    let Some(times) = query.times.filter(|_| refusal.limit == LimitName::MaxListingRange) else {
        return Vec::new();
    };
    let start = plain(times.end.saturating_sub_unsigned(refusal.max.saturating_mul(1_000)));
    let end = plain(times.end);
    let params = vec![("start", start.clone()), ("end", end.clone())];
    vec![Form { fix: Fix { start: Some(start), end: Some(end), ..Fix::default() }, params }]
}

/// The first of these forms that passes. Each one is tried in a turn of its own on the worker, whose other connections wait for
/// one reading of a query, and not for eight.
async fn first_passing<'f, P, F>(forms: &'f [Form], passes: P) -> Option<&'f Form>
where
    P: Fn(&'f [(&'static str, String)]) -> F,
    F: Future<Output = bool>,
{
    let is_first =
        |place: &usize| forms.iter().position(|form| form.params == forms[*place].params) == Some(*place);
    for place in (0..forms.len()).filter(is_first).take(TRIES_MAX) {
        yield_now().await;
        if passes(&forms[place].params).await {
            return forms.get(place);
        }
    }
    None
}

impl Pricing {
    /// A form of a refused query that would be admitted now, as far as limits on one query decide.
    pub(super) async fn fix(
        &self,
        common: &Common,
        body: &Bytes,
        query: &ParsedQuery,
        refusal: &Refusal,
        thresholds: &MemoryThresholds,
    ) -> Option<Box<Fix>> {
        let _search = self.fix_searches.try_acquire().ok()?;
        if query.text.len() > INLINE_BYTES_MAX {
            return None;
        }
        yield_now().await;
        let forms = match common.endpoint {
            endpoint if endpoint.is_listing() => shorter_listing(query, refusal),
            Endpoint::QueryRange | Endpoint::QueryRangeCost | Endpoint::Query | Endpoint::QueryCost => {
                let is_range = matches!(common.endpoint, Endpoint::QueryRange | Endpoint::QueryRangeCost);
                let ast = common.shared.reader.cache.parse(&query.text).ok()?;
                forms(query, &ast, is_range, refusal)
            }
            _ => return None,
        };
        let passes = |params| self.passes(common, body, query, params, thresholds);
        let form = timeout(SEARCH_TIME, first_passing(&forms, passes)).await.ok().flatten()?;
        Some(Box::new(form.fix.clone()))
    }

    /// Whether a query with other parameters would be admitted.
    async fn passes(
        &self,
        common: &Common,
        body: &Bytes,
        query: &ParsedQuery,
        params: &[(&str, String)],
        thresholds: &MemoryThresholds,
    ) -> bool {
        let Ok(other) = QueryReader::parse_with(common, query, body, params) else { return false };
        if rules::refuses(common, &other) {
            return false;
        }
        let result = self.estimate(common, &other, thresholds).await;
        let request = common.admission_request(result.estimate.cost, common.log.began(), Charged::All);
        let is_known = result.unanswered.as_ref().is_none_or(|error| !error.is_unasked());
        is_known && self.admission.dry_run(&request).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        future::{poll_fn, ready},
    };

    use super::*;
    use crate::{
        base::{Estimate, TenantId},
        limit::Scope,
    };

    fn refusal(limit: LimitName, max: u64) -> Refusal {
        Refusal::exceeded(limit, Estimate::exact(max + 1), max, Scope::Tenant(TenantId::new("a").unwrap()))
    }

    /// All forms of 4,999 selectors were read one after the other, 3.5 ms in which the worker served nobody else.
    #[tokio::test]
    async fn each_form_is_tried_in_a_turn_of_its_own() {
        let form = |text: &str| Form { fix: Fix::default(), params: vec![("query", text.to_owned())] };
        let forms = ["a", "b", "a", "c"].map(form);
        let (tried, turns) = (Cell::new(0), Cell::new(0));
        let search = first_passing(&forms, |_| {
            tried.set(tried.get() + 1);
            ready(false)
        });
        let mut search = std::pin::pin!(search);
        let found = poll_fn(|cx| {
            let before = tried.get();
            let polled = search.as_mut().poll(cx);
            assert!(tried.get() - before <= 1);
            turns.set(turns.get() + 1);
            polled
        });
        assert!(found.await.is_none());
        assert_eq!((tried.get(), turns.get()), (3, 4));
    }

    #[test]
    fn the_least_change_comes_first_and_their_number_is_bounded() {
        let first = |limit, is_range| changes(&refusal(limit, 86_400 * 7), is_range).first().copied();
        let step = Change { span_ms: None, longer_step: true, aggregated: false };
        assert_eq!(first(LimitName::MaxPoints, true), Some(step));
        let aggregated = Change { span_ms: None, longer_step: false, aggregated: true };
        assert_eq!(first(LimitName::MaxMemory, false), Some(aggregated));
        let week = Change { span_ms: Some(7 * 24 * HOUR_MS), ..step };
        assert_eq!(first(LimitName::MaxRange, true), Some(week));
        assert_eq!(first(LimitName::MaxSeries, true).and_then(|change| change.span_ms), Some(24 * HOUR_MS));
        assert_eq!(first(LimitName::MaxSelectors, true), None);
        for limit in LimitName::ALL {
            assert!(changes(&refusal(*limit, 5), true).len() <= TRIES_MAX);
        }
    }
}
