//! Counts the contents of an answer and compares them with the limits.

use bytes::Bytes;
use http::{HeaderMap, header};

use super::{
    Actual, CutOff, MeterLimits,
    gzip::GzipReader,
    scan::{Counts, Scanner},
};
use crate::limit::LimitName;

/// Inflated bytes after which the task yields, so that one answer does not hold up the others on its thread.
const INFLATED_PER_TURN: u64 = 256 * 1024;

#[derive(Debug, Default)]
enum Reader {
    /// Not JSON, or in a coding that Weir does not read: only bytes are counted.
    #[default]
    Opaque,
    Plain(Scanner),
    Gzip(Box<GzipReader>),
}

/// The counts of one answer.
#[derive(Debug, Default)]
pub(super) struct AnswerCounter {
    reader: Reader,
    bytes_wire: u64,
    /// Found by `finish`: the reader understood the answer to its end.
    understood: bool,
    /// Found by `finish`: the series that the backend says it fetched.
    series_fetched: Option<u64>,
}

impl AnswerCounter {
    /// Chooses the reader by `Content-Type` and `Content-Encoding`.
    pub(super) fn for_answer(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").trim();
        let media_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim();
        let coding = text(header::CONTENT_ENCODING);
        let reader = if !media_type.eq_ignore_ascii_case("application/json") {
            Reader::Opaque
        } else if coding.is_empty() || coding.eq_ignore_ascii_case("identity") {
            Reader::Plain(Scanner::new())
        } else if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            Reader::Gzip(Box::new(GzipReader::new()))
        } else {
            Reader::Opaque
        };
        Self { reader, ..Self::default() }
    }

    /// Takes the next chunk, to be read by `turn`.
    pub(super) fn load(&mut self, chunk: &Bytes) {
        self.bytes_wire += chunk.len() as u64;
        match &mut self.reader {
            Reader::Opaque => {}
            Reader::Plain(scanner) => scanner.feed(chunk),
            Reader::Gzip(gzip) => gzip.load(chunk),
        }
    }

    /// Reads on; `false` when the chunk is not used up and the task should yield first.
    pub(super) fn turn(&mut self) -> bool {
        match &mut self.reader {
            Reader::Opaque | Reader::Plain(_) => true,
            Reader::Gzip(gzip) => gzip.inflate(INFLATED_PER_TURN),
        }
    }

    /// Says that the answer ended as it should.
    pub(super) fn finish(&mut self) {
        if self.understood {
            return;
        }
        self.understood = match &mut self.reader {
            Reader::Opaque => false,
            Reader::Plain(scanner) => scanner.is_whole(),
            Reader::Gzip(gzip) => gzip.finish(),
        };
        self.series_fetched = self.scanner().and_then(Scanner::series_fetched);
    }

    fn counts(&self) -> Counts {
        self.scanner().map(Scanner::counts).unwrap_or_default()
    }

    fn scanner(&self) -> Option<&Scanner> {
        match &self.reader {
            Reader::Opaque => None,
            Reader::Plain(scanner) => Some(scanner),
            Reader::Gzip(gzip) => Some(gzip.scanner()),
        }
    }

    fn bytes_decoded(&self) -> u64 {
        match &self.reader {
            Reader::Opaque | Reader::Plain(_) => self.bytes_wire,
            Reader::Gzip(gzip) => gzip.bytes(),
        }
    }

    /// The first limit that the answer is over.
    pub(super) fn over(&self, limits: &MeterLimits) -> Option<CutOff> {
        let counts = self.counts();
        // A broken gzip answer stops inflating, not coming: the larger of the two sizes counts.
        let bytes = self.bytes_decoded().max(self.bytes_wire);
        let pairs = [
            (LimitName::MaxResponse, bytes, limits.bytes),
            (LimitName::MaxSeries, counts.series, limits.series),
            (LimitName::MaxPoints, counts.samples, limits.points),
        ];
        pairs.into_iter().find_map(|(limit, observed, max)| {
            let max = max?.get();
            (observed > max).then(|| CutOff { limit, observed, max, came: self.actual(false) })
        })
    }

    /// The actual size of the answer; `complete` when all of it went on.
    pub(super) fn actual(&self, complete: bool) -> Actual {
        let counts = self.counts();
        Actual {
            bytes_wire: self.bytes_wire,
            bytes_decoded: self.bytes_decoded(),
            series: counts.series,
            samples: counts.samples,
            items: counts.items,
            series_fetched: self.series_fetched.filter(|_| complete),
            counted: complete && self.understood,
        }
    }
}
