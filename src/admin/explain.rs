//! `/api/v1/admin/explain`: the cost of a query, node by node, and whether it would run.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use form_urlencoded::Serializer;
use serde_json::Value;

use super::reply::{Failed, RequestParams, success};
use crate::{
    base::{TenantId, duration, time},
    proxy::Proxy,
};

/// Points of a graph whose step is not given.
const POINTS: u64 = 1_000;
/// The least step of such a graph, milliseconds.
const STEP_MIN_MS: u64 = 15_000;

/// A query, and how it is asked. Empty texts are not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) query: String,
    /// Time that its graph shows, up to now; without it the query is evaluated once.
    pub(super) range: String,
    pub(super) step: String,
    /// Whose limits apply; the default tenant's without it.
    pub(super) tenant: String,
}

impl Question {
    /// Takes it out of a request's parameters.
    pub(super) fn take(asked: &mut RequestParams) -> Self {
        let mut text = |name| asked.take(name).unwrap_or_default();
        Self { query: text("query"), range: text("range"), step: text("step"), tenant: text("tenant") }
    }

    /// The answer of `query_cost` or `query_range_cost`.
    ///
    /// # Errors
    /// The mistake in the question, as a sentence.
    pub(super) async fn answer(&self, proxy: &Proxy) -> Result<Value, String> {
        let length = |name: &str, text: &str| {
            let parsed = (!text.is_empty()).then(|| duration::parse(text)).transpose();
            parsed.map_err(|error| format!("{name}: {error}"))
        };
        let (range, step) = (length("range", &self.range)?, length("step", &self.step)?);
        let tenant = (!self.tenant.is_empty())
            .then(|| {
                TenantId::new(&self.tenant).ok_or_else(|| format!("`{}` is no tenant name", self.tenant))
            })
            .transpose()?;
        let params = self.params(range, step, proxy.now_ms());
        proxy.explain(tenant, params, range.is_some()).await
    }

    /// The parameters of the query API; range and step are milliseconds.
    fn params(&self, range: Option<u64>, step: Option<u64>, now_ms: i64) -> String {
        let mut params = Serializer::new(String::new());
        params.append_pair("query", &self.query);
        match range {
            None => params.append_pair("time", &time::seconds(now_ms)),
            Some(range) => {
                let step = step.unwrap_or_else(|| (range / POINTS).max(STEP_MIN_MS));
                params
                    .append_pair("start", &time::seconds(now_ms.saturating_sub_unsigned(range)))
                    .append_pair("end", &time::seconds(now_ms))
                    .append_pair("step", &time::seconds(step as i64))
            }
        };
        params.finish()
    }
}

/// The answer of `query_cost`, as JSON.
pub(super) async fn explain(
    State(proxy): State<Arc<Proxy>>,
    mut asked: RequestParams,
) -> Result<Response, Failed> {
    let question = Question::take(&mut asked);
    asked.nothing_else()?;
    let answer = question.answer(&proxy).await.map_err(Failed::bad)?;
    Ok(success(&answer["data"]))
}
