use std::borrow::Cow;

use super::*;
use crate::node::head::Registry;

/// The content of a record in words that can be compared.
#[derive(Default)]
struct Said {
    labels: Vec<String>,
    samples: Vec<(u64, i64, u64)>,
    chunks: usize,
    number: u64,
}

impl Replay for Said {
    fn series(&mut self, number: u64, labels: Option<&[(&str, &str)]>) -> bool {
        self.number = number;
        self.labels.extend(labels.map(|labels| format!("{number} {labels:?}")));
        true
    }

    fn sample(&mut self, time: i64, value: f64) {
        self.samples.push((self.number, time, value.to_bits()));
    }

    fn chunk(&mut self, _: &[u8]) -> Result<(), String> {
        self.chunks += 1;
        Ok(())
    }
}

fn accepted(samples: Vec<Vec<(i64, f64)>>) -> Vec<Accepted<'static>> {
    let mut registry = Registry::default();
    let numbered = samples.into_iter().enumerate();
    numbered
        .map(|(i, samples)| {
            let number = i.to_string();
            let labels = [("__name__", "up"), ("instance", number.as_str()), ("other", number.as_str())];
            Accepted {
                series: Cow::Owned(registry.find_or_insert(&labels).unwrap()),
                samples: samples.into(),
            }
        })
        .collect()
}

#[test]
fn a_write_is_read_back_bit_for_bit() {
    let odd = [0.0, -0.0, f64::NAN, f64::from_bits(0x7ff0_0000_0000_0002), f64::INFINITY, 1e300, 5e-324];
    let cases: Vec<Vec<(i64, f64)>> = vec![
        vec![(1_700_000_000_000, 1.0)],
        vec![(1_700_000_000_000, 2.5)],
        (0..20).map(|i| (1_700_000_000_000 + i * 15_000, 100.0 + i as f64)).collect(),
        (0..20).map(|i| (1_700_000_000_000 + i * 15_000, 100.0 + i as f64 / 100.0)).collect(),
        odd.iter().enumerate().map(|(i, value)| (i as i64, *value)).collect(),
        // Too large for the decimals that the other one needs.
        vec![(i64::MIN, 4e18), (i64::MAX, 0.000_001)],
        vec![(i64::MAX, i64::MIN as f64), (0, 4e18), (3, -4e18)],
    ];
    let expected: Vec<(u64, i64, u64)> = (0..)
        .zip(&cases)
        .flat_map(|(n, samples)| samples.iter().map(move |(t, v)| (n, *t, v.to_bits())))
        .collect();
    let record = of_write(&accepted(cases));
    let mut said = Said::default();
    replay(&record, &mut said).unwrap();
    assert_eq!(said.samples, expected);
    assert_eq!(
        (said.labels.len(), said.labels[6].as_str()),
        (7, r#"6 [("__name__", "up"), ("instance", "6"), ("other", "6")]"#)
    );
    for cut in 0..record.len() {
        let mut said = Said::default();
        let result = replay(&record[..cut], &mut said);
        assert!(result.is_err() || said.samples.len() < expected.len(), "cut at {cut}");
    }
}

/// The reason for all this: bytes per sample.
#[test]
fn ordinary_writes_are_small() {
    let scrape = |i: i64| vec![(1_700_000_000_000, (100_000 + i * 977) as f64)];
    let shard =
        |i: i64| (0..20).map(|k| (1_700_000_000_000 + k * 15_000, (i * 977 + k * 9) as f64)).collect();
    for (samples, most) in [((0..500).map(scrape).collect(), 5.1), ((0..500).map(shard).collect(), 1.3)] {
        let accepted = accepted(samples);
        for one in accepted.iter().chain(&accepted) {
            one.series.logged_once_more();
        }
        let count: usize = accepted.iter().map(|one| one.samples.len()).sum();
        let each = of_write(&accepted).len() as f64 / count as f64;
        assert!(each < most, "{each:.2} bytes per sample");
    }
}

#[test]
fn what_is_held_comes_in_records_that_stand_alone() {
    let many = accepted((0..3_000).map(|i| vec![(i, i as f64)]).collect());
    let mut runs = Runs::default();
    (0..300).for_each(|i| assert!(runs.insert(i * 15_000, (i * i) as f64)));
    let mut held = HeldRecords::new();
    let mut records: Vec<Vec<u8>> = many.iter().filter_map(|one| held.add(&one.series, &runs)).collect();
    records.extend(held.finish());
    assert!(records.len() > 3);
    let mut said = Said::default();
    for record in &records {
        assert!(record.len() < HELD_BYTES * 2);
        replay(record, &mut said).unwrap();
    }
    assert_eq!((said.labels.len(), said.chunks), (3_000, 6_000));
    assert!(HeldRecords::new().finish().is_none());
}
