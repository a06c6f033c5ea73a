//! Input that comes over the network, and chunks.

use weir::node::{
    chunk,
    head::LabelLimits,
    ingest::{self, BadInput, Strings, TextOptions},
};

/// As large as a body may become here, bytes.
const UNPACKED_MAX: usize = 1 << 20;

pub(super) fn chunk(input: &[u8]) -> bool {
    let (mut times, mut values) = (vec![1], vec![2.0]);
    let Ok(count) = chunk::decode_into(input, &mut times, &mut values) else {
        assert_eq!((times.len(), values.len()), (1, 1), "a failure left something behind");
        return false;
    };
    assert_eq!((times.len(), values.len()), (count + 1, count + 1));
    // Whatever was read can be written, and is read again bit for bit.
    let mut again = Vec::new();
    chunk::encode(&times[1..], &values[1..], &mut again).unwrap();
    let (mut times_again, mut values_again) = (Vec::new(), Vec::new());
    assert_eq!(chunk::decode_into(&again, &mut times_again, &mut values_again), Ok(count));
    assert_eq!(times_again, times[1..]);
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&values_again), bits(&values[1..]));
    true
}

/// Time and value of the i-th sample.
type Column = (fn(i64) -> i64, fn(i64) -> f64);

pub(super) fn chunks() -> Vec<Vec<u8>> {
    let nan = f64::from_bits(0x7ff0_0000_0000_0002);
    let columns: [Column; 7] = [
        (|i| i * 15_000, |_| 1.0),
        (|i| i * 15_000 + i * i % 7, |i| i as f64),
        (|i| i * 15_000 + i % 3, |i| (i as f64).sin()),
        (|i| i * i, |i| i as f64 / 100.0),
        (|i| i.wrapping_mul(i64::MAX / 3), |i| if i % 9 == 0 { f64::NEG_INFINITY } else { i as f64 * 0.5 }),
        // Many small values and ever fewer large ones.
        (|i| i * 15_000, |i| f64::from((i * 40_503 % 65_536 + 1).leading_zeros() * 3)),
        (|i| i64::MIN + i, |i| f64::from_bits(i as u64 | 0x7ff8 << 48)),
    ];
    let mut all = vec![chunk_of(&[], &[]), chunk_of(&[5], &[nan])];
    for (time, value) in columns {
        let times: Vec<i64> = (0..300).map(time).collect();
        let values: Vec<f64> = (0..300).map(value).collect();
        all.push(chunk_of(&times, &values));
    }
    all
}

fn chunk_of(times: &[i64], values: &[f64]) -> Vec<u8> {
    let mut out = Vec::new();
    chunk::encode(times, values, &mut out).unwrap();
    out
}

pub(super) fn remote_write(input: &[u8]) -> bool {
    let limits = LabelLimits::default();
    let mut called = false;
    let read = ingest::remote_write(input, limits, |batch| {
        called = true;
        for series in batch.series() {
            let labels = series.labels();
            assert!(labels.is_sorted_by(|a, b| a.0 < b.0));
            assert!(!labels.is_empty() && labels.iter().all(|(n, v)| !n.is_empty() && !v.is_empty()));
        }
        Ok::<_, BadInput>(())
    });
    assert!(read.is_ok() || !called, "a malformed message handed something over");
    read.is_ok()
}

/// A field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn written(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, value) in labels {
        let label = [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
        series.extend(field(1, &label));
    }
    for (time, value) in samples {
        let mut sample = vec![1 << 3 | 1];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(2 << 3);
        varint(*time as u64, &mut sample);
        series.extend(field(2, &sample));
    }
    field(1, &series)
}

pub(super) fn remote_writes() -> Vec<Vec<u8>> {
    let up = written(&[("__name__", "up"), ("job", "a")], &[(1_700_000_000_000, 1.0), (-5, f64::NAN)]);
    let utf8 = written(&[("__name__", "härte"), ("a.b", "λ\n\"x\"")], &[(i64::MAX, f64::INFINITY)]);
    // Metadata, a field that nobody knows, and a fixed one are passed over.
    let more = [field(3, &field(2, b"up")), field(9, b"later"), vec![10 << 3 | 5, 1, 2, 3, 4]].concat();
    vec![up.clone(), [up, utf8, more].concat()]
}

pub(super) fn remote_read(input: &[u8]) -> bool {
    ingest::read_request(input).is_ok_and(|queries| {
        assert!(queries.len() <= input.len());
        true
    })
}

pub(super) fn remote_reads() -> Vec<Vec<u8>> {
    let matcher = |kind: u8, name: &str, value: &str| {
        field(3, &[vec![1 << 3, kind], field(2, name.as_bytes()), field(3, value.as_bytes())].concat())
    };
    let mut window = vec![1 << 3];
    varint(1_700_000_000_000, &mut window);
    window.push(2 << 3);
    varint(1_700_000_060_000, &mut window);
    let query = field(1, &[window, matcher(0, "__name__", "up"), matcher(2, "job", "a.*")].concat());
    vec![query.clone(), [query, vec![2 << 3, 0], field(2, &[1, 0])].concat()]
}

pub(super) fn snappy(input: &[u8]) -> bool {
    let unpacked = ingest::unpack(input, UNPACKED_MAX);
    unpacked.is_ok_and(|unpacked| {
        assert!(unpacked.len() <= UNPACKED_MAX);
        true
    })
}

pub(super) fn snappies() -> Vec<Vec<u8>> {
    let mut all = remote_writes();
    all.push(vec![0; 100_000]);
    all.push(b"abcabcabcabc".repeat(200));
    all.iter().map(|plain| snap::raw::Encoder::new().compress_vec(plain).unwrap()).collect()
}

pub(super) fn exposition(input: &[u8]) -> bool {
    let limits = LabelLimits::default();
    let lines = input.split(|byte| *byte == b'\n').count();
    [false, true].into_iter().all(|open_metrics| {
        let mut samples = 0;
        let (strings, extra_labels) = (Strings::new(), Vec::new());
        let options = TextOptions { time_ms: 7, open_metrics, extra_labels, limits, known: None };
        let read = ingest::exposition(input, &strings, &options, |batch| {
            samples += batch.series().map(|series| series.samples.len()).sum::<usize>();
            Ok::<_, BadInput>(())
        });
        assert!(samples <= lines, "more samples than lines");
        // Only some end as OpenMetrics does.
        read.is_ok() || open_metrics
    })
}

pub(super) fn expositions() -> Vec<Vec<u8>> {
    let texts = [
        "# HELP up Whether it runs.\n# TYPE up gauge\nup{job=\"a\",le=\"0.5\"} 1 1700000000000\nup 0\n",
        "x_total{a=\"q\\\"uo\\\\te\\n\",} +Inf\nx NaN\n\n  y -1.5e-7\t3 \r\n",
        "{\"quoted.name\", \"label é\"=\"v\"} 1\nlatency_bucket{le=\"1\"} 5 12 # {trace_id=\"x\"} 0.3\n# EOF\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
