//! Strings as JSON writes them: the one place that does so by hand.

use std::fmt::Write as _;

/// Writes a text as a JSON string, quotes included.
pub fn string(out: &mut String, text: &str) {
    out.push('"');
    escape(out, text, usize::MAX);
    out.push('"');
}

/// Writes a text as it stands between the quotes of a JSON string. A text over `room` bytes is cut between characters,
/// and `…` stands for it.
pub fn escape(out: &mut String, text: &str, room: usize) {
    let end = out.len().saturating_add(room);
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\' || c == '\u{7f}') {
        let (plain, special) = rest.split_at(at);
        if !fits(out, plain, end) {
            return;
        }
        let before = out.len();
        let mut chars = special.chars();
        match chars.next() {
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(c @ ('"' | '\\')) => out.extend(['\\', c]),
            Some(c) => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            None => {}
        }
        if out.len() > end {
            out.truncate(before);
            out.push('…');
            return;
        }
        rest = chars.as_str();
    }
    fits(out, rest, end);
}

/// Writes a text that needs no escape, or the part that fits.
fn fits(out: &mut String, text: &str, end: usize) -> bool {
    let room = end - out.len();
    if text.len() <= room {
        out.push_str(text);
        return true;
    }
    out.push_str(&text[..text.floor_char_boundary(room)]);
    out.push('…');
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_survive() {
        for hard in ["a\"b\\c\nd\u{1}é\u{2028}\r\t\u{7f}", "", "\"", "plain", "é"] {
            let mut out = String::new();
            string(&mut out, hard);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), hard);
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_between_characters() {
        for (text, room, want) in [
            ("plain", 5, "plain"),
            ("plain", 4, "plai…"),
            ("éé", 3, "é…"),
            ("a\nb", 3, "a\\n…"),
            ("a\nb", 2, "a…"),
            ("a\u{1}b", 6, "a…"),
        ] {
            let mut out = String::new();
            escape(&mut out, text, room);
            assert_eq!(out, want, "{text:?} {room}");
        }
    }
}
