//! The synchronisation primitives that loom can model: the standard ones, or loom's under `--cfg weir_loom`.
//!
//! The cfg is our own because `--cfg loom` reaches every crate, and tokio leaves its networking out under it.
//! Reference counts stay the standard ones: loom's do not coerce to trait objects.

#[cfg(weir_loom)]
pub use loom::sync::{
    Condvar, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
#[cfg(not(weir_loom))]
pub use std::sync::{
    Condvar, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

#[cfg(not(weir_loom))]
pub use crossbeam_queue::ArrayQueue;

/// Stands in for crossbeam's queue, which loom cannot see into.
#[cfg(weir_loom)]
#[derive(Debug)]
pub struct ArrayQueue<T> {
    items: Mutex<std::collections::VecDeque<T>>,
    capacity: usize,
}

#[cfg(weir_loom)]
#[allow(clippy::missing_errors_doc, clippy::unwrap_used)]
impl<T> ArrayQueue<T> {
    /// An empty queue.
    pub fn new(capacity: usize) -> Self {
        Self { items: Mutex::new(std::collections::VecDeque::new()), capacity }
    }

    /// Adds at the end, or hands the item back when full.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.items.lock().unwrap();
        if items.len() == self.capacity {
            return Err(item);
        }
        items.push_back(item);
        Ok(())
    }

    /// Takes from the front.
    pub fn pop(&self) -> Option<T> {
        self.items.lock().unwrap().pop_front()
    }

    /// Items queued.
    pub fn len(&self) -> usize {
        self.items.lock().unwrap().len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}
