//! Lengths of the strings that a query makes.

use super::value::times;

/// Bytes that Go's `Regexp.Expand` makes of a template, where a reference (`$1`, `${name}`) expands to at most
/// `longest` bytes.
pub(super) fn expanded(template: &str, longest: u64) -> u64 {
    let bytes = template.as_bytes();
    let (mut at, mut literal, mut references) = (0, 0u64, 0u64);
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        at += 1;
        match (byte, next) {
            // `$$` is a dollar.
            (b'$', Some(b'$')) => {
                at += 1;
                literal += 1;
            }
            (b'$', Some(b'{')) => {
                let length = bytes[at..].iter().position(|b| *b == b'}').map_or(0, |end| end + 1);
                at += length;
                references += 1;
            }
            (b'$', Some(b)) if is_word(b) => {
                at += bytes[at..].iter().position(|b| !is_word(*b)).unwrap_or(bytes.len() - at);
                references += 1;
            }
            _ => literal += 1,
        }
    }
    times(references, longest).saturating_add(literal)
}

const fn is_word(byte: u8) -> bool {
    // A byte beyond ASCII may be a letter.
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_counted_as_go_expands_them() {
        for (template, longest, bytes) in [
            ("", 100, 0),
            ("abc", 100, 3),
            ("$1", 100, 100),
            ("a$1-b", 100, 103),
            ("$1$2$1", 100, 300),
            ("${name}x", 100, 101),
            // The longest name wins: `$1x` is a group that does not exist, and empty; 100 is its bound.
            ("$1x", 100, 100),
            ("$$1", 100, 2),
            ("$", 100, 1),
            ("$ ", 100, 2),
            ("${", 100, 101),
            (&"$1".repeat(1_000), u64::MAX / 10, u64::MAX),
        ] {
            assert_eq!(expanded(template, longest), bytes, "{template:.20}");
        }
    }
}
