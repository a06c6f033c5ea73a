//! Functions of one value.

use std::f64::consts::PI;

/// A function of one float.
pub(super) type FloatFn = fn(f64) -> f64;

pub(super) fn radians(degrees: f64) -> f64 {
    degrees * PI / 180.0
}

pub(super) fn degrees(radians: f64) -> f64 {
    radians * 180.0 / PI
}

/// One with the sign of the value; zero and NaN are returned unchanged.
pub(super) fn sign(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
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
