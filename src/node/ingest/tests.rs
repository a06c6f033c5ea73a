use super::*;
use crate::node::head::{Batch, LabelLimits, MetadataField, RefusedSeries};

type Read = Vec<(Vec<(String, String)>, Vec<(i64, u64)>)>;

fn owned(batch: &Batch<'_>) -> Read {
    let strings = |labels: &[(&str, &str)]| {
        labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
    };
    batch
        .series()
        .map(|s| (strings(&s.labels()), s.samples.iter().map(|(t, v)| (*t, v.to_bits())).collect()))
        .collect()
}

/// The storable part of a message, and the reason for the first refused series.
fn read_message(message: &[u8], limits: LabelLimits) -> Result<(Read, RefusedSeries), BadInput> {
    let (mut all, mut refused) = (Read::new(), RefusedSeries::default());
    remote_write::<BadInput>(message, limits, |batch| {
        all.extend(owned(batch));
        let more = batch.refused();
        refused.series += more.series;
        refused.samples += more.samples;
        refused.first = refused.first.take().or(more.first.clone());
        Ok(())
    })?;
    Ok((all, refused))
}

fn read_text(text: &[u8], open_metrics: bool) -> (Read, Option<BadInput>) {
    let mut all = Read::new();
    let limits = LabelLimits::default();
    let options = TextOptions { time_ms: 7, open_metrics, extra_labels: Vec::new(), limits, known: None };
    let strings = Strings::new();
    let end = exposition::<BadInput>(text, &strings, &options, |batch| {
        all.extend(owned(batch));
        Ok(())
    });
    (all, end.err())
}

#[test]
fn text_is_read_line_by_line() {
    let cases: &[(&str, &str, f64, i64)] = &[
        ("up 1", "__name__=up", 1.0, 7),
        ("up 1 5\r", "__name__=up", 1.0, 5),
        ("  up\t{}  1.5e3\t-5 ", "__name__=up", 1500.0, -5),
        ("a:b{x=\"1\",y=\"2\",} +Inf 9", "__name__=a:b,x=1,y=2", f64::INFINITY, 9),
        ("a{x=\"q\\\"b\\\\s\\nn\\t\"} -Inf 9", "__name__=a,x=q\"b\\s\nn\\t", f64::NEG_INFINITY, 9),
        ("{\"my metric\",\"a b\"=\"}, # x\"} 2 9 # {id=\"1\"} 3", "__name__=my metric,a b=}, # x", 2.0, 9),
        ("a 1 1700000000.123", "__name__=a", 1.0, 1_700_000_000_123),
        ("a{x=\"\"} 1", "__name__=a", 1.0, 7),
        ("a{x=\"é\"} 1", "__name__=a,x=é", 1.0, 7),
        ("a{x=\"}\",y=\"# \"} 1 9", "__name__=a,x=},y=# ", 1.0, 9),
        ("a 1 9 # {x=\"}\"} 5", "__name__=a", 1.0, 9),
        ("a{x=\"\\\"é\\\\\"} 123456789012345678 9", "__name__=a,x=\"é\\", 123456789012345678.0, 9),
    ];
    for (line, labels, value, time) in cases {
        let (read, bad) = read_text(format!("# HELP a b\n\n{line}\n# EOF\n").as_bytes(), false);
        assert_eq!(bad, None, "{line}");
        let [(got, samples)] = &read[..] else { panic!("{line}") };
        let got: Vec<String> = got.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            (got.join(","), &samples[..]),
            ((*labels).to_owned(), &[(*time, value.to_bits())][..]),
            "{line}"
        );
    }
    let (read, _) = read_text(b"a NaN\na nan 1", false);
    assert!(read.iter().all(|(_, s)| f64::from_bits(s[0].1).is_nan()));
    assert_eq!(read_text(b"a 1 1700000000\n# EOF\n", true).0[0].1[0].0, 1_700_000_000_000);
}

