//! The bound on everything lent.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crate::base::sync::{AtomicU64, Condvar, Mutex, Ordering};

/// The mode of a pool at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At most `bytes` are lent at any time; at the bound a query waits up to `wait`, then fails.
    Bounded {
        /// Bytes over everything lent.
        bytes: u64,
        /// How long to wait for others to give back.
        wait: Duration,
    },
    /// As m3dbnode: every request is allocated.
    Unbounded,
}

impl Default for Mode {
    fn default() -> Self {
        Self::Bounded { bytes: 1 << 30, wait: Duration::from_millis(250) }
    }
}

/// Nothing can be lent under the cap; the query should fail with 503 and may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolExhausted {
    /// Bytes asked for.
    pub asked: u64,
    /// Bytes lent at that moment.
    pub lent: u64,
    /// The cap in bytes.
    pub cap: u64,
}

impl fmt::Display for PoolExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the node's memory pool is exhausted: {} bytes asked for, {} of {} bytes (7/8 of pool.memory) are lent to \
             queries in flight; ask again, or ask for fewer series, a shorter range or a longer step",
            self.asked, self.lent, self.cap
        )
    }
}

impl std::error::Error for PoolExhausted {}

impl PoolExhausted {
    /// The error when nobody else holds anything: asking again does not help.
    pub fn by_itself(&self) -> String {
        format!(
            "the query needs more memory than the node lends: {} bytes asked for beyond the {} that it holds, of {} bytes \
             (7/8 of pool.memory); ask for fewer series, a shorter range or a longer step",
            self.asked, self.lent, self.cap
        )
    }
}

/// The other queries that may hold memory, numbered in the order in which they began.
pub trait Others: fmt::Debug + Send + Sync {
    /// The number of the latest.
    fn latest(&self) -> u64;

    /// Whether one with this number or a lower one may still hold memory.
    fn remain(&self, number: u64) -> bool;
}

/// A claim on memory.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    gone: &'a dyn Fn() -> bool,
    first: Option<&'a dyn Others>,
}

impl<'a> Claim<'a> {
    /// Of a query that waits until it is `gone`: until nobody wants its answer any more.
    pub fn until(gone: &'a dyn Fn() -> bool) -> Self {
        Self { gone, first: None }
    }

    /// The same for the query that goes first, if it is that one: others leave memory to it (see [`Cap::give_way`]), and it
    /// waits as long as any of them that began before the wait holds some.
    #[must_use]
    pub fn first(self, others: Option<&'a dyn Others>) -> Self {
        Self { first: others, ..self }
    }
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("first", &self.first).finish_non_exhaustive()
    }
}

/// The part of the memory that all others leave free for the query that goes first, so that it waits once for each such part
/// that it takes, and not for each buffer.
const LEFT: u64 = 4;

/// How often a query that waits at the bound asks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(10);

/// Buffers that lie free in a pool, to be freed when the memory is needed elsewhere.
pub(super) trait Reclaim: Send + Sync {
    /// Frees buffers until `bytes` are freed or none is left, and gives their bytes back to the cap; the bytes freed.
    fn reclaim(&self, bytes: u64) -> u64;
}

/// Bounds the bytes of all pools that share it: those lent, and those that lie free to be lent again. Free buffers are
/// given up first.
pub struct Cap {
    mode: Mode,
    /// Lent, or free in a pool.
    held: AtomicU64,
    lent: AtomicU64,
    peak: AtomicU64,
    waiting: AtomicU64,
    /// Queries that go first.
    first: AtomicU64,
    /// Bytes for which they wait.
    wanted: AtomicU64,
    exhausted: AtomicU64,
    gate: Mutex<()>,
    returned: Condvar,
    shelves: Mutex<Vec<Weak<dyn Reclaim>>>,
}

