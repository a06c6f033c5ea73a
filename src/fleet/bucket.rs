//! The store's side of one shared rate: `tokens.lua` line by line, as a value that a test can step and copy.

use std::collections::BTreeMap;

use super::{
    pool::Pool,
    tokens::{Draw, Drawn},
};

/// The rate, and the times of the protocol, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) count: u64,
    pub(super) per: u64,
    pub(super) ttl: u64,
    pub(super) skew: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Member {
    stock: u64,
    seq: u64,
    ends: u64,
}

/// The tokens of one rate.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    epoch: u64,
    level: f64,
    at: u64,
    members: BTreeMap<u64, Member>,
}

impl Bucket {
    /// A bucket in whose place something else was found: tokens that nobody knows of end within this time.
    pub(super) fn unreadable(now: u64, seats: &Pool, terms: &Terms) -> Self {
        Self { epoch: seats.memory().0, at: now + terms.ttl + terms.skew, ..Self::default() }
    }

    /// Gives a proxy tokens; `None` for a request that came late. `seats` is the pool that was renewed before.
    pub(super) fn draw(
        &mut self,
        now: u64,
        seats: &Pool,
        terms: &Terms,
        id: u64,
        request: &Draw,
    ) -> Option<Drawn> {
        let (count, end) = (terms.count as f64, now + terms.ttl + terms.skew);
        let (epoch, learning) = seats.memory();
        let learning = learning.min(end);
        if self.epoch != epoch {
            *self = Self { epoch, level: 0.0, at: learning, members: BTreeMap::new() };
        }
        self.members.values_mut().for_each(|member| member.ends = member.ends.min(end));
        if self.members.get(&id).is_some_and(|mine| request.seq <= mine.seq) {
            return None;
        }
        self.at = self.at.min(end);
        let out =
            |members: &BTreeMap<u64, Member>| members.values().map(|member| member.stock).sum::<u64>() as f64;
        let filled = self.level + count * now.saturating_sub(self.at) as f64 / terms.per as f64;
        self.level = filled.min(count - out(&self.members));
        self.at = self.at.max(now);
        self.members.retain(|_, member| now < member.ends);
        self.members.remove(&id);
        let mut stock = request.demand.stock;
        self.level = self.level.min(count - out(&self.members) - stock as f64).max(0.0);
        let whole = self.level.floor() as u64;
        let mut grant = request.demand.wants.saturating_sub(stock).min(whole);
        let lacks = request.demand.claim.saturating_sub(stock);
        if lacks > grant && lacks <= whole {
            grant = lacks;
        }
        self.level -= grant as f64;
        stock += grant;
        if stock > 0 {
            self.members.insert(id, Member { stock, seq: request.seq, ends: end });
        }
        Some(Drawn { grant, ttl_ms: terms.ttl, unreadable: false })
    }
}
