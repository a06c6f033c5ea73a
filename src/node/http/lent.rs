//! Reads whose memory is lent before they take it, and whose answers are sent piece by piece.

use std::{sync::Arc, time::Duration};

use super::{Node, error::Failure, json, read_limiter::Turn, request::RequestParams};
use crate::node::{engine::EvalError, pool::Loan};

/// The memory of one read beside the buffers of its answer.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    loan: Loan,
    turn: Turn<'a>,
}

impl Lent<'_> {
    /// Takes memory; to be called before it is allocated.
    ///
    /// # Errors
    /// The pool has none.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Failure> {
        let gone = || self.turn.is_over();
        Ok(self.loan.grow(bytes, self.turn.claim(&gone)).map_err(EvalError::Exhausted)?)
    }

    /// Takes memory for a list.
    ///
    /// # Errors
    /// The pool has none.
    pub(super) fn take_list<T>(&mut self, entries: usize) -> Result<(), Failure> {
        self.take(entries.saturating_mul(size_of::<T>()) as u64)
    }

    /// Gives back all memory but the answer's, which is held until the answer is sent.
    pub(super) fn keep_only(&mut self, bytes: u64) {
        self.loan.keep_only(bytes);
    }
}

/// Runs a read under the limits of all reads; its answer is to be sent with the second value, which holds the memory.
pub(super) async fn run<T: Send + 'static>(
    node: &Arc<Node>,
    asked: &RequestParams,
    timeout: Duration,
    read: impl Fn(&mut Lent<'_>) -> Result<T, Failure> + Send + Sync + 'static,
) -> Result<(T, json::Sending), Failure> {
    let (pools, compressed) = (Arc::clone(&node.pools), json::is_compressed(&asked.headers));
    let run = move |turn: Turn<'_>| {
        let buffers = json::Buffers::lend(&pools, compressed, turn).map_err(EvalError::Exhausted)?;
        let mut lent = Lent { loan: pools.engine.working.loan(), turn };
        let found = read(&mut lent)?;
        Ok((found, buffers, lent.loan))
    };
    let ((found, buffers, loan), place) = node.reads.run(timeout, run).await?;
    Ok((found, json::Sending::new(buffers, place, Some(loan))))
}
