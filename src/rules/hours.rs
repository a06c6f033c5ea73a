//! Hours of the day and days of the week, in UTC.

const DAY_MINUTES: i64 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// The epoch was a Thursday.
const EPOCH_DAY: i64 = 3;

/// When a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hours {
    /// Minutes of the day, the end left out; a start behind the end reaches over midnight. Equal ones are the whole day.
    start: i64,
    end: i64,
    /// One bit for each day, from Monday on. Of a time over midnight the day is that of its start.
    days: u8,
}

impl Hours {
    /// Reads `22:00-06:00` and days such as `mon`; without days it is every day.
    pub(super) fn read(hours: Option<&str>, days: &[String]) -> Result<Option<Self>, String> {
        if hours.is_none() && days.is_empty() {
            return Ok(None);
        }
        let (start, end) = match hours {
            None => (0, 0),
            Some(text) => {
                let both = text.split_once('-').and_then(|(start, end)| Some((minute(start)?, minute(end)?)));
                both.ok_or_else(|| format!("`{text}` is not a time of day such as `22:00-06:00` (UTC)"))?
            }
        };
        let mut set = 0;
        for day in days {
            let at = DAYS.iter().position(|known| day.eq_ignore_ascii_case(known));
            set |= 1
                << at.ok_or_else(|| {
                    format!("`{day}` is not a day; write mon, tue, wed, thu, fri, sat or sun")
                })?;
        }
        Ok(Some(Self { start, end, days: if set == 0 { 0x7f } else { set } }))
    }

    /// Whether a time, milliseconds since the epoch, is in it.
    pub(super) fn has(self, now_ms: i64) -> bool {
        let minutes = now_ms.div_euclid(60_000);
        let (day, minute) = (minutes.div_euclid(DAY_MINUTES), minutes.rem_euclid(DAY_MINUTES));
        let is_on = |day: i64| self.days >> (day + EPOCH_DAY).rem_euclid(7) & 1 == 1;
        if self.start == self.end {
            is_on(day)
        } else if self.start < self.end {
            (self.start..self.end).contains(&minute) && is_on(day)
        } else if minute >= self.start {
            is_on(day)
        } else {
            minute < self.end && is_on(day - 1)
        }
    }
}

fn minute(text: &str) -> Option<i64> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |text: &str| if text.len() == 2 { text.parse::<i64>().ok() } else { None };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let is_time = (0..24).contains(&hours) && (0..60).contains(&minutes);
    (is_time || (hours, minutes) == (24, 0)).then_some((hours * 60 + minutes) % DAY_MINUTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 30 November 2026, at this hour and minute.
    fn monday(hour: i64, minute: i64) -> i64 {
        1_795_996_800_000 + (hour * 60 + minute) * 60_000
    }

    #[test]
    fn times_are_of_the_day_and_may_reach_over_midnight() {
        let days = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (hours, on, at, want) in [
            (Some("08:00-18:00"), "", monday(8, 0), true),
            (Some("08:00-18:00"), "", monday(18, 0), false),
            (Some("08:00-18:00"), "tue", monday(9, 0), false),
            (Some("22:00-06:00"), "", monday(23, 0), true),
            (Some("22:00-06:00"), "", monday(7, 0), false),
            (Some("22:00-06:00"), "sun", monday(5, 59), true),
            (Some("22:00-06:00"), "mon", monday(5, 59), false),
            (None, "mon wed", monday(0, 0), true),
            (None, "Mon", monday(23, 59), true),
            (None, "tue", monday(23, 59), false),
            (Some("20:00-24:00"), "", monday(23, 59), true),
        ] {
            let read = Hours::read(hours, &days(on)).unwrap().unwrap();
            assert_eq!(read.has(at), want, "{hours:?} {on} {at}");
        }
        assert_eq!(Hours::read(None, &[]), Ok(None));
        for text in ["8:00-18:00", "08:00", "25:00-26:00", "08:60-09:00", "-", "08:00-18:00-19:00"] {
            assert!(Hours::read(Some(text), &[]).is_err(), "{text}");
        }
        assert!(Hours::read(None, &days("monday")).is_err());
    }
}
