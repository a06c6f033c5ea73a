//! The answer's bytes, and requests that evaluate nothing.

use super::{
    Leaf, REQUEST_BYTES, Taken,
    engine::{Engine, Sample},
    value::{Value, sum, times},
};

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
/// A frame of a streamed remote read, before and after it is marshalled.
const FRAME_BYTES: u64 = 2 << 20;

/// Bytes that the answer takes in the backend's memory, beside the result itself.
pub(super) fn json(engine: &Engine, value: &Value) -> u64 {
    let series = times(value.series, sum([value.labels, LABELS_TEXT, SERIES_TEXT]));
    let points = times(value.all_points(), POINT_TEXT);
    let histogram = match value.buckets {
        0 => 0,
        buckets => times(buckets, BUCKET_TEXT).saturating_add(HISTOGRAM_TEXT),
    };
    let text = sum([series, points, times(value.all_points(), histogram)]);
    times(text / 100, engine.answer_percent)
}

/// A listing of label sets: each series with its labels, in memory and in the answer.
pub(super) fn listing(engine: &Engine, leaves: &[Leaf]) -> Taken {
    let each = |leaf: &Leaf| {
        let listed = Value { labels: engine.labels, ..Value { series: leaf.series, ..Value::one(0) } };
        // No chunks are looked up.
        engine.selected(&Leaf { samples: 0, ..*leaf }).saturating_add(json(engine, &listed))
    };
    let bytes = leaves.iter().map(each).fold(REQUEST_BYTES, u64::saturating_add);
    Taken { bytes, ..Taken::default() }
}

/// Raw samples as a remote read returns them. All queries of one request are answered in one message.
pub(super) fn remote_read(engine: &Engine, leaves: &[Leaf], streamed: bool) -> Taken {
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
    Taken { bytes: bytes.saturating_add(frame), points, ..Taken::default() }
}

impl Engine {
    /// The memory of a selector from its first use to the end of the query.
    pub(super) fn selected(&self, leaf: &Leaf) -> u64 {
        let blocks = if self.compacts { leaf.blocks.min(6 + leaf.blocks / 12) } else { leaf.blocks };
        let Sample { sixteenths } = self.sample;
        let samples = times(leaf.samples, sixteenths) / 16;
        times(leaf.series, sum([self.series, times(blocks, self.block), samples]))
    }
}
