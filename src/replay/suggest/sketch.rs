//! How often numbers of which size came, in bounded memory.

use std::collections::BTreeMap;

/// Neighbouring sizes differ by this factor at most: 2 %.
const STEP: f64 = 1.02;
/// The share of the queries that is ordinary at any cost.
const ORDINARY: f64 = 0.99;
/// How many times the one before a number is that no longer belongs to it.
const GAP: f64 = 2.0;

/// Numbers that differ by less than 2 % count as one, as the largest of them. 64 bits hold 2,240 such.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    sizes: BTreeMap<u16, Size>,
    count: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    count: u64,
    /// The smallest number of this size and the largest.
    least: u64,
    most: u64,
}

impl Sketch {
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn add(&mut self, value: u64) {
        let key = ((value.max(1) as f64).ln() / STEP.ln()) as u16;
        let size = self.sizes.entry(key).or_insert(Size { count: 0, least: value, most: value });
        size.count += 1;
        size.least = size.least.min(value);
        size.most = size.most.max(value);
        self.count += 1;
    }

    /// The largest ordinary number: the 99th percentile, and from there on as long as the next one is at most [`GAP`]
    /// times the one before. `None` of nothing, and where all are 0.
    pub(super) fn ordinary(&self) -> Option<u64> {
        let enough = (self.count as f64 * ORDINARY).ceil() as u64;
        let (mut seen, mut last) = (0, None);
        for size in self.sizes.values() {
            let is_tail = seen >= enough;
            if is_tail && last.is_some_and(|last: u64| size.least as f64 > last as f64 * GAP) {
                break;
            }
            seen += size.count;
            last = Some(size.most);
        }
        last.filter(|most| *most > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(values: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::default();
        values.into_iter().for_each(|value| sketch.add(value));
        sketch
    }

    #[test]
    fn a_tail_that_thins_out_is_ordinary_and_what_lies_beyond_a_gap_is_not() {
        let body = || std::iter::repeat_n(100, 1_000);
        for (tail, ordinary) in
            [(&[][..], 100), (&[190, 300, 590], 590), (&[140, 300], 140), (&[5_000, 5_001, 5_002], 100)]
        {
            assert_eq!(sketch(body().chain(tail.iter().copied())).ordinary(), Some(ordinary), "{tail:?}");
        }
        assert_eq!(sketch([]).ordinary(), None);
        assert_eq!(sketch([0, 0]).ordinary(), None);
        // A gap below the 99th percentile is none.
        assert_eq!(sketch([1; 50].into_iter().chain([1_000; 50])).ordinary(), Some(1_000));
    }

    #[test]
    fn its_size_is_bounded() {
        let mut random = fastrand::Rng::with_seed(1);
        let sketch = sketch((0..100_000).map(|_| random.u64(..) >> random.u32(..64)));
        assert!(sketch.sizes.len() <= 2_241, "{}", sketch.sizes.len());
    }
}
