//! One proxy's lease on the pool of one budget: a plain value, and a clock in milliseconds that only goes forward.

use crate::base::share::{Amount, Demand, SharedWindow};

/// How long a grant is good for, counted by the proxy from before it asked.
pub const TTL_MS: u64 = 5_000;
/// The store keeps a grant for as much longer: the most by which its clock may jump.
pub const SKEW_MS: u64 = 2_000;

/// A proxy's request for a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Renewal {
    /// Its place among the proxy's requests: the store refuses one that comes late.
    pub seq: u64,
    /// The highest epoch that the proxy has seen: a store with an older one lost its memory.
    pub epoch: u64,
    /// Its demand. Until the answer is there, the proxy holds no more than `held`.
    pub demand: Demand,
    /// The part of `held` that is within a lease which is good still: a store without memory grants no more.
    pub has: Amount,
    /// Heavy bytes, and all queries, that this proxy has in flight.
    pub load: Amount,
    /// The congestion window of the pool's backend, as this proxy has it; of other pools, nothing.
    pub window: SharedWindow,
    /// A digest of the configuration that the pool follows from.
    pub terms: u64,
}

/// The store's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The most that the proxy may hold beyond its fixed part. Where others wait for memory it may be less than the proxy
    /// holds.
    pub grant: Amount,
    /// Grows whenever the store lost its memory.
    pub epoch: u64,
    /// How long the grant is good for, in milliseconds from before the request.
    pub ttl_ms: u64,
    /// The store has just lost its memory, and grants only what is held.
    pub learning: bool,
    /// It lost it as something else than leases was found in their place, and was removed.
    pub unreadable: bool,
    /// Proxies that hold or want a part, or run anything there.
    pub members: u64,
    /// The load of all others.
    pub others: Amount,
    /// The congestion window of all proxies.
    pub window: SharedWindow,
    /// Other proxies whose configuration of this pool is another.
    pub differing: u64,
    /// Bytes that proxies held whose time to live is over: their last queries may still run.
    pub gone: u64,
}

/// A request that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Asked {
    seq: u64,
    at: u64,
}

/// The proxy's side of one budget's lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lease {
    epoch: u64,
    seq: u64,
    asked: Option<Asked>,
    grant: Amount,
    until: u64,
}

impl Lease {
    /// What may be held beyond the fixed part at `now`.
    pub const fn usable(&self, now: u64) -> Amount {
        if now < self.until { self.grant } else { Amount::NONE }
    }

    /// When the lease ends.
    pub const fn until(&self) -> u64 {
        self.until
    }

    /// A request for this demand. From now on the lease is no more than what is held, until an answer says otherwise.
    pub fn renew(&mut self, now: u64, demand: Demand, load: Amount, window: SharedWindow) -> Renewal {
        self.grant = self.usable(now).min(demand.held);
        // Beyond those of a lease on the same pool that was given back before.
        self.seq = now.max(self.seq + 1);
        self.asked = Some(Asked { seq: self.seq, at: now });
        Renewal { seq: self.seq, epoch: self.epoch, demand, has: self.grant, load, window, terms: 0 }
    }

    /// Takes the answer to the request with this number; says whether it counts. A late one, one to an earlier
    /// request and one of an older epoch change nothing.
    pub fn answered(&mut self, now: u64, seq: u64, answer: &Answer) -> bool {
        let Some(asked) = self.asked.filter(|asked| asked.seq == seq) else { return false };
        let until = asked.at + answer.ttl_ms;
        if answer.epoch < self.epoch || until <= now {
            return false;
        }
        self.asked = None;
        (self.grant, self.until, self.epoch) = (answer.grant, until, answer.epoch);
        true
    }
}
