//! The actual cost of a query, from the head of the backend's answer.

use http::HeaderMap;

use super::Kind;

/// The cost of a query as its backend counted it; `None` where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// Series fetched, summed over the selectors.
    pub series: Option<u64>,
    /// Samples processed.
    pub samples: Option<u64>,
    /// Bytes fetched from storage.
    pub bytes: Option<u64>,
    /// A limit of the backend cut the answer: the numbers are less than the query's cost.
    pub limited: bool,
}

/// Reads the cost out of the head of an answer.
pub fn from_headers(headers: &HeaderMap, kind: Kind) -> Feedback {
    match kind {
        Kind::M3 => m3(headers),
        Kind::Mimir | Kind::Cortex | Kind::Thanos => server_timing(headers),
        Kind::Prometheus | Kind::VictoriaMetrics | Kind::Weir => Feedback::default(),
    }
}

fn m3(headers: &HeaderMap) -> Feedback {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let number = |name| text(name)?.trim().parse().ok();
    Feedback {
        series: number("m3-series-count"),
        samples: None,
        bytes: number("m3-fetched-bytes-estimate"),
        limited: text("m3-results-limited").is_some_and(|t| !t.trim().is_empty()),
    }
}

/// `Server-Timing: bytes_processed;val=…, samples_processed;val=…`.
fn server_timing(headers: &HeaderMap) -> Feedback {
    let mut feedback = Feedback::default();
    let values = headers.get_all("server-timing").iter().filter_map(|v| v.to_str().ok());
    for entry in values.flat_map(|v| v.split(',')) {
        let mut parts = entry.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let value = parts.find_map(|p| p.strip_prefix("val=")).and_then(|v| v.trim_matches('"').parse().ok());
        match name {
            "bytes_processed" => feedback.bytes = value,
            "samples_processed" => feedback.samples = value,
            _ => {}
        }
    }
    feedback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_tells_its_cost_in_its_own_way() {
        let read = |kind, pairs: &[(&'static str, &str)]| {
            let headers = pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
            from_headers(&headers, kind)
        };
        let m3 = [
            ("m3-series-count", "120"),
            ("m3-fetched-bytes-estimate", "4096"),
            ("m3-results-limited", "max_fetch_series_limit_applied"),
        ];
        let expected = Feedback { series: Some(120), samples: None, bytes: Some(4096), limited: true };
        assert_eq!(read(Kind::M3, &m3), expected);
        assert_eq!(read(Kind::Prometheus, &m3), Feedback::default());
        assert_eq!(
            read(Kind::M3, &[("m3-series-count", "many"), ("m3-results-limited", "")]),
            Feedback::default()
        );
        let timing = "querier_wall_time;dur=12.5, bytes_processed;val=77, samples_processed;val=9";
        let expected = Feedback { samples: Some(9), bytes: Some(77), ..Feedback::default() };
        assert_eq!(read(Kind::Mimir, &[("server-timing", timing)]), expected);
    }
}
