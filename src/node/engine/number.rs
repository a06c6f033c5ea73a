//! Numbers and times as Prometheus prints them, and the calendar.

/// `strconv.FormatFloat(v, 'f', -1, 64)`: all digits, no exponent.
pub(super) fn plain(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value}")
    }
}

/// `%g`: the shortest digits, with an exponent below 1e-4 and from 1e6 on.
pub(super) fn short(value: f64) -> String {
    general(value, None)
}

/// `%.2g`
pub(super) fn two_digits(value: f64) -> String {
    general(value, Some(2))
}

/// As in OpenMetrics: like [`short`], but whole numbers keep a `.0`.
pub(super) fn open_metrics(value: f64) -> String {
    let text = short(value);
    if value.is_finite() && !text.contains(['.', 'e']) { text + ".0" } else { text }
}

fn general(value: f64, precision: Option<usize>) -> String {
    if !value.is_finite() {
        return plain(value);
    }
    let scientific = match precision {
        Some(p) => format!("{value:.*e}", p.saturating_sub(1)),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
    let limit = match precision {
        Some(p) if p as i32 > digits && digits > exponent => digits,
        Some(p) => p as i32,
        None => 6,
    };
    if exponent < -4 || exponent >= limit {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let decimals = (digits - 1 - exponent).max(0) as usize;
    format!("{value:.decimals$}")
}

/// A civil date and time in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: i64,
    /// 1 to 12
    pub(super) month: i64,
    /// 1 to 31
    pub(super) day: i64,
    /// 1 to 366
    pub(super) day_of_year: i64,
    /// 0 is Sunday.
    pub(super) weekday: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
}

/// Far beyond any date that is meant, near enough for the arithmetic below.
const SECONDS_MAX: i64 = 1 << 52;

impl Civil {
    /// From seconds since the Unix epoch.
    pub(super) fn from_unix(seconds: i64) -> Self {
        let seconds = seconds.clamp(-SECONDS_MAX, SECONDS_MAX);
        let days = seconds.div_euclid(86_400);
        let rest = seconds.rem_euclid(86_400);
        // Years that begin in March put the leap day last; an era is the 400 years after which the calendar repeats.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_march_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_march_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let leap = i64::from(is_leap(year));
        let day_of_year = if month <= 2 { day_of_march_year - 305 } else { day_of_march_year + 60 + leap };
        Self {
            year,
            month,
            day: day_of_march_year - (153 * march_month + 2) / 5 + 1,
            day_of_year,
            weekday: (days + 4).rem_euclid(7),
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    pub(super) fn days_in_month(self) -> i64 {
        match self.month {
            2 => 28 + i64::from(is_leap(self.year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Milliseconds since the Unix epoch as `2006-01-02T15:04:05Z`.
pub(super) fn rfc3339(ms: i64) -> String {
    let c = Civil::from_unix(ms.div_euclid(1000));
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", c.year, c.month, c.day, c.hour, c.minute, c.second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_in_go() {
        let cases =
            [(0.0, "0"), (1.1, "1.1"), (-1.1, "-1.1"), (1e-5, "1e-05"), (0.0001, "0.0001"), (100.0, "100")];
        for (value, want) in cases {
            assert_eq!(short(value), want);
        }
        assert_eq!(short(f64::NAN), "NaN");
        assert_eq!(short(f64::INFINITY), "+Inf");
        assert_eq!(short(1e300), "1e+300");
        assert_eq!(two_digits(0.123), "0.12");
        assert_eq!(two_digits(123.0), "1.2e+02");
        assert_eq!(two_digits(2.0), "2");
        assert_eq!(open_metrics(1.0), "1.0");
        assert_eq!(open_metrics(0.99), "0.99");
        assert_eq!(plain(1e21), "1000000000000000000000");
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
        let leap = Civil::from_unix(951_782_400);
        assert_eq!((leap.day_of_year, leap.weekday, leap.days_in_month()), (60, 2, 29));
        let last = Civil::from_unix(978_220_800);
        assert_eq!((last.month, last.day, last.day_of_year), (12, 31, 366));
        let common = Civil::from_unix(1_078_099_200);
        assert_eq!((common.year, common.month, common.day, common.day_of_year), (2004, 3, 1, 61));
        assert_eq!(Civil::from_unix(i64::MAX), Civil::from_unix(SECONDS_MAX));
    }
}
