//! Functions of dates, all in UTC.

use crate::node::engine::number::Civil;

/// A part of a date.
pub(super) type DateFn = fn(Civil) -> i64;

pub(super) fn find(name: &str) -> Option<DateFn> {
    let f: DateFn = match name {
        "days_in_month" => Civil::days_in_month,
        "day_of_month" => |c| c.day,
        "day_of_week" => |c| c.weekday,
        "day_of_year" => |c| c.day_of_year,
        "hour" => |c| c.hour,
        "minute" => |c| c.minute,
        "month" => |c| c.month,
        "year" => |c| c.year,
        _ => return None,
    };
    Some(f)
}

/// A part of the date so many seconds after the Unix epoch.
pub(super) fn of_seconds(f: DateFn, seconds: f64) -> f64 {
    f(Civil::from_unix(seconds as i64)) as f64
}
