//! Samples of one series.

/// The bits of the NaN that ends a series in Prometheus' storage.
pub const STALE_NAN: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value marks the end of a series.
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN
}

/// Samples of one series in time order, a column each; buffers that are filled again for the next series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Milliseconds since the Unix epoch, strictly rising.
    pub times: Vec<i64>,
    /// Values; [`STALE_NAN`] marks the end of a series.
    pub values: Vec<f64>,
    /// When each sample's counter started, 0 where unknown; empty when nothing is known.
    pub starts: Vec<i64>,
}

impl Samples {
    /// Forgets all samples and keeps the memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.starts.clear();
    }

    /// Appends a sample whose start is not known.
    pub fn push(&mut self, time: i64, value: f64) {
        self.times.push(time);
        self.values.push(value);
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}