impl Cap {
    /// Nothing lent yet.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            held: AtomicU64::new(0),
            lent: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            first: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            exhausted: AtomicU64::new(0),
            gate: Mutex::new(()),
            returned: Condvar::new(),
            shelves: Mutex::new(Vec::new()),
        }
    }

    /// How it bounds.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Bytes lent now.
    pub fn lent(&self) -> u64 {
        self.lent.load(Ordering::SeqCst)
    }

    /// Bytes lent now, and bytes of the buffers that lie free.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    /// The most bytes that were ever lent at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// How often something was refused.
    pub fn exhausted(&self) -> u64 {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Queries that wait at the bound.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Asks a pool for its free buffers from now on.
    pub(super) fn reclaim_from(&self, shelf: Weak<dyn Reclaim>) {
        if let Ok(mut shelves) = self.shelves.lock() {
            shelves.retain(|known| known.strong_count() > 0);
            shelves.push(shelf);
        }
    }

    /// Has all others leave a quarter of the memory free, or more if more is waited for, until the returned guard is dropped,
    /// for claims that go [first](Claim::first). Without it a query would wait for ever while new ones come with the same
    /// need.
    pub fn give_way(self: &Arc<Self>) -> YieldGuard {
        self.first.fetch_add(1, Ordering::SeqCst);
        YieldGuard(Arc::clone(self))
    }

    /// Whether a claim leaves the reserved part free.
    pub(super) fn may_lend(&self, bytes: u64, claim: Claim<'_>) -> bool {
        let Mode::Bounded { bytes: bound, .. } = self.mode else { return true };
        let left = (bound / LEFT).max(self.wanted.load(Ordering::SeqCst));
        claim.first.is_some()
            || self.first.load(Ordering::SeqCst) == 0
            || self.lent().saturating_add(bytes) <= bound.saturating_sub(left)
    }

    /// Counts `bytes` that are to lie free, unless they pass the bound.
    pub(super) fn try_keep(&self, bytes: u64) -> bool {
        let bound = match self.mode {
            Mode::Bounded { bytes, .. } => bytes,
            Mode::Unbounded => u64::MAX,
        };
        let mut held = self.held.load(Ordering::SeqCst);
        loop {
            let Some(next) = held.checked_add(bytes).filter(|next| *next <= bound) else { return false };
            match self.held.compare_exchange(held, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => held = now,
            }
        }
    }

    /// Takes `bytes` off that lay free.
    pub(super) fn freed(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Lends `bytes` that lay free.
    pub(super) fn lend_kept(&self, bytes: u64) {
        let lent = self.lent.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes);
        self.peak.fetch_max(lent, Ordering::Relaxed);
    }

    /// Takes back bytes lent; their buffer is still held. This comes before a buffer can be lent again, so that none
    /// counts twice.
    pub(super) fn take_back(&self, bytes: u64) {
        self.lent.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Of `bytes` that were taken back, `kept` now lie free, and the rest is freed.
    pub(super) fn settle(&self, bytes: u64, kept: u64) {
        self.held.fetch_sub(bytes.saturating_sub(kept), Ordering::SeqCst);
        self.wake();
    }

    /// Lends `bytes`, or says that it cannot. Never waits.
    pub(super) fn try_charge(&self, bytes: u64) -> bool {
        while !self.try_keep(bytes) {
            let Mode::Bounded { bytes: bound, .. } = self.mode else { return false };
            let short = self.held().saturating_add(bytes).saturating_sub(bound);
            // Others may have given back meanwhile.
            if short > 0 && self.reclaim(short) == 0 {
                return false;
            }
        }
        self.lend_kept(bytes);
        true
    }

    /// Frees free buffers of the pools, up to `bytes`.
    fn reclaim(&self, bytes: u64) -> u64 {
        let Ok(shelves) = self.shelves.lock() else { return 0 };
        let mut freed = 0;
        for shelf in shelves.iter().filter_map(Weak::upgrade) {
            if freed >= bytes {
                break;
            }
            freed += shelf.reclaim(bytes - freed);
        }
        freed
    }

    /// Lends `bytes`, waiting for others as long as the mode says, and as long as the query is not gone.
    pub(super) fn charge(&self, bytes: u64, claim: Claim<'_>) -> Result<(), PoolExhausted> {
        if self.may_lend(bytes, claim) && self.try_charge(bytes) {
            return Ok(());
        }
        let Mode::Bounded { bytes: cap, wait } = self.mode else { return Err(self.refuse(bytes, u64::MAX)) };
        if bytes > cap || wait.is_zero() {
            return Err(self.refuse(bytes, cap));
        }
        // Waiters announce themselves before they look at `lent`; `release` lowers `lent` before it looks at the
        // waiters. So one of the two sees the other, and no wake-up is lost.
        let wanted = if claim.first.is_some() { bytes } else { 0 };
        self.wanted.fetch_add(wanted, Ordering::SeqCst);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let got = self.wait_for(bytes, wait, claim);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.wanted.fetch_sub(wanted, Ordering::SeqCst);
        if got { Ok(()) } else { Err(self.refuse(bytes, cap)) }
    }

    /// Lends `bytes` or refuses them; never waits.
    pub(super) fn charge_at_once(&self, bytes: u64) -> Result<(), PoolExhausted> {
        if self.try_charge(bytes) {
            return Ok(());
        }
        let cap = if let Mode::Bounded { bytes, .. } = self.mode { bytes } else { u64::MAX };
        Err(self.refuse(bytes, cap))
    }

    fn wait_for(&self, bytes: u64, wait: Duration, claim: Claim<'_>) -> bool {
        let deadline = Instant::now() + wait;
        let first = claim.first.map(|others| (others, others.latest()));
        let is_in_vain = || match first {
            Some((others, latest)) => !others.remain(latest),
            None => Instant::now() >= deadline,
        };
        let Ok(mut gate) = self.gate.lock() else { return false };
        loop {
            // Asked before the last try: what others hold until then comes back before they are gone.
            let is_last = is_in_vain() || (claim.gone)();
            if self.may_lend(bytes, claim) && self.try_charge(bytes) {
                return true;
            }
            if is_last {
                return false;
            }
            let Ok((next, _)) = self.returned.wait_timeout(gate, wait.min(LOOK)) else { return false };
            gate = next;
        }
    }

    /// Takes back bytes lent.
    pub(super) fn release(&self, bytes: u64) {
        self.take_back(bytes);
        self.settle(bytes, 0);
    }

    fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.gate.lock());
            self.returned.notify_all();
        }
    }

    fn refuse(&self, asked: u64, cap: u64) -> PoolExhausted {
        self.exhausted.fetch_add(1, Ordering::Relaxed);
        PoolExhausted { asked, lent: self.lent(), cap }
    }
}

/// Others give way as long as this is held.
pub struct YieldGuard(Arc<Cap>);

impl Drop for YieldGuard {
    fn drop(&mut self) {
        self.0.first.fetch_sub(1, Ordering::SeqCst);
        self.0.wake();
    }
}

impl fmt::Debug for YieldGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("YieldGuard").finish()
    }
}

impl fmt::Debug for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cap")
            .field("mode", &self.mode)
            .field("held", &self.held())
            .field("lent", &self.lent())
            .finish_non_exhaustive()
    }
}
