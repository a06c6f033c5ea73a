//! Functions of one value.

use std::f64::consts::PI;

/// A function of one float.
pub(super) type FloatFn = fn(f64) -> f64;

pub(super) fn find(name: &str) -> Option<FloatFn> {
    let f: FloatFn = match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "rad" => |v| v * PI / 180.0,
        "deg" => |v| v * 180.0 / PI,
        "sgn" => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        _ => return None,
    };
    Some(f)
}

/// The larger of two; NaN if either is, save that nothing is larger than infinity.
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// The smaller of two; NaN if either is, save that nothing is smaller than minus infinity.
pub(super) fn min(a: f64, b: f64) -> f64 {
    -max(-a, -b)
}

/// The nearest multiple of `nearest`; ties go up.
pub(super) fn round(value: f64, nearest: f64) -> f64 {
    // The inverse loses less: a tenth is not a float, ten is.
    let inverse = 1.0 / nearest;
    (value * inverse + 0.5).floor() / inverse
}
