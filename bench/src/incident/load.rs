//! The load: light queries of well-behaved tenants, and the burst of heavy ones from another.

use super::HEAVY_TIMEOUT;
use crate::Result;
use crate::client::{Answer, Client, Request};
use std::io;
use std::time::{Duration, Instant};

/// All 20,000 series, by name: Weir refuses a selector of everything (`.+`) without a look.
pub(crate) const ALL: &str = r#"{__name__=~"c.*|g.*|h.*|m.*|r.*"}"#;
const LIGHT: [&str; 5] = [
    r#"http_requests_total{job="api",instance="10.0.0.1:9100"}"#,
    "sum by(job)(http_requests_total)",
    r#"sum(rate(c01_total{job="db"}[5m]))"#,
    r#"max(mem_usage{instance="10.0.0.3:9100"})"#,
    "topk(5,g01_level)",
];
const INTERVAL: u64 = 15;
/// The tenant that sends the burst.
pub(crate) const NOISY: &str = "noisy";

/// The light query of a connection and its turn, at times that move as a dashboard's do.
pub(crate) fn light(connection: u32, turn: u64, end: u64) -> Request {
    let query = LIGHT[(connection as usize + turn as usize) % LIGHT.len()];
    let time = (end - 60 - turn % 100 * INTERVAL).to_string();
    Request::get("/api/v1/query", &[("query", query), ("time", &time)], &format!("good-{}", connection % 4))
}

/// A burst, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Burst {
    /// Twenty range queries, every other of which returns all series as they are; the others sum them up.
    Mixed,
    /// Twenty range queries that sum up: a cap on concurrency can survive them as well.
    Sums,
    /// Two hundred range queries that sum up a quarter of the series: none is large, all together are.
    Many,
    /// Twenty subqueries over `vector(1)`, 10 million points each: they name no selector.
    Selectorless,
    /// Twenty `label_replace` in three levels, each of which repeats the string of the level below.
    Strings,
    /// Twenty range queries over a selector that `@` fixes in time, copied to each of 10,741 steps.
    At,
    /// Twenty clients that ask for a sum, close the connection after 3 s and ask again, for 20 s.
    Leaving,
    /// Forty clients that ask for a cheap answer of some megabytes and read none of it for 30 s.
    Slow,
}

const BURSTS: [(&str, Burst); 8] = [
    ("mixed", Burst::Mixed),
    ("sums", Burst::Sums),
    ("many", Burst::Many),
    ("selectorless", Burst::Selectorless),
    ("strings", Burst::Strings),
    ("at", Burst::At),
    ("leaving", Burst::Leaving),
    ("slow", Burst::Slow),
];

/// Time after which a client of [`Burst::Leaving`] closes its connection.
const LEAVES_AFTER: Duration = Duration::from_secs(3);
/// Time for which such a client asks again.
const LEAVES_FOR: Duration = Duration::from_secs(20);
/// Time for which a client of [`Burst::Slow`] reads nothing.
const STALLS_FOR: Duration = Duration::from_secs(30);

impl Burst {
    pub(crate) fn parse(word: &str) -> Result<Self> {
        let known = BURSTS.iter().find(|(name, _)| *name == word);
        known.map(|(_, burst)| *burst).ok_or_else(|| {
            let names: Vec<_> = BURSTS.iter().map(|(name, _)| *name).collect();
            format!("no such burst: {word}; there are {}", names.join(", ")).into()
        })
    }

    pub(crate) fn queries(self) -> impl Iterator<Item = Query> {
        let count = match self {
            Self::Many => 200,
            Self::Slow => 40,
            _ => 20,
        };
        (0..count).map(move |number| Query { burst: self, number })
    }
}

/// A heavy query: the burst that it belongs to, and its number there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    burst: Burst,
    number: usize,
}

/// How one heavy query ended.
#[derive(Debug)]
pub(crate) struct Heavy {
    pub(crate) raw: bool,
    /// Zero without an answer.
    pub(crate) status: u16,
    /// Which of Weir's limits refused it.
    pub(crate) limit: Option<String>,
    /// The body is an error in the shape of Prometheus' API.
    pub(crate) explained: bool,
    pub(crate) ms: f64,
}

impl Heavy {
    /// The end of a query that took this long.
    pub(crate) fn new(raw: bool, answer: io::Result<(Answer, Vec<u8>)>, took: Duration) -> Self {
        let ms = took.as_secs_f64() * 1e3;
        let Ok((answer, body)) = answer else {
            return Self { raw, status: 0, limit: None, explained: false, ms };
        };
        let limit = answer.header("weir-limit").map(|l| l.split(';').next().unwrap_or(l).to_owned());
        let explained = body.starts_with(br#"{"status":"error","errorType":""#);
        Self { raw, status: answer.status, limit, explained, ms }
    }

    pub(crate) fn answered(&self) -> bool {
        self.status == 200
    }

    /// Refused with a reason: by Weir, or by a cap on concurrency.
    pub(crate) fn refused(&self) -> bool {
        !self.answered() && (self.limit.is_some() || self.explained || self.status == 429)
    }
}

/// Refusals by limit, such as `10 weir-max-memory`.
pub(crate) fn refusals(heavy: &[Heavy]) -> String {
    let mut names: Vec<String> = heavy
        .iter()
        .filter(|h| h.refused())
        .map(|h| h.limit.clone().unwrap_or_else(|| format!("status {}", h.status)))
        .collect();
    names.sort_unstable();
    let groups = names.chunk_by(|a, b| a == b).map(|group| format!("{} {}", group.len(), group[0]));
    let text = groups.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "0".to_owned() } else { text }
}

