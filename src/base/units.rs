//! Human forms of numbers: `50_000`, `4GiB`. Parsing is strict (a typo is an error), printing is short.

/// Prints a count with thousands separated: `1_234_567` reads as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

const BYTE_UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

/// Prints bytes in binary units with at most one decimal: `1.5GiB`, `512B`.
pub fn bytes(n: u64) -> String {
    let [mut whole, mut tenth] = [itoa::Buffer::new(); 2];
    let Some((unit, size)) = BYTE_UNITS[..4].iter().find(|(_, size)| n >= *size) else {
        return [whole.format(n), "B"].concat();
    };
    let tenths = (n as f64 / *size as f64 * 10.0).round() as u64;
    match tenths % 10 {
        0 => [whole.format(tenths / 10), unit].concat(),
        rest => [whole.format(tenths / 10), ".", tenth.format(rest), unit].concat(),
    }
}

/// Prints bytes of which those over a limit must not read like the limit: a digit more where both would read the same.
pub fn bytes_over(n: u64, limit: u64) -> String {
    let Some((unit, size)) = BYTE_UNITS[..4].iter().find(|(_, size)| n >= *size) else { return bytes(n) };
    if n <= limit || bytes(n) != bytes(limit) {
        return bytes(n);
    }
    // Rounded up: it is more than the limit.
    format!("{:.2}{unit}", (n as f64 / *size as f64 * 100.0).ceil() / 100.0)
}

/// Parses `4GiB`, `1.5MB`, `512B` or a bare number of bytes; underscores are allowed between digits.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    for (unit, size) in BYTE_UNITS {
        if let Some(number) = text.strip_suffix(unit) {
            return scaled(number, size);
        }
    }
    scaled(text.strip_suffix('B').unwrap_or(text), 1)
}

/// Parses a count such as `50_000`, `50k`, `5M`.
pub fn parse_count(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.char_indices().next_back()? {
        (i, 'k' | 'K') => scaled(&text[..i], 1_000),
        (i, 'M') => scaled(&text[..i], 1_000_000),
        (i, 'G' | 'B') => scaled(&text[..i], 1_000_000_000),
        _ => scaled(text, 1),
    }
}

fn scaled(number: &str, unit: u64) -> Option<u64> {
    let number = number.trim().replace('_', "");
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    // `50.000` is fifty thousand to some, and fifty to others.
    if unit == 1 {
        return None;
    }
    let value = number.parse::<f64>().ok()? * unit as f64;
    (value.is_finite() && value < 1.8e19).then_some(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_read_both_ways() {
        assert_eq!(parse_bytes("4GiB"), Some(4 << 30));
        assert_eq!(parse_bytes("1.5MB"), Some(1_500_000));
        assert_eq!(parse_bytes("512"), Some(512));
        assert_eq!(parse_bytes("4 gigs"), None);
        assert_eq!(parse_bytes("-1"), None);
        assert_eq!(parse_count("50_000"), Some(50_000));
        assert_eq!(parse_count("5M"), Some(5_000_000));
        assert_eq!(parse_count("1.5M"), Some(1_500_000));
        for fraction in ["50.000", "50.5", "0.5"] {
            assert_eq!((parse_count(fraction), parse_bytes(fraction)), (None, None), "{fraction}");
        }
        assert_eq!(parse_count(""), None);
        assert_eq!(bytes(1 << 30), "1GiB");
        assert_eq!(bytes(1_610_612_736), "1.5GiB");
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes_over((1 << 30) + (20 << 20), 1 << 30), "1.02GiB");
        assert_eq!(bytes_over(2 << 30, 1 << 30), "2GiB");
        assert_eq!(bytes_over(1 << 30, 1 << 30), "1GiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
    }
}
