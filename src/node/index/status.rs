//! The largest names and values, as in Prometheus' `status/tsdb`.

use std::{cmp::Reverse, collections::BinaryHeap, fmt, sync::Arc};

use roaring::RoaringBitmap;

use super::Index;

/// A name and how much there is of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// Series, values or bytes.
    pub count: u64,
    /// The key counted.
    pub key: Key,
}

/// A metric name, a label name, or a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The name.
    pub name: Arc<str>,
    /// The value of a label.
    pub value: Option<Arc<str>>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => f.write_str(&self.name),
            Some(value) => write!(f, "{}={value}", self.name),
        }
    }
}

/// Most bytes that the tables take, of `top` entries each, while they are made.
pub fn bytes(top: usize) -> u64 {
    // The heaps grow by doubling, and each becomes a list in the end.
    (3 * TABLES).saturating_mul(top).saturating_mul(size_of::<Count>()) as u64
}

const TABLES: usize = 4;

/// Cardinality at a glance; every list is sorted, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Series in all.
    pub series: u64,
    /// Pairs of label name and value.
    pub label_pairs: u64,
    /// Series per metric name.
    pub series_by_metric: Vec<Count>,
    /// Values per label name.
    pub values_by_label: Vec<Count>,
    /// Bytes of the values per label name.
    pub bytes_by_label: Vec<Count>,
    /// Series per `name=value`.
    pub series_by_pair: Vec<Count>,
}

/// The largest `max` of the entries that it is shown.
struct Top {
    max: usize,
    /// The least on top; of equals the last by name.
    held: BinaryHeap<Reverse<(u64, Reverse<Key>)>>,
}

impl Top {
    fn new(max: usize) -> Self {
        Self { max, held: BinaryHeap::new() }
    }

    fn offer(&mut self, count: u64, name: &Arc<str>, value: Option<&Arc<str>>) {
        let full = self.held.len() >= self.max;
        if count == 0 || full && self.held.peek().is_none_or(|Reverse((least, _))| *least >= count) {
            return;
        }
        if full {
            self.held.pop();
        }
        let key = Key { name: Arc::clone(name), value: value.cloned() };
        self.held.push(Reverse((count, Reverse(key))));
    }

    fn finish(self) -> Vec<Count> {
        let held = self.held.into_iter();
        let mut list: Vec<Count> = held.map(|Reverse((count, Reverse(key)))| Count { count, key }).collect();
        list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        list
    }
}

pub(super) fn of(index: &Index, among: Option<&RoaringBitmap>, top: usize) -> Status {
    let count = |ids: &RoaringBitmap| among.map_or_else(|| ids.len(), |a| a.intersection_len(ids));
    let [mut metrics, mut labels, mut bytes, mut pairs] = [(); 4].map(|()| Top::new(top));
    let mut label_pairs = 0;
    for (name, values) in &index.names {
        if count(&values.all) == 0 {
            continue;
        }
        let (mut distinct, mut size) = (0, 0);
        for (value, ids) in &values.postings {
            let series = count(ids);
            if series == 0 {
                continue;
            }
            distinct += 1;
            size += value.len() as u64;
            pairs.offer(series, name, Some(value));
            if &**name == "__name__" {
                metrics.offer(series, value, None);
            }
        }
        label_pairs += distinct;
        labels.offer(distinct, name, None);
        bytes.offer(size, name, None);
    }
    Status {
        series: count(&index.all),
        label_pairs,
        series_by_metric: metrics.finish(),
        values_by_label: labels.finish(),
        bytes_by_label: bytes.finish(),
        series_by_pair: pairs.finish(),
    }
}
