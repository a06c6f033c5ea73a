//! The journal's record of a query, made when it ends.

use std::{sync::Arc, time::Duration};

use super::{
    Owner,
    query_log::{End, Price, QueryLog},
};
use crate::{
    journal::{Actual, Priced, Record, Text},
    proxy::meter,
};

/// The counts of a meter; those of an answer that did not end say nothing of the whole.
fn counted(actual: meter::Actual) -> Actual {
    let counted = |number| actual.counted.then_some(number);
    Actual {
        answer_series: counted(actual.series),
        answer_samples: counted(actual.samples),
        answer_bytes: Some(actual.bytes_decoded),
        series_read: actual.series_fetched,
        samples_read: None,
    }
}

impl QueryLog {
    /// Everything that the log knows of a query that has ended.
    pub(super) fn record(&mut self, end: &End<'_>, took: Duration, waited: Duration) -> Box<Record> {
        let priced = self.cost.zip(self.price.take()).map(|(cost, price)| {
            let Price { whole_memory, counts, basis } = price;
            Priced { cost, parts: self.parts, whole_memory, counts, basis }
        });
        let mut record = Box::new(Record {
            at_ms: self.came_ms,
            took_ms: Some(took.as_millis() as u64),
            wait_ms: Some(waited.as_millis() as u64),
            endpoint: self.endpoint.as_str().into(),
            query: self.text.take().map_or_else(Text::default, Text::Shared),
            query_is_cut: self.text_is_cut,
            fingerprint: self.fingerprint,
            times: self.times,
            priced,
            verdict: end.verdict.into(),
            limit: end.limit.unwrap_or_default().into(),
            shadowed: std::mem::take(&mut self.shadow_ids).into(),
            outcome: end.outcome.into(),
            status: end.status,
            actual: end.actual.map(counted).unwrap_or_default(),
            ..Record::default()
        });
        // Nobody else has it by now, but for a snapshot under way.
        if let Some(owner) = self.owner.take().map(Arc::unwrap_or_clone) {
            let Owner { tenant, actor, class, backend, origin } = owner;
            record.tenant = Text::Shared(tenant.shared().clone());
            record.actor = Text::Shared(actor);
            record.class = Text::Shared(class);
            record.backend = Text::Shared(backend);
            record.user = origin.user.into();
            record.dashboard = origin.dashboard.into();
            record.panel = origin.panel.into();
            record.rule = origin.rule.into();
            record.user_agent = origin.user_agent.into();
            record.client = origin.client;
        }
        record
    }
}
