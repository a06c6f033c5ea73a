//! Quoted strings and label sets, as the tests write them.

use weir::series::{Label, Labels};

/// A quoted string at the start of `text`, unescaped as in Go, and the rest.
pub(super) fn quoted(text: &str) -> Result<(String, &str), String> {
    let quote = text.chars().next().ok_or("expected a string")?;
    let body = &text[1..];
    if quote == '`' {
        let end = body.find('`').ok_or("unterminated string")?;
        return Ok((body[..end].to_owned(), &body[end + 1..]));
    }
    let mut bytes = Vec::new();
    let mut chars = body.char_indices();
    while let Some((i, c)) = chars.next() {
        if c == quote {
            let value = String::from_utf8(bytes).map_err(|_| "a string that is not UTF-8".to_owned())?;
            return Ok((value, &body[i + 1..]));
        }
        if c != '\\' {
            bytes.extend(c.to_string().bytes());
            continue;
        }
        let (_, escape) = chars.next().ok_or("unterminated escape")?;
        let mut number = |first: &str, digits: usize, radix: u32| {
            let rest: String = (0..digits).filter_map(|_| chars.next().map(|(_, c)| c)).collect();
            u32::from_str_radix(&format!("{first}{rest}"), radix).map_err(|e| e.to_string())
        };
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' | '"' | '\'' => bytes.push(escape as u8),
            'x' => bytes.push(number("", 2, 16)? as u8),
            '0'..='7' => bytes.push(number(&escape.to_string(), 2, 8)? as u8),
            'u' | 'U' => {
                let code = number("", if escape == 'u' { 4 } else { 8 }, 16)?;
                let c = char::from_u32(code).ok_or("no such character")?;
                bytes.extend(c.to_string().bytes());
            }
            _ => return Err(format!("unknown escape \\{escape}")),
        }
    }
    Err("unterminated string".to_owned())
}

/// `name{label="value", …}` at the start of `text`, and the rest.
pub(super) fn metric(text: &str) -> Result<(Labels, &str), String> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c))).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let mut labels: Vec<Label> = Vec::new();
    if !name.is_empty() {
        labels.push(label("__name__", name));
    }
    if let Some(body) = rest.strip_prefix('{') {
        rest = body.trim_start();
        while !rest.starts_with('}') {
            let (name, after): (String, &str) = if rest.starts_with('"') {
                quoted(rest)?
            } else {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                let end = end.ok_or("unterminated labels")?;
                (rest[..end].to_owned(), &rest[end..])
            };
            let after = after.trim_start();
            if let Some(value) = after.strip_prefix('=') {
                let (value, after) = quoted(value.trim_start())?;
                labels.push(label(&name, &value));
                rest = after.trim_start();
            } else {
                labels.push(label("__name__", &name));
                rest = after;
            }
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
            if rest.is_empty() {
                return Err("unterminated labels".to_owned());
            }
        }
        rest = &rest[1..];
    }
    Ok((labels.into_iter().collect(), rest))
}
