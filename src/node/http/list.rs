//! Series, label names and label values.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use axum::{
    extract::{Path, State},
    response::Response,
};

use super::{
    Node,
    error::Failure,
    json,
    query::{selectors, timeout, window},
    read_limiter::Turn,
    request::Asked,
};
use crate::{
    base::{
        ErrorKind, TimeRange,
        params::{ParamError, Params},
    },
    node::{
        db::{Db, Listing},
        engine::EvalError,
    },
    promql::ast::Matcher,
};

/// The parameters of a list.
struct Listed {
    selectors: Vec<Vec<Matcher>>,
    /// None is a window that holds nothing.
    window: Option<TimeRange>,
    limit: usize,
}

impl Listed {
    fn read(node: &Node, params: &Params<'_>) -> Result<Self, Failure> {
        Ok(Self {
            selectors: selectors(node, params)?,
            window: window(params)?,
            limit: limit(params)?.unwrap_or(usize::MAX).min(node.settings().list_entries),
        })
    }
}

/// `limit`; 0 and nothing mean none.
pub(super) fn limit(params: &Params<'_>) -> Result<Option<usize>, Failure> {
    let Some(text) = params.one("limit")? else { return Ok(None) };
    let limit: usize = text
        .parse()
        .map_err(|_| ParamError::invalid("limit", format!("{text:?} is not a whole number from 0 up")))?;
    Ok(Some(limit).filter(|limit| *limit > 0))
}

/// The warning about an answer that `limit` cut.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

/// Bytes that each candidate takes while a list is made: its place among those found, in a sorted set, and in the list.
/// The texts themselves are the database's.
const CANDIDATE_BYTES: u64 = 64;

/// The items found, and the warnings about them.
struct Found<T> {
    items: Vec<T>,
    warnings: Vec<String>,
}

async fn run<T: Send + 'static>(
    node: &Arc<Node>,
    asked: &Asked,
    params: &Params<'_>,
    listed: Listed,
    read: impl Fn(&Db, &Listed, TimeRange) -> Result<Listing<T>, Failure> + Send + Sync + 'static,
) -> Result<(Found<T>, json::Sending), Failure> {
    let (db, pools) = (Arc::clone(&node.db), Arc::clone(&node.pools));
    let compressed = json::is_compressed(&asked.headers);
    let find = move |turn: Turn<'_>| {
        let buffers = json::Buffers::lend(&pools, compressed, turn.canceled).map_err(EvalError::Exhausted)?;
        let mut loan = pools.engine.working.loan();
        // Before it is there a list is at most as long as there are candidates.
        let candidates = db.candidates(&listed.selectors)?.saturating_mul(CANDIDATE_BYTES);
        loan.grow(candidates, &|| turn.canceled.load(Relaxed)).map_err(EvalError::Exhausted)?;
        let listing = match listed.window {
            Some(window) => read(&db, &listed, window)?,
            None => Listing { items: Vec::new(), cut: false },
        };
        loan.keep_only(listing.items.capacity().saturating_mul(size_of::<T>()) as u64);
        let mut warnings = db.warnings(listed.window);
        if listing.cut {
            warnings.push(TRUNCATED.to_owned());
        }
        Ok((Found { items: listing.items, warnings }, buffers, loan))
    };
    let ((found, buffers, loan), place) = node.reads.run(timeout(node, params)?, find).await?;
    Ok((found, json::Sending::new(buffers, place, Some(loan))))
}

pub(super) async fn series(State(node): State<Arc<Node>>, asked: Asked) -> Result<Response, Failure> {
    let params = asked.params()?;
    let listed = Listed::read(&node, &params)?;
    if listed.selectors.is_empty() {
        return Err(Failure::new(ErrorKind::BadData, "no match[] parameter provided"));
    }
    let read = |db: &Db, l: &Listed, window| Ok(db.series(&l.selectors, window, l.limit)?);
    let (found, held) = run(&node, &asked, &params, listed, read).await?;
    Ok(json::series(found.items, &found.warnings, held))
}

pub(super) async fn labels(State(node): State<Arc<Node>>, asked: Asked) -> Result<Response, Failure> {
    let params = asked.params()?;
    let listed = Listed::read(&node, &params)?;
    let read = |db: &Db, l: &Listed, window| Ok(db.label_names(&l.selectors, window, l.limit)?);
    let (found, held) = run(&node, &asked, &params, listed, read).await?;
    Ok(json::texts(found.items, &found.warnings, held))
}

pub(super) async fn values(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Failure> {
    let params = asked.params()?;
    let listed = Listed::read(&node, &params)?;
    let name = unescaped(name);
    let read =
        move |db: &Db, l: &Listed, window| Ok(db.label_values(&name, &l.selectors, window, l.limit)?);
    let (found, held) = run(&node, &asked, &params, listed, read).await?;
    Ok(json::texts(found.items, &found.warnings, held))
}

/// `U__` in front of a name: a character that is no letter is written `_hex_`, and an underscore `__`.
fn unescaped(name: String) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name };
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((plain, special)) = rest.split_once('_') {
        out.push_str(plain);
        let Some((code, after)) = special.split_once('_') else { return name };
        let c = if code.is_empty() {
            Some('_')
        } else {
            u32::from_str_radix(code, 16).ok().and_then(char::from_u32)
        };
        let Some(c) = c else { return name };
        out.push(c);
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read() {
        for (name, want) in [
            ("job", "job"),
            ("U__http_2e_method", "http.method"),
            ("U__a__b", "a_b"),
            ("U__bad_zz_", "U__bad_zz_"),
            ("U__cut_2e", "U__cut_2e"),
        ] {
            assert_eq!(unescaped(name.to_owned()), want);
        }
    }
}
