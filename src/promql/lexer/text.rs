//! String literals: three kinds of quotes, Go's escapes.

/// An escape that is none: what is wrong, and how many bytes into the literal.
pub(in crate::promql) type BadEscape = (String, usize);

/// The value of a literal with its quotes on.
pub(in crate::promql) fn unquote(literal: &str) -> Result<Box<str>, BadEscape> {
    let body = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    if literal.starts_with('`') {
        // A carriage return is no part of a raw string.
        return Ok(if body.contains('\r') { body.replace('\r', "").into() } else { body.into() });
    }
    if !body.contains('\\') {
        return Ok(body.into());
    }
    let quote = literal.as_bytes().first().copied().unwrap_or(b'"');
    let mut out: Vec<u8> = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escaped = &rest[at + 1..];
        let used = escape(escaped, quote, &mut out)
            .map_err(|message| (message, 1 + body.len() - rest.len() + at))?;
        rest = &escaped[used..];
    }
    out.extend_from_slice(rest.as_bytes());
    let text = String::from_utf8(out).map_err(|_| ("string is not valid UTF-8".to_owned(), 0))?;
    Ok(text.into())
}

/// Reads what follows a backslash; returns its length in bytes.
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
        c => return Err(format!("unknown escape sequence U+{:04X} {c:?}", c as u32)),
    };
    out.push(plain);
    Ok(1)
}

/// `count` digits from the byte `from` on. Octal and `\x` give a byte, the others a character.
fn number(text: &str, from: usize, count: usize, radix: u32, out: &mut Vec<u8>) -> Result<usize, String> {
    let mut value: u32 = 0;
    let mut chars = text.get(from..).unwrap_or_default().chars();
    for _ in 0..count {
        let Some(c) = chars.next() else { return Err("escape sequence not terminated".to_owned()) };
        let Some(digit) = c.to_digit(radix) else {
            return Err(format!("illegal character U+{:04X} {c:?} in escape sequence", c as u32));
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
