//! The largest names and values, as in Prometheus' `status/tsdb`.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use roaring::RoaringBitmap;

use super::Index;

/// A name and how much there is of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// Series, values or bytes.
    pub count: u64,
    /// The key counted: a metric name, a label name or `name=value`.
    pub name: Arc<str>,
}

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
    held: BinaryHeap<Reverse<(u64, Reverse<Arc<str>>)>>,
}

impl Top {
    fn new(max: usize) -> Self {
        Self { max, held: BinaryHeap::new() }
    }

    fn offer(&mut self, count: u64, name: impl FnOnce() -> Arc<str>) {
        let full = self.held.len() >= self.max;
        if count == 0 || full && self.held.peek().is_none_or(|Reverse((least, _))| *least >= count) {
            return;
        }
        if full {
            self.held.pop();
        }
        self.held.push(Reverse((count, Reverse(name()))));
    }

    fn finish(self) -> Vec<Count> {
        let held = self.held.into_iter();
        let mut list: Vec<Count> =
            held.map(|Reverse((count, Reverse(name)))| Count { count, name }).collect();
        list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
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
            pairs.offer(series, || format!("{name}={value}").into());
            if &**name == "__name__" {
                metrics.offer(series, || Arc::clone(value));
            }
        }
        label_pairs += distinct;
        labels.offer(distinct, || Arc::clone(name));
        bytes.offer(size, || Arc::clone(name));
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
