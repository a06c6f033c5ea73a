//! The answer's bytes, and requests that evaluate nothing.

use super::{
    LabelTable, Leaf, REQUEST_BYTES, RequestMemory,
    engine::{Engine, Sample},
    value::{Value, sum, times},
};
use crate::promql::shape::{Listed, Shape};

/// A point in JSON: a time, quotes, commas, and a float of 18 characters (`rate` fills them).
const POINT_TEXT: u64 = 34;
/// A series in JSON without its labels: braces, `metric`, `values`.
const SERIES_TEXT: u64 = 25;
/// Quotes, colons and commas of some ten labels.
const LABELS_TEXT: u64 = 60;
/// A histogram in JSON without its buckets. Measured: 1,991 bytes with 41 buckets.
const HISTOGRAM_TEXT: u64 = 70;
/// A bucket of it.
const BUCKET_TEXT: u64 = 47;
/// `prompb.Sample` with its unused fields, in a slice that grew by append.
const PROTOBUF_SAMPLE: u64 = 69;
/// A sample in the message, and again in snappy's buffer.
const MESSAGE_SAMPLE: u64 = 18 + 21;
/// `prompb.Label` for each of some ten labels.
const PROTOBUF_LABELS: u64 = 640;
/// A series that is looked through and not listed.
const POSTING_BYTES: u64 = 16;
/// A value of a label in its list and around it in the answer, beside two copies of it.
const VALUE_BYTES: u64 = 64;
/// Values of a label of which the backend says nothing.
const VALUES_ASSUMED: u64 = 10_000;
/// An exemplar with its part of the answer. Measured: 36 MiB for 100,000.
const EXEMPLAR_BYTES: u64 = 400;
/// A frame of a streamed remote read, before and after it is marshalled.
const FRAME_BYTES: u64 = 2 << 20;

/// Bytes that the answer takes in the backend's memory, beside the result itself.
pub(super) fn json(engine: &Engine, value: &Value) -> u64 {
    // A long label set is marshalled on its own, and copied.
    let long = value.labels.saturating_sub(engine.labels);
    let series = times(value.series, sum([value.labels, long, LABELS_TEXT, SERIES_TEXT]));
    let points = times(value.all_points(), POINT_TEXT);
    let histogram = match value.buckets {
        0 => 0,
        buckets => times(buckets, BUCKET_TEXT).saturating_add(HISTOGRAM_TEXT),
    };
    let text = sum([series, points, times(value.all_points(), histogram)]);
    times(text / 100, engine.answer_percent)
}

/// A listing. Selectors with the same matchers list the same series.
pub(super) fn listing(
    engine: &Engine,
    shape: &Shape,
    (listed, entry_bytes): (&Listed, Option<u64>),
    leaves: &[Leaf],
    table: Option<&LabelTable>,
) -> u64 {
    let of_selectors = shape.selectors.iter().zip(leaves).enumerate();
    let distinct =
        || of_selectors.clone().filter(|(i, (one, _))| one.same_as == *i).map(|(_, (_, leaf))| leaf);
    let each = |bytes: &dyn Fn(&Leaf) -> u64| {
        distinct().map(|leaf| times(leaf.series, bytes(leaf))).fold(REQUEST_BYTES, u64::saturating_add)
    };
    match listed {
        Listed::Series => each(&|leaf| engine.listed_series(leaf)),
        // Few names; their series are only looked through.
        Listed::Names if engine.lists_from_index => each(&|_| POSTING_BYTES),
        Listed::Names => each(&|leaf| engine.listed_series(leaf)),
        Listed::Values(label) => {
            let series = distinct().map(|leaf| leaf.series).fold(0, u64::saturating_add);
            // A label that the table does not have may be one of older blocks.
            let listed = table.and_then(|table| table.values(label)).filter(|values| *values > 0);
            let there = listed.unwrap_or(VALUES_ASSUMED);
            let values = if leaves.is_empty() { there } else { there.min(series) };
            let of_leaves = distinct().filter_map(|leaf| leaf.labels).map(|labels| labels.longest).max();
            let of_table = table.and_then(|table| table.value_bytes(label));
            let bytes = entry_bytes.max(of_table).or(of_leaves).unwrap_or(0);
            let value = bytes.max(engine.longest);
            let listed = sum([VALUE_BYTES, times(2, value), times(value, engine.answer_percent) / 100]);
            each(&|_| POSTING_BYTES).saturating_add(times(values, listed))
        }
        Listed::Exemplars => {
            let all = distinct().map(|leaf| times(leaf.series, leaf.samples));
            let all = all.fold(0, u64::saturating_add).min(engine.exemplars);
            each(&|leaf| engine.listed_series(leaf)).saturating_add(times(all, EXEMPLAR_BYTES))
        }
    }
}

/// Raw samples as a remote read returns them. All queries of one request are answered in one message.
pub(super) fn remote_read(engine: &Engine, leaves: &[Leaf], streamed: bool) -> RequestMemory {
    let streamed = streamed && engine.streams_reads;
    let each = |leaf: &Leaf| {
        let selected = engine.selected(leaf);
        let sample = PROTOBUF_SAMPLE + MESSAGE_SAMPLE;
        let histogram = if leaf.buckets == 0 { 0 } else { engine.object(leaf.buckets).saturating_add(272) };
        let series = times(leaf.samples, sample.saturating_add(histogram)).saturating_add(PROTOBUF_LABELS);
        selected.saturating_add(if streamed { 0 } else { times(leaf.series, series) })
    };
    let bytes = leaves.iter().map(each).fold(REQUEST_BYTES, u64::saturating_add);
    let frame = if streamed { FRAME_BYTES } else { 0 };
    let points = leaves.iter().map(|leaf| times(leaf.series, leaf.samples));
    let points = if streamed { 0 } else { points.fold(0, u64::saturating_add) };
    RequestMemory { bytes: bytes.saturating_add(frame), points, ..RequestMemory::default() }
}

impl Engine {
    /// A label set in a list, with its part of the answer.
    fn listed_series(&self, leaf: &Leaf) -> u64 {
        let set = leaf.labels.map_or(self.labels, |labels| labels.set);
        let long = leaf.labels_beyond();
        let text = sum([set, long, LABELS_TEXT, SERIES_TEXT]);
        sum([self.listed, set, self.labels / 2, times(text, self.answer_percent) / 100])
    }

    /// The memory of a selector from its first use to the end of the query.
    pub(super) fn selected(&self, leaf: &Leaf) -> u64 {
        let blocks = if self.compacts { leaf.blocks.min(6 + leaf.blocks / 12) } else { leaf.blocks };
        let Sample { sixteenths } = self.sample;
        let samples = times(leaf.samples, sixteenths) / 16;
        times(leaf.series, sum([self.series, leaf.labels_beyond(), times(blocks, self.block), samples]))
    }
}
