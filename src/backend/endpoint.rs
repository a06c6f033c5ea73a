//! Where a database has an endpoint: at the root of its address, below the path of its URL, or nowhere.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// An endpoint that is nowhere is asked for again after this long: databases are upgraded, and gateways opened.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// Where a path is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the root of the address.
    Root,
    /// Below the path of the URL.
    Prefix,
}

/// Whether and where an endpoint exists, so that a 404 is not repeated.
#[derive(Debug, Default)]
pub(super) struct Endpoint(Mutex<Known>);

#[derive(Clone, Copy, Debug, Default)]
enum Known {
    #[default]
    Nothing,
    At(Place),
    Nowhere {
        since: Instant,
    },
}

impl Endpoint {
    /// The places to ask, in order; none where it is known to be nowhere. `usual` is where this kind of database has it.
    pub(super) fn places(&self, usual: Place, now: Instant) -> &'static [Place] {
        match (*self.0.lock(), usual) {
            (Known::At(Place::Root), _) => &[Place::Root],
            (Known::At(Place::Prefix), _) => &[Place::Prefix],
            (Known::Nowhere { since }, _) if now.saturating_duration_since(since) < ASK_AGAIN => &[],
            (_, Place::Root) => &[Place::Root, Place::Prefix],
            (_, Place::Prefix) => &[Place::Prefix, Place::Root],
        }
    }

    /// It is there.
    pub(super) fn found(&self, place: Place) {
        *self.0.lock() = Known::At(place);
    }

    /// It is at none of the places that were asked; whether that is news.
    pub(super) fn not_found(&self, now: Instant) -> bool {
        let before = std::mem::replace(&mut *self.0.lock(), Known::Nowhere { since: now });
        !matches!(before, Known::Nowhere { .. })
    }

    /// Whether it is known to be nowhere.
    pub(super) fn is_missing(&self) -> bool {
        matches!(*self.0.lock(), Known::Nowhere { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_asked_where_it_is_and_rarely_where_it_is_not() {
        let (endpoint, now) = (Endpoint::default(), Instant::now());
        assert_eq!(endpoint.places(Place::Root, now), [Place::Root, Place::Prefix]);
        assert_eq!(endpoint.places(Place::Prefix, now), [Place::Prefix, Place::Root]);
        endpoint.found(Place::Root);
        assert_eq!(endpoint.places(Place::Prefix, now), [Place::Root]);
        assert!(endpoint.not_found(now) && endpoint.is_missing());
        assert_eq!(endpoint.places(Place::Prefix, now), []);
        let later = now + ASK_AGAIN;
        assert_eq!(endpoint.places(Place::Prefix, later), [Place::Prefix, Place::Root]);
        assert!(!endpoint.not_found(later), "that is said once");
        assert_eq!(endpoint.places(Place::Prefix, later), []);
    }
}
