//! The guard over what a running query holds.

use std::{fmt, sync::Arc};

use super::admission::Admission;

/// What a query turned out to cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Raw samples read, where the answer tells.
    pub samples: Option<u64>,
    /// It was answered to its end.
    pub whole: bool,
}

/// What one query was charged, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) tenant: usize,
    pub(super) backend: usize,
    pub(super) class: usize,
    /// Bytes.
    pub(super) weight: u64,
    /// Samples expected.
    pub(super) samples: u64,
    /// The hold during which it was admitted; 0 is none.
    pub(super) epoch: u64,
    /// It runs on the floor for light queries, beside what pressure leaves.
    pub(super) on_floor: bool,
}

/// A share of the budgets of a tenant, a class and a backend. Dropping it is the only way to give it back, and what is
/// given back goes to the next in the queue at once.
pub struct Permit {
    admission: Arc<Admission>,
    held: Held,
    actual: Option<Actual>,
}

impl Permit {
    pub(super) fn new(admission: Arc<Admission>, held: Held) -> Self {
        Self { admission, held, actual: None }
    }

    /// Ends the query with what it really cost; without this, the estimate stands.
    pub fn settle(mut self, actual: Actual) {
        self.actual = Some(actual);
    }

    /// A part of the query that held as much as all of it may was answered, as expected; more of it follows.
    pub fn prove(&self) {
        self.admission.prove(&self.held);
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Bytes that the query holds.
    pub fn weight(&self) -> u64 {
        self.held.weight
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.release(self.held, self.actual);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("held", &self.held)
            .field("actual", &self.actual)
            .finish_non_exhaustive()
    }
}
