//! String literals: three kinds of quotes, Go's escapes.

/// The value of a literal with its quotes on, or the error of an escape in it.
pub(in crate::promql) fn unquote(literal: &str) -> Result<Box<str>, String> {
    let body = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    if literal.starts_with('`') {
        // A carriage return is no part of a raw string.
        return Ok(if body.contains('\r') { body.replace('\r', "").into() } else { body.into() });
    }
    if !body.contains('\\') {
        return Ok(body.into());
    }
    let (open, closed) = literal.split_at(1);
    let quote = open.as_bytes().first().copied().unwrap_or(b'"');
    let mut out: Vec<u8> = Vec::with_capacity(body.len());
    // With the closing quote, which may stand where a digit is missing.
    let mut rest = closed;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escaped = &rest[at + 1..];
        let used = escape(escaped, quote, &mut out)?;
        rest = &escaped[used..];
    }
    out.extend_from_slice(rest.strip_suffix(open).unwrap_or(rest).as_bytes());
    Ok(kept(out).into())
}

/// Where in Unicode's last private plane the bytes are kept that are not UTF-8.
const RAW_BYTES: u32 = 0x0010_FF00;

/// Bytes as text. Go's strings may hold any bytes, ours may not: one that is not UTF-8 becomes a character that stands
/// for it.
fn kept(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let chunks = error.as_bytes().utf8_chunks();
        chunks.fold(String::new(), |mut text, chunk| {
            text.push_str(chunk.valid());
            text.extend(
                chunk.invalid().iter().filter_map(|byte| char::from_u32(RAW_BYTES + u32::from(*byte))),
            );
            text
        })
    })
}

/// The byte that a character of a string's value stands for, when that is not UTF-8: to be written `\xff`.
pub fn raw_byte(c: char) -> Option<u8> {
    (c as u32).checked_sub(RAW_BYTES).and_then(|n| u8::try_from(n).ok()).filter(|byte| !byte.is_ascii())
}

/// Whether a string can name a label: it has some text, and all of it is UTF-8.
pub fn is_label_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| raw_byte(c).is_none())
}

/// Reads an escape behind its backslash; returns its length in bytes.
fn escape(text: &str, quote: u8, out: &mut Vec<u8>) -> Result<usize, String> {
    let Some(first) = text.chars().next() else { return Err("escape sequence not terminated".to_owned()) };
    let plain = match first {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        '"' | '\'' if first as u32 == u32::from(quote) => quote,
        '0'..='7' => return number(text, 0, 3, 8, out),
        'x' => return number(text, 1, 2, 16, out),
        'u' => return number(text, 1, 4, 16, out),
        'U' => return number(text, 1, 8, 16, out),
        c => return Err(format!("unknown escape sequence {}", named(c))),
    };
    out.push(plain);
    Ok(1)
}

/// A character as Go's `%#U` writes it.
fn named(c: char) -> String {
    let code = format!("U+{:04X}", c as u32);
    if c.is_control() { code } else { format!("{code} '{c}'") }
}

/// `count` digits from the byte `from` on. Octal and `\x` give a byte, the others a character.
fn number(text: &str, from: usize, count: usize, radix: u32, out: &mut Vec<u8>) -> Result<usize, String> {
    let mut value: u32 = 0;
    let mut chars = text.get(from..).unwrap_or_default().chars();
    for _ in 0..count {
        let Some(c) = chars.next() else { return Err("escape sequence not terminated".to_owned()) };
        let Some(digit) = c.to_digit(radix) else {
            return Err(format!("illegal character {} in escape sequence", named(c)));
        };
        value = value.wrapping_mul(radix).wrapping_add(digit);
    }
    let invalid = || "escape sequence is an invalid Unicode code point".to_owned();
    if count < 4 {
        out.push(u8::try_from(value).map_err(|_| invalid())?);
    } else {
        let c = char::from_u32(value).ok_or_else(invalid)?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(from + count)
}
