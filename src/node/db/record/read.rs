//! Taking a record apart.

use super::{FLAG_BITS, HAS_LABELS, HELD, TIMES_AS_BEFORE, WRITE, values};
use crate::node::{
    chunk::{Corrupt, bytes::Input},
    wal::RecordError,
};

/// Receives the content of a record.
pub(in super::super) trait Replay {
    /// The series that follows; labels when the record has them. `false` when the number means nothing.
    fn series(&mut self, number: u64, labels: Option<&[(&str, &str)]>) -> bool;
    /// A sample of it.
    fn sample(&mut self, time: i64, value: f64);
    /// A chunk of it.
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), String>;
}

/// Hands a record's content to `to`.
///
/// # Errors
/// The loss in it, or that another version wrote it: its checksum is right, so that an unknown kind is no damage.
pub(in super::super) fn replay(payload: &[u8], to: &mut impl Replay) -> Result<(), RecordError> {
    match payload.split_first() {
        None => Err(RecordError::Lost("it is empty".to_owned())),
        Some((&kind @ (WRITE | HELD), rest)) => content(kind, rest, to).map_err(RecordError::Lost),
        Some((kind, _)) => Err(RecordError::Version(format!("a record is of kind {kind}"))),
    }
}

fn content(kind: u8, rest: &[u8], to: &mut impl Replay) -> Result<(), String> {
    let mut reader = Reader { input: Input::new(rest), number: 0, texts: Vec::new(), times: Vec::new() };
    let mut unknown = 0;
    while !reader.input.is_empty() {
        let (known, flags) = reader.series(to).map_err(cut)?;
        unknown += u64::from(!known);
        if kind == WRITE {
            reader.samples(flags, known, to).map_err(cut)?;
        } else {
            reader.chunks(known, to)?;
        }
    }
    if unknown > 0 {
        return Err(format!(
            "the labels of {unknown} series are lost, and with them their samples in this record"
        ));
    }
    Ok(())
}

fn cut(_: Corrupt) -> String {
    "it is cut off or means nothing".to_owned()
}

const NO_TEXT: Corrupt = Corrupt::new("a text that cannot be");

struct Reader<'a> {
    input: Input<'a>,
    number: i64,
    /// Texts of this record so far.
    texts: Vec<&'a str>,
    /// Times of the series before.
    times: Vec<i64>,
}

impl<'a> Reader<'a> {
    /// Announces the next series; whether its number means something, and its flags.
    fn series(&mut self, to: &mut impl Replay) -> Result<(bool, u64), Corrupt> {
        let head = self.input.varint()?;
        let bits = head >> FLAG_BITS;
        self.number = self.number.wrapping_add((bits >> 1) as i64 ^ -((bits & 1) as i64));
        let labels = if head & HAS_LABELS == 0 { None } else { Some(self.labels()?) };
        Ok((to.series(self.number as u64, labels.as_deref()), head))
    }

    fn labels(&mut self) -> Result<Vec<(&'a str, &'a str)>, Corrupt> {
        let mut labels = Vec::new();
        for _ in 0..self.input.varint()? {
            labels.push((self.text()?, self.text()?));
        }
        Ok(labels)
    }

    fn text(&mut self) -> Result<&'a str, Corrupt> {
        let number = self.input.varint()?;
        if let Some(before) = number.checked_sub(1) {
            return self.texts.get(before as usize).copied().ok_or(NO_TEXT);
        }
        let length = self.input.varint()?;
        let text = self.input.take(usize::try_from(length).map_err(|_| NO_TEXT)?)?;
        let text = std::str::from_utf8(text).map_err(|_| NO_TEXT)?;
        self.texts.push(text);
        Ok(text)
    }

    fn samples(&mut self, flags: u64, known: bool, to: &mut impl Replay) -> Result<(), Corrupt> {
        if flags & TIMES_AS_BEFORE == 0 {
            self.read_times()?;
        }
        let times = &self.times;
        values::decode(&mut self.input, times.len(), |at, value| {
            if let Some(time) = times.get(at).filter(|_| known) {
                to.sample(*time, value);
            }
        })
    }

    fn read_times(&mut self) -> Result<(), Corrupt> {
        let mut last = self.times.first().copied().unwrap_or(0);
        self.times.clear();
        let mut step = 0_i64;
        for i in 0..self.input.varint()? {
            let difference = self.input.signed()?.wrapping_add(step);
            last = last.wrapping_add(difference);
            step = if i == 0 { 0 } else { difference };
            self.times.push(last);
        }
        Ok(())
    }

    fn chunks(&mut self, known: bool, to: &mut impl Replay) -> Result<(), String> {
        for _ in 0..self.input.varint().map_err(cut)? {
            let length = self.input.varint().map_err(cut)?;
            let chunk = self.input.take(usize::try_from(length).unwrap_or(usize::MAX)).map_err(cut)?;
            if known {
                to.chunk(chunk)?;
            }
        }
        Ok(())
    }
}
