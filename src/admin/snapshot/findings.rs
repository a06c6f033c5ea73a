//! Findings in sentences, the worst first: the part of the page that is read at 3 a.m.

use std::time::Duration;

use serde::Serialize;

use super::{Backend, Holder, Quota, Share, Snapshot};
use crate::{
    base::{duration, units},
    limit::LimitName,
    proxy::{FleetStatus, Refused},
};

/// A budget used to this share, in percent, is nearly full.
const NEARLY_FULL: u64 = 90;
/// Percent of the memory in use from which its holder is named.
const LARGE_PART: u64 = 30;
/// A wait as long as this is worth a sentence.
const LONG_WAIT_MS: u64 = 5_000;

/// A refusal is recent for this long.
const RECENT_MS: i64 = 60_000;
/// Refusals for want of room, by the ids of their limits.
const CROWDED: [LimitName; 3] = [LimitName::QueueTimeout, LimitName::QueueFull, LimitName::Cancelled];

/// Tenants over a quota that are named.
const QUOTAS_TOLD: usize = 3;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Queries fail for it.
    Critical,
    /// Queries wait for it, or soon will.
    Warning,
}

impl Severity {
    /// Its name on the page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// Something that an operator should know first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Its sentence.
    pub text: String,
}

impl Snapshot {
    /// The findings, the worst first; empty when all is well.
    pub fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut say = |severity, text| found.push(Finding { severity, text });
        if self.stopping {
            say(Severity::Critical, "Weir is shutting down: new queries are refused".to_owned());
        }
        if let Some((at, _)) = &self.config.mistake {
            let since = span(self.now_ms.saturating_sub(*at).max(0) as u64);
            let text =
                format!("the configuration file has had mistakes for {since}; the settings before it stay");
            say(Severity::Warning, text);
        }
        for (key, ended) in &self.ended_revocation_lists {
            let since = span(self.now_ms.saturating_sub(*ended).max(0) as u64);
            let text = format!(
                "a revocation list in {key}.client_crl_file ended {since} ago: it is still obeyed, certificates revoked since are \
                 accepted, and Weir will not start with it; fetch the new one"
            );
            say(Severity::Warning, text);
        }
        if let Some(text) = self.turned_away() {
            say(Severity::Warning, text);
        }
        if let Some(holder) = self.holders.first().filter(|holder| self.is_drowned_by(holder)) {
            say(Severity::Warning, holder.finding());
        }
        for quota in self.quotas.iter().filter(|quota| quota.left == 0).take(QUOTAS_TOLD) {
            say(Severity::Warning, quota.sentence(self.now_ms));
        }
        if let Some(fleet) = &self.fleet {
            fleet_findings(fleet, &mut say);
        }
        for backend in &self.backends {
            backend.findings(&mut say);
        }
        if let Some(of) = self.connections.of.filter(|of| self.connections.used >= *of) {
            let of = units::count(of);
            let room =
                "the longest unused makes room for a new one, and where none is unused requests get 503";
            say(Severity::Warning, format!("all {of} client connections are open: {room}"));
        }
        found.sort_by_key(|finding| finding.severity);
        found
    }
}

impl Snapshot {
    /// Refusals of the last minute for want of room.
    fn recent_refusals(&self) -> impl Iterator<Item = &Refused> {
        self.refusals.iter().filter(|refused| {
            let is_recent = self.now_ms.saturating_sub(refused.at_ms) < RECENT_MS;
            is_recent && !refused.shadow && CROWDED.iter().any(|limit| limit.id() == refused.reason)
        })
    }

    /// A sentence about the refusals of the last minute, of which the newest is quoted.
    fn turned_away(&self) -> Option<String> {
        let newest = self.recent_refusals().next()?;
        let mut whose: Vec<String> = self.recent_refusals().map(from).collect();
        whose.sort_unstable();
        whose.dedup();
        let others = match whose.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        Some(format!(
            "queries were refused for want of room in the last minute, of {}{others}: {}",
            from(newest),
            newest.message
        ))
    }

    /// Whether others wait for memory that it holds, or were refused for want of it.
    fn is_drowned_by(&self, holder: &Holder) -> bool {
        let backend = self.backends.iter().find(|backend| backend.name == holder.backend);
        let is_refusing = self.recent_refusals().next().is_some();
        let wants = |backend: &Backend| {
            is_refusing
                || backend.longest_wait_ms >= LONG_WAIT_MS
                || backend.memory.percent() >= Some(NEARLY_FULL)
        };
        holder.percent >= LARGE_PART && backend.is_some_and(wants)
    }
}

/// Where refused queries come from, for people.
fn from(refused: &Refused) -> String {
    refused.origin.name().unwrap_or_else(|| format!("tenant {}", refused.tenant))
}

impl Quota {
    fn sentence(&self, now_ms: i64) -> String {
        let (max, left) = (self.share.of.unwrap_or(0), self.ends_ms.saturating_sub(now_ms.max(0) as u64));
        let (used, max, what) = (units::count(self.share.used), units::count(max), self.kind);
        format!(
            "tenant {} has used {used} of its quota of {max} {what}: its queries run in the slow lane, or get 429, for another {}",
            self.tenant,
            span(left)
        )
    }
}

