//! Requests that list label sets, names, values or exemplars.

use super::{LENIENT_RANGE_MS, ParsedQuery, QueryError, QueryParser, expanded, plain};
use crate::{
    base::{
        Kind, TextSize, TimeRange,
        params::{ParamError, Params},
        time::EvalTimes,
    },
    promql::{
        Fingerprint,
        ast::Expr,
        print,
        shape::{Listed, Reads, SelectorShape, Shape},
    },
};

/// Most selectors of `match[]` in one request.
const MATCHERS_MAX: usize = 100;

/// Not more selectors than one request may have.
pub(super) fn check_number(texts: &[&str]) -> Result<(), ParamError> {
    if texts.len() > MATCHERS_MAX {
        return Err(ParamError::invalid("match[]", format!("more than {MATCHERS_MAX} are given")));
    }
    Ok(())
}

impl QueryParser<'_> {
    /// Exemplars: a bounded number, found in memory by series. Nothing is evaluated, and a time that is left open is all of
    /// time, as in a listing.
    pub(super) fn exemplars(&self, params: &Params<'_>) -> Result<ParsedQuery, QueryError> {
        let query = self.query(params, self.span(params)?)?;
        let Shape { range_seconds, size, selectors, .. } = query.shape;
        let shape =
            Shape { range_seconds, size, ..Shape::unevaluated(Reads::Listing(Listed::Exemplars), selectors) };
        Ok(ParsedQuery { shape, listing: true, split: None, answer_is_whole: false, ..query })
    }

    /// The window of a listing, as two steps. One without a start looks through all of time, but
    /// on VictoriaMetrics, where it begins five minutes before its end. One that ends before it starts finds nothing, as
    /// the backend knows by itself.
    fn span(&self, params: &Params<'_>) -> Result<EvalTimes, ParamError> {
        let end = self.time(params, "end")?.unwrap_or(self.now_ms);
        let earliest = match self.kind {
            Kind::VictoriaMetrics => end.saturating_sub(LENIENT_RANGE_MS),
            _ => end.min(0),
        };
        let start = self.time(params, "start")?.unwrap_or(earliest);
        let span = TimeRange::new(start, end);
        Ok(EvalTimes { start: span.start, end: span.end, step: span.len_ms().max(1) })
    }

    pub(super) fn listing(&self, params: &Params<'_>, listed: Listed) -> Result<ParsedQuery, QueryError> {
        let times = self.span(params)?;
        let texts: Vec<&str> = params.all("match[]").collect();
        check_number(&texts)?;
        if texts.is_empty() && listed == Listed::Series {
            return Err(ParamError::Malformed("no match[] parameter provided").into());
        }
        let text = texts.join(" ");
        let mut query = ParsedQuery { text, listing: true, times: Some(times), ..ParsedQuery::unread() };
        let mut fingerprints = Vec::with_capacity(texts.len());
        let (mut selectors, mut range_seconds, mut size) = (Vec::new(), 0, TextSize::default());
        for text in texts {
            let mut one = self.matched(text, times)?;
            query.sent.push(one.sent.pop().unwrap_or_else(|| text.to_owned()));
            fingerprints.push(one.fingerprint);
            query.opaque |= one.opaque;
            size = size.plus(one.shape.size);
            range_seconds = one.shape.range_seconds.max(range_seconds);
            selectors.extend(one.shape.selectors);
        }
        // As the client wrote them, in one text.
        if query.sent.join(" ") == query.text {
            query.sent.clear();
        }
        let selectors = widest(selectors);
        query.fingerprint = Fingerprint::of_set(fingerprints);
        query.shape = Shape { range_seconds, size, ..Shape::unevaluated(Reads::Listing(listed), selectors) };
        Ok(query)
    }

    /// One `match[]`: a selector, of PromQL or of a dialect.
    fn matched(&self, own: &str, times: EvalTimes) -> Result<ParsedQuery, QueryError> {
        let plain = plain(self.kind, "match[]", own)?;
        let text = &*expanded(self.kind, "match[]", &plain)?;
        let query = match self.parse("match[]", text) {
            Ok(query) => query,
            Err(error) => {
                // A listing looks through its own span of time, and no further back.
                let times = EvalTimes { step: 0, ..times };
                let unread = self.unparsable(error, text, times, 0)?;
                let unread =
                    if unread.shape.selectors.is_empty() { self.opaque(text, times, 0)? } else { unread };
                return Ok(ParsedQuery { sent: vec![plain.into_owned()], ..unread });
            }
        };
        let ast = &query.ast;
        if !matches!(ast.expr(ast.root), Expr::Selector(_)) {
            return Err(ParamError::invalid("match[]", format!("{text:?} is not a series selector")).into());
        }
        Ok(ParsedQuery {
            sent: vec![if text == own { own.to_owned() } else { print::line(ast) }],
            fingerprint: query.fingerprint(),
            shape: Shape::of(ast, times, 0),
            ..ParsedQuery::unread()
        })
    }
}

/// The label in `/api/v1/label/NAME/values`; empty where it is written in Prometheus' own escapes.
pub(super) fn label_of(path: &str) -> Box<str> {
    let name = path.split('/').nth_back(1).unwrap_or_default();
    let name = form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| name).unwrap_or_default();
    if name.starts_with("U__") { Box::default() } else { name.into() }
}

/// The selectors of which no other one, over the same time, lists all that they list: it has some of their matchers and
/// no others.
fn widest(mut selectors: Vec<SelectorShape>) -> Vec<SelectorShape> {
    selectors.sort_by_key(|selector| selector.matchers.len());
    let mut kept: Vec<SelectorShape> = Vec::new();
    for selector in selectors {
        let holds = |wider: &SelectorShape| {
            wider.window == selector.window && wider.matchers.iter().all(|m| selector.matchers.contains(m))
        };
        if !kept.iter().any(holds) {
            kept.push(selector);
        }
    }
    kept
}
