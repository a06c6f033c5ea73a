//! How fast answers are counted while they stream: the scanner alone, and the whole meter on plain and gzip answers.

use std::{
    fmt::Write as _,
    hint::black_box,
    io::Write as _,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compression, write::GzEncoder};
use http::HeaderMap;
use http_body::{Body, Frame};
use weir::proxy::meter::{AnswerMeter, MeterLimits, Scanner};

const CHUNK_BYTES: usize = 64 * 1024;

/// A matrix answer of 500 series with 1,000 samples each and labels of the usual length.
fn matrix() -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut out = String::from(r#"{"status":"success","data":{"resultType":"matrix","result":["#);
    for series in 0..500 {
        let comma = if series > 0 { "," } else { "" };
        let labels = r#""__name__":"http_requests_total","job":"api","path":"/a/{id}[\"x\"]""#;
        let _ = write!(out, r#"{comma}{{"metric":{{{labels},"instance":"10.0.0.{series}:9100"}},"values":["#);
        for step in 0..1_000 {
            let comma = if step > 0 { "," } else { "" };
            let _ = write!(out, r#"{comma}[{},"{}"]"#, 1_700_000_000 + step * 15, rng.f64() * 1e6);
        }
        out.push_str("]}");
    }
    out.push_str("]}}");
    out.into_bytes()
}

/// A vector answer of 20,000 series: mostly label text.
fn vector() -> Vec<u8> {
    let mut out = String::from(r#"{"status":"success","data":{"resultType":"vector","result":["#);
    for series in 0..20_000 {
        let comma = if series > 0 { "," } else { "" };
        let labels = r#""__name__":"container_memory_bytes","namespace":"production","image":"registry/app@sha256:0123abcd""#;
        let _ = write!(
            out,
            r#"{comma}{{"metric":{{{labels},"pod":"app-{series}"}},"value":[1700000000,"{series}"]}}"#
        );
    }
    out.push_str("]}}");
    out.into_bytes()
}

/// A body in chunks, as they come from a socket.
struct Chunks(Bytes);

impl Body for Chunks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let length = self.0.len().min(CHUNK_BYTES);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.0.split_to(length)))))
    }
}

fn drain(headers: &HeaderMap, answer: &Bytes) {
    let meter = AnswerMeter::new(
        MeterLimits::default(),
        Box::new(|outcome, actual| {
            black_box((outcome, actual));
        }),
    );
    let mut body = meter.wrap(headers, Chunks(answer.clone()));
    let mut cx = Context::from_waker(Waker::noop());
    while !matches!(Pin::new(&mut body).poll_frame(&mut cx), Poll::Ready(None)) {}
}

fn scan(c: &mut Criterion) {
    for (name, answer) in [("matrix", matrix()), ("vector", vector())] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(answer.len() as u64)).sample_size(20);
        group.bench_function("scanner", |b| {
            b.iter(|| {
                let mut scanner = Scanner::new();
                for chunk in answer.chunks(CHUNK_BYTES) {
                    scanner.feed(black_box(chunk));
                }
                scanner.counts()
            });
        });
        let mut headers = HeaderMap::new();
        headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        let plain = Bytes::from(answer.clone());
        group.bench_function("meter", |b| b.iter(|| drain(&headers, &plain)));
        // The throughput shown is in bytes after decompression.
        headers.insert("content-encoding", http::HeaderValue::from_static("gzip"));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let zipped = encoder.write_all(&answer).and_then(|()| encoder.finish()).map(Bytes::from);
        if let Ok(zipped) = zipped {
            group.bench_function("meter_gzip", |b| b.iter(|| drain(&headers, &zipped)));
        }
        group.finish();
    }
}

criterion_group!(benches, scan);
criterion_main!(benches);
