//! The charge of one query to the accounts, from its phases to its end.

use smallvec::SmallVec;
use tokio::time::Instant;

use super::lane::Lane;

/// How a query ended, as far as the backend is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The backend answered it to its end.
    Answered,
    /// The backend ended it otherwise, or never began.
    Failed,
    /// Nobody waits for the answer any more, but the backend may still work on it.
    #[default]
    Abandoned,
}

/// The actual cost of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Raw samples read, where the answer says so.
    pub samples: Option<u64>,
    /// How it ended.
    pub end: End,
}

/// The accounts of the tenants that pay for a query; the first is whose turn it is.
pub(super) type Payers = SmallVec<[usize; 2]>;

/// The charge of one query, and its accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) payers: Payers,
    pub(super) backend: usize,
    pub(super) class: usize,
    /// The query is light.
    pub(super) light: bool,
    /// The lane that it draws on: a light one may use the heavy lane.
    pub(super) lane: Lane,
    /// It holds a share of the slow lane as well while it runs.
    pub(super) slow: bool,
    pub(super) bytes: u64,
    /// Samples expected.
    pub(super) samples: u64,
    /// When the query asked, and was debited to the quotas.
    pub(super) asked: Instant,
}

/// The part of a charge that is still held at the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// A slot of its lane, and its bytes.
    Runs,
    /// Its bytes: the backend has worked it out, and the client does not read.
    Stalled,
    /// Nothing: the backend's last byte has come.
    Done,
}

impl Charge {
    /// The lane in whose queue it waits.
    pub(super) const fn own_lane(&self) -> Lane {
        if self.light { Lane::Light } else { Lane::Heavy }
    }
}

impl Phase {
    pub(super) const fn of(number: u8) -> Self {
        match number {
            0 => Self::Runs,
            1 => Self::Stalled,
            _ => Self::Done,
        }
    }
}
