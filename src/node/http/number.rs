//! Numbers and times as Prometheus writes them in JSON.

/// Below this all integers are floats, and 15 digits distinguish floats with few decimals.
const EXACT_MAX: f64 = 1e15;

/// `[time,"value"]`
pub(super) fn point(out: &mut String, time_ms: i64, value: f64) {
    out.push('[');
    time(out, time_ms);
    out.push_str(",\"");
    number(out, value);
    out.push_str("\"]");
}

/// Seconds, with a fraction of three digits if there is one.
pub(super) fn time(out: &mut String, ms: i64) {
    if ms < 0 {
        out.push('-');
    }
    let ms = ms.unsigned_abs();
    integer(out, ms / 1_000);
    if !ms.is_multiple_of(1_000) {
        out.push('.');
        digits(out, ms % 1_000, 3);
    }
}

fn integer(out: &mut String, value: u64) {
    out.push_str(itoa::Buffer::new().format(value));
}

/// An integer with leading zeros up to `width`.
fn digits(out: &mut String, value: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value);
    (text.len()..width).for_each(|_| out.push('0'));
    out.push_str(text);
}

/// As Go's `strconv` with the shortest digits, with an exponent where JSON encoders use one.
pub(super) fn number(out: &mut String, value: f64) {
    let size = value.abs();
    if value.is_nan() {
        return out.push_str("NaN");
    }
    if value.is_sign_negative() {
        out.push('-');
    }
    if size.is_infinite() {
        return out.push_str(if value > 0.0 { "+Inf" } else { "Inf" });
    }
    if !decimal(out, size) {
        shortest(out, size);
    }
}

/// Integers and numbers of up to three decimals, which most samples are. A float below [`EXACT_MAX`] is nearest to one
/// number of 15 digits only, so if that is a short one, it is the shortest.
fn decimal(out: &mut String, size: f64) -> bool {
    if size >= EXACT_MAX / 1e3 {
        return false;
    }
    let whole = size.trunc();
    if whole == size {
        integer(out, size as u64);
        return true;
    }
    let thousandths = (size * 1e3).round();
    if thousandths / 1e3 != size {
        return false;
    }
    let thousandths = thousandths as u64;
    integer(out, thousandths / 1_000);
    out.push('.');
    let (mut fraction, mut width) = (thousandths % 1_000, 3);
    while fraction.is_multiple_of(10) && width > 1 {
        fraction /= 10;
        width -= 1;
    }
    digits(out, fraction, width);
    true
}

/// Any number above zero.
fn shortest(out: &mut String, size: f64) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(size);
    let plain = (1e-6..1e21).contains(&size);
    let Some((mantissa, exponent)) = text.split_once('e') else {
        if plain {
            return out.push_str(text.strip_suffix(".0").unwrap_or(text));
        }
        return scientific(out, text, 0);
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !plain {
        return scientific(out, mantissa, exponent);
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = if fraction == "0" { "" } else { fraction };
    if exponent < 0 {
        out.push_str("0.");
        (1..-exponent).for_each(|_| out.push('0'));
        out.push_str(whole);
        out.push_str(fraction);
        return;
    }
    // Shortest digits of a number this large have no decimals left behind their exponent.
    let exponent = exponent as usize;
    out.push_str(whole);
    let (front, rest) = fraction.split_at(exponent.min(fraction.len()));
    out.push_str(front);
    (front.len()..exponent).for_each(|_| out.push('0'));
    if !rest.is_empty() {
        out.push('.');
        out.push_str(rest);
    }
}

/// Digits with one before the point, and an exponent of two digits at least.
fn scientific(out: &mut String, mantissa: &str, exponent: i32) {
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    // A number written plainly, as `0.0000001`, is moved until one digit that is not zero stands before the point.
    let digits: String = [whole, fraction].concat();
    let zeros = digits.bytes().take_while(|b| *b == b'0').count();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    let exponent = exponent + whole.len() as i32 - 1 - zeros as i32;
    let (first, rest) = significant.split_at(significant.len().min(1));
    out.push_str(first);
    if !rest.is_empty() {
        out.push('.');
        out.push_str(rest);
    }
    out.push_str(if exponent < 0 { "e-" } else { "e+" });
    self::digits(out, u64::from(exponent.unsigned_abs()), 2);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    /// The result of the standard library, which is slower.
    fn reference(value: f64) -> String {
        let size = value.abs();
        if size == 0.0 || (1e-6..1e21).contains(&size) {
            return format!("{value}");
        }
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap();
        let exponent: i32 = exponent.parse().unwrap();
        format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }

    #[test]
    fn numbers_and_times_are_written_as_prometheus_does() {
        for (value, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-07"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(written(|out| number(out, value)), want);
        }
        for (ms, want) in [(0, "0"), (1_500, "1.500"), (-1, "-0.001"), (1_700_000_000_000, "1700000000")] {
            assert_eq!(written(|out| time(out, ms)), want);
        }
    }

    #[test]
    fn any_number_is_written_with_its_shortest_digits() {
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..200_000 {
            let value = match rng.u8(..6) {
                0 => f64::from_bits(rng.u64(..)),
                1 => rng.f64() * 1e3,
                2 => f64::from(rng.u32(..)) / 1e2,
                3 => rng.f64() * 10_f64.powi(rng.i32(-12..25)),
                4 => (rng.u64(..1 << 53)) as f64 / 1e3,
                _ => 10_f64.powi(rng.i32(-20..30)) * f64::from(rng.i8(..)),
            };
            if value.is_finite() {
                let (text, want) = (written(|out| number(out, value)), reference(value));
                // Of two numbers equally near and short, either will do.
                assert!(text == want || text.len() == want.len(), "{text} {want}");
                assert_eq!(text.parse::<f64>().unwrap(), value);
            }
        }
    }
}