fn fleet_findings(fleet: &FleetStatus, say: &mut impl FnMut(Severity, String)) {
    if let Some(error) = &fleet.error {
        let since = fleet
            .away_since
            .map_or_else(String::new, |at| format!(" for {}", span(at.elapsed().as_millis() as u64)));
        let text = format!(
            "the store of leases does not answer{since} ({error}): this proxy keeps to its fixed part of every budget. Light \
             queries run as ever, heavy ones that do not fit that part wait and are then refused with 503, and orders and rules \
             do not reach the other proxies"
        );
        say(Severity::Warning, text);
    }
    if fleet.learning {
        let text = "the store of leases has lost its memory: for some seconds it grants only what is held";
        say(Severity::Warning, text.to_owned());
    }
    if let Some(topic) = fleet.unreadable {
        let text = format!(
            "an entry among the fleet's {topic} cannot be read: another version of Weir, or somebody else, wrote it to the store"
        );
        say(Severity::Warning, text);
    }
    for (backend, proxies) in &fleet.differing {
        let text = format!(
            "{proxies} other proxies of the fleet have another budget for backend {backend}, or another fleet.replicas_max: \
             together they may use the larger one"
        );
        say(Severity::Warning, text);
    }
    for (backend, bytes) in &fleet.gone {
        let text = format!(
            "proxies that stopped renewing hold {} of the budget of backend {backend}: nobody else has it until the longest query that \
             they may have begun is over (the longest per_query.timeout, and 10 s)",
            units::bytes(*bytes)
        );
        say(Severity::Warning, text);
    }
    let FleetStatus { proxies, replicas_max, .. } = fleet;
    if fleet.crowded {
        let text = format!(
            "{proxies} proxies run, and fleet.replicas_max is {replicas_max}: together they may pass every budget"
        );
        say(Severity::Critical, text);
    }
}

impl Backend {
    fn findings(&self, say: &mut impl FnMut(Severity, String)) {
        let name = &self.name;
        let down = self.replicas.iter().filter(|replica| !replica.healthy || replica.ejected).count();
        let all = self.replicas.len();
        for note in &self.notes {
            say(Severity::Warning, format!("backend {name} {note}"));
        }
        let whys = self
            .replicas
            .iter()
            .filter_map(|replica| Some(format!("{} {}", replica.url, replica.last_error.as_ref()?)));
        let whys = whys.collect::<Vec<_>>().join("; ");
        let why = if whys.is_empty() { whys } else { format!(": {whys}") };
        let do_not = if down == 1 { "does not" } else { "do not" };
        if down == all && all > 0 {
            say(Severity::Critical, format!("backend {name} is down: none of its replicas answers{why}"));
        } else if down > 0 {
            say(
                Severity::Warning,
                format!("{down} of {all} replicas of backend {name} {do_not} answer{why}"),
            );
        }
        if let Some(Share { used, of: Some(limit) }) = self.at_rest {
            let (held, of, goal) = (units::bytes(used), units::bytes(limit), units::bytes(limit / 4 * 3));
            let text = format!(
                "backend {name} holds {held} of {of} with no heavy query running: where it is a Go process, set \
                 GOMEMLIMIT to {goal}, or raise its limit"
            );
            say(Severity::Warning, text);
        }
        let because = self.worst_signal().map_or_else(String::new, |(signal, pressure)| {
            format!(": {signal} says {:.0} % of its limit", pressure * 100.0)
        });
        match self.budget_percent {
            0 if down < all => {
                say(Severity::Critical, format!("nothing new runs on backend {name}{because}"));
            }
            percent @ 1..100 => {
                say(
                    Severity::Warning,
                    format!("the budget of backend {name} is cut to {percent} %{because}"),
                );
            }
            _ => {}
        }
        if !self.silent.is_empty() {
            let silent = self.silent.join(", ");
            say(Severity::Warning, format!("backend {name} no longer reports its {silent}"));
        }
        for (what, share) in [("memory", self.memory), ("slots", self.queries)] {
            if let Some(percent) = share.percent().filter(|p| *p >= NEARLY_FULL && self.budget_percent > 0) {
                let is = if what == "memory" { "is" } else { "are" };
                say(Severity::Warning, format!("{percent} % of the {what} of backend {name} {is} in use"));
            }
        }
        if self.longest_wait_ms >= LONG_WAIT_MS {
            let (n, wait) = (units::count(self.waiting), span(self.longest_wait_ms));
            let who = if self.waiting == 1 { "query waits" } else { "queries wait" };
            say(Severity::Warning, format!("{n} {who} for backend {name}, the longest for {wait}"));
        }
    }

    /// The signal that says the most, if any says something.
    pub fn worst_signal(&self) -> Option<(&'static str, f64)> {
        self.pressure
            .iter()
            .copied()
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, pressure)| *pressure > 0.0)
    }
}

impl super::Share {
    /// How much of it is used, in percent; `None` where there is no limit.
    pub fn percent(self) -> Option<u64> {
        let of = self.of?;
        let percent = (u128::from(self.used) * 100).checked_div(u128::from(of));
        // Of nothing, everything is used.
        Some(percent.map_or(100, |percent| percent.try_into().unwrap_or(u64::MAX)))
    }
}

/// A span of time in few characters: `350ms`, `12.3s`, `5m12s`, `3h5m`.
pub(in crate::admin) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => duration::text(Duration::from_secs(ms / 1_000)),
        _ => duration::text(Duration::from_secs(ms / 60_000 * 60)),
    }
}
