//! Records as bytes: numbers as varints, each text of a block once.
//!
//! The order of the fields is the format; [`VERSION`](super::VERSION) changes with it.

use std::{collections::HashMap, net::IpAddr, ops::Range, sync::Arc};

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::{
    COUNTS_MAX,
    record::{Actual, Basis, Priced, Record, SelectorCount, SplitMode, Text},
};
use crate::{
    base::{Confidence, Estimate, Kind, QueryCost, TextSize, time::EvalTimes},
    cost::{Model, SampleType, Source, Unknown},
    promql::Fingerprint,
};

const CONFIDENCES: [Confidence; 5] = [
    Confidence::Exact,
    Confidence::UpperBound,
    Confidence::Learned,
    Confidence::AtLeast,
    Confidence::Assumed,
];
const SOURCES: [Source; 4] = [Source::LabelTable, Source::Learned, Source::Probe, Source::Assumed];
const SPLIT_MODES: [SplitMode; 3] = [SplitMode::No, SplitMode::Yes, SplitMode::AllReplicas];

/// Texts of a record.
const TEXTS: usize = 15;

/// Records of one block, encoded.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    out: Vec<u8>,
    texts: HashMap<Box<str>, u64, FixedState>,
    /// Where in `out` each of these stands, in the order of their places.
    spans: Vec<Range<usize>>,
    /// The places of the last record's texts: most of them come again.
    last: [u64; TEXTS],
    records: u32,
    last_ms: i64,
}

impl Encoder {
    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Records so far.
    pub(super) const fn records(&self) -> u32 {
        self.records
    }

    /// The bytes of all records so far; the next one begins a new block.
    pub(super) fn take(&mut self) -> (Vec<u8>, u32) {
        self.texts.clear();
        self.spans.clear();
        self.last_ms = 0;
        (std::mem::take(&mut self.out), std::mem::take(&mut self.records))
    }

    pub(super) fn push(&mut self, record: &Record) {
        self.records += 1;
        self.signed(record.at_ms.wrapping_sub(self.last_ms));
        self.last_ms = record.at_ms;
        self.optional(record.took_ms);
        self.optional(record.wait_ms);
        let texts: [&str; TEXTS] = [
            &record.tenant,
            &record.actor,
            &record.class,
            &record.backend,
            &record.endpoint,
            &record.user,
            &record.dashboard,
            &record.panel,
            &record.rule,
            &record.user_agent,
            &record.query,
            &record.verdict,
            &record.limit,
            &record.shadowed,
            &record.outcome,
        ];
        for (field, text) in texts.into_iter().enumerate() {
            let last = self.last[field];
            let span = self.spans.get(last as usize).cloned();
            if span.is_some_and(|span| self.out[span] == *text.as_bytes()) {
                self.number(last);
            } else {
                self.last[field] = self.text(text);
            }
        }
        self.number(u64::from(record.query_is_cut));
        match record.client {
            None => self.number(0),
            Some(IpAddr::V4(address)) => self.bytes(&address.octets()),
            Some(IpAddr::V6(address)) => self.bytes(&address.octets()),
        }
        match record.fingerprint {
            None => self.number(0),
            Some(fingerprint) => self.bytes(&fingerprint.to_bytes()),
        }
        match record.times {
            None => self.number(0),
            Some(EvalTimes { start, end, step }) => {
                self.number(1);
                self.signed(start.wrapping_sub(record.at_ms));
                self.signed(end.wrapping_sub(start));
                self.number(step);
            }
        }
        self.optional(record.status.map(u64::from));
        let Actual { answer_series, answer_samples, answer_bytes, series_read, samples_read } = record.actual;
        for count in [answer_series, answer_samples, answer_bytes, series_read, samples_read] {
            self.optional(count);
        }
        match &record.priced {
            None => self.number(0),
            Some(priced) => {
                self.number(1);
                self.priced(priced);
            }
        }
    }

