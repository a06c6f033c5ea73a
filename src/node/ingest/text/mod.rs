//! The text exposition format, with timestamps, for bulk loads; OpenMetrics is read too, as far as samples and metadata
//! go.
//!
//! Lines of one series are one series of a batch, however they are mixed with others: its labels are read once.

mod line;

use std::hash::BuildHasher as _;

pub use bumpalo::Bump as Strings;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{BadInput, Place};
use crate::node::head::{Batch, KnownSeries, LabelLimits, MetadataField};

/// Bytes of a line with a few labels, about.
const LINE_BYTES: usize = 96;

/// Defaults for a text.
#[derive(Clone, Debug)]
pub struct TextOptions<'a> {
    /// Time of samples without one, in milliseconds.
    pub time_ms: i64,
    /// Whether it is OpenMetrics: timestamps are seconds with a fraction, and it ends with `# EOF`.
    pub open_metrics: bool,
    /// Labels that every series gets; its own of the same name give way.
    pub extra_labels: Vec<(&'a str, &'a str)>,
    /// Limits on labels.
    pub limits: LabelLimits,
    /// Series whose labels need not be read, since they were within these limits before.
    pub known: Option<&'a KnownSeries>,
}

/// Reads every sample of `text` and hands them to `sink` in batches of bounded size; samples before a bad line have
/// been handed over. `strings` holds the label values that the text has in escaped form.
///
/// # Errors
/// The first line that cannot be read, or the error of `sink`.
pub fn exposition<'a, E: From<BadInput>>(
    text: &'a [u8],
    strings: &'a Strings,
    options: &'a TextOptions<'a>,
    mut sink: impl FnMut(&Batch<'a>) -> Result<(), E>,
) -> Result<(), E> {
    // The rest behind a byte that is no text is not read.
    let (sound, broken) = match std::str::from_utf8(text) {
        Ok(text) => (text, false),
        Err(error) => (text_until(text, error.valid_up_to()), true),
    };
    let mut reading = Reading::new(text.len(), strings, options);
    let (mut rest, mut number, mut ended) = (sound, 0, false);
    let failed = loop {
        if rest.is_empty() {
            break broken.then(|| bad(number + 1, "it is not UTF-8"));
        }
        number += 1;
        let end = memchr::memchr(b'\n', rest.as_bytes());
        let (line, after) = end.and_then(|end| rest.split_at_checked(end)).unwrap_or((rest, ""));
        // A line that is cut off by such a byte is a bad one.
        if broken && end.is_none() {
            break Some(bad(number, "it is not UTF-8"));
        }
        rest = after.get(1..).unwrap_or_default();
        match reading.line(line) {
            Ok(Line::Nothing) => {}
            Ok(_) if ended => break Some(bad(number, "the text goes on after `# EOF`")),
            Ok(Line::End) => ended = options.open_metrics,
            Ok(Line::Content) => {
                if reading.is_full() {
                    sink(&reading.take())?;
                }
            }
            Err(message) => break Some(bad(number, message)),
        }
    };
    sink(&reading.take())?;
    match failed {
        Some(bad) => Err(bad.into()),
        None if options.open_metrics && !ended => {
            Err(bad(number, "OpenMetrics ends with `# EOF`: the text may be cut off").into())
        }
        None => Ok(()),
    }
}

