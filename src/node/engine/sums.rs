//! Sums and means with Kahan compensation, added up in Prometheus' order: the last digit depends on it.

/// A sum with a running compensation for rounding errors (Kahan's, as Neumaier improved it).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kahan {
    pub(super) sum: f64,
    pub(super) lost: f64,
}

impl Kahan {
    pub(super) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - total) + value;
        } else {
            self.lost += (value - total) + self.sum;
        }
        self.sum = total;
    }

    pub(super) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }
}

/// Adds to a sum, and the rounding error to the compensation. Knuth's two-sum, which compares nothing: the same as
/// [`Kahan::add`] as long as nothing overflows.
pub(super) fn two_sum(sum: &mut f64, lost: &mut f64, value: f64) {
    let total = *sum + value;
    let added = total - *sum;
    *lost += (*sum - (total - added)) + (value - added);
    *sum = total;
}

/// The sum of some values from `first` on.
fn from(first: f64, values: &[f64]) -> Option<Kahan> {
    let (mut sum, mut lost) = (first, 0.0);
    for value in values {
        two_sum(&mut sum, &mut lost, *value);
    }
    // Once it overflowed it stays infinite, or is no number.
    sum.is_finite().then_some(Kahan { sum, lost })
}

/// The sum of some values, from the first to the last.
pub(super) fn sum(values: &[f64]) -> f64 {
    let sum = from(0.0, values).unwrap_or_else(|| {
        let mut kahan = Kahan::default();
        for value in values {
            kahan.add(*value);
        }
        kahan
    });
    sum.total()
}

/// The mean of some values; NaN of none.
pub(super) fn mean(values: &[f64]) -> f64 {
    let Some((first, rest)) = values.split_first() else { return f64::NAN };
    if let Some(Kahan { sum, lost }) = from(*first, rest) {
        let count = values.len() as f64;
        return sum / count + lost / count;
    }
    let mut mean = Mean::new(*first);
    for value in rest {
        mean.add(*value);
    }
    mean.value()
}

/// A mean as a sum divided at the end, or, once the sum overflows, corrected value by value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mean {
    state: Kahan,
    count: f64,
    incremental: bool,
}

impl Mean {
    pub(super) fn new(first: f64) -> Self {
        Self { state: Kahan { sum: first, lost: 0.0 }, count: 1.0, incremental: false }
    }

    pub(super) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.incremental {
            let mut next = self.state;
            next.add(value);
            if !next.sum.is_infinite() {
                self.state = next;
                return;
            }
            self.incremental = true;
            self.state.sum /= self.count - 1.0;
            self.state.lost /= self.count - 1.0;
        }
        let kept = (self.count - 1.0) / self.count;
        self.state.sum *= kept;
        self.state.lost *= kept;
        self.state.add(value / self.count);
    }

    pub(super) fn value(self) -> f64 {
        if self.incremental {
            self.state.sum + self.state.lost
        } else {
            self.state.sum / self.count + self.state.lost / self.count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_means_know_overflow() {
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(sum(&[f64::MAX, f64::MAX, -f64::MAX]).is_infinite());
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
        assert!(mean(&[]).is_nan());
    }
}
