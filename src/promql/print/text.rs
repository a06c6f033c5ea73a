//! Literals and names as Go writes them.

use std::fmt::Write as _;

use crate::{
    base::duration as spans,
    promql::{
        ast::{Ast, At, DurationExpr, NodeId},
        raw_byte,
    },
};

/// A string in double quotes, with Go's escapes.
pub(super) fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{07}' => out.push_str("\\a"),
            '\u{08}' => out.push_str("\\b"),
            '\u{0c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{0b}' => out.push_str("\\v"),
            // Writing to a string does not fail.
            c if c < ' ' || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if is_shown(c) => out.push(c),
            c => {
                let _ = match (raw_byte(c), c as u32) {
                    (Some(byte), _) => write!(out, "\\x{byte:02x}"),
                    (None, code @ ..0x1_0000) => write!(out, "\\u{code:04x}"),
                    (None, code) => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
}

/// Whether a character can be seen; of the blanks only the plain one counts.
fn is_shown(c: char) -> bool {
    !c.is_control() && c.escape_debug().count() <= 2 && (c == ' ' || !c.is_whitespace())
}

/// A float as Go's `%v` writes it.
pub(super) fn number(value: f64, out: &mut String) {
    let size = value.abs();
    let written = if value.is_nan() {
        out.write_str("NaN")
    } else if value.is_infinite() {
        out.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if size == 0.0 || (1e-4..1e21).contains(&size) {
        write!(out, "{value}")
    } else {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        write!(out, "{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    };
    // Writing to a string does not fail.
    let _ = written;
}

/// A number literal: one that was written as a duration stays one.
pub(super) fn literal(source: &str, value: f64, out: &mut String) {
    let is_duration = source.ends_with(|c: char| c.is_ascii_alphabetic()) && !source.starts_with("0x");
    match spans::parse(source) {
        Ok(ms) if is_duration => spans::write_canonical(ms, out),
        _ => number(value, out),
    }
}

/// A duration; one that is computed as it stands in the query.
pub(super) fn duration(ast: &Ast, duration: DurationExpr, out: &mut String) {
    match duration {
        DurationExpr::Literal(ms) => {
            if ms < 0 {
                out.push('-');
            }
            spans::write_canonical(ms.unsigned_abs(), out);
        }
        DurationExpr::Computed(id) => computed(ast, id, out),
    }
}

fn computed(ast: &Ast, id: NodeId, out: &mut String) {
    out.push_str(ast.text_of(id));
}

/// `@` and `offset`, in this order.
pub(super) fn modifiers(ast: &Ast, at: Option<At>, offset: Option<DurationExpr>, out: &mut String) {
    match at {
        None => {}
        Some(At::Start) => out.push_str(" @ start()"),
        Some(At::End) => out.push_str(" @ end()"),
        Some(At::Timestamp(ms)) => {
            let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
            // Writing to a string does not fail.
            let _ = write!(out, " @ {sign}{}.{:03}", ms / 1_000, ms % 1_000);
        }
    }
    if let Some(offset) = offset.filter(|offset| *offset != DurationExpr::Literal(0)) {
        out.push_str(" offset ");
        duration(ast, offset, out);
    }
}

/// Names between commas, those that need them in quotes.
pub(super) fn names(names: &[Box<str>], out: &mut String) {
    for (i, one) in names.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        name(one, out);
    }
}

pub(super) fn name(name: &str, out: &mut String) {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let plain =
        !name.is_empty() && name.bytes().all(inner) && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { out.push_str(name) } else { quoted(name, out) }
}
