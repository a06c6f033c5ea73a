//! Parts of a budget that several proxies share: `limit` obeys them, `fleet` divides them.

/// Memory and slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Queries.
    pub queries: u64,
}

impl Amount {
    /// Nothing.
    pub const NONE: Self = Self { bytes: 0, queries: 0 };

    /// Both numbers of two amounts, put together.
    #[must_use]
    pub fn zip(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self { bytes: of(self.bytes, other.bytes), queries: of(self.queries, other.queries) }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// The amount minus another; zero where that is larger.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// The lesser of each number.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        self.zip(other, u64::min)
    }

    /// The greater of each number.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, u64::max)
    }

    /// Whether neither number is above that of another.
    pub const fn is_within(self, other: Self) -> bool {
        self.bytes <= other.bytes && self.queries <= other.queries
    }
}

/// What one proxy needs of a budget beyond its fixed part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Demand {
    /// Held by queries in flight.
    pub held: Amount,
    /// Held, and asked for by those that wait.
    pub wants: Amount,
    /// The query that is next: how long its tenant has waited for this turn, in milliseconds, and the bytes with which it runs
    /// beside those that are held. Zero while nobody waits.
    pub claim: (u64, u64),
    /// Tenants that wait, at least 1: a part is divided by them.
    pub weight: u64,
}

/// The congestion window of a backend, which all proxies that lease of its budget grow and cut together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SharedWindow {
    /// How often it was cut: a window that was cut more often replaces another.
    pub cuts: u64,
    /// The number of the last cut's cause.
    pub cause: u64,
    /// Bytes in flight over all proxies.
    pub bytes: u64,
    /// Bytes by which it grew at this proxy and that the others do not know of.
    pub grown: u64,
}

/// A rate of a tenant that is counted in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// One for each query.
    Queries,
    /// One for each sample read.
    Samples,
}

impl TokenKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Queries, Self::Samples];

    /// Its name in the store and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Samples => "samples",
        }
    }

    /// Tokens of a query that reads this number of samples.
    pub const fn of(self, samples: u64) -> u64 {
        match self {
            Self::Queries => 1,
            Self::Samples => samples,
        }
    }
}

/// The demand of one proxy for tokens of a rate that several share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenDemand {
    /// Tokens drawn before that are not spent.
    pub stock: u64,
    /// The stock that its recent use calls for, in tokens.
    pub wants: u64,
    /// The tokens that one query lacked, all of them or none.
    pub claim: u64,
}
