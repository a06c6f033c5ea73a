//! Why a backend gave no answer, or only part of one.

use std::{fmt, sync::Arc, time::Duration};

use super::pool::Lane;
use crate::base::{ErrorKind, duration, units};

/// A request that failed on the way to the backend or back.
#[derive(Clone, Debug)]
pub struct BackendError {
    backend: Arc<str>,
    replica: Option<Arc<str>>,
    cause: Cause,
}

/// The cause.
#[derive(Clone, Debug)]
pub(super) enum Cause {
    /// There is no replica to ask.
    NoReplica,
    /// The connection was refused, reset while opening, or the name has no address.
    Connect(String),
    /// The connection did not open in time.
    ConnectTimeout(Duration),
    /// Every connection for such requests stayed busy until the deadline.
    Busy(Lane),
    /// The connection ended, or bytes came that were not HTTP, before the head of an answer.
    NoAnswer(String),
    /// No head of an answer in time.
    Late(Duration),
    /// The connection ended inside the answer.
    BrokenBody(String),
    /// The answer was not complete in time.
    LateBody,
    /// The answer to a request of Weir's own is longer than it reads.
    TooLong(usize),
    /// The answer to a request of Weir's own has the wrong status.
    Status(u16),
    /// The backend was found to have no such endpoint, and is not asked again for a while.
    Missing(&'static str),
    /// The request cannot be written as HTTP.
    Request(String),
}

impl BackendError {
    pub(super) fn new(backend: &Arc<str>, replica: Option<&str>, cause: Cause) -> Self {
        Self { backend: Arc::clone(backend), replica: replica.map(Arc::from), cause }
    }

    /// The kind of failure: dead (502), late (504), or a request that cannot be sent (400).
    pub const fn kind(&self) -> ErrorKind {
        match self.cause {
            Cause::NoReplica
            | Cause::Connect(_)
            | Cause::ConnectTimeout(_)
            | Cause::NoAnswer(_)
            | Cause::BrokenBody(_)
            | Cause::TooLong(_)
            | Cause::Status(_)
            | Cause::Missing(_) => ErrorKind::UpstreamDead,
            Cause::Busy(_) | Cause::Late(_) | Cause::LateBody => ErrorKind::UpstreamTimeout,
            Cause::Request(_) => ErrorKind::BadData,
        }
    }

    /// The message for the client.
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The failure without the backend's name, as the end of a sentence about it.
    pub fn reason(&self) -> String {
        self.cause.to_string()
    }

    pub(super) const fn cause(&self) -> &Cause {
        &self.cause
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend `{}`", self.backend)?;
        if let Some(replica) = &self.replica {
            write!(f, " ({replica})")?;
        }
        write!(f, " {}", self.cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReplica => f.write_str("has no URL"),
            Self::Connect(why) => write!(f, "could not be reached: {why}"),
            Self::ConnectTimeout(after) => {
                write!(f, "could not be reached within {}", duration::text(*after))
            }
            Self::Busy(Lane::Queries) => {
                f.write_str("had no free connection before the deadline (`max_connections`)")
            }
            Self::Busy(Lane::Light) => f.write_str(
                "left all connections for light requests such as this busy until the deadline (`light_connections`)",
            ),
            Self::NoAnswer(why) => write!(f, "ended the connection without an answer: {why}"),
            Self::Late(after) => write!(f, "did not answer within {}", duration::text(rounded(*after))),
            Self::BrokenBody(why) => write!(f, "broke off in the middle of its answer: {why}"),
            Self::LateBody => f.write_str("did not finish its answer before the deadline"),
            Self::TooLong(max) => write!(f, "answered with more than {}", units::bytes(*max as u64)),
            Self::Status(status) => write!(f, "answered with status {status}"),
            Self::Missing(path) => write!(f, "has no {path}"),
            Self::Request(why) => write!(f, "cannot be asked this: {why}"),
        }
    }
}

impl std::error::Error for BackendError {}

/// A measured time as people say it: whole seconds from one second on, else milliseconds.
fn rounded(time: Duration) -> Duration {
    if time.as_secs() >= 1 {
        Duration::from_secs(time.as_secs())
    } else {
        Duration::from_millis(time.as_millis() as u64)
    }
}
