//! The store's side of the leases of one pool: `lease.lua` line by line, as a value that a test can step and copy.

use std::collections::BTreeMap;

use super::lease::{Answer, Renewal};
use crate::base::share::{Amount, SharedWindow};

/// The times of the protocol in milliseconds, and the size of the pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) pool: Amount,
    pub(super) ttl: u64,
    pub(super) skew: u64,
    /// The longest time that a query runs.
    pub(super) hold: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Member {
    grant: Amount,
    wants: Amount,
    claim: u64,
    since: u64,
    weight: u64,
    seq: u64,
    ends: u64,
    hold: u64,
    load: Amount,
    terms: u64,
}

/// The leases of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pool {
    epoch: u64,
    /// The run of the store's process that wrote here last.
    run: u64,
    /// The end of the learning phase.
    learning: u64,
    window: SharedWindow,
    /// Until then a renewal keeps the window.
    fresh: u64,
    members: BTreeMap<u64, Member>,
}

impl Pool {
    /// A pool that begins now, beside one that knows whether the store lost its memory before.
    pub(super) fn beside(seats: &Self) -> Self {
        Self { members: BTreeMap::new(), ..seats.clone() }
    }

    /// The part that counts as this proxy's.
    pub(super) fn leased(&self, id: u64) -> Amount {
        self.members.get(&id).map_or(Amount::NONE, |member| member.grant)
    }

    /// The epoch, and the end of the learning phase.
    pub(super) const fn memory(&self) -> (u64, u64) {
        (self.epoch, self.learning)
    }

    /// Renews the lease of a proxy; `None` for a request that came late. `run` names the run of the store.
    pub(super) fn renew(
        &mut self,
        (now, run): (u64, u64),
        terms: &Terms,
        id: u64,
        request: &Renewal,
    ) -> Option<Answer> {
        let Renewal { seq, epoch, demand, has, load, window: theirs, terms: configured } = *request;
        let end = now + terms.ttl + terms.skew;
        self.members.values_mut().for_each(|member| member.ends = member.ends.min(end));
        self.members.retain(|_, member| now < member.ends + member.hold);
        let mine = self.members.get(&id).copied();
        if mine.is_some_and(|mine| seq <= mine.seq) {
            return None;
        }
        self.learning = self.learning.min(end);
        self.fresh = self.fresh.min(end);
        if self.epoch == 0 || self.run != run || self.epoch < epoch {
            (self.epoch, self.learning, self.fresh) = (self.epoch.max(epoch) + 1, end, 0);
        }
        self.run = run;
        if now >= self.fresh || theirs.cuts > self.window.cuts {
            self.window = SharedWindow { grown: 0, ..theirs };
        } else if theirs.cuts == self.window.cuts {
            self.window.bytes = theirs.bytes.max(self.window.bytes + theirs.grown);
        }
        self.fresh = end;
        let others = self.members.iter().filter(|(other, _)| **other != id);
        let taken = others.clone().fold(Amount::NONE, |sum, (_, member)| sum.plus(member.grant));
        let gone = others.clone().filter(|(_, member)| now >= member.ends);
        let gone = gone.map(|(_, member)| member.grant.bytes).sum();
        let live = others.filter(|(_, member)| now < member.ends);
        let mut members: BTreeMap<_, _> = live.map(|(id, member)| (*id, *member)).collect();
        let others = members.values().fold(Amount::NONE, |sum, member| sum.plus(member.load));
        let differing = members.values().filter(|member| member.terms != configured).count() as u64;
        let (waited, claim) = demand.claim;
        let since = now.saturating_sub(waited);
        let (wants, weight, hold) = (demand.wants, demand.weight, terms.hold);
        let mut mine = Member {
            grant: demand.held,
            wants,
            claim,
            since,
            weight,
            seq,
            ends: end,
            hold,
            load,
            terms: configured,
        };
        members.insert(id, mine);
        let learning = now < self.learning;
        let due = if learning { has } else { target(terms.pool, &members, id) };
        let grant = due.min(terms.pool.less(taken));
        // What is held counts, also where it was given away since, to a proxy that was cut off while the store lost its memory.
        mine.grant = grant.max(demand.held);
        let idle = [mine.grant, wants, load].iter().all(|of| *of == Amount::NONE);
        if idle {
            self.members.remove(&id);
        } else {
            self.members.insert(id, mine);
        }
        Some(Answer {
            grant,
            epoch: self.epoch,
            ttl_ms: terms.ttl,
            learning,
            unreadable: false,
            members: (members.len() - usize::from(idle)) as u64,
            others,
            window: self.window,
            differing,
            gone,
        })
    }
}

/// The part of the pool that one member should have.
fn target(pool: Amount, members: &BTreeMap<u64, Member>, id: u64) -> Amount {
    let of = |part: &BTreeMap<u64, u64>, id: u64| part.get(&id).copied().unwrap_or(0);
    let parts = divide(pool.bytes, members, |member| member.wants.bytes);
    let queries = divide(pool.queries, members, |member| member.wants.queries);
    let (mut rest, mut unfair, mut useful) = (members.clone(), Vec::new(), 0);
    for (id, member) in &mut rest {
        let part = of(&parts, *id);
        member.wants.bytes = part;
        if member.claim > part {
            member.wants.bytes = part.min(member.grant.bytes);
            unfair.push((member.since, *id, member.claim.min(pool.bytes)));
        }
        useful += member.wants.bytes;
    }
    unfair.sort_unstable();
    let (mut left, mut chosen) = (pool.bytes, Vec::new());
    for (_, id, need) in unfair {
        let more = rest.get(&id).map_or(0, |member| need.saturating_sub(member.wants.bytes));
        if !chosen.is_empty() && useful + more > pool.bytes {
            continue;
        }
        useful += more;
        left -= need;
        rest.remove(&id);
        chosen.push((id, need));
    }
    let mut bytes = divide(left, &rest, |member| member.wants.bytes);
    bytes.extend(chosen);
    Amount { bytes: of(&bytes, id), queries: of(&queries, id) }
}

/// Weighted max–min fairness, in the arithmetic of Lua's numbers.
fn divide(whole: u64, members: &BTreeMap<u64, Member>, wants: fn(&Member) -> u64) -> BTreeMap<u64, u64> {
    let (mut given, mut rest) = (BTreeMap::new(), whole);
    let mut waiting: Vec<_> = members.iter().collect();
    let mut total: u64 = members.values().map(|member| member.weight).sum();
    loop {
        let (level, among, before) = (rest as f64, total as f64, waiting.len());
        waiting.retain(|(id, member)| {
            let fits = wants(member) as f64 * among <= level * member.weight as f64;
            if fits {
                given.insert(**id, wants(member));
                rest -= wants(member);
                total -= member.weight;
            }
            !fits
        });
        if waiting.len() == before {
            break;
        }
    }
    let (mut sum, mut before) = (0, 0);
    for (id, member) in waiting {
        sum += member.weight;
        let upto = (rest as f64 * sum as f64 / total as f64).floor() as u64;
        given.insert(*id, upto - before);
        before = upto;
    }
    given
}
