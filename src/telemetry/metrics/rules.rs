//! The rules against single queries.

use super::Metrics;

impl Metrics {
    /// A rule is in force: its hits are shown, from 0 on.
    pub fn rule_set(&self, rule: &str, action: &str) {
        self.rule_hits.with_label_values(&[rule, action]);
    }

    /// A rule met a query.
    pub fn rule_hit(&self, rule: &str, action: &str) {
        self.rule_hits.with_label_values(&[rule, action]).inc();
    }

    /// Queries that a rule met.
    pub fn rule_hits(&self, rule: &str, action: &str) -> u64 {
        self.rule_hits.with_label_values(&[rule, action]).get()
    }

    /// A rule is in force no more.
    pub fn forget_rule(&self, rule: &str, action: &str) {
        // One that was never set is not there to be removed.
        let _ = self.rule_hits.remove_label_values(&[rule, action]);
    }
}
