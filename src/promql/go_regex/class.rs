//! Character classes.

use super::{
    Error,
    translate::{Translator, malformed, push_literal},
};

/// `\d` and its like, which are ASCII in Go.
pub(super) fn perl(c: char) -> Option<&'static str> {
    Some(match c {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => "[\\t\\n\\f\\r ]",
        'S' => "[^\\t\\n\\f\\r ]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        _ => return None,
    })
}

/// `\pN`, `\p{Greek}`
pub(super) fn unicode(t: &mut Translator<'_>) -> Result<(), Error> {
    let rest = t.rest();
    let len = if rest.get(2..).is_some_and(|after| after.starts_with('{')) {
        rest.find('}').map(|i| i + 1)
    } else {
        rest.chars().nth(2).map(|c| 2 + c.len_utf8())
    };
    let class = len.and_then(|len| rest.get(..len)).unwrap_or(rest);
    if class.len() > 64 || regex_syntax::parse(class).is_err() {
        return malformed(format!("invalid character class range: `{}`", class.get(..8).unwrap_or(class)));
    }
    t.copy(class.len());
    Ok(())
}

/// `[…]`
pub(super) fn class(t: &mut Translator<'_>) -> Result<(), Error> {
    let start = t.pos;
    t.copy(1);
    if t.rest().starts_with('^') {
        t.copy(1);
    }
    let mut first = true;
    loop {
        let rest = t.rest();
        let Some(c) = rest.chars().next() else {
            return malformed(format!("missing closing ]: `{}`", t.pattern.get(start..).unwrap_or_default()));
        };
        if c == ']' && !first {
            t.copy(1);
            return Ok(());
        }
        first = false;
        if rest.starts_with("[:") && named(t)? {
            continue;
        }
        if c == '\\' {
            let escape = rest.chars().nth(1).unwrap_or('\\');
            if let Some(set) = perl(escape) {
                t.out.push_str(set);
                t.pos += 2;
                continue;
            }
            if matches!(escape, 'p' | 'P') {
                unicode(t)?;
                continue;
            }
        }
        range(t)?;
    }
}

/// `[:alpha:]`
fn named(t: &mut Translator<'_>) -> Result<bool, Error> {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
        "upper", "word", "xdigit",
    ];
    let rest = t.rest();
    let Some(end) = rest.find(":]") else { return Ok(false) };
    let name = rest.get(..end + 2).unwrap_or_default();
    let inner = name.get(2..end).unwrap_or_default();
    let word = inner.strip_prefix('^').unwrap_or(inner);
    if !NAMES.contains(&word) {
        return malformed(format!("invalid character class range: `{name}`"));
    }
    t.copy(name.len());
    Ok(true)
}

/// One character, or a range of them.
fn range(t: &mut Translator<'_>) -> Result<(), Error> {
    let start = t.pos;
    let low = one(t)?;
    let rest = t.rest();
    let mut high = low;
    if rest.starts_with('-') && !rest.starts_with("-]") && rest.len() > 1 {
        t.pos += 1;
        high = one(t)?;
    }
    if high < low {
        let range = t.pattern.get(start..t.pos).unwrap_or_default();
        return malformed(format!("invalid character class range: `{range}`"));
    }
    push_literal(&mut t.out, low);
    if high != low {
        t.out.push('-');
        push_literal(&mut t.out, high);
    }
    Ok(())
}

fn one(t: &mut Translator<'_>) -> Result<char, Error> {
    match t.rest().chars().next() {
        Some('\\') => t.escaped(),
        Some(c) => {
            t.pos += c.len_utf8();
            Ok(c)
        }
        None => malformed("missing closing ]"),
    }
}
