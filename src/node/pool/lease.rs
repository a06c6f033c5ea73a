//! A lent object, given back to its pool when dropped.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::{Buffer, PoolExhausted, cap::Claim};

/// Where leased objects return to.
pub(super) trait Home<T>: Send + Sync {
    /// Takes an object back that was lent from shelf `shelf` at a charge of `bytes`.
    fn take_back(&self, object: T, shelf: usize, bytes: u64);

    /// Charges this much more to a lease of shelf `shelf`.
    fn charge_more(&self, shelf: usize, bytes: u64, claim: Claim<'_>) -> Result<(), PoolExhausted>;
}

/// An object on loan from a pool; dropping it returns it.
pub struct Lease<T: Send + 'static> {
    /// `None` only while dropping.
    object: Option<T>,
    home: Arc<dyn Home<T>>,
    shelf: usize,
    charged: u64,
}

impl<T: Send + 'static> Lease<T> {
    pub(super) fn new(object: T, home: Arc<dyn Home<T>>, shelf: usize, charged: u64) -> Self {
        Self { object: Some(object), home, shelf, charged }
    }

    /// Bytes that this lease holds of the pool's cap.
    pub fn charged(&self) -> u64 {
        self.charged
    }
}

impl<T: Buffer> Lease<T> {
    /// Charges the cap for growth up to `elements`, before the buffer grows.
    pub fn reserve_charge(&mut self, elements: usize, claim: Claim<'_>) -> Result<(), PoolExhausted> {
        self.charge_up_to(elements.saturating_mul(T::ELEMENT_BYTES) as u64, claim)
    }

    /// Charges the cap for the growth of the buffer. Where the size to come cannot be known, the buffer grows first, by
    /// one series at most, and this follows.
    pub fn settle(&mut self, claim: Claim<'_>) -> Result<(), PoolExhausted> {
        self.charge_up_to(self.bytes() as u64, claim)
    }

    fn charge_up_to(&mut self, bytes: u64, claim: Claim<'_>) -> Result<(), PoolExhausted> {
        let more = bytes.saturating_sub(self.charged);
        if more > 0 {
            self.home.charge_more(self.shelf, more, claim)?;
            self.charged += more;
        }
        Ok(())
    }
}

impl<T: Send + 'static> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.object {
            Some(object) => object,
            None => unreachable!("only `drop` empties a lease"),
        }
    }
}

impl<T: Send + 'static> DerefMut for Lease<T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.object {
            Some(object) => object,
            None => unreachable!("only `drop` empties a lease"),
        }
    }
}

impl AsRef<[u8]> for Lease<Vec<u8>> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: Send + 'static> Drop for Lease<T> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.home.take_back(object, self.shelf, self.charged);
        }
    }
}

impl<T: fmt::Debug + Send + 'static> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("object", &self.object)
            .field("charged", &self.charged)
            .finish_non_exhaustive()
    }
}
