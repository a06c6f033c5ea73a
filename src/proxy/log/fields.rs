//! Numbers and texts as the fields of a log line.

use crate::base::Estimate;

/// Characters of a query, and of a message, in a log line.
const LOGGED_CHARS_MAX: usize = 1_000;

/// A number for a log line; -1 where it is unknown, since fields that are sometimes words cannot be charted.
pub(super) fn logged(number: Estimate) -> i64 {
    number.known().and_then(|value| i64::try_from(value).ok()).unwrap_or(-1)
}

/// A text for a log line.
pub(super) fn short(text: &str) -> &str {
    match text.char_indices().nth(LOGGED_CHARS_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
