//! What is asked: light queries of well-behaved tenants, and the burst of heavy ones from another.

use super::HEAVY_TIMEOUT;
use crate::Result;
use crate::client::{Client, Request};
use std::time::Instant;

/// All 20,000 series, by name: what matches everything (`.+`) Weir refuses without a look.
const ALL: &str = r#"{__name__=~"c.*|g.*|h.*|m.*|r.*"}"#;
const LIGHT: [&str; 5] = [
    r#"http_requests_total{job="api",instance="10.0.0.1:9100"}"#,
    "sum by(job)(http_requests_total)",
    r#"sum(rate(c01_total{job="db"}[5m]))"#,
    r#"max(mem_usage{instance="10.0.0.3:9100"})"#,
    "topk(5,g01_level)",
];
const INTERVAL: u64 = 15;
/// The tenant that sends the burst.
pub(super) const NOISY: &str = "noisy";

/// The light query of a connection and its turn, at times that move as a dashboard's do.
pub(super) fn light(connection: u32, turn: u64, end: u64) -> Request {
    let query = LIGHT[(connection as usize + turn as usize) % LIGHT.len()];
    let time = (end - 60 - turn % 100 * INTERVAL).to_string();
    Request::get("/api/v1/query", &[("query", query), ("time", &time)], &format!("good-{}", connection % 4))
}

/// A burst, by its kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Burst {
    /// Twenty queries, every other of which returns all series as they are; the others sum them up.
    Mixed,
    /// Twenty that sum up: what a cap on concurrency can survive as well.
    Sums,
    /// Two hundred that sum up a quarter of the series: none is large, all together are.
    Many,
}

impl Burst {
    pub(super) fn parse(word: &str) -> Result<Self> {
        match word {
            "mixed" => Ok(Self::Mixed),
            "sums" => Ok(Self::Sums),
            "many" => Ok(Self::Many),
            _ => Err(format!("no such burst: {word}; there are mixed, sums and many").into()),
        }
    }

    pub(super) fn queries(self) -> impl Iterator<Item = Query> {
        let count = match self {
            Self::Mixed | Self::Sums => 20,
            Self::Many => 200,
        };
        (0..count).map(move |n| Query {
            raw: matches!(self, Self::Mixed) && n % 2 == 1,
            part: matches!(self, Self::Many).then_some(n % 3),
        })
    }
}

/// A heavy query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    raw: bool,
    /// Of the counters, those with this digit first, and not all series.
    part: Option<usize>,
}

/// How one heavy query ended.
#[derive(Debug)]
pub(super) struct Heavy {
    pub(super) raw: bool,
    /// Zero without an answer.
    pub(super) status: u16,
    /// Which of Weir's limits refused it.
    pub(super) limit: Option<String>,
    /// The body is an error in the shape of Prometheus' API.
    pub(super) explained: bool,
    pub(super) ms: f64,
}

impl Heavy {
    pub(super) fn answered(&self) -> bool {
        self.status == 200
    }

    /// Refused with a reason: by Weir, or by a cap on concurrency.
    pub(super) fn refused(&self) -> bool {
        !self.answered() && (self.limit.is_some() || self.explained || self.status == 429)
    }
}

impl Query {
    pub(super) fn request(self, path: &str, end: u64) -> Request {
        let selector = self.part.map_or(ALL.to_owned(), |n| format!("{{__name__=~\"c{n}.*_total\"}}"));
        let query = if self.raw { selector } else { format!("sum by(job)({selector})") };
        let (from, to) = ((end - 6 * 3600).to_string(), end.to_string());
        let parameters = [("query", query.as_str()), ("start", &from), ("end", &to), ("step", "15")];
        Request::get(path, &parameters, NOISY)
    }

    pub(super) fn ask(self, port: u16, end: u64) -> Heavy {
        let request = self.request("/api/v1/query_range", end);
        let begin = Instant::now();
        let answer = Client::new(port, HEAVY_TIMEOUT).page(&request);
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        let Ok((answer, body)) = answer else {
            return Heavy { raw: self.raw, status: 0, limit: None, explained: false, ms };
        };
        let limit = answer.header("weir-limit").map(|l| l.split(';').next().unwrap_or(l).to_owned());
        let explained = body.starts_with(br#"{"status":"error","errorType":""#);
        Heavy { raw: self.raw, status: answer.status, limit, explained, ms }
    }
}
