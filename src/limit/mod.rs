//! Floor 2: may this query run now? Plain code over values and a clock, with no HTTP in it.
//!
//! ```text
//! per query ──▶ rate ──▶ in flight: tenant, class, backend ──▶ permit
//!  422           429      │ no room: wait, fairly              │ drop
//!                         └────────── queue ◀── what is freed ◀┘
//! ```
//!
//! One short lock guards the accounts; nothing is held while waiting. A permit's drop is the only way back of what it
//! holds, and every freed byte goes to the waiter whose turn it is before anybody else can ask.

mod admission;
mod budget;
mod ceilings;
mod door;
#[cfg(test)]
mod invariants;
mod judge;
pub mod layer;
mod permit;
mod policy;
mod proof;
mod queue;
mod rate;
mod refusal;
mod room;
mod snapshot;
mod state;
mod tenants;

pub use admission::{Admission, Admitted, Ask, Charged};
pub use budget::light;
pub use ceilings::Ceilings;
pub use judge::judge;
pub use layer::{Admissible, Admit, AdmitLayer, HoldLayer, Permitted, RateLayer, RateLimited};
pub use permit::{Actual, Permit};
pub use policy::{
    BackendBudget, BackendId, ClassId, ClassPolicy, InFlight, Limit, Mode, PerQuery, Policy, QueuePolicy,
    Rate, RateLimit, Rates, TenantPolicy,
};
pub use refusal::{LimitName, Refusal, Scope, ShadowHit};
pub use snapshot::{BackendSnapshot, Snapshot, TenantSnapshot};

#[cfg(test)]
mod tests;