    fn priced(&mut self, priced: &Priced) {
        let cost = &priced.cost;
        for estimate in [cost.series, cost.blocks, cost.samples, cost.points, cost.memory] {
            self.estimate(estimate);
        }
        let TextSize { bytes, nodes, depth, matchers, regex_bytes } = cost.text;
        for number in [
            cost.range_seconds,
            cost.listing_seconds,
            cost.steps,
            cost.selectors,
            bytes,
            nodes,
            depth,
            matchers,
            regex_bytes,
            priced.parts,
        ] {
            self.number(number);
        }
        self.estimate(priced.whole_memory);
        let Basis { model, split_above, split_mode, lookback_ms } = &priced.basis;
        self.optional(*split_above);
        self.number(index(&SPLIT_MODES, *split_mode));
        self.number(*lookback_ms);
        let Model { kind, block_duration_ms, scrape_interval_ms, unknown } = *model;
        self.number(index(&Kind::ALL, kind));
        self.number(block_duration_ms);
        self.number(scrape_interval_ms);
        match unknown {
            Unknown::Allow => self.number(0),
            Unknown::Deny => self.number(1),
            Unknown::Number(series) => {
                self.number(2);
                self.number(series);
            }
        }
        // A list that is cut would be taken for all of it.
        let counts = if priced.counts.len() > COUNTS_MAX { &[][..] } else { &priced.counts };
        self.number(counts.len() as u64);
        for count in counts {
            self.estimate(count.series);
            self.number(index(&SOURCES, count.source));
            self.number(match count.sample_type {
                SampleType::Unknown => 0,
                SampleType::Float => 1,
                // A histogram without buckets is a float.
                SampleType::Assumed => 2,
                SampleType::Histogram(buckets) => 2 + u64::from(buckets),
            });
        }
    }

    /// Its place among the texts of the block, which is given back; behind a new one, the text itself.
    fn text(&mut self, text: &str) -> u64 {
        if let Some(known) = self.texts.get(text) {
            let known = *known;
            self.number(known);
            return known;
        }
        let next = self.texts.len() as u64;
        self.texts.insert(text.into(), next);
        self.number(next);
        self.bytes(text.as_bytes());
        self.spans.push(self.out.len() - text.len()..self.out.len());
        next
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn estimate(&mut self, estimate: Estimate) {
        self.number(estimate.value);
        self.number(index(&CONFIDENCES, estimate.confidence));
    }

    fn optional(&mut self, number: Option<u64>) {
        match number {
            None => self.number(0),
            Some(number) => {
                self.number(1);
                self.number(number);
            }
        }
    }

    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }
}

fn index<T: Copy + PartialEq>(all: &[T], one: T) -> u64 {
    all.iter().position(|known| *known == one).map_or(0, |at| at as u64)
}

/// The bytes are not those of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

type Result<T> = std::result::Result<T, Malformed>;

/// Reads the records of one block.
#[derive(Debug)]
pub(super) struct Decoder<'b> {
    rest: &'b [u8],
    texts: Vec<Arc<str>>,
    last_ms: i64,
}

impl<'b> Decoder<'b> {
    pub(super) const fn new(block: &'b [u8]) -> Self {
        Self { rest: block, texts: Vec::new(), last_ms: 0 }
    }