/// The beginning of a text up to a byte that is known to be its end.
fn text_until(text: &[u8], end: usize) -> &str {
    text.get(..end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
}

fn bad(line: usize, message: impl Into<String>) -> BadInput {
    BadInput { place: Place::Line(line), message: message.into() }
}

/// The kind of a line.
enum Line {
    /// Blank, or a comment.
    Nothing,
    Content,
    /// `# EOF`.
    End,
}

/// The lines of a batch.
struct Reading<'a> {
    strings: &'a Strings,
    options: &'a TextOptions<'a>,
    /// The labels of each series, as [`Batch`] takes them: checked and in order.
    batch: Batch<'a>,
    /// The texts of the series in the batch.
    texts: Vec<&'a str>,
    /// Their numbers, by hash: the entries are small, since each line looks for its own.
    numbers: HashTable<(u64, u32)>,
    hasher: RandomState,
    /// The series of the line before: it is often that of the next, too.
    last: Option<(&'a str, u32)>,
    /// Series, time and value of each line.
    samples: Vec<(u32, i64, f64)>,
    labels: Vec<(&'a str, &'a str)>,
}

impl<'a> Reading<'a> {
    /// For a text of this many bytes.
    fn new(bytes: usize, strings: &'a Strings, options: &'a TextOptions<'a>) -> Self {
        // A scrape has a line for each series.
        let lines = (bytes / LINE_BYTES).min(Batch::SERIES_FULL);
        Self {
            strings,
            options,
            batch: Batch::new(options.limits),
            texts: Vec::with_capacity(lines),
            numbers: HashTable::with_capacity(lines),
            hasher: RandomState::default(),
            last: None,
            samples: Vec::with_capacity(lines),
            labels: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.batch.is_full_with(self.samples.len())
    }

    /// The batch so far, of which nothing is left here.
    fn take(&mut self) -> Batch<'a> {
        self.numbers.clear();
        self.texts.clear();
        self.last = None;
        let mut batch = std::mem::replace(&mut self.batch, Batch::new(self.options.limits));
        batch.distribute(&self.samples);
        self.samples.clear();
        batch
    }

    fn line(&mut self, line: &'a str) -> Result<Line, String> {
        let line = line.trim_ascii();
        if let Some(comment) = line.strip_prefix('#') {
            return Ok(self.comment(comment));
        }
        if line.is_empty() {
            return Ok(Line::Nothing);
        }
        let (series, rest) = line::split(line)?;
        let (value, time, exemplar) = line::sample(rest, self.options)?;
        let number = match self.last {
            Some((text, number)) if text == series => number,
            _ => self.number_of(series)?,
        };
        self.last = Some((series, number));
        self.samples.push((number, time, value));
        if exemplar {
            self.batch.refuse_exemplars(1);
        }
        Ok(Line::Content)
    }

    /// The number of a series in the batch, to which it is added if it is new there.
    fn number_of(&mut self, series: &'a str) -> Result<u32, String> {
        // Labels that are added are no part of the text.
        let known = self.options.known.filter(|_| self.options.extra_labels.is_empty());
        let hash = known.map_or_else(|| self.hasher.hash_one(series), |known| known.hash(series));
        let is_it = |number: u32| self.texts.get(number as usize).is_some_and(|text| *text == series);
        if let Some((_, number)) = self.numbers.find(hash, |(other, number)| *other == hash && is_it(*number))
        {
            return Ok(*number);
        }
        let number = self.batch.len() as u32;
        match known.and_then(|known| known.find(hash, series)) {
            Some(found) => self.batch.known_series(found),
            None => self.read_labels(series, known.is_some())?,
        }
        self.texts.push(series);
        self.numbers.insert_unique(hash, (hash, number), |(hash, _)| *hash);
        Ok(number)
    }

    /// Adds a series to the batch by its labels.
    fn read_labels(&mut self, series: &'a str, learn: bool) -> Result<(), String> {
        self.labels.clear();
        line::labels(series, self.strings, self.options.limits.labels, &mut self.labels)?;
        let extra = &self.options.extra_labels;
        for (name, value) in
            self.labels.iter().filter(|(name, _)| !extra.iter().any(|(other, _)| other == name))
        {
            self.batch.label(name, value);
        }
        for (name, value) in extra {
            self.batch.label(name, value);
        }
        let ended = if learn { self.batch.end_series_of(series) } else { self.batch.end_series() };
        ended.map_err(|problem| problem.to_string())
    }

    /// `# TYPE name type`, `# HELP name text`, `# UNIT name unit` or `# EOF`; any other comment is skipped.
    fn comment(&mut self, comment: &'a str) -> Line {
        let comment = comment.trim_ascii_start();
        if comment == "EOF" {
            return Line::End;
        }
        let Some((what, rest)) = comment.split_once([' ', '\t']) else { return Line::Nothing };
        let rest = rest.trim_ascii_start();
        let (name, text) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        let field = match what {
            "TYPE" => MetadataField::Type(text.trim_ascii()),
            "HELP" => MetadataField::Help(line::unescaped(text, self.strings)),
            "UNIT" => MetadataField::Unit(text.trim_ascii()),
            _ => return Line::Nothing,
        };
        self.batch.describe(name, field);
        Line::Content
    }
}
