//! Threads that keep to themselves: the connections that a thread opened are used by that thread, as long as it has any.

use std::cell::Cell;

/// Homes there are; a thread beyond shares one with another.
pub(super) const HOMES: usize = 64;

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// Where a connection belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Home(usize);

impl Home {
    /// That of this thread; all that were given none share one.
    pub fn here() -> Self {
        Self(HERE.get())
    }

    /// Gives this thread a home: best a number that no other thread has, from 1 on.
    pub fn settle(number: usize) {
        HERE.set(number % HOMES);
    }

    /// The one so many further, and round.
    pub(super) const fn after(self, n: usize) -> Self {
        Self((self.0 + n) % HOMES)
    }

    /// Below [`HOMES`].
    pub(super) const fn index(self) -> usize {
        self.0
    }
}
