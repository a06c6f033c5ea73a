//! Queries, and their cost.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use serde_json::json;

use super::{
    Node,
    answer::success,
    error::Failure,
    json,
    lent::{self, Lent},
    list::{TRUNCATED, limit},
    read_limiter::Turn,
    read_quota,
    request::RequestParams,
    tree,
};
use crate::{
    base::{
        ErrorKind, TimeRange,
        params::{ParamError, Params},
        time::EvalTimes,
    },
    node::{
        db::Cost,
        engine::{self, EvalError},
    },
    promql::{
        ast::{Ast, Edges, Expr, Matcher, Selector, ValueType},
        durations, print,
        shape::Shape,
    },
};

/// A query with its limits.
struct Query {
    ast: Arc<Ast>,
    times: EvalTimes,
    lookback_ms: u64,
    timeout: Duration,
    /// Most series of the answer.
    limit: Option<usize>,
    stats: bool,
}

impl Query {
    fn read(node: &Node, params: &Params<'_>, times: EvalTimes) -> Result<Self, Failure> {
        let text = params.one("query")?.unwrap_or_default();
        let ast = node.cache.parse(text)?;
        durations::check(&ast, times)?;
        let lookback = params.duration("lookback_delta")?.and_then(|ms| u64::try_from(ms).ok());
        Ok(Self {
            ast,
            times,
            lookback_ms: lookback.filter(|ms| *ms > 0).unwrap_or(node.settings().lookback_ms),
            timeout: timeout(node, params)?,
            limit: limit(params)?,
            stats: params.one("stats")?.is_some(),
        })
    }

    fn instant(node: &Node, params: &Params<'_>) -> Result<Self, Failure> {
        let time = params.time("time")?.unwrap_or_else(|| node.now_ms());
        Self::read(node, params, EvalTimes::instant(time))
    }

    fn range(node: &Node, params: &Params<'_>) -> Result<Self, Failure> {
        let time = |name| params.time(name)?.ok_or_else(|| ParamError::invalid(name, "it is missing"));
        let (start, end) = (time("start")?, time("end")?);
        if end < start {
            let why = "end timestamp must not be before start time";
            return Err(ParamError::invalid("end", why).into());
        }
        let step = params.duration("step")?.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
        let why = "a positive duration is needed, as `15s`; try a greater one if it is below a millisecond";
        let step = step.ok_or_else(|| ParamError::invalid("step", why))?;
        let times = EvalTimes { start, end, step };
        let most = node.settings().steps;
        if times.steps() > most {
            let message = format!(
                "exceeded maximum resolution of {most} points per timeseries. Try decreasing the query resolution (?step=XX)"
            );
            return Err(Failure::new(ErrorKind::BadData, message));
        }
        let query = Self::read(node, params, times)?;
        let name = match query.ast.node(query.ast.root).ty {
            ValueType::Matrix => "range vector",
            ValueType::String => "string",
            _ => return Ok(query),
        };
        let why = "for range query, must be Scalar or instant Vector";
        Err(Failure::new(ErrorKind::BadData, format!("invalid expression type {name:?} {why}")))
    }