impl Query {
    pub(crate) fn raw(self) -> bool {
        self.burst == Burst::Mixed && self.number % 2 == 1
    }

    fn text(self, end: u64) -> String {
        match self.burst {
            Burst::Mixed if self.raw() => ALL.to_owned(),
            Burst::Mixed | Burst::Sums | Burst::Leaving => format!("sum by(job)({ALL})"),
            Burst::Many => format!("sum by(job)({{__name__=~\"c{}.*_total\"}})", self.number % 3),
            Burst::Selectorless => "sum_over_time(vector(1)[100000s:10ms])".to_owned(),
            Burst::Strings => strings(),
            Burst::At => format!("sum(({{__name__=~\"c0[0-3].*\"}} @ {end}) or vector(time()))"),
            Burst::Slow => "{__name__=~\"c0[0-9]_total\"}".to_owned(),
        }
    }

    /// The request of a range query; `path` may be that of its estimate.
    pub(crate) fn request(self, path: &str, end: u64) -> Request {
        let (query, to) = (self.text(end), end.to_string());
        let (from, step) = match self.burst {
            // One step: the text alone makes it heavy.
            Burst::Selectorless | Burst::Strings => (to.clone(), "15"),
            Burst::At => ((end - 6 * 3600).to_string(), "2.011"),
            Burst::Slow => ((end - 1200).to_string(), "30"),
            _ => ((end - 6 * 3600).to_string(), "15"),
        };
        let parameters = [("query", query.as_str()), ("start", &from), ("end", &to), ("step", step)];
        Request::get(path, &parameters, NOISY)
    }

    /// Asks, and says how it ended; `None` where nobody waits for the answer.
    pub(crate) fn ask(self, (port, prefix): (u16, &str), end: u64) -> Option<Heavy> {
        let request = self.request("/api/v1/query_range", end).under(prefix);
        let begin = Instant::now();
        let mut client = Client::new(port, HEAVY_TIMEOUT);
        // Of one request, and of all.
        let (time, most) = match self.burst {
            Burst::Leaving => (LEAVES_AFTER, LEAVES_FOR),
            Burst::Slow => (STALLS_FOR, STALLS_FOR),
            _ => (Duration::ZERO, Duration::ZERO),
        };
        while begin.elapsed() < most && client.abandon(&request, time).is_ok() {}
        if most > Duration::ZERO {
            return None;
        }
        Some(ended(self.raw(), &mut client, &request))
    }
}

/// Queries asked in a row after the burst.
const AGAIN: usize = 8;
/// Hours of the sum that is asked then, the longest first.
const HOURS: [u64; 4] = [6, 3, 2, 1];

/// Asks for the longest sum that fits, eight times in a row; with Weir in front, `query_range_cost` finds its length.
pub(crate) fn again((port, prefix): (u16, &str), weighs: bool, end: u64) -> Vec<Heavy> {
    let request = |path: &str, hours: u64| {
        let query = format!("sum by(job)({ALL})");
        let (from, to) = ((end - hours * 3600).to_string(), end.to_string());
        let parameters = [("query", query.as_str()), ("start", &from), ("end", &to), ("step", "15")];
        Request::get(path, &parameters, NOISY).under(prefix)
    };
    let fits = |hours: u64| {
        let answer = Client::new(port, HEAVY_TIMEOUT).page(&request("/api/v1/query_range_cost", hours));
        answer.is_ok_and(|(_, body)| String::from_utf8_lossy(&body).contains(r#""admitted":true"#))
    };
    let hours = HOURS.into_iter().find(|hours| !weighs || fits(*hours)).unwrap_or(1);
    (0..AGAIN)
        .map(|_| ended(false, &mut Client::new(port, HEAVY_TIMEOUT), &request("/api/v1/query_range", hours)))
        .collect()
}

/// Asks, waits for the whole answer and says how it ended.
fn ended(raw: bool, client: &mut Client, request: &Request) -> Heavy {
    let begin = Instant::now();
    let answer = client.page(request);
    Heavy::new(raw, answer, begin.elapsed())
}

/// Each level puts the string of the one below it into its own some hundred times: 4.6 KB of text, gigabytes of labels.
fn strings() -> String {
    let repeat = "$1".repeat(1000);
    let first = format!(r#"label_replace(vector(1),"a","{}","","")"#, "x".repeat(500));
    let level = |inner: String| format!(r#"label_replace({inner},"a","{repeat}","a","(.*)")"#);
    level(level(first))
}
