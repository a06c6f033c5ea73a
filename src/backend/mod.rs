//! Floor 2: the databases behind Weir: the choice of a replica, its connections and deadlines, and the cost that an
//! answer shows. No verdicts here, and no PromQL: selectors arrive as text.

mod body;
mod client;
mod condition;
mod connect;
mod connection;
mod endpoint;
mod error;
pub mod feedback;
mod fetch;
pub mod headers;
mod health;
mod kind;
mod outgoing;
pub mod parameters;
mod places;
mod pool;
pub mod pressure;
pub mod probe;
mod ready;
mod replicas;
mod settings;
mod split;
pub mod tls;

pub use crate::base::Kind;
pub use body::Body;
pub use client::Backend;
pub use error::BackendError;
pub use feedback::Feedback;
pub use fetch::{Days, get_once};
pub use health::{ReplicaSnapshot, Snapshot};
pub use outgoing::Outgoing;
pub use parameters::DataScope;
pub use places::PlaceHandle;
pub use pool::Lane;
pub use probe::{ProbeError, ProbeOutcome, ProbeRequest};
pub use settings::{BaseUrl, HealthSettings, ProbeSettings, Settings};
pub use split::{Merged, NotMergeable, Parts};
pub use tls::{Tls, TlsSettings};
