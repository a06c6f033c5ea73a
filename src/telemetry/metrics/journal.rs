//! The journal of queries.

use super::{Metrics, signed};

impl Metrics {
    /// The journal's records since the start by result, and the bytes of its files now.
    pub fn journal(&self, records: [(&'static str, u64); 3], bytes: u64) {
        for (result, total) in records {
            let counter = self.journal_records.with_label_values(&[result]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.journal_bytes.set(signed(bytes));
    }
}
