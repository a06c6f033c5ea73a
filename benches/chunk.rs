//! Samples encoded and decoded per second, and the bytes that they take.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir::node::chunk;

const SAMPLES: usize = 960;

/// Times 15 s apart with this jitter, and values of one kind.
fn series() -> Vec<(&'static str, Vec<i64>, Vec<f64>)> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut times = |jitter: i64| -> Vec<i64> {
        (0..SAMPLES as i64).map(|i| 1_700_000_000_000 + i * 15_000 + rng.i64(-jitter..=jitter)).collect()
    };
    let (regular, jitter) = (times(0), times(3));
    let mut rng = fastrand::Rng::with_seed(2);
    let mut walk = |low: i64, high: i64, scale: f64| -> Vec<f64> {
        let mut value = 100_000;
        (0..SAMPLES)
            .map(|_| {
                value += rng.i64(low..high);
                value as f64 / scale
            })
            .collect()
    };
    let (counter, gauge, floats) =
        (walk(0, 100, 1.0), walk(-50, 50, 100.0), walk(-50, 50, std::f64::consts::PI));
    let mut rng = fastrand::Rng::with_seed(3);
    let mut bursts = vec![1e5; SAMPLES];
    for i in 1..SAMPLES {
        bursts[i] = bursts[i - 1] + (-20.0 * (1.0 - rng.f64()).ln()).floor();
    }
    vec![
        ("counter of bursts", regular.clone(), bursts),
        ("constant", regular.clone(), vec![1.0; SAMPLES]),
        ("counter", regular.clone(), counter.clone()),
        ("counter with jitter", jitter, counter),
        ("gauge of two decimals", regular.clone(), gauge),
        ("other floats", regular, floats),
    ]
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    for (name, times, values) in series() {
        let mut encoded = Vec::new();
        chunk::encode(&times, &values, &mut encoded).expect("it fits");
        let size = format!("{name} at {:.2} B", encoded.len() as f64 / SAMPLES as f64);
        let (mut got_times, mut got_values) = (Vec::new(), Vec::new());
        group.bench_function(format!("decode {size}"), |bencher| {
            bencher.iter(|| {
                got_times.clear();
                got_values.clear();
                chunk::decode_into(black_box(&encoded), &mut got_times, &mut got_values)
            });
        });
        group.bench_function(format!("encode {size}"), |bencher| {
            bencher.iter(|| {
                encoded.clear();
                chunk::encode(black_box(&times), &values, &mut encoded)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .without_plots();
    targets = codec
}
criterion_main!(benches);