    async fn evaluate(self, node: &Arc<Node>, asked: &RequestParams) -> Result<Response, Failure> {
        let counted = node.counted(&asked.headers, asked.peer)?;
        let (db, times, stats) = (Arc::clone(&node.db), self.times, self.stats);
        let options = engine::Options {
            lookback_ms: self.lookback_ms,
            limits: node.settings().limits,
            workers: node.workers.clone(),
            pools: Some(node.pools.engine.clone()),
            observer: counted.clone().map(|counted| counted as Arc<dyn engine::ReadObserver>),
            ..engine::Options::default()
        };
        let (pools, compressed) = (Arc::clone(&node.pools), json::is_compressed(&asked.headers));
        let run = move |turn: Turn<'_>| {
            let buffers = json::Buffers::lend(&pools, compressed, turn).map_err(EvalError::Exhausted)?;
            let options = engine::Options { first: turn.first.cloned(), ..options.clone() };
            let answer = engine::evaluate(&self.ast, times, &*db, &options, turn.canceled);
            let mut answer = answer.map_err(|error| read_quota::explained(error, counted.as_deref()))?;
            let shape = Shape::of(&self.ast, times, self.lookback_ms);
            answer.warnings.extend(db.warnings(shape.selectors.iter().map(|s| s.window)));
            if self.limit.is_some_and(|limit| answer.value.truncate(limit)) {
                answer.warnings.push(TRUNCATED.to_owned());
            }
            Ok((answer, buffers))
        };
        let begun = tokio::time::Instant::now();
        let ((mut answer, buffers), place) = node.reads.run(self.timeout, run).await?;
        let stats = stats.then(|| begun.elapsed());
        let sending = json::Sending::new(buffers, place, answer.loan.take());
        Ok(json::answer(answer, times.start, stats, sending))
    }

    /// The exact volume that the query would read, from the index alone.
    async fn cost(self, node: &Arc<Node>, asked: &RequestParams) -> Result<Response, Failure> {
        let db = Arc::clone(&node.db);
        let shape = Arc::new(Shape::of(&self.ast, self.times, self.lookback_ms));
        let priced = Arc::clone(&shape);
        let run = move |lent: &mut Lent<'_>| {
            lent.take(3 * db.set_bytes())?;
            let costs = priced.selectors.iter().map(|s| Ok(db.query_cost(&s.matchers, s.window)?));
            let costs: Vec<Cost> = costs.collect::<Result<_, Failure>>()?;
            let warnings = db.warnings(priced.selectors.iter().map(|s| s.window));
            // Each selector is written with its text.
            let texts = priced.selectors.iter().map(|s| COST_BYTES + ESCAPED * s.text.len());
            lent.take(texts.sum::<usize>() as u64)?;
            Ok((costs, warnings))
        };
        let ((costs, warnings), held) = lent::run(node, asked, self.timeout, run).await?;
        let sum = |of: fn(&Cost) -> u64| costs.iter().map(of).fold(0, u64::saturating_add);
        let selectors: Vec<_> = (shape.selectors.iter().zip(&costs))
            .map(|(selector, cost)| {
                json!({
                    "selector": &*selector.text,
                    "series": cost.series,
                    "blocks": cost.blocks,
                    "samples": cost.samples,
                    "start": seconds(selector.window.start),
                    "end": seconds(selector.window.end),
                    "evaluations": selector.evaluations,
                })
            })
            .collect();
        let estimate = json!({
            "seriesTouched": sum(|c| c.series),
            "samplesScanned": sum(|c| c.samples),
            "blocks": sum(|c| c.blocks),
            "known": "exact",
            "class": "exact",
        });
        let data = json!({"estimate": estimate, "selectors": selectors}).to_string();
        Ok(json::data(data, &warnings, held))
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1e3
}

/// How long a read may take: as asked, but never longer than the node allows.
pub(super) fn timeout(node: &Node, params: &Params<'_>) -> Result<Duration, Failure> {
    // Time that is up before it begins is up all the same.
    let asked = params.duration("timeout")?.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    Ok(asked.unwrap_or(Duration::MAX).min(node.settings().timeout))
}

/// The window of a list; all of time when it is left open, none when it ends before it starts.
pub(super) fn window(params: &Params<'_>) -> Result<Option<TimeRange>, Failure> {
    let (start, end) = (params.time("start")?, params.time("end")?);
    let window = TimeRange { start: start.unwrap_or(i64::MIN), end: end.unwrap_or(i64::MAX) };
    Ok((window.start <= window.end).then_some(window))
}

/// The selectors of `match[]`.
pub(super) fn selectors(node: &Node, params: &Params<'_>) -> Result<Vec<Vec<Matcher>>, Failure> {
    let parse = |text: &str| {
        let bad = |why: String| Failure::from(ParamError::invalid("match[]", why));
        let ast = node.cache.parse(text).map_err(|error| bad(error.to_string()))?;
        match ast.expr(ast.root) {
            Expr::Selector(Selector { matchers, at: None, offset: None, edges: Edges::Plain, .. }) => {
                Ok(matchers.clone())
            }
            _ => Err(bad(format!("{text:?} is not a series selector"))),
        }
    };
    params.all("match[]").map(parse).collect()
}

