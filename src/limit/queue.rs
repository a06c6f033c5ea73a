//! Who runs next of those that wait for a backend.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::{
    permit::{Held, Permit},
    refusal::Refusal,
};

/// A query that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) held: Held,
    pub(super) hand_over: oneshot::Sender<Result<Permit, Refusal>>,
}

/// The queue of one backend.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: VecDeque<Waiter>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn push(&mut self, waiter: Waiter) {
        self.waiters.push_back(waiter);
    }

    /// Takes the first that `fits` out.
    pub(super) fn pop(&mut self, mut fits: impl FnMut(&Held) -> bool) -> Option<Waiter> {
        let at = self.waiters.iter().position(|waiter| fits(&waiter.held))?;
        self.waiters.remove(at)
    }

    /// Takes out one that gave up; `None` when it was handed over already.
    pub(super) fn remove(&mut self, id: u64) -> Option<Waiter> {
        let at = self.waiters.iter().position(|waiter| waiter.id == id)?;
        self.waiters.remove(at)
    }
}
