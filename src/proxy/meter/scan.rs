//! Counts series and samples in a Prometheus JSON answer as it streams by, in chunks of any size.
//!
//! Depth gives a bracket its meaning, so label text is never mistaken for structure; two keys (`data`, `result`)
//! separate the answer's data from its other members (`stats`, `trace`, metadata). Depth counts opened brackets:
//!
//! ```text
//! {"data": {"result": [ {"metric": {…}, "values": [ [t,"v"], … ]} ]}}     matrix
//! 1        2          3 4          5              5 6
//! {"data": {"result": [ {"metric": {…}, "value": [t,"v"]} ]}}             vector; a scalar is [t,"v"] at depth 3
//! {"data": [ {…}, … ]}   {"data": [ "…", … ]}                             series, exemplars; labels, label values
//! 1        2 3                      2
//! ```

use super::byte_masks::{BLOCK, ByteMasks};

/// The counts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Series: members of a matrix or vector, elements of a `/series` or exemplars answer.
    pub series: u64,
    /// Samples, float or histogram; exemplars count as samples.
    pub samples: u64,
    /// Strings in a list answer: label names or values.
    pub items: u64,
}

/// VictoriaMetrics ends an answer with `"stats":{"seriesFetched":"12","executionTimeMsec":3}}`.
const TAIL_MAX: usize = 128;

/// The longest key that matters is `result`; one byte more rules out longer ones.
const KEY_MAX: usize = 7;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Section {
    /// Beside the data.
    #[default]
    Aside,
    /// In `data`, an object.
    Data,
    /// In `data`, a list.
    List,
    /// In `data.result`, a list.
    Result,
}

/// A streaming counter of series and samples.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    depth: u32,
    section: Section,
    in_string: bool,
    /// Where in this chunk or the next the byte lies that a backslash made text.
    escaped: Option<usize>,
    /// The array at depth 5 was just opened: its first element decides between a sample (`[t,"v"]`) and a list of
    /// samples.
    undecided: bool,
    /// The last string at depth 1 or 2, cut at `KEY_MAX`.
    key: [u8; KEY_MAX],
    key_len: usize,
    counts: Counts,
    opened: bool,
    /// The last bytes read, at most [`TAIL_MAX`]: VictoriaMetrics writes its statistics there.
    tail: Vec<u8>,
}

impl Scanner {
    /// A scanner at the start of an answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether a whole document went by: something was opened and everything opened is closed.
    pub fn is_whole(&self) -> bool {
        self.opened && self.depth == 0 && !self.in_string
    }

    /// Reads the next chunk.
    ///
    /// Most bytes mean nothing, so 64 at a time are first sifted into a mask of those that might.
    pub fn feed(&mut self, chunk: &[u8]) {
        let mut key_from = 0;
        let (blocks, tail) = chunk.as_chunks::<BLOCK>();
        for (i, block) in blocks.iter().enumerate() {
            self.read_block(block, i * BLOCK, chunk, &mut key_from);
        }
        let mut last = [0; BLOCK];
        // A tail is shorter than a block.
        last[..tail.len()].copy_from_slice(tail);
        self.read_block(&last, chunk.len() - tail.len(), chunk, &mut key_from);
        if self.in_string && self.depth <= 2 {
            self.keep_key(chunk.get(key_from..).unwrap_or_default());
        }
        self.escaped = self.escaped.and_then(|at| at.checked_sub(chunk.len()));
        let new = chunk.get(chunk.len().saturating_sub(TAIL_MAX)..).unwrap_or_default();
        let old = (self.tail.len() + new.len()).saturating_sub(TAIL_MAX).min(self.tail.len());
        self.tail.drain(..old);
        self.tail.extend_from_slice(new);
    }

    /// The series that the backend says it fetched, summed over the selectors. A label of that name stands before the
    /// statistics, so the last one counts.
    pub fn series_fetched(&self) -> Option<u64> {
        // Found by a letter that is rare.
        let rest = memchr::memrchr_iter(b'F', &self.tail).find_map(|at| {
            let (before, rest) = self.tail.split_at_checked(at)?;
            rest.strip_prefix(b"Fetched\"").filter(|_| before.ends_with(b"\"series"))
        })?;
        let rest = rest.trim_ascii_start().strip_prefix(b":")?;
        let rest = rest.trim_ascii_start();
        let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
    }

    /// Reads the block that lies at `offset` in the chunk; `key_from` is where the part of the current string begins
    /// that lies in this chunk.
    #[inline]
    fn read_block(&mut self, block: &[u8; BLOCK], offset: usize, chunk: &[u8], key_from: &mut usize) {
        let marks = ByteMasks::of(block);
        let mut mask = match self.text(&marks, offset) {
            Some(text) if self.pass_samples(&marks, text) => return,
            Some(text) => self.pass_strings(&marks, text),
            None => marks.any(),
        };
        while mask != 0 {
            let i = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let at = offset + i;
            // A mask has 64 bits, so `i` is within the block.
            let byte = block[i % BLOCK];
            if self.in_string {
                if self.escaped == Some(at) {
                    continue;
                }
                if byte == b'"' {
                    self.in_string = false;
                    if self.depth <= 2 {
                        self.keep_key(chunk.get(*key_from..at).unwrap_or_default());
                    }
                } else if byte == b'\\' {
                    self.escaped = Some(at + 1);
                }
                continue;
            }
            match byte {
                b'"' => {
                    *key_from = at + 1;
                    self.begin_string();
                }
                b'[' => self.open_array(),
                b'{' => self.open_object(),
                b']' | b'}' => self.close(),
                _ => {}
            }
        }
    }