#[test]
fn a_bad_line_is_named_and_what_came_before_is_kept() {
    for bad in [
        "up",
        "up x",
        "up 1 x",
        "up 1 2 3",
        "1up 1",
        "{} 1",
        "{x=\"é\"} 1",
        "a{x=\"1\"}} 1",
        "a{x=\"1\"}b 1",
        "a{x} 1",
        "a{x=1} 1",
        "a{x=\"1} 1",
        "a{x=\"1\" y=\"2\"} 1",
        "a{=\"1\"} 1",
        "a{\"\"=\"1\"} 1",
        "a{x=\"1\",x=\"2\"} 1",
        "a{\"b\"} 1",
        "a{x=\"1\\",
        "a{",
        "a 1 99999999999999999999",
        "a 1 1e400.0",
        "a 1 NaN.",
    ] {
        let (read, error) = read_text(format!("ok 1 1\n\n{bad}\nok 2 2\n").as_bytes(), false);
        let error = error.unwrap_or_else(|| panic!("{bad} was read"));
        assert_eq!((error.place, read.len()), (Place::Line(3), 1), "{bad}: {error}");
    }
    for (text, line, kept) in [
        (&b"a{x=\"\xff\"} 1"[..], 1, 0),
        (b"a 1\n\xff", 2, 1),
        (b"a 1\n\xff 1\nb 1\n", 2, 1),
        (b"a 1\nb{x=\"\xff\"} 1\nc 1", 2, 1),
    ] {
        let (read, bad) = read_text(text, false);
        assert_eq!((bad.unwrap().place, read.len()), (Place::Line(line), kept), "{text:?}");
    }
}

#[test]
fn lines_of_one_series_are_one_series_in_their_order() {
    let text = "a{x=\"1\"} 1 1\nb 5 1\na{x=\"1\"} 2 2\na{x=\"1\"} 3 3\nb 6 2\nc 9 1\na{ x=\"1\" } 4 4\n";
    let (read, bad) = read_text(text.as_bytes(), false);
    assert_eq!(bad, None);
    let samples: Vec<Vec<(i64, f64)>> =
        read.iter().map(|(_, s)| s.iter().map(|(t, v)| (*t, f64::from_bits(*v))).collect()).collect();
    assert_eq!(
        samples,
        [
            vec![(1, 1.0), (2, 2.0), (3, 3.0)],
            vec![(1, 5.0), (2, 6.0)],
            vec![(1, 9.0)],
            // Written otherwise: the database brings it together.
            vec![(4, 4.0)]
        ]
    );
}

#[test]
fn open_metrics_ends_with_its_end() {
    assert_eq!(read_text(b"a 1\n# EOF", true).1, None);
    for text in ["a 1\n", "", "# EOF\na 1\n", "a 1\n# EO"] {
        let (_, bad) = read_text(text.as_bytes(), true);
        assert!(bad.unwrap().message.contains("# EOF"), "{text}");
        assert_eq!(read_text(text.as_bytes(), false).1, None, "{text}");
    }
}

