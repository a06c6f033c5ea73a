//! Texts that are dear to read, in a loop beside a victim that asks `up` a hundred times a second: the victim's
//! latency, and the computing time of each text.

use crate::client::{Client, Request};
use crate::pace::{Pace, Sample, answered, failed};
use crate::process::{Scratch, Service, need};
use crate::report::{Bar, Table, finish, quantile};
use crate::targets::{SMALL, upstream, weir};
use crate::{Options, Result};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clients that send one text, each a tenant of its own.
const ATTACKERS: usize = 4;
/// Times that a text is sent alone; the fastest is its computing time, without the other work of the machine.
const ALONE: usize = 20;
const TIMEOUT: Duration = Duration::from_secs(30);
const VICTIM: Pace = Pace { port: 0, rate: 100.0, connections: 4, timeout: TIMEOUT };

/// A text, and its effect.
struct Seen {
    name: &'static str,
    bytes: usize,
    status: u16,
    /// Milliseconds of the fastest and of the median answer, alone.
    alone: [f64; 2],
    /// Requests a second of all attackers.
    rate: f64,
    victim: Vec<Sample>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    need(&["nginx"])?;
    let scratch = Scratch::new()?;
    let upstream = upstream(&scratch)?;
    let before = |kind: &str| -> Result<(Scratch, Service)> {
        let scratch = Scratch::new()?;
        let config = format!(
            "backends: [{{name: main, kind: {kind}, urls: [\"http://127.0.0.1:{}\"]}}]\n\
             limits: {{tenants: {{victim: {{rate: {{queries: 1k/s}}}}}}}}\n",
            upstream.port
        );
        let weir = weir(&scratch, options, &config)?;
        Ok((scratch, weir))
    };
    let (prometheus, victoria) = (before("prometheus")?, before("victoriametrics")?);
    std::thread::sleep(Duration::from_secs(1));
    let seconds = Duration::from_secs(u64::from(options.seconds.unwrap_or(3)));
    let mut seen = vec![measure("nothing", prometheus.1.port, None, seconds)?];
    for (name, path, text) in texts() {
        let (_, weir) = if name.starts_with("WITH") { &victoria } else { &prometheus };
        seen.push(measure(name, weir.port, Some((path, &text)), seconds)?);
    }
    report(options, &seen)
}

