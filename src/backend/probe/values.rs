//! The different values of an expression at a few instants, for `count_values` on a graph: it makes a series of each.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{ask::Form, kinds::Answer, request::ProbeRequest, state::LISTED_BYTES};
use crate::{backend::Backend, base::time::seconds};

/// How far the instants of two requests may lie apart to be the same, milliseconds: a dashboard that reloads asks the same.
const GRANULE_MS: i64 = 300_000;
/// The label that holds a value.
const LABEL: &str = "value";

#[derive(Deserialize)]
struct Vector {
    result: Vec<Counted>,
}

#[derive(Deserialize)]
struct Counted {
    metric: HashMap<String, String>,
}

impl Backend {
    /// How many values of the request's expression were seen at one, two, … of these instants; `None` where the backend did
    /// not say, or has more than a megabyte of them.
    pub async fn values_seen(&self, request: &ProbeRequest<'_>, instants: &[i64]) -> Option<Arc<[u64]>> {
        let values = &self.probes.values;
        let granules: Vec<i64> = instants.iter().map(|at| at.div_euclid(GRANULE_MS)).collect();
        let key = values.key(request, &granules);
        let asking = Box::pin(self.ask_values(request, instants));
        timeout_at(request.deadline, values.kept.get_with(key, asking)).await.ok()?
    }

    async fn ask_values(&self, request: &ProbeRequest<'_>, instants: &[i64]) -> Option<Arc<[u64]>> {
        let probes = &self.probes;
        let bytes = request.limit.saturating_mul(LISTED_BYTES);
        let _booked = probes.book(bytes, request).await.ok()?;
        let query = format!("count_values(\"{LABEL}\", {})", request.selector);
        let mut times_seen: HashMap<String, usize> = HashMap::new();
        for at in instants {
            let form = Form::new().with("query", &query).with("time", &seconds(*at));
            let deadline = Instant::now() + probes.settings.deadline;
            probes.counters.sent.fetch_add(1, Relaxed);
            let asked = self.ask_json::<Answer<Vector>>("/api/v1/query", form, request, deadline);
            let Ok(Ok((answer, _))) = timeout_at(deadline, asked).await else {
                probes.counters.failures.fetch_add(1, Relaxed);
                return None;
            };
            for mut one in answer.data.result {
                *times_seen.entry(one.metric.remove(LABEL)?).or_default() += 1;
            }
        }
        let mut seen = vec![0; instants.len()];
        for times in times_seen.into_values() {
            if let Some(slot) = seen.get_mut(times - 1) {
                *slot += 1;
            }
        }
        Some(seen.into())
    }
}
