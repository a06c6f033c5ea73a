//! Fields that several logs have.

use std::net::IpAddr;

use crate::{
    base::{TimeDialect, duration, time::EvalTimes},
    journal::Text,
};

/// A time as the query API takes it, in milliseconds.
pub(super) fn time(text: &str) -> Option<i64> {
    TimeDialect::Prometheus.time(text, 0)
}

/// A duration as Go prints it, in whole milliseconds.
pub(super) fn go_ms(text: &str) -> Option<u64> {
    duration::parse_fractional(text, None).map(|ms| ms.round() as u64)
}

/// The endpoint in the path of a request.
pub(super) fn endpoint(path: &str) -> Text {
    const KNOWN: [&str; 6] = ["query_range", "query_exemplars", "query", "series", "labels", "read"];
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    KNOWN.into_iter().find(|known| *known == last).unwrap_or_default().into()
}

/// The times of a query: a range where there is a step, else an instant.
pub(super) fn times(start: i64, end: i64, step_ms: u64) -> EvalTimes {
    if step_ms == 0 { EvalTimes::instant(end) } else { EvalTimes { start, end, step: step_ms } }
}

/// The address in `1.2.3.4:5678`, `[::1]:5678` or alone.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let socket = text.parse::<std::net::SocketAddr>().map(|socket| socket.ip());
    socket.or_else(|_| text.parse()).ok()
}
