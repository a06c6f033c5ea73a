//! Which worker thread the caller runs on, so that a connection opened on one thread is used again on it.

use std::cell::Cell;

/// Numbers there are; threads beyond share one with another.
pub const WORKERS_MAX: usize = 64;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The number of a worker thread; 0 is shared by all threads that set none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerId(usize);

impl WorkerId {
    /// The number of this thread.
    pub fn current() -> Self {
        Self(CURRENT.get())
    }

    /// Numbers this thread: best with a number that no other thread has, from 1 on.
    pub fn set(number: usize) {
        CURRENT.set(number % WORKERS_MAX);
    }

    /// The worker `n` further, starting over behind the last.
    #[must_use]
    pub const fn after(self, n: usize) -> Self {
        Self((self.0 + n) % WORKERS_MAX)
    }

    /// The number, below [`WORKERS_MAX`].
    pub const fn index(self) -> usize {
        self.0
    }
}
