//! Dates of HTTP, to the second: RFC 9110, 5.6.7.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970. Dates before are not told apart from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub u64);

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LONG_DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Date {
    pub fn of(at: SystemTime) -> Date {
        Date(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Date) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// Any of the three forms; `now` says which century two digits of a year mean.
    pub fn parse(value: &[u8], now: Date) -> Option<Date> {
        let text = std::str::from_utf8(value).ok()?.trim();
        match text.split_once(',') {
            Some((day, rest)) if DAYS.contains(&day) => {
                // Sun, 06 Nov 1994 08:49:37 GMT
                let mut words = rest.split(' ').skip(1);
                let (day, month, year) = (words.next()?, words.next()?, words.next()?);
                let (clock, zone) = (words.next()?, words.next()?);
                let whole = zone == "GMT" && words.next().is_none() && rest.starts_with(' ');
                if !whole || year.len() != 4 {
                    return None;
                }
                at(number(year, 4)?, month, number(day, 2)?, clock)
            }
            Some((day, rest)) if LONG_DAYS.contains(&day) => {
                // Sunday, 06-Nov-94 08:49:37 GMT
                let (date, clock) = rest.strip_prefix(' ')?.strip_suffix(" GMT")?.split_once(' ')?;
                let mut words = date.split('-');
                let (day, month, year) = (words.next()?, words.next()?, number(words.next()?, 2)?);
                if words.next().is_some() {
                    return None;
                }
                let (this, _, _) = civil(now.0 / 86_400);
                let mut year = this / 100 * 100 + year;
                // More than 50 years ahead is the past.
                if year > this + 50 {
                    year -= 100;
                }
                at(year, month, number(day, 2)?, clock)
            }
            Some(_) => None,
            None => {
                // Sun Nov  6 08:49:37 1994
                let mut words = text.split_ascii_whitespace();
                let (weekday, month, day) = (words.next()?, words.next()?, words.next()?);
                let (clock, year) = (words.next()?, words.next()?);
                if !DAYS.contains(&weekday) || words.next().is_some() || day.len() > 2 {
                    return None;
                }
                at(number(year, 4)?, month, number(day, day.len())?, clock)
            }
        }
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil(days);
        // 1970 began on a Thursday.
        let (weekday, month) = (DAYS[((days + 3) % 7) as usize], MONTHS[(month - 1) as usize]);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

fn number(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn at(year: u64, month: &str, day: u64, clock: &str) -> Option<Date> {
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let mut parts = clock.split(':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second = number(parts.next()?, 2)?;
    // A leap second is the one before it.
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 || !(1..=31).contains(&day) || year < 1601 {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second.min(59);
    Some(Date(days(year, month, day).map_or(0, |days| days * 86_400 + seconds)))
}

/// Days since 1970 of a date in the Gregorian calendar; `None` before. Years begin in March, eras have 400 of them.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (era * 146_097 + of_era).checked_sub(719_468)
}

/// The date of a day since 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_forms_are_read_and_no_others() {
        const NOW: Date = Date(1_793_000_000);
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thursday, 18-Aug-50 02:01:18 GMT", Some(2_544_400_878)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 01 Jan 1900 00:00:00 GMT", Some(0)),
            ("Fri, 29 Feb 2092 23:59:60 GMT", Some(3_855_167_999)),
            ("0", None),
            ("", None),
            ("foo", None),
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 8:49:37 GMT", None),
            ("Sun, 06 NOV 1994 08:49:37 GMT", None),
            ("Sun, 06-Nov-1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08.49.37 GMT", None),
            ("Sun, 06  Nov  1994 08:49:37 GMT", None),
            ("Sun 06 Nov 1994 08:49:37 GMT", None),
        ] {
            assert_eq!(Date::parse(text.as_bytes(), NOW), expected.map(Date), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0u64..253_402_300_799) {
            let text = Date(seconds).to_string();
            prop_assert_eq!(Date::parse(text.as_bytes(), Date(0)), Some(Date(seconds)), "{}", text);
        }

        #[test]
        fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Date::parse(&bytes, Date(0));
        }
    }
}