fn measure(name: &'static str, port: u16, text: Option<(&str, &str)>, time: Duration) -> Result<Seen> {
    let request = |tenant: &str| text.map(|(path, text)| Request::form(path, &form(path, text), tenant));
    let (mut times, mut status) = (Vec::new(), 0);
    let mut client = Client::new(port, TIMEOUT);
    for n in 0..ALONE {
        let Some(request) = request(&format!("alone-{n}")) else { break };
        let began = Instant::now();
        status = client.get(&request)?.status;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let victim = std::thread::scope(|scope| {
        for n in 0..ATTACKERS {
            let (stop, sent) = (&stop, &sent);
            let Some(request) = request(&format!("attacker-{n}")) else { continue };
            scope.spawn(move || {
                let mut client = Client::new(port, TIMEOUT);
                while !stop.load(Ordering::Relaxed) && client.get(&request).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let stop = &stop;
        let pace = Pace { port, ..VICTIM };
        let load =
            scope.spawn(move || pace.run(Instant::now(), stop, |_, _| Request::get(SMALL, &[], "victim")));
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap_or_default()
    });
    let rate = sent.load(Ordering::Relaxed) as f64 / time.as_secs_f64();
    let bytes = text.map_or(0, |(_, text)| text.len());
    Ok(Seen { name, bytes, status, alone: [quantile(&times, 0.0), quantile(&times, 0.5)], rate, victim })
}

/// The parameters of a text.
fn form<'a>(path: &str, text: &'a str) -> Vec<(&'static str, &'a str)> {
    if path.ends_with("/series") {
        return text.split('\n').map(|selector| ("match[]", selector)).collect();
    }
    let times = [("start", "1700000000"), ("end", "1700021600"), ("step", "15")];
    [("query", text)].into_iter().chain(times.into_iter().filter(|_| path.contains("range"))).collect()
}

/// Name, path and text.
fn texts() -> Vec<(&'static str, &'static str, String)> {
    const QUERY: &str = "/api/v1/query";
    const RANGE: &str = "/api/v1/query_range";
    let joined = |count: usize, by: &str, one: &dyn Fn(usize) -> String| {
        (0..count).map(one).collect::<Vec<_>>().join(by)
    };
    let nested = |open: &str, depth: usize, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    let templates = joined(24, ", ", &|n| format!("a{}=a{n}+a{n}", n + 1));
    vec![
        ("x0+x1+…+x4998", RANGE, joined(4_999, "+", &|n| format!("x{n}"))),
        ("the same, explained", "/api/v1/query_range_cost", joined(4_999, "+", &|n| format!("x{n}"))),
        ("40 selectors, none known", RANGE, joined(40, "+", &|n| format!("x{n}{{a=\"{n}\"}}"))),
        ("up or up or …, 4,000 times", QUERY, joined(4_000, " or ", &|_| "up".to_owned())),
        ("1+1+…, 1 MB", QUERY, joined(500_000, "+", &|_| "1".to_owned())),
        ("4,000 brackets", QUERY, nested("(", 4_000, "1", ")")),
        ("4,000 brackets, formatted", "/api/v1/format_query", nested("(", 4_000, "1", ")")),
        (
            "90 brackets, formatted, 200 times",
            "/api/v1/format_query",
            joined(200, "+", &|_| nested("(", 90, "up", ")")),
        ),
        ("100,000 signs", QUERY, format!("{}1", "-".repeat(100_000))),
        ("90 subqueries", RANGE, nested("sum_over_time(", 90, "up", "[1h:1s])")),
        (
            "label_replace in label_replace, 60 KB",
            QUERY,
            nested("label_replace(", 60, "up", &format!(",\"a\",\"{}\",\"a\",\"(.*)\")", "$1".repeat(500))),
        ),
        (
            "label_join of 10,000 labels",
            QUERY,
            format!("label_join(up, \"a\", \"\", {})", joined(10_000, ",", &|n| format!("\"l{n}\""))),
        ),
        ("10,000 matchers", QUERY, format!("up{{{}}}", joined(10_000, ",", &|n| format!("l{n}!=\"{n}\"")))),
        (
            "2,000 patterns",
            QUERY,
            format!("up{{{}}}", joined(1_999, ",", &|n| format!("l{n}=~\"(a{n}.*|b[c-z]+)+\""))),
        ),
        (
            "one pattern of 500 KB",
            QUERY,
            format!("up{{a=~\"{}\"}}", joined(60_000, "|", &|n| format!("v{n}.*"))),
        ),
        (
            "classes and counts in patterns",
            QUERY,
            format!("up{{a=~\"{}\"}}", "(?i)[\\\\p{L}]{900}".repeat(200)),
        ),
        (
            "groups by 10,000 labels",
            QUERY,
            format!("sum by ({}) (up)", joined(10_000, ",", &|n| format!("l{n}"))),
        ),
        (
            "a string of 1 MB",
            QUERY,
            format!("label_replace(up, \"a\", \"{}\", \"b\", \"(.*)\")", "x".repeat(1_000_000)),
        ),
        ("a comment of 1 MB", QUERY, format!("up # {}", "x".repeat(1_000_000))),
        ("2,000 selectors listed", "/api/v1/series", joined(2_000, "\n", &|n| format!("x{n}{{a=~\"b.*\"}}"))),
        ("durations that compute", RANGE, format!("rate(up[{}])", joined(3_000, "+", &|_| "1m".to_owned()))),
        ("WITH that doubles", QUERY, format!("WITH (a0=up, {templates}) a24")),
        (
            "WITH of 2,000 names",
            QUERY,
            format!("WITH (a0=up, {}) a1999", joined(1_999, ", ", &|n| format!("a{}=a{n}", n + 1))),
        ),
    ]
}

fn report(options: &Options, seen: &[Seen]) -> Result<()> {
    let mut table = Table::new(&[
        "beside",
        "KB",
        "status",
        "fastest, ms",
        "median, ms",
        "sent a second",
        "victim p50, ms",
        "p99",
        "most",
        "failed",
    ]);
    for one in seen {
        let victim = answered(&one.victim);
        let ms = |value: f64| format!("{value:.1}");
        table.row([
            one.name.to_owned(),
            (one.bytes / 1_000).to_string(),
            one.status.to_string(),
            ms(one.alone[0]),
            ms(one.alone[1]),
            format!("{:.0}", one.rate),
            ms(quantile(&victim, 0.5)),
            ms(quantile(&victim, 0.99)),
            ms(quantile(&victim, 1.0)),
            failed(&one.victim).to_string(),
        ]);
    }
    let worst = |of: &dyn Fn(&Seen) -> f64| seen.iter().skip(1).map(of).fold(0.0, f64::max);
    let bars = [
        Bar::at_most(
            "the victim's p99 beside any text, ms",
            worst(&|s| quantile(&answered(&s.victim), 0.99)),
            20.0,
        ),
        Bar::at_most("the longest text, alone at its fastest, ms", worst(&|s| s.alone[0]), 5.0),
        Bar::at_most("queries of the victim that failed", worst(&|s| failed(&s.victim) as f64), 0.0),
    ];
    let to_json = |one: &Seen| -> Value {
        json!({"text": one.name, "bytes": one.bytes, "status": one.status, "alone_ms": one.alone, "rate": one.rate,
            "victim_p99_ms": quantile(&answered(&one.victim), 0.99)})
    };
    let result = json!({"texts": seen.iter().map(to_json).collect::<Vec<_>>()});
    finish("hostile", options, &["weir"], &[&table], &bars, &result)
}
