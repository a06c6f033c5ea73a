//! The memory and slots that queries hold.

/// Bytes and queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes; wide enough for any number of queries of any size.
    pub(super) memory: u128,
    /// Queries.
    pub(super) queries: u64,
}

impl Usage {
    /// With one more query.
    pub(super) fn plus(self, memory: u64) -> Self {
        Self { memory: self.memory + u128::from(memory), queries: self.queries + 1 }
    }

    pub(super) fn add(&mut self, memory: u64) {
        *self = self.plus(memory);
    }

    /// Gives back the bytes of one query; each charge is taken back once, so nothing goes below zero.
    pub(super) fn remove(&mut self, memory: u64) {
        self.memory -= u128::from(memory);
        self.queries -= 1;
    }

    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self { memory: self.memory + other.memory, queries: self.queries + other.queries }
    }

    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Whether it is within both numbers; `None` is unlimited.
    pub(super) fn within(self, memory: Option<u64>, queries: Option<u64>) -> bool {
        memory.is_none_or(|max| self.memory <= u128::from(max))
            && queries.is_none_or(|max| self.queries <= max)
    }

    /// Bytes, as far as 64 bits hold them.
    pub(super) fn bytes(self) -> u64 {
        u64::try_from(self.memory).unwrap_or(u64::MAX)
    }
}
