//! Which query is cancelled when the database would otherwise die.

use std::time::Duration;

/// A query that runs at a backend about to run out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Bytes that it is expected to hold.
    pub bytes: u64,
    /// How long it has run.
    pub runs_for: Duration,
}

/// The position of the query to cancel: the heaviest by its estimate; of light ones, which are all alike beside the
/// memory in use, the one that has run for longest, since its estimate is the least credible. `light` is the most bytes
/// of a light one.
pub fn victim(running: impl IntoIterator<Item = Candidate>, light: u64) -> Option<usize> {
    let each = running.into_iter().enumerate();
    let key = |candidate: &Candidate| match candidate.bytes {
        bytes if bytes > light => (bytes, candidate.runs_for),
        _ => (0, candidate.runs_for),
    };
    each.max_by_key(|(_, candidate)| key(candidate)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_goes_first_and_of_light_ones_the_oldest() {
        let of = |bytes, seconds| Candidate { bytes, runs_for: Duration::from_secs(seconds) };
        assert_eq!(victim([], 10), None);
        assert_eq!(victim([of(20, 1), of(500, 1), of(3, 90)], 10), Some(1));
        assert_eq!(victim([of(500, 1), of(500, 9)], 10), Some(1));
        assert_eq!(victim([of(1, 9), of(9, 1), of(4, 20)], 10), Some(2), "whatever its estimate");
    }
}
