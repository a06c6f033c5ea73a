//! Times and durations of query parameters, as each database reads them.

use jiff::civil::{self, DateTime};

use super::duration;

/// Times further from the epoch are this far from it, milliseconds: 73 million years, and no sum of two overflows.
const TIME_MAX_MS: i64 = i64::MAX / 4;
/// VictoriaMetrics takes larger numbers for milliseconds, then for microseconds, then for nanoseconds: 2038 in seconds.
const SECONDS_MAX: f64 = 2_147_483_648.0;
/// The start of Unix time.
const EPOCH: DateTime = civil::date(1970, 1, 1).at(0, 0, 0, 0);
/// Completes a part of a date, which VictoriaMetrics takes from the year on.
const DATE_REST: &str = "0000-01-01T00:00:00";

/// Formats that a database reads beyond numbers and RFC 3339 times, which all of them read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeDialect {
    /// Nothing: Prometheus, Thanos, Mimir, Cortex, Weir's node.
    #[default]
    Prometheus,
    /// `now`, `-1h`, `now-1h`, `2023-11`, numbers of milliseconds; fractional durations.
    VictoriaMetrics,
    /// `now`; Go's durations.
    M3,
}

impl TimeDialect {
    /// A time in milliseconds since the epoch. `now_ms` is the time that relative ones are relative to.
    pub fn time(self, text: &str, now_ms: i64) -> Option<i64> {
        // Four digits are a year to VictoriaMetrics.
        let is_year = self == Self::VictoriaMetrics && text.len() == 4;
        if let Ok(number) = text.parse::<f64>()
            && !(is_year && text.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return number.is_finite().then(|| self.number(number));
        }
        // Clients in Go write these for "all of time".
        let time = match text {
            "-292273086-05-16T16:47:06Z" => Some(-TIME_MAX_MS),
            "292277025-08-18T07:12:54.999999999Z" => Some(TIME_MAX_MS),
            _ => rfc3339(text),
        };
        time.or_else(|| match self {
            Self::Prometheus => None,
            Self::VictoriaMetrics => relative(text, now_ms).or_else(|| partial(text)),
            Self::M3 => (text == "now").then_some(now_ms),
        })
    }

    fn number(self, number: f64) -> i64 {
        let mut seconds = number;
        if self == Self::VictoriaMetrics {
            // At most three times: milliseconds, microseconds, nanoseconds.
            for _ in 0..3 {
                if seconds.abs() >= SECONDS_MAX {
                    seconds /= 1e3;
                }
            }
        }
        // As Prometheus: the fraction to the nearest millisecond, then down to a whole one. Casts saturate.
        let fraction = (seconds.fract() * 1e3).round() / 1e3;
        let ms = (seconds.trunc() as i64).saturating_mul(1_000).saturating_add(whole_ms(fraction));
        ms.clamp(-TIME_MAX_MS, TIME_MAX_MS)
    }

    /// A duration in milliseconds: seconds as a number, or `5m`; `1.5m` where that is read.
    pub fn duration(self, text: &str) -> Option<i64> {
        if let Ok(seconds) = text.parse::<f64>() {
            return ((seconds * 1e3).abs() < TIME_MAX_MS as f64).then(|| whole_ms(seconds));
        }
        let ms = duration::parse(text).ok().or_else(|| match self {
            Self::Prometheus => None,
            Self::VictoriaMetrics | Self::M3 => duration::parse_fractional(text, None).map(|ms| ms as u64),
        });
        ms.and_then(|ms| i64::try_from(ms).ok()).filter(|ms| *ms < TIME_MAX_MS)
    }
}

/// Seconds as Go makes a duration of them: whole nanoseconds, then whole milliseconds, both towards zero. `4.1` are
/// 4,099.
const fn whole_ms(seconds: f64) -> i64 {
    (seconds * 1e9) as i64 / 1_000_000
}

/// A time as RFC 3339 has it, in UTC; the bare milliseconds where that has no such year.
pub fn text(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms}ms"), |time| time.to_string())
}

/// `2023-11-14T22:13:20.5+01:00`; every year of four digits, to the last second of 9999.
fn rfc3339(text: &str) -> Option<i64> {
    let (local, offset) = zoned(text)?;
    if local.len() < "2023-11-14T22:13".len() {
        return None;
    }
    let local: DateTime = local.parse().ok()?;
    let ns = local.duration_since(EPOCH).as_nanos();
    Some((ns.div_euclid(1_000_000) as i64).saturating_sub(offset))
}

