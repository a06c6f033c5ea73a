//! Series, label names and label values.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};

use super::{
    Node,
    error::Failure,
    json,
    lent::{self, Lent},
    query::{selectors, timeout, window},
    request::RequestParams,
};
use crate::{
    base::{
        ErrorKind, TimeRange,
        params::{ParamError, Params},
    },
    node::db::{Candidates, Db, Listing},
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

/// The items found, and the warnings about them.
struct Found<T> {
    items: Vec<T>,
    warnings: Vec<String>,
}

/// Runs a list: `most` says how many entries it may have, so that they are lent before they are there.
async fn run<T: Send + 'static>(
    node: &Arc<Node>,
    asked: &RequestParams,
    params: &Params<'_>,
    listed: Listed,
    most: impl Fn(&Db, &Candidates) -> usize + Send + Sync + 'static,
    read: impl Fn(&Db, &Candidates, TimeRange, usize) -> Listing<T> + Send + Sync + 'static,
) -> Result<(Found<T>, json::Sending), Failure> {
    let db = Arc::clone(&node.db);
    let find = move |lent: &mut Lent<'_>| {
        // The candidates, those with samples, and the memory of a selection.
        lent.take(4 * db.set_bytes())?;
        let candidates = db.candidates(&listed.selectors)?;
        lent.take_list::<T>(most(&db, &candidates).min(listed.limit.saturating_add(1)))?;
        let listing = match listed.window {
            Some(window) => read(&db, &candidates, window, listed.limit),
            None => Listing { items: Vec::new(), cut: false },
        };
        lent.keep_only(listing.items.capacity().saturating_mul(size_of::<T>()) as u64);
        let mut warnings = db.warnings(listed.window);
        if listing.cut {
            warnings.push(TRUNCATED.to_owned());
        }
        Ok(Found { items: listing.items, warnings })
    };
    lent::run(node, asked, timeout(node, params)?, find).await
}

pub(super) async fn series(State(node): State<Arc<Node>>, asked: RequestParams) -> Result<Response, Failure> {
    let params = asked.params()?;
    let listed = Listed::read(&node, &params)?;
    if listed.selectors.is_empty() {
        return Err(Failure::new(ErrorKind::BadData, "no match[] parameter provided"));
    }
    let most = |_: &Db, among: &Candidates| among.series();
    let (found, held) = run(&node, &asked, &params, listed, most, Db::series).await?;
    Ok(json::series(found.items, &found.warnings, held))
}

pub(super) async fn labels(State(node): State<Arc<Node>>, asked: RequestParams) -> Result<Response, Failure> {
    let params = asked.params()?;
    let listed = Listed::read(&node, &params)?;
    let most = |db: &Db, _: &Candidates| db.labels(None);
    let (found, held) = run(&node, &asked, &params, listed, most, Db::label_names).await?;
    Ok(json::texts(found.items, &found.warnings, held))
}

pub(super) async fn values(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
    asked: RequestParams,
) -> Result<Response, Failure> {
    let params = asked.params()?;
    let listed = Listed::read(&node, &params)?;
    let name: Arc<str> = unescaped(name).into();
    let counted = Arc::clone(&name);
    let most = move |db: &Db, _: &Candidates| db.labels(Some(&counted));
    let read = move |db: &Db, among: &Candidates, window, limit| db.label_values(&name, among, window, limit);
    let (found, held) = run(&node, &asked, &params, listed, most, read).await?;
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
