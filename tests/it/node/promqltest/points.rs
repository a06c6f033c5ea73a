//! Sequences of points: `1+2x3 _ stale {{…}}x2`.

use weir::{base::duration, series::STALE_NAN};

/// One point of a sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item {
    Gap,
    Float(f64),
    /// A native histogram, whose contents do not matter here.
    Native,
}

/// Parses a sequence of points.
pub(super) fn points(text: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    for word in words(text) {
        expand(&word, &mut items).map_err(|e| format!("{e} in point {word:?}"))?;
    }
    Ok(items)
}

/// Splits at spaces, but not inside `{{…}}`.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c.is_whitespace() && depth == 0 {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn expand(word: &str, items: &mut Vec<Item>) -> Result<(), String> {
    if word.starts_with("{{") {
        let (_, tail) = word.rsplit_once("}}").ok_or("unterminated histogram")?;
        let times = tail.strip_prefix('x').map_or(Ok(0), str::parse::<usize>);
        let times = times.map_err(|e| e.to_string())?;
        items.extend(vec![Item::Native; times + 1]);
        return Ok(());
    }
    // `0x5` is six zeros, not a hexadecimal number.
    let repeated = word.rsplit_once('x').and_then(|(base, n)| Some((base, n.parse::<usize>().ok()?)));
    let (base, times) = repeated.map_or((word, None), |(base, n)| (base, Some(n)));
    match base {
        "_" => items.extend(vec![Item::Gap; times.unwrap_or(1)]),
        "stale" => items.extend(vec![Item::Float(f64::from_bits(STALE_NAN)); times.unwrap_or(0) + 1]),
        _ => {
            let (mut value, step) = if times.is_some() { with_step(base)? } else { (number(base)?, 0.0) };
            for _ in 0..=times.unwrap_or(0) {
                items.push(Item::Float(value));
                value += step;
            }
        }
    }
    Ok(())
}

/// `a+b` or `a-b`
fn with_step(text: &str) -> Result<(f64, f64), String> {
    let bytes = text.as_bytes();
    let splits = |i: &usize| matches!(bytes[*i], b'+' | b'-') && !matches!(bytes[i - 1], b'e' | b'E');
    match (1..bytes.len()).find(splits) {
        Some(at) => Ok((number(&text[..at])?, number(&text[at..])?)),
        None => Ok((number(text)?, 0.0)),
    }
}

/// A float as Go writes them.
pub(super) fn number(text: &str) -> Result<f64, String> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).map(|n| n as f64).map_err(|e| e.to_string());
    }
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

/// A sequence of start times, each in milliseconds relative to its sample.
pub(super) fn starts(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut all = Vec::new();
    for word in text.split_whitespace() {
        let (base, times) = match word.rsplit_once('x') {
            Some((base, n)) => (base, Some(n.parse::<usize>().map_err(|e| e.to_string())?)),
            None => (word, None),
        };
        if base == "_" {
            all.extend(vec![None; times.unwrap_or(1)]);
            continue;
        }
        let split =
            base.char_indices().skip(1).find(|(_, c)| matches!(c, '+' | '-')).map_or(base.len(), |(i, _)| i);
        let (mut offset, step) = (signed_ms(&base[..split])?, signed_ms(&base[split..])?);
        for _ in 0..=times.unwrap_or(0) {
            all.push(Some(offset));
            offset += step;
        }
    }
    Ok(all)
}

fn signed_ms(text: &str) -> Result<i64, String> {
    let (sign, body) = match text.as_bytes().first() {
        None => return Ok(0),
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        Some(_) => (1, text),
    };
    duration::parse(body).map(|ms| sign * ms as i64).map_err(|_| format!("{text:?} is not a duration"))
}
