//! Memory that no pool keeps: accumulators, lists, answers. It counts against the cap as leases do.

use std::{fmt, sync::Arc};

use prometheus::IntCounter;

use super::{
    Cap, Leaked, PoolContext, PoolExhausted,
    cap::Claim,
    metrics::{Read, Readings},
};
use crate::base::sync::{AtomicU64, Ordering};

/// Objects and bytes that are out.
#[derive(Debug)]
pub(super) struct Outstanding {
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Outstanding {
    pub(super) fn nothing() -> Self {
        Self { objects: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    pub(super) fn lent(&self, objects: u64, bytes: u64) {
        self.objects.fetch_add(objects, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn returned(&self, objects: u64, bytes: u64) {
        self.objects.fetch_sub(objects, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Read for Outstanding {
    fn readings(&self) -> Readings {
        let outstanding = self.objects.load(Ordering::Relaxed);
        Readings { outstanding, outstanding_bytes: self.bytes.load(Ordering::Relaxed), ..Readings::default() }
    }
}

/// Hands out [`Loan`]s under one name.
#[derive(Clone)]
pub struct Ledger(Arc<Account>);

struct Account {
    outstanding: Arc<Outstanding>,
    cap: Arc<Cap>,
    exhausted: IntCounter,
}

impl Ledger {
    /// A ledger that metrics call `pool`.
    pub fn new(pool: &'static str, supply: &PoolContext) -> Self {
        let outstanding = Arc::new(Outstanding::nothing());
        let readable: Arc<dyn Read> = Arc::<Outstanding>::clone(&outstanding);
        supply.metrics.watch(pool, "any", &readable);
        let exhausted = supply.metrics.exhausted(pool);
        Self(Arc::new(Account { outstanding, cap: Arc::clone(&supply.cap), exhausted }))
    }

    /// Nothing lent yet.
    pub fn loan(&self) -> Loan {
        Loan { account: Arc::clone(&self.0), charged: 0 }
    }

    /// Whether everything lent is back, to be asked at shutdown.
    pub fn check_returned(&self) -> Result<(), Leaked> {
        self.0.outstanding.readings().leaked()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.0.outstanding).finish()
    }
}

/// Bytes of the cap on loan; dropping it gives them back.
pub struct Loan {
    account: Arc<Account>,
    charged: u64,
}

impl Loan {
    /// Bytes that this loan holds of the cap.
    pub fn charged(&self) -> u64 {
        self.charged
    }

    /// Takes more, to be asked before the memory is allocated. At the cap it waits as the cap's mode says, and until
    /// the query is `gone`: not for async code.
    pub fn grow(&mut self, bytes: u64, claim: Claim<'_>) -> Result<(), PoolExhausted> {
        let account = &self.account;
        account.cap.charge(bytes, claim).inspect_err(|_| account.exhausted.inc())?;
        account.outstanding.lent(u64::from(self.charged == 0 && bytes > 0), bytes);
        self.charged += bytes;
        Ok(())
    }

    /// Takes more at once or not at all: for async code, which must not wait here.
    pub fn try_grow(&mut self, bytes: u64) -> Result<(), PoolExhausted> {
        let account = &self.account;
        account.cap.charge_at_once(bytes).inspect_err(|_| account.exhausted.inc())?;
        account.outstanding.lent(u64::from(self.charged == 0 && bytes > 0), bytes);
        self.charged += bytes;
        Ok(())
    }

    /// Gives back all above `bytes`.
    pub fn keep_only(&mut self, bytes: u64) {
        let less = self.charged.saturating_sub(bytes);
        self.charged -= less;
        self.account.outstanding.returned(u64::from(self.charged == 0 && less > 0), less);
        self.account.cap.release(less);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if self.charged > 0 {
            self.account.outstanding.returned(1, self.charged);
            self.account.cap.release(self.charged);
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("charged", &self.charged).finish_non_exhaustive()
    }
}
