//! The tenant whose data a backend reads: Weir alone names it. The value of a client in a header that a database takes
//! for a tenant's name never goes on.

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::backend::Kind;

/// Headers in which some database, or a program before it, looks for a tenant: Mimir, Cortex and Loki; Thanos;
/// VictoriaMetrics' cluster.
const TENANT_HEADERS: [&str; 4] = ["x-scope-orgid", "thanos-tenant", "accountid", "projectid"];

/// Credentials of a client, Grafana's tokens among them.
pub(super) const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "x-id-token", "x-grafana-id"];

/// Whether Weir sets this header itself, or takes it out: it names a tenant, or is a credential.
pub fn is_of_weir(name: &HeaderName) -> bool {
    TENANT_HEADERS.contains(&name.as_str()) || CREDENTIALS.contains(&name.as_str())
}

/// How the tenant of a request is named to a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenancy {
    /// The header that names the tenant; `None` where all tenants see the same data.
    pub header: Option<HeaderName>,
    /// Whether the client's own credentials go on.
    pub forward_credentials: bool,
    /// Headers of untrusted clients that go on beside those that the database is known to read.
    pub forward_headers: Vec<HeaderName>,
}

impl Tenancy {
    /// The usual tenant header of a kind of database.
    pub fn of(kind: Kind) -> Self {
        let header = match kind {
            Kind::Mimir | Kind::Cortex | Kind::Weir => Some("x-scope-orgid"),
            Kind::Thanos => Some("thanos-tenant"),
            Kind::Prometheus | Kind::VictoriaMetrics | Kind::M3 => None,
        };
        Self { header: header.map(HeaderName::from_static), ..Self::default() }
    }

    /// Takes tenants and credentials out of a client's headers, and puts in the tenant.
    pub fn apply(&self, headers: &mut HeaderMap, tenant: &str) {
        // Most requests have one of them, or none: a look at each name costs less than a lookup for each of these. Servers of
        // the kind of CGI take an underscore for a dash.
        let is_own = |name: &str| {
            let is_listed = |list: &[&str]| {
                if name.contains('_') {
                    list.contains(&&*name.replace('_', "-"))
                } else {
                    list.contains(&name)
                }
            };
            is_listed(&TENANT_HEADERS) || (!self.forward_credentials && is_listed(&CREDENTIALS))
        };
        let named: SmallVec<[HeaderName; 2]> =
            headers.keys().filter(|name| is_own(name.as_str())).cloned().collect();
        for name in &named {
            headers.remove(name);
        }
        self.name(headers, tenant);
    }

    /// Whether the database reads the data of several tenants at once when their names are joined with `|`. Mimir and
    /// Cortex do, whatever is in front of them: behind a backend of another kind the header shows them.
    pub fn federates(&self, kind: Kind) -> bool {
        match kind {
            Kind::Mimir | Kind::Cortex => true,
            // To the node it is the name of a source.
            Kind::Weir => false,
            Kind::Prometheus | Kind::Thanos | Kind::VictoriaMetrics | Kind::M3 => {
                self.header.as_ref().is_some_and(|name| name == "x-scope-orgid")
            }
        }
    }

    /// The tenant alone: for requests that Weir makes itself for a client's sake.
    pub fn headers(&self, tenant: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.name(&mut headers, tenant);
        headers
    }

    fn name(&self, headers: &mut HeaderMap, tenant: &str) {
        if let Some(name) = &self.header
            && let Ok(value) = HeaderValue::from_str(tenant)
        {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_where_mimir_or_cortex_read_them() {
        let scope_orgid =
            |kind| Tenancy { header: Some(HeaderName::from_static(TENANT_HEADERS[0])), ..Tenancy::of(kind) };
        for kind in Kind::ALL {
            let own = matches!(kind, Kind::Mimir | Kind::Cortex);
            assert_eq!(Tenancy::of(kind).federates(kind), own, "{kind:?}");
            assert_eq!(scope_orgid(kind).federates(kind), kind != Kind::Weir, "{kind:?}");
        }
    }

    #[test]
    fn weir_alone_names_the_tenant_and_keeps_credentials() {
        let client = [
            ("x-scope-orgid", "victim"),
            ("x_scope_orgid", "victim"),
            ("thanos-tenant", "victim"),
            ("accountid", "1"),
            ("projectid", "2"),
            ("authorization", "Bearer s3cret"),
            ("cookie", "grafana_session=1"),
            ("x-grafana-id", "token"),
            ("traceparent", "00-1-2-01"),
        ];
        let sent = |tenancy: &Tenancy| {
            let mut headers =
                client.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect();
            tenancy.apply(&mut headers, "own");
            let mut left: Vec<String> =
                headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
            left.sort();
            left.join(" ")
        };
        for (kind, want) in [
            (Kind::Mimir, "traceparent=00-1-2-01 x-scope-orgid=own"),
            (Kind::Cortex, "traceparent=00-1-2-01 x-scope-orgid=own"),
            (Kind::Weir, "traceparent=00-1-2-01 x-scope-orgid=own"),
            (Kind::Thanos, "thanos-tenant=own traceparent=00-1-2-01"),
            (Kind::Prometheus, "traceparent=00-1-2-01"),
            (Kind::VictoriaMetrics, "traceparent=00-1-2-01"),
            (Kind::M3, "traceparent=00-1-2-01"),
        ] {
            assert_eq!(sent(&Tenancy::of(kind)), want, "{kind:?}");
        }
        let header = Some(HeaderName::from_static("x-team"));
        let configured = Tenancy { header, forward_credentials: true, ..Tenancy::default() };
        assert_eq!(
            sent(&configured),
            "authorization=Bearer s3cret cookie=grafana_session=1 traceparent=00-1-2-01 x-grafana-id=token x-team=own"
        );
    }
}
