//! `/api/v1/admin/top`: the ranking of the heaviest.

use axum::{extract::State, response::Response};

use super::{
    reply::{Failed, RequestParams, success},
    state::Admin,
};
use crate::{
    proxy::Proxy,
    top::{By, Measure, Ranking, Window},
};

/// Rows, unless it is asked otherwise.
const ROWS: usize = 20;
/// The most that can be asked for.
const ROWS_MAX: usize = 50;

/// The heaviest of a window, the heaviest first.
pub(super) async fn rank(State(admin): State<Admin>, mut asked: RequestParams) -> Result<Response, Failed> {
    let ranking = ranking(&admin.proxy, &mut asked, By::ALL)?;
    ranking.map(success).ok_or_else(|| Failed::missing("this process keeps no record of queries"))
}

/// The ranking that a request asks for, by the first of `by` where it does not say; `None` where no queries are recorded.
pub(super) fn ranking(
    proxy: &Proxy,
    asked: &mut RequestParams,
    by: &[By],
) -> Result<Option<Ranking>, Failed> {
    let window = asked.one_of("window", Window::ALL, Window::as_str)?;
    let by = asked.one_of("by", by, By::as_str)?;
    let sort = asked.one_of("sort", Measure::ALL, Measure::as_str)?;
    let limit = asked.take("limit").map_or(Ok(ROWS), |limit| {
        let limit = limit.parse().ok().filter(|limit| (1..=ROWS_MAX).contains(limit));
        limit.ok_or_else(|| Failed::bad(format!("`limit` is a number from 1 to {ROWS_MAX}")))
    })?;
    asked.nothing_else()?;
    Ok(proxy.top().map(|top| top.ranking(window, by, sort, limit, proxy.now_ms())))
}
