//! Floor 2: may this query run now? Plain code over values and a clock, with no HTTP in it.
//!
//! ```text
//! per query ──▶ rate ──▶ in flight: tenant, then a lane of the backend ──▶ permit
//!  422           429      │ no room: wait, in turn                          │ drop
//!                         └────────── queue ◀───────── freed shares ◀───────┘
//! ```
//!
//! Each backend has two lanes ([`Lane`]): one for light queries that nothing but its death closes, and one for all
//! others, bounded by one congestion window. A query that fits the budget runs at once when nothing else heavy
//! runs. A query over a soft limit also holds a share of the slow lane. One short lock guards the
//! accounts; nothing is held while waiting. A permit's drop is the only way back of its share, and a freed share goes
//! to the waiter whose turn it is before anybody else can ask.

mod admission;
mod backend;
mod charge;
mod effective;
mod fractions;
mod in_flight_share;
#[cfg(test)]
mod invariants;
mod lane;
mod lane_account;
pub mod layer;
mod leased;
mod local_rate;
mod per_query;
mod permit;
mod policy;
mod prefetched;
mod preflight;
mod queue;
mod quota;
mod rate;
mod recorded;
mod refusal;
mod request;
mod scheduler;
mod snapshot;
mod state;
mod tenants;
mod thresholds;
mod tumbling_window;
mod usage;
mod victim;
mod wait;
mod window;

pub use admission::{Admission, Admitted};
pub use backend::{BackendDemand, BackendLease};
pub use charge::{Actual, End};
pub use effective::{EffectiveLimit, LimitTable, LimitTexts};
pub use fractions::{heaviest, light, light_each};
pub use lane::Lane;
pub use layer::{Admissible, Admit, AdmitLayer, CheckRateLayer, HoldLayer, Permitted, RateLimited};
pub use leased::TenantDemand;
pub use per_query::{SoftHit, check_per_query, soft};
pub use permit::{Permit, PermitHandle};
pub use policy::{
    BackendBudget, ClassPolicy, InFlight, Limit, Mode, PerQuery, Policy, QueuePolicy, Rate, RateLimit, Rates,
    Sharing, SlowLane, TenantPolicy, Written,
};
pub use quota::{QuotaDemand, QuotaLease, QuotaUse};
pub use recorded::{Recorded, RecordedLimits, RecordedOutcome};
pub use refusal::{LimitName, Refusal, Scope, ShadowHit};
pub use request::{AdmissionRequest, Charged};
pub use snapshot::{BackendSnapshot, LaneSnapshot, Snapshot, TenantSnapshot};
pub use thresholds::MemoryThresholds;
pub use victim::{Candidate, victim};
pub use wait::{WaitReason, Waited};
pub use window::Cut;

#[cfg(test)]
mod tests;
