//! How much of a budget queries may hold before estimates have proved true.
//!
//! A budget bounds the sum of *estimates*. When those are a tenth of the truth, a burst that fits is admitted within
//! milliseconds, and no sign of distress comes in time to take it back. So memory is opened as TCP opens its window:
//! a part of the budget at first, and with every heavy query that ends as expected as much more as that query held (slow
//! start, RFC 5681), as long as a good part of the window is in use (RFC 7661). Where the backend is seen to hold more than it
//! was expected to, the window closes. One query may always run beside light ones, whatever the window is.

use super::budget::percent_of;

/// Less than one part in so many of the window in flight proves nothing of all of it.
const IN_USE: u128 = 4;

/// What estimates of one backend's queries have been true for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// Bytes by which the window has grown.
    proven: u64,
    /// The backend holds more than was expected of what runs.
    doubted: bool,
}

impl Proof {
    /// Bytes that may be in flight, of a budget of which `percent` need no proof.
    pub(super) fn window(self, whole: u64, percent: u8) -> u64 {
        percent_of(whole, percent).saturating_add(self.proven).min(whole)
    }

    /// Whether nothing was proved yet, and a query of this weight would need it.
    pub(super) fn lacks(self, weight: u64, whole: u64, percent: u8) -> bool {
        self.proven == 0 && weight > percent_of(whole, percent)
    }

    /// A query of this weight ended as expected, when so much was in flight.
    pub(super) fn ended(&mut self, weight: u64, in_flight: u128, whole: u64, percent: u8) {
        let window = self.window(whole, percent);
        let used = in_flight.saturating_mul(IN_USE) >= u128::from(window);
        if used && !self.doubted {
            // One that ran alone may be larger than the window: what it held is proved as well.
            let held = u64::try_from(in_flight).unwrap_or(u64::MAX);
            let open = window.max(held).saturating_add(weight).min(whole);
            self.proven = open.saturating_sub(percent_of(whole, percent));
        }
    }

    /// Whether the backend is seen to hold more than was expected.
    pub(super) fn doubt(&mut self, doubted: bool) {
        self.doubted = doubted;
        if doubted {
            self.proven = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_by_what_ended_while_it_bounds_and_closes_in_doubt() {
        let mut proof = Proof::default();
        assert_eq!(proof.window(1000, 10), 100);
        assert!(proof.lacks(101, 1000, 10) && !proof.lacks(100, 1000, 10));
        proof.ended(20, 20, 1000, 10);
        assert_eq!(proof.window(1000, 10), 100, "far from the window, nothing is proved");
        proof.ended(60, 90, 1000, 10);
        assert_eq!(proof.window(1000, 10), 160);
        assert!(!proof.lacks(500, 1000, 10));
        proof.ended(300, 310, 1000, 10);
        assert_eq!(proof.window(1000, 10), 610, "one that ran alone makes room for another");
        proof.ended(5000, 5000, 1000, 10);
        assert_eq!(proof.window(1000, 10), 1000, "never more than the budget");
        proof.doubt(true);
        proof.ended(900, 900, 1000, 10);
        assert_eq!(proof.window(1000, 10), 100);
        proof.doubt(false);
        proof.ended(90, 90, 1000, 10);
        assert_eq!(proof.window(1000, 10), 190);
    }

    #[test]
    fn all_of_a_budget_may_need_no_proof() {
        assert_eq!(Proof::default().window(u64::MAX, 100), u64::MAX);
    }
}
