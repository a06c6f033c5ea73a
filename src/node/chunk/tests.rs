//! Round trips by kind of data, sizes that must not grow, and damaged bytes.

use super::*;

/// A named series: times and values.
type Case = (&'static str, Vec<i64>, Vec<f64>);

const START: i64 = 1_700_000_000_000;

fn regular(count: usize) -> Vec<i64> {
    (0..count as i64).map(|i| START + i * 15_000).collect()
}

fn cases() -> Vec<Case> {
    let mut rng = fastrand::Rng::with_seed(7);
    let n = 480;
    let mut counter = 1e6;
    let mut gauge = 5_000i64;
    let mut cases: Vec<Case> = vec![
        ("constant", regular(n), vec![0.1; n]),
        (
            "counter",
            regular(n),
            (0..n)
                .map(|_| {
                    counter += f64::from(rng.u32(0..100));
                    counter
                })
                .collect(),
        ),
        (
            "gauge of two decimals",
            regular(n),
            (0..n)
                .map(|_| {
                    gauge += rng.i64(-50..50);
                    gauge as f64 / 100.0
                })
                .collect(),
        ),
        ("floats", regular(n), (0..n).map(|_| rng.f64()).collect()),
        ("steps", regular(n), (0..n).map(|i| (i / 100) as f64).collect()),
    ];
    let mut burst = || (-20.0 * (1.0 - rng.f64()).ln()).floor();
    let bursts: Vec<f64> = (0..n).map(|_| burst()).collect();
    let noise = (0..n).map(|_| (burst() - burst() + burst() - burst()) / 100.0).collect();
    cases.push((
        "bursts",
        regular(n),
        bursts.iter().scan(1e6, |sum, x| Some(*sum + x).inspect(|new| *sum = *new)).collect(),
    ));
    cases.push(("noise", regular(n), noise));
    let jitter = (0..n as i64).map(|i| START + i * 15_000 + rng.i64(-3..=3)).collect();
    cases.push(("jitter", jitter, vec![1.0; n]));
    let gaps = (0..n as i64).map(|i| START + (i + i / 97) * 15_000).collect();
    cases.push(("gaps", gaps, vec![1.0; n]));
    let odd =
        [f64::NAN, f64::from_bits(0x7ff0_0000_0000_0002), f64::from_bits(0xfff8_dead_beef_0001), -0.0, 0.0];
    let more =
        [f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324, 4.6e18, -9.3e18, 0.3, 1e300];
    let odd: Vec<f64> = odd.into_iter().chain(more).collect();
    cases.push(("odd values", regular(odd.len()), odd.clone()));
    let mut rare = vec![3.0; n];
    rare[17] = -0.0;
    rare[400] = f64::from_bits(0x7ff0_0000_0000_0002);
    cases.push(("rare exceptions", regular(n), rare));
    cases.push(("extreme times", vec![i64::MIN, -1, 0, 1, i64::MAX], vec![1.0, 2.0, 3.0, 4.0, 5.0]));
    cases.push(("none", vec![], vec![]));
    cases.push(("one", vec![START], vec![42.5]));
    cases.push(("two", vec![START, START + 1], vec![1.0, -1.0]));
    cases.push(("three", vec![START, START + 1, START + 7], vec![1.0, -1.0, 9e15]));
    cases
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn round_trip(name: &str, times: &[i64], values: &[f64]) -> usize {
    let mut chunk = Vec::new();
    encode(times, values, &mut chunk).unwrap();
    let (mut got_times, mut got_values) = (vec![1, 2], vec![0.5, 0.25]);
    let got = decode_into(&chunk, &mut got_times, &mut got_values);
    assert_eq!(got, Ok(times.len()), "{name}");
    assert_eq!(got_times[2..], *times, "{name}");
    assert_eq!(bits(&got_values[2..]), bits(values), "{name}");
    assert_eq!(count(&chunk), Ok(times.len()), "{name}");
    chunk.len()
}

#[test]
fn every_bit_comes_back() {
    for (name, times, values) in cases() {
        round_trip(name, &times, &values);
    }
}

#[test]
fn typical_series_are_small() {
    // Bytes per sample at most.
    let bounds = [
        ("constant", 0.05),
        ("counter", 0.94),
        ("gauge of two decimals", 0.94),
        ("bursts", 0.79),
        ("noise", 1.07),
        ("floats", 7.6),
        ("steps", 0.15),
        ("jitter", 0.55),
        ("gaps", 0.15),
        ("rare exceptions", 0.2),
    ];
    for (name, bound) in bounds {
        let (_, times, values) = cases().into_iter().find(|case| case.0 == name).unwrap();
        let size = round_trip(name, &times, &values) as f64 / times.len() as f64;
        assert!(size <= bound, "{name}: {size} bytes per sample");
    }
}

/// A series of random length, intervals, range and kinds of values.
fn random(rng: &mut fastrand::Rng) -> (Vec<i64>, Vec<f64>) {
    let count = rng.usize(0..700);
    let (interval, jitter) = (rng.i64(1..100_000), rng.i64(0..50));
    let mut time = rng.i64(..) / 2;
    let kind = rng.u8(0..8);
    let scale = 10f64.powi(rng.i32(0..14));
    let spread = 1i64 << rng.u32(0..62);
    let mut int = rng.i64(-spread..spread);
    let mut series = (Vec::new(), Vec::new());
    for _ in 0..count {
        time = time.wrapping_add(interval * rng.i64(1..3) / 2 + rng.i64(-jitter..=jitter));
        int = int.wrapping_add(rng.i64(-spread..spread) / 16);
        series.0.push(time);
        series.1.push(match kind {
            0 => int as f64,
            1 => int as f64 / scale,
            2 => f64::from_bits(rng.u64(..)),
            3 => rng.f64(),
            // Noise of a scale, to one side and to both.
            6 => (-(spread as f64).sqrt() * (1.0 - rng.f64()).ln()).floor(),
            7 => ((spread as f64).sqrt() * (rng.f64() + rng.f64() + rng.f64() - 1.5)).floor() / 100.0,
            4 if rng.u8(0..20) == 0 => f64::from_bits(0x7ff0_0000_0000_0002),
            _ => (int % 1_000) as f64,
        });
    }
    series
}

#[test]
fn random_series_come_back() {
    let mut rng = fastrand::Rng::with_seed(11);
    for round in 0..800 {
        let (times, values) = random(&mut rng);
        round_trip(&format!("round {round}"), &times, &values);
    }
}

/// Decoding of any bytes ends, within the bound, and leaves the columns alone on an error.
fn survive(bytes: &[u8]) {
    let (mut times, mut values) = (vec![7], vec![7.0]);
    match decode_into(bytes, &mut times, &mut values) {
        Ok(count) => assert!(count <= SAMPLES_MAX && times.len() == count + 1 && values.len() == count + 1),
        Err(Corrupt(_)) => assert_eq!((times, values), (vec![7], vec![7.0])),
    }
}

#[test]
fn damage_never_panics() {
    let mut rng = fastrand::Rng::with_seed(13);
    for (_, times, values) in cases() {
        let mut chunk = Vec::new();
        encode(&times, &values, &mut chunk).unwrap();
        for length in 0..chunk.len().min(300) {
            survive(&chunk[..length]);
        }
        for _ in 0..400 {
            let mut damaged = chunk.clone();
            for _ in 0..rng.usize(1..4) {
                if let Some(at) = rng.usize(..).checked_rem(damaged.len()) {
                    damaged[at] ^= 1 << rng.u8(0..8);
                }
            }
            survive(&damaged);
        }
    }
    for _ in 0..2_000 {
        let noise: Vec<u8> = (0..rng.usize(0..64)).map(|_| rng.u8(..)).collect();
        survive(&noise);
    }
}

#[test]
fn a_chunk_is_bounded() {
    let mut encoder = Encoder::new();
    for i in 0..SAMPLES_MAX as i64 {
        encoder.append(i, 1.0).unwrap();
    }
    assert_eq!(encoder.append(0, 1.0), Err(EncodeError));
    assert_eq!(Decoder::new(&encoder.finish()).unwrap().count(), SAMPLES_MAX);
    assert_eq!(encode(&[1], &[], &mut Vec::new()), Err(EncodeError));
}
