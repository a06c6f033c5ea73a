//! Who asks, and what they may see.

use prometheus::{IntCounter, IntCounterVec};

use super::Metrics;
use crate::base::TenantId;

/// Everything that may name a tenant.
const SOURCES: [&str; 7] =
    ["default", "header", "basic_auth", "bearer", "jwt", "client_certificate", "operator"];

/// The counters of each source, known and refused: looked up once, since every request counts there.
pub(super) type Identified = Vec<(&'static str, [IntCounter; 2])>;

pub(super) fn identified(counters: &IntCounterVec) -> Identified {
    let of = |source: &'static str| {
        (source, ["known", "refused"].map(|outcome| counters.with_label_values(&[source, outcome])))
    };
    SOURCES.map(of).into()
}

impl Metrics {
    /// Somebody was identified by a source, or not.
    pub fn identified(&self, source: &'static str, is_known: bool) {
        if let Some((_, [known, refused])) = self.identified.iter().find(|(name, _)| *name == source) {
            if is_known { known } else { refused }.inc();
        }
    }

    /// The keys of an issuer of JWTs were fetched, or could not be.
    pub fn keys_fetched(&self, fetched: bool) {
        self.jwks_fetches.with_label_values(&[if fetched { "fetched" } else { "failed" }]).inc();
    }

    /// A request of a tenant that is confined to labels was `confined`, or `refused` since it could not be.
    pub fn label_enforcement(&self, tenant: &TenantId, outcome: &'static str) {
        self.label_enforcement.with_label_values(&[self.tenants.label(tenant), outcome]).inc();
    }
}
