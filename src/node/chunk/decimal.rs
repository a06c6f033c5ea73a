//! Floats as integers over a power of ten.

/// Powers of ten that a decimal may be divided by. All of them are exact floats, as are all integers below 2^51:
/// their quotient is the float nearest to the decimal, which is how a parser makes that float.
pub(in crate::node) const POWERS: [f64; 13] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];

/// 2^51: integers below this are exact floats, and adding [`ROUND`] rounds to them.
const EXACT: f64 = 2_251_799_813_685_248.0;

/// 1.5 * 2^52.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// Below this a float without decimals is an `i64`.
const WHOLE: f64 = 4.6e18;

/// `value` as an integer over 10^`power`, if that gives back every bit.
pub(in crate::node) fn to_int(value: f64, power: usize) -> Option<i64> {
    if power == 0 {
        // The cast saturates, and makes 0 of NaN: the comparison of bits sees both, and -0.
        let int = value as i64;
        return (value.abs() < WHOLE && (int as f64).to_bits() == value.to_bits()).then_some(int);
    }
    let scaled = value * POWERS.get(power)?;
    // Adding 1.5 * 2^52 rounds to the nearest integer, without a call.
    let int = ((scaled + ROUND) - ROUND) as i64;
    (scaled.abs() < EXACT && from_int(int, power).to_bits() == value.to_bits()).then_some(int)
}

/// The float that is `int` over 10^`power`; a power that there is not counts as 0.
pub(in crate::node) fn from_int(int: i64, power: usize) -> f64 {
    int as f64 / POWERS.get(power).copied().unwrap_or(1.0)
}