    /// Everything was read.
    pub(super) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn next(&mut self) -> Result<Record> {
        let at_ms = self.last_ms.wrapping_add(self.signed()?);
        self.last_ms = at_ms;
        let (took_ms, wait_ms) = (self.optional()?, self.optional()?);
        let mut record = Record { at_ms, took_ms, wait_ms, ..Record::default() };
        for text in [
            &mut record.tenant,
            &mut record.actor,
            &mut record.class,
            &mut record.backend,
            &mut record.endpoint,
            &mut record.user,
            &mut record.dashboard,
            &mut record.panel,
            &mut record.rule,
            &mut record.user_agent,
            &mut record.query,
            &mut record.verdict,
            &mut record.limit,
            &mut record.shadowed,
            &mut record.outcome,
        ] {
            *text = self.text()?;
        }
        record.query_is_cut = self.number()? != 0;
        let client = self.bytes()?;
        record.client = match client.len() {
            0 => None,
            4 => <[u8; 4]>::try_from(client).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(client).ok().map(IpAddr::from),
            _ => return Err(Malformed),
        };
        let fingerprint = self.bytes()?;
        record.fingerprint = match fingerprint.len() {
            0 => None,
            _ => {
                let bytes = <[u8; 16]>::try_from(fingerprint).map_err(|_| Malformed)?;
                let number = u128::from_be_bytes(bytes);
                Some(Fingerprint::from_words([(number >> 64) as u64, number as u64]))
            }
        };
        if self.number()? != 0 {
            let start = at_ms.wrapping_add(self.signed()?);
            let end = start.wrapping_add(self.signed()?);
            record.times = Some(EvalTimes { start, end, step: self.number()? });
        }
        let status = self.optional()?.map(u16::try_from).transpose();
        record.status = status.map_err(|_| Malformed)?;
        record.actual = Actual {
            answer_series: self.optional()?,
            answer_samples: self.optional()?,
            answer_bytes: self.optional()?,
            series_read: self.optional()?,
            samples_read: self.optional()?,
        };
        if self.number()? != 0 {
            record.priced = Some(self.priced()?);
        }
        Ok(record)
    }

    fn priced(&mut self) -> Result<Priced> {
        let [series, blocks, samples, points, memory] = self.estimates()?;
        let mut numbers = [0; 10];
        for number in &mut numbers {
            *number = self.number()?;
        }
        let [
            range_seconds,
            listing_seconds,
            steps,
            selectors,
            bytes,
            nodes,
            depth,
            matchers,
            regex_bytes,
            parts,
        ] = numbers;
        let text = TextSize { bytes, nodes, depth, matchers, regex_bytes };
        let cost = QueryCost {
            series,
            blocks,
            samples,
            points,
            memory,
            range_seconds,
            listing_seconds,
            steps,
            selectors,
            text,
        };
        let whole_memory = self.estimate()?;
        let split_above = self.optional()?;
        let split_mode = self.one_of(&SPLIT_MODES)?;
        let lookback_ms = self.number()?;
        let model = Model {
            kind: self.one_of(&Kind::ALL)?,
            block_duration_ms: self.number()?,
            scrape_interval_ms: self.number()?,
            unknown: match self.number()? {
                0 => Unknown::Allow,
                1 => Unknown::Deny,
                2 => Unknown::Number(self.number()?),
                _ => return Err(Malformed),
            },
        };
        let count = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        if count > COUNTS_MAX {
            return Err(Malformed);
        }
        let mut counts = SmallVec::with_capacity(count);
        for _ in 0..count {
            let (series, source) = (self.estimate()?, self.one_of(&SOURCES)?);
            let sample_type = match self.number()? {
                0 => SampleType::Unknown,
                1 => SampleType::Float,
                2 => SampleType::Assumed,
                more => SampleType::Histogram(u32::try_from(more - 2).map_err(|_| Malformed)?),
            };
            counts.push(SelectorCount { series, source, sample_type });
        }
        let basis = Basis { model, split_above, split_mode, lookback_ms };
        Ok(Priced { cost, parts, whole_memory, counts, basis })
    }

    fn estimates<const N: usize>(&mut self) -> Result<[Estimate; N]> {
        let mut all = [Estimate::exact(0); N];
        for one in &mut all {
            *one = self.estimate()?;
        }
        Ok(all)
    }

    fn text(&mut self) -> Result<Text> {
        let at = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        if at == self.texts.len() {
            let text = std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)?;
            self.texts.push(text.into());
        }
        self.texts.get(at).map(|text| Text::Shared(Arc::clone(text))).ok_or(Malformed)
    }

    fn bytes(&mut self) -> Result<&'b [u8]> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn estimate(&mut self) -> Result<Estimate> {
        Ok(Estimate::new(self.number()?, self.one_of(&CONFIDENCES)?))
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Result<T> {
        let at = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        all.get(at).copied().ok_or(Malformed)
    }

    fn optional(&mut self) -> Result<Option<u64>> {
        match self.number()? {
            0 => Ok(None),
            1 => self.number().map(Some),
            _ => Err(Malformed),
        }
    }

    fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Malformed)?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }
}
