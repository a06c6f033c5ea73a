//! The program before the database, and its configuration.

use super::load;
use super::mask;
use super::real::Database;
use super::target::Target;
use super::wrong;
use crate::process::{Scratch, Service, need, rss};
use crate::targets::{haproxy, vmauth, weir};
use crate::{Options, Result};

/// The program before the database: a word, or a word and its argument.
#[derive(Debug)]
pub(super) struct Guard {
    name: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Nothing,
    /// A cap on concurrent queries.
    Haproxy(u32),
    /// The same on the tenant that sends the burst, as if somebody had known.
    Lane(u32),
    Vmauth(u32),
    Weir(Limits),
}

/// Which of Weir's limits are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limits {
    All,
    /// One alone; all others are out of reach.
    PerQuery,
    InFlight,
    Budget,
    Queries,
    Rate,
    Pressure,
    /// Everything but the memory of the backend as a signal of its distress.
    AllButPressure,
    /// Everything but its pools.
    AllButPools,
    /// Everything but its places for queries, and M3's limits.
    AllButSaturation,
    /// Everything, but no estimate is found to be wrong, and no query is cancelled for that.
    AllButEstimateCheck,
    /// Everything, but the whole budget is open at once.
    AllButProof,
}

impl Limits {
    fn is_whole(self) -> bool {
        matches!(
            self,
            Self::All
                | Self::AllButPressure
                | Self::AllButPools
                | Self::AllButSaturation
                | Self::AllButEstimateCheck
                | Self::AllButProof
        )
    }

    /// Words in the names of metrics that Weir does not get to see.
    fn masked(self) -> &'static [&'static str] {
        match self {
            Self::AllButSaturation => &["queries_concurrent_max", "vm_concurrent_select", "query_limit"],
            Self::AllButEstimateCheck => &["go_memstats_next_gc_bytes", "prometheus_engine_queries"],
            _ => &[],
        }
    }
}

const ABLATION: [(&str, Limits); 12] = [
    ("per-query", Limits::PerQuery),
    ("in-flight", Limits::InFlight),
    ("budget", Limits::Budget),
    ("queries", Limits::Queries),
    ("rate", Limits::Rate),
    ("pressure", Limits::Pressure),
    ("all-but-pressure", Limits::AllButPressure),
    ("all-but-pools", Limits::AllButPools),
    ("all-but-saturation", Limits::AllButSaturation),
    ("all-but-estimate-check", Limits::AllButEstimateCheck),
    ("all-but-proof", Limits::AllButProof),
    ("all", Limits::All),
];
const SLOTS: u32 = 4;
/// No guard, and a node whose pools are not bounded either.
const UNBOUNDED: &str = "unbounded";

/// The guards of the words; `ablation` stands for every limit of Weir alone, and all together.
pub(super) fn list(words: &[String]) -> Result<Vec<Guard>> {
    let mut guards = Vec::new();
    for word in words {
        if word == "ablation" {
            for (name, limits) in ABLATION {
                guards.push(Guard { name: format!("weir:{name}"), what: What::Weir(limits) });
            }
        } else {
            guards.push(Guard::parse(word)?);
        }
    }
    Ok(guards)
}

impl Guard {
    fn parse(word: &str) -> Result<Self> {
        let (kind, particular) = word.split_once(':').map_or((word, None), |(k, p)| (k, Some(p)));
        let slots = || particular.map_or(Ok(SLOTS), str::parse);
        let limits = || match particular {
            None => Some(Limits::All),
            Some(name) => ABLATION.iter().find(|(known, _)| *known == name).map(|(_, limits)| *limits),
        };
        let what = match kind {
            "none" | UNBOUNDED => What::Nothing,
            "haproxy" => What::Haproxy(slots()?),
            "lane" => What::Lane(slots()?),
            "vmauth" => What::Vmauth(slots()?),
            "weir" => What::Weir(limits().ok_or_else(|| format!("no such limit: {word}"))?),
            _ => return Err(format!("no such guard: {word}").into()),
        };
        Ok(Self { name: word.to_owned(), what })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The database behind it: as named, but for the guard that takes the bound off the node's pools.
    pub(super) fn target(&self, named: Target) -> Target {
        match named {
            Target::Node(_) if self.name == UNBOUNDED => Target::Node("unbounded"),
            other => other,
        }
    }

    /// The program whose version is reported.
    pub(super) fn program(&self) -> Option<&'static str> {
        match self.what {
            What::Nothing => None,
            What::Haproxy(_) | What::Lane(_) => Some("haproxy"),
            What::Vmauth(_) => Some("vmauth"),
            What::Weir(_) => Some("weir"),
        }
    }

    /// It answers with the expected cost of a query.
    pub(super) fn weighs(&self) -> bool {
        matches!(self.what, What::Weir(_))
    }

    pub(super) fn need(&self) -> Result<()> {
        match self.what {
            What::Haproxy(_) | What::Lane(_) => need(&["haproxy"]),
            What::Vmauth(_) => need(&["vmauth"]),
            What::Nothing | What::Weir(_) => Ok(()),
        }
    }

    /// Bytes that all queries in flight may hold by its own rule, before a database that holds `idle` bytes.
    pub(super) fn budget(&self, options: &Options, target: Target, idle: u64) -> Option<u64> {
        match self.what {
            What::Weir(limits) if limits.is_whole() || limits == Limits::Budget => {
                Some(budget(options, target, idle))
            }
            _ => None,
        }
    }

