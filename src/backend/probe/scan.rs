//! Counts the series of a `/api/v1/series` answer as it streams, holding none of it.

use crate::base::LabelSize;

/// The key at the top of an answer by which it may be incomplete.
const WARNINGS: &[u8] = b"warnings";
/// The same of VictoriaMetrics.
const PARTIAL: &[u8] = b"isPartial";
/// Bytes of a key that are kept.
const KEY_MAX: usize = 16;

/// The state of a scan through `{"status":…,"data":[{…},{…}],…}`.
#[derive(Debug, Default)]
pub(super) struct SeriesScan {
    /// Objects opened inside the list of the top object.
    pub(super) series: u64,
    /// Bytes of the strings inside these objects, and of the longest.
    text: u64,
    longest: u64,
    /// Bytes of the string so far.
    length: u64,
    /// The backend warned, or said that some of its parts gave no answer.
    pub(super) incomplete: bool,
    /// The top object was opened and closed.
    pub(super) whole: bool,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The last string at the top, in front of its value.
    key: Vec<u8>,
    after_partial: bool,
}

impl SeriesScan {
    /// The sizes of the label sets so far.
    pub(super) fn labels(&self) -> Option<LabelSize> {
        let set = self.text.checked_div(self.series)?;
        Some(LabelSize { set, longest: self.longest })
    }

    /// Reads on; pieces may be cut anywhere.
    pub(super) fn feed(&mut self, data: &[u8]) {
        for &byte in data {
            if self.in_string {
                self.inside_string(byte);
            } else {
                self.outside(byte);
            }
        }
    }

    fn inside_string(&mut self, byte: u8) {
        self.length += 1;
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                if self.depth > 2 {
                    // The quote at its end counts for it as well.
                    let length = self.length - 1;
                    self.text += length;
                    self.longest = self.longest.max(length);
                }
            }
            _ if self.depth == 1 && self.key.len() < KEY_MAX => self.key.push(byte),
            _ => {}
        }
    }

    fn outside(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.in_string = true;
                self.length = 0;
                if self.depth == 1 {
                    self.key.clear();
                }
                // A warning is a string inside the list behind its key.
                self.incomplete |= self.depth == 2 && self.key == WARNINGS;
            }
            b'{' => {
                self.series += u64::from(self.depth == 2);
                self.depth += 1;
            }
            b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.whole |= self.depth == 0;
            }
            b':' if self.depth == 1 => self.after_partial = self.key == PARTIAL,
            // `true` is the only value that starts so.
            b't' => self.incomplete |= self.depth == 1 && self.after_partial,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_counted_wherever_the_pieces_are_cut() {
        let cases = [
            (r#"{"status":"success","data":[]}"#, 0, false, true),
            (r#"{"status":"success","data":[{"a":"b"},{"a":"}{"},{"a":"\"{[\\"}]}"#, 3, false, true),
            (r#"{"isPartial":false,"data":[{}]}"#, 1, false, true),
            (r#"{"isPartial":true,"data":[{}]}"#, 1, true, true),
            (r#"{"data":[{"warnings":"x"}],"warnings":[]}"#, 1, false, true),
            (r#"{"data":[{"a":"1"}],"warnings":["store down"]}"#, 1, true, true),
            (r#"{"status":"success","data":[{"a":"1"},{"#, 2, false, false),
        ];
        for (text, series, incomplete, whole) in cases {
            for size in [1, 2, 7, text.len()] {
                let mut scan = SeriesScan::default();
                text.as_bytes().chunks(size).for_each(|piece| scan.feed(piece));
                assert_eq!((scan.series, scan.incomplete, scan.whole), (series, incomplete, whole), "{text}");
            }
        }
    }

    #[test]
    fn the_sizes_of_label_sets_are_read_off() {
        let of = |text: &str| {
            let mut scan = SeriesScan::default();
            text.as_bytes().chunks(3).for_each(|piece| scan.feed(piece));
            scan.labels()
        };
        assert_eq!(of(r#"{"status":"success","data":[]}"#), None);
        let two = r#"{"status":"success","data":[{"a":"1234567"},{"ab":""}]}"#;
        assert_eq!(of(two), Some(LabelSize { set: 5, longest: 7 }));
    }
}
