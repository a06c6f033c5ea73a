//! Expressions of dashboards and rule files, asked of a database directly and through Weir: the same answer or not.

use crate::Result;
use crate::client::{Client, Request};
use crate::expressions::{Document, Intervals, files};
use crate::report::Table;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);
/// The graph for which variables are filled in: an hour, a point a minute.
const HOUR_MS: u64 = 3_600_000;
const POINTS: u64 = 60;
const STEP_MS: u64 = 60_000;
const SCRAPE_MS: u64 = 15_000;
/// Differences and refusals that are printed whole.
const SHOWN_MAX: usize = 50;
/// How often a database is asked again whether it answers differently by itself, as it may add floats in any order.
const ASKED_AGAIN: usize = 20;

/// The command line.
#[derive(Debug)]
struct Plan {
    direct: u16,
    weir: u16,
    /// Seconds since the epoch at which a range query ends.
    end: u64,
    files: Vec<PathBuf>,
}

/// How two answers to one request compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Identical,
    /// The same series in another order, as engines with parallel workers answer.
    OtherOrder,
    /// Another answer, but the database's own answers differ as well.
    Varies,
    /// Both are errors, with the same status and `errorType`.
    SameError,
    /// Weir refused with a limit.
    Refused,
    Different,
}

const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Identical, "identical"),
    (Outcome::OtherOrder, "another order"),
    (Outcome::Varies, "varies by itself"),
    (Outcome::SameError, "the same error"),
    (Outcome::Refused, "refused"),
    (Outcome::Different, "different"),
];

/// Compares, and prints a table of counts, each difference and each refusal. Fails if one differs.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<()> {
    let plan = Plan::parse(words)?;
    let intervals = Intervals::of(HOUR_MS, POINTS, STEP_MS, SCRAPE_MS);
    let mut expressions = BTreeSet::new();
    for file in files(&plan.files)? {
        // A file that is no dashboard and holds no rules has none.
        let Some(document) = Document::read(&file)? else { continue };
        let filled = document.expressions.iter().map(|one| document.variables.fill(&one.text, &intervals));
        expressions.extend(filled);
    }
    let mut clients = [Client::new(plan.direct, TIMEOUT), Client::new(plan.weir, TIMEOUT)];
    for client in &mut clients {
        client.page(&plan.request("1", false))?;
    }
    let mut table = Table::new(&["request", "expressions", "outcome", "count"]);
    let (mut different, mut refused) = (Vec::new(), Vec::new());
    for range in [false, true] {
        let mut counts = [0_usize; OUTCOMES.len()];
        for expression in &expressions {
            let (outcome, why) = one(&mut clients, &plan.request(expression, range));
            if let Some(at) = OUTCOMES.iter().position(|(known, _)| *known == outcome) {
                counts[at] += 1;
            }
            match outcome {
                Outcome::Different => different.push(format!("{expression}\n    {why}")),
                Outcome::Refused => refused.push(format!("{expression}\n    {why}")),
                _ => {}
            }
        }
        let kind = if range { "query_range" } else { "query" };
        for ((_, name), count) in OUTCOMES.iter().zip(counts) {
            let cells =
                [kind.to_owned(), expressions.len().to_string(), (*name).to_owned(), count.to_string()];
            table.row(cells);
        }
    }
    println!("{table}");
    for (word, list) in [("different", &different), ("refused", &refused)] {
        list.iter().take(SHOWN_MAX).for_each(|text| println!("{word}: {text}"));
    }
    if different.is_empty() { Ok(()) } else { Err(format!("{} answers differ", different.len()).into()) }
}

