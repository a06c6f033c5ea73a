//! Pools of buffers in the manner of m3dbnode, and the bound that m3dbnode never had.
//!
//! A [`BucketPool`] such as [`BytesPool`] keeps buffers of several sizes, each size in a pool with M3's semantics. A
//! buffer lent is a [`Lease`], which gives it back when dropped; memory that is no buffer of any pool is lent as a
//! [`Loan`]. [`Cap`] bounds the bytes of all that is lent or lies free, so that queries wait or fail where m3dbnode
//! grew until it was killed.

mod bucket;
mod cap;
mod lease;
mod loan;
mod metrics;
#[cfg(test)]
#[cfg(weir_loom)]
mod model;
mod object;
mod refill;
#[cfg(test)]
#[cfg(not(weir_loom))]
mod tests;

use std::sync::Arc;

pub use bucket::{Bucket, BucketPool, Buckets};
pub use cap::{Cap, Claim, Mode, Others, PoolExhausted, YieldGuard};
pub use lease::Lease;
pub use loan::{Ledger, Loan};
pub use metrics::PoolMetrics;
pub use object::{Leaked, Options};
pub use refill::{Job, RefillBudget, Refiller};

/// The state that all pools of a node share.
#[derive(Clone, Debug)]
pub struct PoolContext {
    /// Bounds the bytes of everything lent.
    pub cap: Arc<Cap>,
    /// Runs refills.
    pub refiller: Refiller,
    /// Bounds how much refills allocate; `None` as m3dbnode.
    pub refill_budget: Option<Arc<RefillBudget>>,
    /// Counts.
    pub metrics: PoolMetrics,
}

/// Byte buffers in buckets by capacity.
pub type BytesPool = BucketPool<Vec<u8>>;

/// Numbers in buckets by how many they are.
pub type NumbersPool = BucketPool<Vec<f64>>;

/// An object that a pool can lend again and again.
pub trait Reusable: Send + 'static {
    /// Forgets the content and keeps the memory.
    fn clear(&mut self);

    /// Bytes of memory held, used or not.
    fn bytes(&self) -> usize;
}

/// A [`Reusable`] that is made for a number of elements.
pub trait Buffer: Reusable {
    /// Bytes of one element.
    const ELEMENT_BYTES: usize;

    /// An empty buffer for this many elements.
    fn with_capacity(elements: usize) -> Self;

    /// Elements that fit without growing.
    fn capacity(&self) -> usize;
}

macro_rules! column {
    ($element:ty) => {
        impl Reusable for Vec<$element> {
            fn clear(&mut self) {
                Vec::clear(self);
            }

            fn bytes(&self) -> usize {
                Vec::capacity(self) * size_of::<$element>()
            }
        }

        impl Buffer for Vec<$element> {
            const ELEMENT_BYTES: usize = size_of::<$element>();

            fn with_capacity(elements: usize) -> Self {
                Vec::with_capacity(elements)
            }

            fn capacity(&self) -> usize {
                Vec::capacity(self)
            }
        }
    };
}

column!(u8);
column!(f64);
