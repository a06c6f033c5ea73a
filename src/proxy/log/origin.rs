//! Where a query comes from, as Grafana and other clients say in headers. It names; it decides nothing.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header::USER_AGENT};
use serde::Serialize;

/// Bytes of a header that are kept.
const KEPT_BYTES_MAX: usize = 128;

const USER: HeaderName = HeaderName::from_static("x-grafana-user");
const DASHBOARD: HeaderName = HeaderName::from_static("x-dashboard-uid");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const PANEL: HeaderName = HeaderName::from_static("x-panel-id");
/// Grafana's alert rules.
const RULE: HeaderName = HeaderName::from_static("x-rule-uid");

/// Digits of a trace id in `traceparent` (W3C Trace Context).
const TRACE_ID_DIGITS: usize = 32;

/// Where a query comes from, as its client says; `None` is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The user of Grafana.
    pub user: Option<Box<str>>,
    /// The dashboard's UID.
    pub dashboard: Option<Box<str>>,
    /// The panel's id.
    pub panel: Option<Box<str>>,
    /// The alert rule's UID.
    pub rule: Option<Box<str>>,
    /// The client's program, as it says.
    pub user_agent: Option<Box<str>>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Its trace (W3C Trace Context), as the client named it or Weir began it.
    pub trace_id: Option<Box<str>>,
}

impl Origin {
    /// Its dashboard, or else its user, in words.
    pub fn name(&self) -> Option<String> {
        let dashboard = self.dashboard.as_ref().map(|dashboard| format!("dashboard {dashboard}"));
        dashboard.or_else(|| self.user.as_ref().map(|user| format!("user {user}")))
    }

    /// Reads the headers of a trusted peer; those of any other are ignored.
    pub(in crate::proxy) fn of(headers: &HeaderMap, client: IpAddr, trusted: bool) -> Self {
        let text = |name| {
            let value = headers.get(name)?.as_bytes();
            // Bytes that are no text are shown as such rather than hide the rest from block rules.
            let kept = String::from_utf8_lossy(value.get(..KEPT_BYTES_MAX).unwrap_or(value));
            (!kept.is_empty()).then(|| kept.into())
        };
        let read = |name| if trusted { text(name) } else { None };
        let traceparent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let trace_id = traceparent.and_then(|text| text.trim().split('-').nth(1));
        Self {
            user: read(USER),
            dashboard: read(DASHBOARD),
            panel: read(PANEL),
            rule: read(RULE),
            // It names a program, and no person.
            user_agent: text(USER_AGENT),
            client: Some(client.to_canonical()),
            trace_id: trace_id.filter(|id| id.len() == TRACE_ID_DIGITS).map(Into::into),
        }
    }
}
