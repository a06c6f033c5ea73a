//! Tokens of a rate that this proxy fetched ahead from the bucket that all proxies share, by the tenant's recent use.

use std::time::Duration;

use tokio::time::Instant;

use super::tumbling_window::TumblingWindow;
use crate::base::share::TokenDemand;

/// Time between two requests for tokens that cannot wait for the next round.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(100);
/// Seconds of use that are fetched ahead: one until the next round, and one for a store that is slow.
const AHEAD: u64 = 2;

/// Tokens fetched ahead.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefetched {
    tokens: u64,
    until: Option<Instant>,
    /// Tokens used lately, those of the fixed part included.
    used: TumblingWindow<u64>,
    /// The most that a query lacked lately.
    lacked: TumblingWindow<u64>,
    asked: Option<Instant>,
}

impl Prefetched {
    /// Tokens that may be spent at `now`.
    pub(super) fn usable(&self, now: Instant) -> u64 {
        if self.until.is_some_and(|until| now < until) { self.tokens } else { 0 }
    }

    /// Takes tokens that came; all are good until then.
    pub(super) fn add(&mut self, tokens: u64, now: Instant, until: Instant) {
        self.tokens = self.usable(now).saturating_add(tokens);
        self.until = Some(until);
    }

    /// A query used `all` tokens, and these of them.
    pub(super) fn spend(&mut self, tokens: u64, all: u64, now: Instant) {
        self.tokens = self.usable(now).saturating_sub(tokens);
        let used = self.used.at(now);
        *used = used.saturating_add(all);
        if tokens > 0 {
            self.lacked = TumblingWindow::default();
        }
    }

    /// A query needed this many prefetched tokens, and there were fewer.
    pub(super) fn lacked(&mut self, tokens: u64, now: Instant) {
        let most = self.lacked.at(now);
        *most = tokens.max(*most);
    }

    /// The demand for tokens, if there is one; `is_low` says that the fixed part is nearly used.
    pub(super) fn demand(&mut self, is_low: bool, now: Instant) -> Option<TokenDemand> {
        let most = |both: [u64; 2]| both.into_iter().max().unwrap_or(0);
        let (used, claim) = (most(self.used.both(now)), most(self.lacked.both(now)));
        let stock = self.usable(now);
        if claim == 0 && (used == 0 || (stock == 0 && !is_low)) {
            return None;
        }
        let wants = if is_low { used.saturating_mul(AHEAD) } else { 0 };
        Some(TokenDemand { stock, wants, claim })
    }

    /// Whether the store is to be asked before the next round.
    pub(super) fn is_due(&mut self, is_low: bool, now: Instant) -> bool {
        let is_short = |demand: TokenDemand| demand.claim > demand.stock || demand.stock < demand.wants / 2;
        let asked_lately = self.asked.is_some_and(|at| now.saturating_duration_since(at) < ASK_EVERY);
        let is_due = !asked_lately && self.demand(is_low, now).is_some_and(is_short);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }
}
