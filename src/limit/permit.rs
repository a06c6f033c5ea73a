//! The guard over a running query's share of the budgets.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use super::{
    admission::Admission,
    charge::{Actual, Charge, Phase},
};

/// The state of a permit, shared with its handles.
struct PermitState {
    admission: Arc<Admission>,
    charge: Charge,
    /// A [`Phase`], changed under the lock of the accounts only.
    phase: AtomicU8,
}

/// A share of the budgets of tenants, a class and a backend. Its drop is the only way back, and frees the share for the
/// next in the queue at once. Dropped without [`Permit::settle`] the query counts as abandoned.
pub struct Permit {
    held: Arc<PermitState>,
    actual: Actual,
}

impl Permit {
    pub(super) fn new(admission: Arc<Admission>, charge: Charge) -> Self {
        let held = PermitState { admission, charge, phase: AtomicU8::new(Phase::Runs as u8) };
        Self { held: Arc::new(held), actual: Actual::default() }
    }

    /// Ends the query with its actual cost.
    pub fn settle(mut self, actual: Actual) {
        self.actual = actual;
    }

    /// A part of a split query was answered; more of it follows.
    pub fn part_done(&self) {
        self.held.admission.part_done(&self.held.charge);
    }

    /// A handle for the progress of the answer.
    pub fn handle(&self) -> PermitHandle {
        PermitHandle(Arc::downgrade(&self.held))
    }

    /// Bytes that the query is expected to hold.
    pub fn bytes(&self) -> u64 {
        self.held.charge.bytes
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (Charge, Phase) {
        (self.held.charge.clone(), phase(&self.held.phase))
    }
}

/// Reports the progress of the answer to its permit; after the permit is gone it does nothing.
#[derive(Clone, Default)]
pub struct PermitHandle(Weak<PermitState>);

impl PermitHandle {
    /// The backend's last byte has come: its slot and its memory are free, however long the client reads on. With
    /// `answered` the query counts as completed.
    pub fn backend_done(&self, answered: bool) {
        if let Some(held) = self.0.upgrade() {
            held.admission.backend_done(&held.charge, &held.phase, answered);
        }
    }

    /// The backend is done and the client does not read: the slot and the window go to the next query, while
    /// the memory stays booked. `false` when there is no room to book it so: the answer keeps its slot, and had better
    /// end soon.
    pub fn stalled(&self) -> bool {
        self.0.upgrade().is_none_or(|held| held.admission.stalled(&held.charge, &held.phase))
    }
}

/// The phase that a permit is in.
pub(super) fn phase(of: &AtomicU8) -> Phase {
    Phase::of(of.load(Relaxed))
}

/// Moves a permit to another phase.
pub(super) fn enter(of: &AtomicU8, phase: Phase) {
    of.store(phase as u8, Relaxed);
}

impl Drop for Permit {
    fn drop(&mut self) {
        let PermitState { admission, charge, phase } = &*self.held;
        admission.release(charge, phase, self.actual);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("charge", &self.held.charge)
            .field("phase", &phase(&self.held.phase))
            .field("actual", &self.actual)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PermitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PermitHandle").finish_non_exhaustive()
    }
}
