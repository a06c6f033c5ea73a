//! Numbers of the admin API as people read them in a terminal.

use std::time::Duration;

use serde_json::Value;

use crate::base::units;

/// Text of a client for a terminal: one line of at most this many characters, without anything that moves the cursor.
pub(super) fn clean(text: &str, chars: usize) -> String {
    let mut clean: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars + 1).collect();
    if clean.chars().count() > chars {
        clean.pop();
        clean.pop();
        clean.push('…');
    }
    clean
}

/// Milliseconds as seconds, minutes or hours.
pub(super) fn duration_ms(ms: &Value) -> String {
    let time = Duration::from_millis(ms.as_u64().unwrap_or(0));
    match time.as_secs() {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        seconds @ 60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}

/// A count with a letter; `?` where it is unknown.
pub(super) fn number(value: &Value) -> String {
    match value.as_u64() {
        None => "?".to_owned(),
        Some(n @ 0..10_000) => n.to_string(),
        Some(n @ 10_000..1_000_000) => format!("{:.1}k", n as f64 / 1e3),
        Some(n @ 1_000_000..1_000_000_000) => format!("{:.1}M", n as f64 / 1e6),
        Some(n) => format!("{:.1}G", n as f64 / 1e9),
    }
}

/// Bytes; `?` where they are unknown.
pub(super) fn size(value: &Value) -> String {
    value.as_u64().map_or_else(|| "?".to_owned(), units::bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_wrote_moves_no_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\nc", 10), "a [2Jb c");
        assert_eq!(clean("abcdef", 4), "abc…");
        assert_eq!(clean("abcd", 4), "abcd");
    }

    #[test]
    fn numbers_are_short() {
        for (ms, want) in [(1_540, "1.5s"), (61_000, "1m01s"), (3_720_000, "1h02m")] {
            assert_eq!(duration_ms(&ms.into()), want);
        }
        for (n, want) in [(9_999_u64, "9999"), (50_000, "50.0k"), (12_000_000, "12.0M"), (4_140_000, "4.1M")]
        {
            assert_eq!(number(&n.into()), want);
        }
        assert_eq!(number(&Value::Null), "?");
    }
}