impl Plan {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (mut direct, mut weir, mut end, mut files) = (None, None, None, Vec::new());
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--direct" => direct = Some(loopback_port(&value()?)?),
                "--weir" => weir = Some(loopback_port(&value()?)?),
                "--end" => end = Some(value()?.parse()?),
                _ if word.starts_with("--") => return Err(format!("unknown option {word}").into()),
                _ => files.push(word.into()),
            }
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let missing = || "compare wants --direct URL --weir URL FILES…";
        if files.is_empty() {
            return Err(missing().into());
        }
        let end = end.unwrap_or(now / 60 * 60 - 120);
        Ok(Self { direct: direct.ok_or_else(missing)?, weir: weir.ok_or_else(missing)?, end, files })
    }

    fn request(&self, expression: &str, range: bool) -> Request {
        let (start, end) = ((self.end - 3600).to_string(), self.end.to_string());
        if range {
            let parameters = [("query", expression), ("start", &start), ("end", &end), ("step", "60")];
            Request::get("/api/v1/query_range", &parameters, "bench")
        } else {
            Request::get("/api/v1/query", &[("query", expression), ("time", &end)], "bench")
        }
    }
}

/// The port of `http://127.0.0.1:PORT`; load goes to the loopback only.
fn loopback_port(url: &str) -> Result<u16> {
    let rest = url.strip_prefix("http://127.0.0.1:").or_else(|| url.strip_prefix("http://localhost:"));
    let port = rest.and_then(|rest| rest.trim_end_matches('/').parse().ok());
    port.ok_or_else(|| format!("{url}: only http://127.0.0.1:PORT is asked").into())
}

fn one(clients: &mut [Client; 2], request: &Request) -> (Outcome, String) {
    let [direct, weir] = clients;
    match (direct.page(request), weir.page(request)) {
        (Ok((one, one_body)), Ok((other, other_body))) => {
            if let Some(limit) = other.header("weir-limit") {
                return (Outcome::Refused, limit.to_owned());
            }
            let mut outcome = compared((one.status, &one_body), (other.status, &other_body));
            if outcome == Outcome::Different && varies(direct, request, (one.status, &one_body)) {
                outcome = Outcome::Varies;
            }
            (
                outcome,
                format!("{} {} / {} {}", one.status, short(&one_body), other.status, short(&other_body)),
            )
        }
        (one, other) => (Outcome::Different, format!("{:?} / {:?}", one.err(), other.err())),
    }
}

/// Whether the database answers the same request differently by itself.
fn varies(direct: &mut Client, request: &Request, first: (u16, &[u8])) -> bool {
    let again = |_| {
        direct
            .page(request)
            .is_ok_and(|(head, body)| compared(first, (head.status, &body)) == Outcome::Different)
    };
    (0..ASKED_AGAIN).any(again)
}

fn compared(direct: (u16, &[u8]), weir: (u16, &[u8])) -> Outcome {
    if direct == weir {
        return Outcome::Identical;
    }
    let parsed = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap_or_default();
    let (one, other) = (parsed(direct.1), parsed(weir.1));
    if direct.0 >= 400 && direct.0 == weir.0 && one["errorType"] == other["errorType"] {
        return Outcome::SameError;
    }
    let same_series = direct.0 == weir.0 && sorted(&one) == sorted(&other);
    if same_series && direct.0 < 400 { Outcome::OtherOrder } else { Outcome::Different }
}

/// The series of a result, sorted by their text.
fn sorted(answer: &Value) -> Option<Vec<String>> {
    let mut series: Vec<_> = answer["data"]["result"].as_array()?.iter().map(Value::to_string).collect();
    series.sort_unstable();
    Some(series)
}

fn short(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_by_what_they_say() {
        let body =
            |order: &str| format!(r#"{{"status":"success","data":{{"result":[{order}]}}}}"#).into_bytes();
        let (one, other, third) = (body("1,2"), body("2,1"), body("1"));
        assert_eq!(compared((200, &one), (200, &one)), Outcome::Identical);
        assert_eq!(compared((200, &one), (200, &other)), Outcome::OtherOrder);
        assert_eq!(compared((200, &one), (200, &third)), Outcome::Different);
        let error = |text: &str| format!(r#"{{"status":"error","errorType":"execution","error":"{text}"}}"#);
        let (a, b) = (error("a"), error("b"));
        assert_eq!(compared((422, a.as_bytes()), (422, b.as_bytes())), Outcome::SameError);
        assert_eq!(compared((422, a.as_bytes()), (400, a.as_bytes())), Outcome::Different);
    }
}