/// A time without its zone, and the zone's offset in milliseconds.
fn zoned(text: &str) -> Option<(&str, i64)> {
    if let Some(utc) = text.strip_suffix(['Z', 'z']) {
        return Some((utc, 0));
    }
    let (local, zone) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let offset = (hours * 60 + minutes) * 60_000;
    match zone.as_bytes().first() {
        Some(b'+') => Some((local, offset)),
        Some(b'-') => Some((local, -offset)),
        _ => None,
    }
}

/// `now`, `-1h`, `now-1h30m`; without a sign it is as far back.
fn relative(text: &str, now_ms: i64) -> Option<i64> {
    let span = text.strip_prefix("now").unwrap_or(text);
    if text == "now" {
        return Some(now_ms);
    }
    let ms = duration::parse_fractional(span.strip_prefix(['-', '+']).unwrap_or(span), None)? as i64;
    Some(now_ms.saturating_sub(ms).clamp(-TIME_MAX_MS, TIME_MAX_MS))
}

/// `2023`, `2023-11`, `2023-11-14`, `2023-11-14T22`, `2023-11-14T22:13`, with or without a zone.
fn partial(text: &str) -> Option<i64> {
    let (local, _) = zoned(text).filter(|(local, _)| !local.is_empty()).unwrap_or((text, 0));
    let zone = text.get(local.len()..).filter(|zone| !zone.is_empty()).unwrap_or("Z");
    let rest = DATE_REST.get(local.len()..)?;
    rfc3339(&format!("{local}{rest}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn times_of_prometheus() {
        for (text, want) in [
            ("1700000000", Some(NOW)),
            ("1700000000.1234", Some(NOW + 123)),
            ("-1.5", Some(-1_500)),
            // Down, as Prometheus gives it.
            ("1795681350.7045", Some(1_795_681_350_704)),
            ("1e3", Some(1_000_000)),
            ("2023-11-14T22:13:20Z", Some(NOW)),
            ("2023-11-14T22:13:20.5+01:00", Some(1_699_996_400_500)),
            ("1969-12-31T23:59:59.9995Z", Some(-1)),
            ("-292273086-05-16T16:47:06Z", Some(-TIME_MAX_MS)),
            // Years that many a client writes for "for ever".
            ("9999-12-31T23:59:59Z", Some(253_402_300_799_000)),
            ("6000-01-01T00:00:00Z", Some(127_174_492_800_000)),
            ("253402300799", Some(253_402_300_799_000)),
            ("1e300", Some(TIME_MAX_MS)),
            ("NaN", None),
            ("inf", None),
            ("now", None),
            ("-1h", None),
            ("2023", Some(2_023_000)),
            ("2023-11-14", None),
        ] {
            assert_eq!(TimeDialect::Prometheus.time(text, NOW), want, "{text}");
        }
    }

    #[test]
    fn times_of_victoriametrics_and_m3() {
        for (text, want) in [
            ("now", Some(NOW)),
            ("-1h", Some(NOW - 3_600_000)),
            ("now-1.5h", Some(NOW - 5_400_000)),
            ("1h", Some(NOW - 3_600_000)),
            ("1700000000", Some(NOW)),
            ("1700000000000", Some(NOW)),
            ("1700000000000000", Some(NOW)),
            ("1700000000000000000", Some(NOW)),
            ("2023-11-14T22:13:20Z", Some(NOW)),
            ("2023", Some(1_672_531_200_000)),
            ("2023-11", Some(1_698_796_800_000)),
            ("2023-11-14T22:13:20", Some(NOW)),
            ("2023-11-14T22+01:00", Some(1_699_995_600_000)),
            ("later", None),
        ] {
            let got = TimeDialect::VictoriaMetrics.time(text, NOW);
            assert_eq!(got, want, "{text:?}");
        }
        assert_eq!(TimeDialect::M3.time("now", NOW), Some(NOW));
        assert_eq!(TimeDialect::M3.time("-1h", NOW), None);
    }

    #[test]
    fn durations() {
        for (text, prometheus, others) in [
            ("15", Some(15_000), Some(15_000)),
            ("0.5", Some(500), Some(500)),
            // In nanoseconds a little less, as Prometheus reads it.
            ("4.1", Some(4_099), Some(4_099)),
            ("5m", Some(300_000), Some(300_000)),
            ("-1", Some(-1_000), Some(-1_000)),
            ("1y", Some(31_536_000_000), Some(31_536_000_000)),
            ("1.5m", None, Some(90_000)),
            ("NaN", None, None),
            ("soon", None, None),
        ] {
            assert_eq!(TimeDialect::Prometheus.duration(text), prometheus, "{text}");
            assert_eq!(TimeDialect::VictoriaMetrics.duration(text), others, "{text}");
            assert_eq!(TimeDialect::M3.duration(text), others, "{text}");
        }
    }
}