    pub(super) fn start(
        &self,
        scratch: &Scratch,
        options: &Options,
        target: &Target,
        database: &Database,
    ) -> Result<Option<Service>> {
        Ok(match self.what {
            What::Nothing => None,
            What::Haproxy(slots) => Some(haproxy(scratch, database.main.port, slots, None)?),
            What::Lane(slots) => Some(haproxy(scratch, database.main.port, slots, Some(load::NOISY))?),
            What::Vmauth(slots) => Some(vmauth(scratch, database.main.port, Some(slots))?),
            What::Weir(limits) => {
                let limit = options.limit_mib << 20;
                let budget = budget(options, *target, rss(database.main.pid()).unwrap_or(0));
                let elsewhere = Some(database.metrics).filter(|port| *port != database.main.port);
                let metrics = match limits.masked() {
                    [] => elsewhere,
                    words => Some(mask::without(database.metrics, words)?),
                };
                // The liar is easiest before Prometheus: it lists series with a limit.
                let base = match options.wrong_estimate {
                    Some(factor) => {
                        let port = wrong::liar(database.main.port, factor)?;
                        format!("urls: [\"http://127.0.0.1:{port}\"]")
                    }
                    None => addresses(database),
                };
                Some(weir(scratch, options, &config(limits, target.kind(), &base, metrics, (limit, budget)))?)
            }
        })
    }
}

/// The share of queries in the process' limit. Go's collector lets as much garbage grow as is alive, so half, unless it
/// knows the limit; VictoriaMetrics has it collect sooner, and the node has none.
fn budget(options: &Options, target: Target, idle: u64) -> u64 {
    let limit = options.limit_mib << 20;
    match target {
        // An idle one holds most of it: half of the rest.
        Target::M3 => limit.saturating_sub(idle) / 2,
        Target::VictoriaMetrics | Target::Node(_) => limit / 3 * 2,
        _ if options.go_limit().is_some() => limit / 3 * 2,
        _ => limit / 2,
    }
}

/// The default, half of which are for light queries. Fewer keep light ones waiting where the database answers each of
/// them late: with three places and 200 ms for each, 15 a second pass.
const QUERIES: usize = 20;

/// A limit that nothing here reaches.
const OUT_OF_REACH: &str = "64GiB";

/// Where Weir finds the database.
fn addresses(database: &Database) -> String {
    format!("urls: [\"http://127.0.0.1:{}{}\"]", database.main.port, database.prefix)
}

fn config(
    limits: Limits,
    kind: &str,
    addresses: &str,
    metrics: Option<u16>,
    (limit, budget): (u64, u64),
) -> String {
    let all = limits.is_whole();
    let set = |one: Limits| all || limits == one;
    let mib = |bytes: u64| format!("{}MiB", bytes >> 20);
    // The most memory of one query; and of one tenant, so that no tenant alone fills the budget.
    let query = mib(budget / 5 * 4);
    // A wide limit that is not set leaves the narrow ones out of reach as well.
    let memory = if set(Limits::Budget) { mib(budget) } else { OUT_OF_REACH.to_owned() };
    let tenant = if set(Limits::InFlight) { query.clone() } else { memory.clone() };
    let (one, series) = if set(Limits::PerQuery) { (query, "50_000") } else { (tenant.clone(), "unlimited") };
    let queries = match limits {
        Limits::Queries => 4,
        _ if all => QUERIES,
        _ => 1000,
    };
    let rate = if set(Limits::Rate) { "50/s" } else { "10k/s" };
    // What is measured alone is measured from the first query on.
    // What the node lends is what is estimated of it, and it bounds that itself.
    let unproven =
        if all && limits != Limits::AllButProof && kind != "weir" { "" } else { ", unproven: 100%" };
    let without = if limits == Limits::AllButPools { ", get_on_empty: unlimited" } else { "" };
    let pressure = if (all && limits != Limits::AllButPressure) || limits == Limits::Pressure {
        let elsewhere =
            metrics.map_or_else(String::new, |port| format!(", metrics_urls: [\"http://127.0.0.1:{port}\"]"));
        format!("pressure: {{memory_limit: {}{without}{elsewhere}}}", mib(limit))
    } else {
        String::new()
    };
    format!(
        "backends:
- name: main
  kind: {kind}
  {addresses}
  budget: {{memory: {memory}, queries: {queries}{unproven}}}
  {pressure}
classes: []
limits:
  default:
    per_query: {{memory: {one}, series: {series}, timeout: 150s, samples: 500M, points: 500M, response: unlimited}}
    in_flight: {{memory: {tenant}, queries: {queries}}}
    rate: {{queries: {rate}}}
    queue: {{wait: 115s}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_limit_alone_leaves_the_others_out_of_reach() {
        let text = config(Limits::InFlight, "prometheus", "urls: []", None, (2 << 30, 1 << 30));
        for part in [
            "budget: {memory: 64GiB, queries: 1000, unproven: 100%}",
            "in_flight: {memory: 819MiB",
            "rate: {queries: 10k/s}",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("memory_limit"));
        assert!(
            config(Limits::All, "weir", "urls: []", None, (2 << 30, 1 << 30))
                .contains("memory_limit: 2048MiB")
        );
    }

    #[test]
    fn words_are_read() {
        let names = |words: &[&str]| list(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["none", "haproxy:2", "ablation"]).map_or(0, |g| g.len()), 2 + ABLATION.len());
        assert!(
            names(&["haproxy:x"]).is_err() && names(&["weir:nothing"]).is_err() && names(&["x"]).is_err()
        );
    }
}