pub(super) async fn instant(
    State(node): State<Arc<Node>>,
    asked: RequestParams,
) -> Result<Response, Failure> {
    Query::instant(&node, &asked.params()?)?.evaluate(&node, &asked).await
}

pub(super) async fn range(State(node): State<Arc<Node>>, asked: RequestParams) -> Result<Response, Failure> {
    Query::range(&node, &asked.params()?)?.evaluate(&node, &asked).await
}

pub(super) async fn cost(State(node): State<Arc<Node>>, asked: RequestParams) -> Result<Response, Failure> {
    let params = asked.params()?;
    // `query_cost` answers for a range too when it is given one, as the proxy's does.
    let query = if params.one("step")?.is_some() {
        Query::range(&node, &params)
    } else {
        Query::instant(&node, &params)
    };
    query?.cost(&node, &asked).await
}

pub(super) async fn range_cost(
    State(node): State<Arc<Node>>,
    asked: RequestParams,
) -> Result<Response, Failure> {
    Query::range(&node, &asked.params()?)?.cost(&node, &asked).await
}

/// Exemplars are not stored: a well-formed request is answered with none.
pub(super) async fn exemplars(
    State(node): State<Arc<Node>>,
    asked: RequestParams,
) -> Result<Response, Failure> {
    let params = asked.params()?;
    node.cache.parse(params.one("query")?.unwrap_or_default())?;
    let why = "end timestamp must not be before start timestamp";
    window(&params)?.ok_or_else(|| ParamError::invalid("end", why))?;
    Ok(success(json!([]), &[]))
}

/// Bytes of the cost of a selector beside its text: as values of JSON, and written.
const COST_BYTES: usize = 1 << 10;
/// Bytes that a byte of text takes in JSON at the worst.
const ESCAPED: usize = 6;
/// Bytes of a node of the syntax tree beside its text: in the output, and in the stack of pieces.
const TREE_NODE_BYTES: usize = 1 << 10;
/// The largest that indentation may make a query, bytes.
const FORMATTED_BYTES_MAX: usize = 4 << 20;

pub(super) async fn parse(State(node): State<Arc<Node>>, asked: RequestParams) -> Result<Response, Failure> {
    let text = asked.params()?.one("query")?.unwrap_or_default().to_owned();
    let ast = node.cache.parse(&text)?;
    let run = move |lent: &mut Lent<'_>| {
        // The text of a node stands once in the stack of pieces, and once in the output.
        lent.take((ast.nodes.len() * TREE_NODE_BYTES + 2 * ESCAPED * text.len()) as u64)?;
        let json = tree::json_of(&ast);
        lent.keep_only(json.capacity() as u64);
        Ok(json)
    };
    let (json, held) = lent::run(&node, &asked, node.settings().timeout, run).await?;
    Ok(json::data(json, &[], held))
}

pub(super) async fn format(State(node): State<Arc<Node>>, asked: RequestParams) -> Result<Response, Failure> {
    let text = asked.params()?.one("query")?.unwrap_or_default().to_owned();
    let ast = node.cache.parse(&text)?;
    let run = move |lent: &mut Lent<'_>| {
        // A line for each byte at the most, indented by two for each that it lies deep; as text and as JSON.
        let most = text.len().saturating_mul(text.len() + 2).min(FORMATTED_BYTES_MAX);
        lent.take(3 * most as u64)?;
        let pretty = print::pretty(&ast, FORMATTED_BYTES_MAX).ok_or_else(|| {
            let message = format!("written in lines the query is larger than {FORMATTED_BYTES_MAX} bytes");
            Failure::new(ErrorKind::LimitExceeded, message)
        })?;
        let json = serde_json::Value::from(pretty).to_string();
        lent.keep_only(json.capacity() as u64);
        Ok(json)
    };
    let (json, held) = lent::run(&node, &asked, node.settings().timeout, run).await?;
    Ok(json::data(json, &[], held))
}
