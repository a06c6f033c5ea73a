//! The best values of a group at a step, in a binary heap.
//!
//! Which of several equal values stay, and in which order they come, follows from how the heap is kept. So that `topk`
//! and `bottomk` choose as Prometheus does, this heap moves its elements as Go's `container/heap` does.

/// A value and the number of its series.
pub(super) type Entry = (f64, u32);

/// Whether `a` is worse than `b`; NaN is worse than everything, itself included.
fn worse(a: f64, b: f64, top: bool) -> bool {
    a.is_nan() || if top { a < b } else { a > b }
}

/// Adds an element to a heap whose worst element is the first.
pub(super) fn push(heap: &mut Vec<Entry>, entry: Entry, top: bool) {
    heap.push(entry);
    let mut at = heap.len() - 1;
    while at > 0 {
        let above = (at - 1) / 2;
        if !worse_at(heap, at, above, top) {
            break;
        }
        heap.swap(at, above);
        at = above;
    }
}

/// Puts an element in the place of the worst one, if it is better.
pub(super) fn replace(heap: &mut [Entry], entry: Entry, top: bool) {
    let Some(worst) = heap.first_mut() else { return };
    let better =
        (if top { worst.0 < entry.0 } else { worst.0 > entry.0 }) || (worst.0.is_nan() && !entry.0.is_nan());
    if !better {
        return;
    }
    *worst = entry;
    let mut at = 0;
    loop {
        let mut below = 2 * at + 1;
        if below >= heap.len() {
            return;
        }
        if below + 1 < heap.len() && worse_at(heap, below + 1, below, top) {
            below += 1;
        }
        if !worse_at(heap, below, at, top) {
            return;
        }
        heap.swap(at, below);
        at = below;
    }
}

/// Puts the best first. Go sorts up to twelve elements by insertion, which this does for any number: equal ones keep the
/// order that they have in the heap.
pub(super) fn sort(heap: &mut [Entry], top: bool) {
    if heap.len() > INSERTION_MAX {
        let value = |entry: &Entry| if top { entry.0 } else { -entry.0 };
        heap.sort_by(|a, b| {
            a.0.is_nan()
                .cmp(&b.0.is_nan())
                .then(value(b).partial_cmp(&value(a)).unwrap_or(std::cmp::Ordering::Equal))
        });
        return;
    }
    for end in 1..heap.len() {
        let mut at = end;
        while at > 0 && worse_at(heap, at - 1, at, top) {
            heap.swap(at, at - 1);
            at -= 1;
        }
    }
}

/// Elements that Go sorts by insertion.
const INSERTION_MAX: usize = 12;

fn worse_at(heap: &[Entry], a: usize, b: usize, top: bool) -> bool {
    match (heap.get(a), heap.get(b)) {
        (Some(a), Some(b)) => worse(a.0, b.0, top),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(values: &[f64], k: usize, top: bool) -> Vec<u32> {
        let mut heap = Vec::new();
        for (number, value) in values.iter().enumerate() {
            if heap.len() < k {
                push(&mut heap, (*value, number as u32), top);
            } else {
                replace(&mut heap, (*value, number as u32), top);
            }
        }
        sort(&mut heap, top);
        heap.into_iter().map(|entry| entry.1).collect()
    }

    #[test]
    fn equal_values_are_chosen_and_ordered_as_prometheus_does() {
        assert_eq!(chosen(&[1.0, 1.0, 1.0, 1.0], 2, true), [0, 1]);
        assert_eq!(chosen(&[1.0, 2.0, 1.0, 2.0, 2.0], 3, true), [4, 1, 3]);
        assert_eq!(chosen(&[2.0, 1.0, 2.0, 1.0, 1.0], 3, false), [4, 1, 3]);
        assert_eq!(chosen(&[f64::NAN, 1.0, f64::NAN, 2.0], 3, true), [3, 1, 0]);
    }

    #[test]
    fn the_best_are_chosen() {
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..500 {
            let values: Vec<f64> = (0..rng.usize(1..60)).map(|_| f64::from(rng.i8(..))).collect();
            let (k, top) = (rng.usize(1..40), rng.bool());
            let got: Vec<f64> = chosen(&values, k, top).into_iter().map(|n| values[n as usize]).collect();
            let mut want = values.clone();
            want.sort_by(|a, b| if top { b.total_cmp(a) } else { a.total_cmp(b) });
            want.truncate(k);
            assert_eq!(got, want);
        }
    }
}