    /// Which bytes of a block among the series of a result lie in strings, quotes at their start included; `None` where
    /// that is not so plain.
    #[inline]
    fn text(&self, marks: &ByteMasks, offset: usize) -> Option<u64> {
        let escaped = self.escaped.is_some_and(|at| at >= offset);
        let plain = self.section == Section::Result && self.depth >= 3 && !escaped && marks.backslashes == 0;
        plain.then(|| upto(marks.quotes) ^ if self.in_string { u64::MAX } else { 0 })
    }

    /// Counts a block that holds nothing but members of a list of samples, `[t,"v"],[t,"v"]`, without a look at any
    /// single byte: nearly all of a range query's answer. `false`, and nothing done, for any other block.
    #[inline]
    fn pass_samples(&mut self, marks: &ByteMasks, text: u64) -> bool {
        if self.undecided || !(self.depth == 5 || self.depth == 6) {
            return false;
        }
        let [opens, closes, braces] = [marks.opens, marks.closes, marks.braces].map(|mask| mask & !text);
        // Bits from each bracket on are those inside a sample if brackets take turns, beginning with the right one.
        let inside = upto(opens | closes) ^ if self.depth == 6 { u64::MAX } else { 0 };
        if braces != 0 || opens & inside != opens || closes & inside != 0 {
            return false;
        }
        self.counts.samples += u64::from(opens.count_ones());
        self.depth = 5 + (inside >> (BLOCK - 1)) as u32;
        self.in_string = text >> (BLOCK - 1) == 1;
        true
    }

    /// Reads the brackets of a block, and of the strings between them only how many begin: among series that is all that
    /// matters. Gives the marks after the end of the series, which are read one by one.
    #[inline]
    fn pass_strings(&mut self, marks: &ByteMasks, text: u64) -> u64 {
        let begins = marks.quotes & text;
        let mut brackets = (marks.opens | marks.closes | marks.braces) & !text;
        // The bytes not dealt with yet.
        let mut rest = u64::MAX;
        while brackets != 0 {
            let bit = brackets & brackets.wrapping_neg();
            brackets ^= bit;
            self.pass_begins(begins & rest & (bit - 1));
            rest = !(bit | (bit - 1));
            if marks.opens & bit != 0 {
                self.open_array();
            } else if (marks.closes | marks.closing_braces) & bit != 0 {
                self.close();
            } else {
                self.open_object();
            }
            if self.depth < 3 {
                self.in_string = false;
                return marks.any() & rest;
            }
        }
        self.pass_begins(begins & rest);
        self.in_string = text >> (BLOCK - 1) == 1;
        0
    }

    /// Counts strings that begin between two brackets among the series.
    #[inline]
    fn pass_begins(&mut self, begins: u64) {
        if self.depth == 3 {
            self.counts.samples += u64::from(begins.count_ones());
        } else if self.undecided && begins != 0 {
            self.decide_sample();
        }
    }

    #[inline]
    fn begin_string(&mut self) {
        self.in_string = true;
        if self.depth <= 5 {
            match (self.depth, self.section) {
                (1, _) | (2, Section::Data) => self.key_len = 0,
                (2, Section::List) => self.counts.items += 1,
                // The only string directly in a result is the value of a scalar; see `pass_begins` too.
                (3, Section::Result) => self.counts.samples += 1,
                _ if self.undecided => self.decide_sample(),
                _ => {}
            }
        }
    }

    fn keep_key(&mut self, text: &[u8]) {
        let room = self.key.iter_mut().skip(self.key_len);
        self.key_len += room.zip(text).map(|(to, from)| *to = *from).count();
    }

    fn key_is(&self, name: &[u8]) -> bool {
        self.key.get(..self.key_len) == Some(name)
    }

    #[inline]
    fn open_array(&mut self) {
        self.depth = self.depth.saturating_add(1);
        if self.depth == 6 {
            self.undecided = false;
            self.counts.samples += u64::from(self.section == Section::Result);
        } else if self.depth < 6 {
            self.opened = true;
            match (self.depth, self.section) {
                (2, _) if self.key_is(b"data") => self.section = Section::List,
                (3, Section::Data) if self.key_is(b"result") => self.section = Section::Result,
                (5, Section::Result) => self.undecided = true,
                _ => {}
            }
        }
    }

    #[inline]
    fn open_object(&mut self) {
        self.depth = self.depth.saturating_add(1);
        self.opened = true;
        match (self.depth, self.section) {
            (2, _) if self.key_is(b"data") => self.section = Section::Data,
            (3, Section::List) | (4, Section::Result) => self.counts.series += 1,
            (5, Section::List) => self.counts.samples += 1,
            (6, Section::Result) if self.undecided => self.decide_sample(),
            _ => {}
        }
    }

    fn decide_sample(&mut self) {
        self.undecided = false;
        self.counts.samples += 1;
    }

    #[inline]
    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.depth < 5 {
            self.undecided = false;
            match (self.depth, self.section) {
                (0 | 1, _) => self.section = Section::Aside,
                (2, Section::Result) => self.section = Section::Data,
                _ => {}
            }
        }
    }
}

/// Bit i is set if the number of bits up to and with i is odd.
#[inline]
fn upto(marks: u64) -> u64 {
    [1, 2, 4, 8, 16, 32].iter().fold(marks, |bits, by| bits ^ bits << by)
}