#[test]
fn metadata_and_extra_labels_are_read() {
    let text = "# HELP a what\\nit \\\\ is\n# TYPE a counter\n#TYPE b gauge\n# UNIT a seconds\n# a comment\na{job=\"own\"} 1\n";
    let limits = LabelLimits::default();
    let extra_labels = vec![("job", "extra"), ("z", "1")];
    let options = TextOptions { time_ms: 7, open_metrics: false, extra_labels, limits, known: None };
    let (strings, mut said) = (Strings::new(), Vec::new());
    exposition::<BadInput>(text.as_bytes(), &strings, &options, |batch| {
        said.extend(batch.metadata().to_vec());
        let series = batch.series().next().unwrap();
        assert_eq!(*series.labels(), [("__name__", "a"), ("job", "extra"), ("z", "1")]);
        Ok(())
    })
    .unwrap();
    assert_eq!(
        said,
        [
            ("a", MetadataField::Help("what\nit \\ is")),
            ("a", MetadataField::Type("counter")),
            ("b", MetadataField::Type("gauge")),
            ("a", MetadataField::Unit("seconds")),
        ]
    );
}

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn nested(field: u64, bytes: &[u8], into: &mut Vec<u8>) {
    varint(field << 3 | 2, into);
    varint(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

type Sent<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

fn message(series: &[Sent<'_>]) -> Vec<u8> {
    let mut request = Vec::new();
    for (labels, samples) in series {
        let mut one = Vec::new();
        for (name, value) in *labels {
            let mut label = Vec::new();
            nested(1, name.as_bytes(), &mut label);
            nested(2, value.as_bytes(), &mut label);
            nested(1, &label, &mut one);
        }
        for (time, value) in *samples {
            let mut sample = vec![1 << 3 | 1];
            sample.extend_from_slice(&value.to_le_bytes());
            sample.push(2 << 3);
            varint(*time as u64, &mut sample);
            nested(2, &sample, &mut one);
        }
        // An exemplar, to be skipped.
        nested(3, b"\x12\x01a", &mut one);
        nested(1, &one, &mut request);
    }
    nested(3, b"\x08\x01\x12\x02up\x22\x04help\x2a\x01s", &mut request);
    request
}

#[test]
fn remote_write_keeps_every_bit() {
    let samples = [
        (i64::MIN, f64::from_bits(0x7ff0_0000_0000_0002)),
        (-1, -0.0),
        (0, f64::NAN),
        (i64::MAX, f64::from_bits(0xfff8_dead_beef_0001)),
    ];
    let sent = message(&[(&[("b", "é"), ("__name__", "up")], &samples), (&[("__name__", "1")], &[])]);
    let packed = snap::raw::Encoder::new().compress_vec(&sent).unwrap();
    let unpacked = unpack(&packed, 10_000).unwrap();
    let (read, _) = read_message(&unpacked, LabelLimits::default()).unwrap();
    let text = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    assert_eq!(read[0].0, [text("__name__", "up"), text("b", "é")]);
    assert_eq!(read[0].1, samples.map(|(t, v)| (t, v.to_bits())));
    assert_eq!(read.len(), 1, "a series without samples is skipped");
    assert!(unpack(&packed, 10).unwrap_err().message.contains("10 are allowed"));
}

#[test]
fn a_series_that_cannot_be_stored_is_refused_alone() {
    let limits = LabelLimits { labels: 3, name_bytes: 20, value_bytes: 20 };
    let sample = &[(5, 1.0), (6, 2.0)];
    let long = "x".repeat(1_000);
    let bad: [(&[(&str, &str)], &str); 8] = [
        (&[("__name__", "a"), ("b", &long)], "too long: 1000 bytes: {__name__=\"a\", b=\"xxx"),
        (&[(&long, "a")], "of 1000 bytes is too long"),
        (&[("a", "1"), ("a", "2")], "not unique"),
        (&[("", "1")], "empty name"),
        (&[], "no metric name"),
        (&[("a", "1")], "no metric name"),
        (&[("__name__", ""), ("a", "1")], "no metric name"),
        (&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1")], "5 labels"),
    ];
    for (labels, why) in bad {
        let sent =
            message(&[(&[("__name__", "1")], sample), (labels, sample), (&[("__name__", "2")], sample)]);
        let (read, refused) = read_message(&sent, limits).unwrap();
        assert_eq!(read.len(), 2, "{why}");
        let first = refused.first.unwrap();
        assert_eq!((refused.series, refused.samples), (1, 2), "{why}");
        assert!(first.contains(why) && first.len() < 400, "{first}");
    }
    for (raw, why) in [
        (&b"\x0a\x03\x0a\x01\xff\x12\x00"[..], "not UTF-8"),
        (b"\x0a\x06\x0a\x01a\x12\x01b\x22\x00", "native histograms"),
    ] {
        let mut sent = message(&[(&[("__name__", "1")], sample)]);
        nested(1, raw, &mut sent);
        let (read, refused) = read_message(&sent, limits).unwrap();
        assert_eq!((read.len(), refused.series, refused.samples), (1, 1, 1), "{why}");
        assert!(refused.first.unwrap().contains(why));
    }
    // Bytes that are no message keep nothing.
    let mut sent = message(&[(&[("__name__", "1")], sample)]);
    sent.extend(b"\x0a\x7f");
    assert!(read_message(&sent, limits).is_err());
}

#[test]
fn a_large_message_comes_in_batches_and_whole() {
    let mut sent = Vec::new();
    let many: Vec<(i64, f64)> = (0..150_000).map(|i| (i, i as f64)).collect();
    sent.extend(message(&[(&[("__name__", "long")], &many)]));
    for i in 0..20_000 {
        sent.extend(message(&[
            (&[("__name__", "1"), ("i", &i.to_string())], &[(i, 0.5)]),
            (&[("none", "1")], &[]),
        ]));
    }
    let (mut batches, mut samples, mut largest) = (0, 0, 0);
    // One in four is full of metadata.
    remote_write::<BadInput>(&sent, LabelLimits::default(), |batch| {
        batches += 1;
        let own: usize = batch.series().map(|series| series.samples.len()).sum();
        (samples, largest) = (samples + own, largest.max(own));
        assert!(batch.series().all(|series| series.labels()[0].0 != "none"));
        Ok(())
    })
    .unwrap();
    assert_eq!((batches, samples), (17, 170_000));
    assert!(largest <= 65_536);
}

fn nothing_of_a_malformed_message_is_taken(bytes: &[u8]) -> bool {
    let mut batches = 0;
    let read = remote_write::<BadInput>(bytes, LabelLimits::default(), |_| {
        batches += 1;
        Ok(())
    });
    assert!(read.is_ok() || batches == 0, "{batches} batches of {bytes:?}");
    read.is_err()
}

#[test]
fn a_malformed_message_is_refused_whole() {
    let sample: &[(i64, f64)] = &[(5, 1.0)];
    let many: Vec<(i64, f64)> = (0..70_000).map(|i| (i, i as f64)).collect();
    let heads = [
        message(&[(&[("__name__", "1")], sample)]),
        message(&[(&[("__name__", "1")], &many)]),
        message(&[(&[("a", "refused")], sample)]),
        message(&[(&[("a", "refused")], &many)]),
    ];
    // A field that is cut off; a sample that is none, of a good series and of a refused one.
    let mut tails = vec![b"\x0a\x7f".to_vec()];
    for labels in [&b"\x0a\x0d\x0a\x08__name__\x12\x01a"[..], b"\x0a\x06\x0a\x01a\x12\x01b"] {
        let mut tail = Vec::new();
        nested(1, &[labels, b"\x12\x02\x09\x00"].concat(), &mut tail);
        tails.push(tail);
    }
    for head in &heads {
        for tail in &tails {
            assert!(nothing_of_a_malformed_message_is_taken(&[&head[..], tail].concat()), "{tail:?}");
        }
    }
}

#[test]
fn hostile_bytes_are_refused_and_never_panic() {
    let whole = message(&[(&[("a", "1"), ("__name__", "m")], &[(5, 1.0)]), (&[("b", "2")], &[(6, 2.0)])]);
    let limits = LabelLimits::default();
    let fixed: &[&[u8]] = &[
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        b"\x0b",
        b"\x02\x00",
        b"\x08\x01",
        b"\x0a\x04\x0a\x02\x0a\xff",
    ];
    for bytes in fixed {
        let error = read_message(bytes, limits).unwrap_err();
        assert!(matches!(error.place, Place::Offset(_)), "{bytes:?}");
    }
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        bytes.truncate(random.usize(0..=whole.len()));
        for _ in 0..random.usize(0..4) {
            if !bytes.is_empty() {
                let at = random.usize(0..bytes.len());
                bytes[at] = random.u8(..);
            }
        }
        nothing_of_a_malformed_message_is_taken(&bytes);
        let _ = unpack(&bytes, 1 << 20);
        let _ = read_text(&bytes, false);
    }
    // A block that claims four gigabytes.
    assert!(unpack(b"\xff\xff\xff\xff\x0f\x00", usize::MAX).is_err());
    let text = br#"a{x="1",y="q\"\\"} 1 5"#;
    for _ in 0..20_000 {
        let mut bytes = text.to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..bytes.len());
            bytes[at] = random.u8(..);
        }
        let _ = read_text(&bytes, random.bool());
    }
}
