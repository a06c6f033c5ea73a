//! Remote write, version 1: protobuf compressed with snappy, as Prometheus sends it.

use crate::Result;
use crate::client::{Client, Request};
use crate::data::Series;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Where Prometheus, VictoriaMetrics and the node take writes.
pub(crate) const PROMETHEUS: &str = "/api/v1/write";
/// Connections that send at the same time.
pub(crate) const SENDERS: usize = 2;

/// Samples of some series in one request. `times` are all times of the data, in seconds.
fn request(path: &str, series: &[Series], samples: Range<usize>, times: &[u64]) -> Result<Request> {
    let mut body = Vec::new();
    let mut message = Vec::new();
    for one in series {
        message.clear();
        // Labels are sorted by name, and `__name__` comes before any letter.
        let mut labels: Vec<(&str, &str)> = one.labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
        labels.push(("__name__", &one.name));
        labels.sort_unstable();
        for (name, value) in labels {
            let mut label = Vec::new();
            field(&mut label, 1, name.as_bytes());
            field(&mut label, 2, value.as_bytes());
            field(&mut message, 1, &label);
        }
        for (value, time) in one.values.iter().zip(times).skip(samples.start).take(samples.len()) {
            let mut sample = vec![1 << 3 | 1];
            sample.extend(value.to_le_bytes());
            sample.push(2 << 3);
            varint(&mut sample, time * 1000);
            field(&mut message, 2, &sample);
        }
        field(&mut body, 1, &message);
    }
    Ok(Request::remote_write(path, &snap::raw::Encoder::new().compress_vec(&body)?))
}

pub(crate) fn field(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Sends everything over a few connections, the requests of each in order; the seconds it took to the last
/// acknowledgement.
pub(crate) fn send(port: u16, requests: &[Vec<Request>]) -> Result<f64> {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let senders: Vec<_> = requests
            .iter()
            .map(|own| {
                scope.spawn(move || {
                    let mut client = Client::new(port, Duration::from_secs(60));
                    for request in own {
                        let answer = client.get(request)?;
                        if answer.status / 100 != 2 {
                            return Err(format!("remote write was answered with {}", answer.status).into());
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        senders.into_iter().try_for_each(|s| s.join().map_err(|_| "a sender panicked")?)
    })
    .map(|()| begin.elapsed().as_secs_f64())
}

/// The samples of a range as requests for [`send`]: in time order, each series always over the same connection.
pub(crate) fn requests(
    path: &str,
    series: &[Series],
    samples: Range<usize>,
    times: &[u64],
) -> Result<Vec<Vec<Request>>> {
    const SERIES: usize = 500;
    const SAMPLES: usize = 20;
    let mut senders: Vec<Vec<Request>> = (0..SENDERS).map(|_| Vec::new()).collect();
    for start in samples.clone().step_by(SAMPLES) {
        for (number, some) in series.chunks(SERIES).enumerate() {
            let part = start..(start + SAMPLES).min(samples.end);
            senders[number % SENDERS].push(request(path, some, part, times)?);
        }
    }
    Ok(senders)
}
