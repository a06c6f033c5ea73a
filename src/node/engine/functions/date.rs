//! Functions of dates, all in UTC.

use crate::node::engine::number::Civil;

/// A part of a date.
pub(super) type DateFn = fn(Civil) -> i64;

pub(super) fn days_in_month(date: Civil) -> i64 {
    date.days_in_month()
}

/// A part of the date of a time in seconds since the Unix epoch.
pub(super) fn of_seconds(f: DateFn, seconds: f64) -> f64 {
    f(Civil::from_unix(seconds as i64)) as f64
}
