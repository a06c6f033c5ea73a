//! Tower layers that put the limits before any service.
//!
//! ```text
//! RateLayer ──▶ AdmitLayer ──▶ HoldLayer ──▶ a service
//! too often:    waits for      keeps the permit
//! refused       its turn       with the response
//! ```
//!
//! A request type states its demand by implementing [`RateLimited`] and [`Admissible`]. A request waits inside the
//! future of a call; dropping it leaves the queue. The service behind [`Admit`] is asked whether it is ready only when
//! the request may run: a place kept while waiting would be lost to others.

mod admit;
mod hold;
mod rate;
#[cfg(test)]
mod tests;

pub use admit::{Admissible, Admit, AdmitFuture, AdmitLayer};
pub use hold::{Hold, HoldFuture, HoldLayer, Permitted};
pub use rate::{CheckRate, RateFuture, RateLayer, RateLimited};
