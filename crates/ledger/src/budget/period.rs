//! The periods of budgets, by the calendar: when the one began that a moment is in, and when the next begins.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Date, UnitError, quantity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Microseconds since the beginning of 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

/// How often a budget renews.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Every {
    Minute,
    Hour,
    Day,
    Month,
    /// Never.
    #[default]
    Total,
}

/// How far ahead of UTC the calendar is by which days and months begin: `+02:00`, `-05:30`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offset(i32);

// === impl Moment ===

impl Moment {
    pub const fn from_secs(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000)
    }

    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000
    }

    pub fn system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.0)
    }

    /// How long until then; nothing if it has been.
    pub fn until(self, later: Moment) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0))
    }
}

impl From<SystemTime> for Moment {
    fn from(at: SystemTime) -> Moment {
        Moment(at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Moment {
    /// `2026-11-24T16:45:11Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Date { year, month, day, weekday: _, hour, minute, second } = Date::of_seconds(self.secs());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

// === impl Every ===

impl Every {
    /// In seconds since 1970.
    pub(super) fn start(self, now: Moment, Offset(offset): Offset) -> u64 {
        let local = i64::try_from(now.secs()).unwrap_or(i64::MAX).saturating_add(i64::from(offset));
        let local = u64::try_from(local).unwrap_or_default();
        let begin = match self {
            Every::Minute => local - local % 60,
            Every::Hour => local - local % 3600,
            Every::Day => local - local % DAY,
            Every::Month => month(local),
            Every::Total => return 0,
        };
        u64::try_from(i64::try_from(begin).unwrap_or(i64::MAX) - i64::from(offset)).unwrap_or_default()
    }

    /// When the period that began then is over; `None` if never.
    pub(super) fn end(self, start: u64, Offset(offset): Offset) -> Option<u64> {
        match self {
            Every::Minute => Some(start + 60),
            Every::Hour => Some(start + 3600),
            Every::Day => Some(start + DAY),
            Every::Month => {
                let local = i64::try_from(start).ok()? + i64::from(offset);
                let next = month(u64::try_from(local).unwrap_or_default() + 32 * DAY);
                u64::try_from(i64::try_from(next).ok()? - i64::from(offset)).ok()
            }
            Every::Total => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Every::Minute => "minute",
            Every::Hour => "hour",
            Every::Day => "day",
            Every::Month => "month",
            Every::Total => "total",
        }
    }
}

const DAY: u64 = 86_400;

fn month(local: u64) -> u64 {
    let date = Date::of_seconds(local);
    local - local % DAY - u64::from(date.day - 1) * DAY
}

// === impl Offset ===

impl FromStr for Offset {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Offset, UnitError> {
        let wrong =
            || UnitError::new(format!("`{text}` is not an offset from UTC; expected such as `+02:00` or `-05:30`"));
        let (sign, rest) = match text.as_bytes().first() {
            Some(b'+') => (1, &text[1..]),
            Some(b'-') => (-1, &text[1..]),
            _ => return Err(wrong()),
        };
        let (hours, minutes) = rest.split_once(':').ok_or_else(wrong)?;
        let two = |text: &str, most: i32| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<i32>().ok().filter(|value| digits && *value <= most).ok_or_else(wrong)
        };
        Ok(Offset(sign * (two(hours, 14)? * 3600 + two(minutes, 59)? * 60)))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        let minutes = self.0.abs() / 60;
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

quantity!(Offset, r"^[+-]\d\d:\d\d$", "how far ahead of UTC, such as `+02:00` or `-05:30`", ["+02:00", "-05:30"]);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Moment {
        let part = |range: std::ops::Range<usize>| text[range].parse::<u64>().unwrap();
        let (year, month, day) = (part(0..4), part(5..7), part(8..10));
        let days = (0..).find(|days| {
            let date = Date::of_seconds(days * DAY);
            (date.year, u64::from(date.month), u64::from(date.day)) == (year, month, day)
        });
        Moment::from_secs(days.unwrap() * DAY + part(11..13) * 3600 + part(14..16) * 60 + part(17..19))
    }

    #[test]
    fn periods_begin_and_end_by_the_calendar() {
        let check = |every: Every, offset: &str, now: &str, start: &str, end: &str| {
            let offset = offset.parse().unwrap();
            let begun = every.start(at(now), offset);
            assert_eq!(Moment::from_secs(begun).to_string(), start, "{now}");
            assert_eq!(Moment::from_secs(every.end(begun, offset).unwrap()).to_string(), end, "{now}");
        };
        check(Every::Minute, "+00:00", "2026-11-24T16:45:11Z", "2026-11-24T16:45:00Z", "2026-11-24T16:46:00Z");
        check(Every::Hour, "+05:30", "2026-11-24T16:45:11Z", "2026-11-24T16:30:00Z", "2026-11-24T17:30:00Z");
        check(Every::Day, "+00:00", "2026-11-24T23:59:59Z", "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z");
        check(Every::Day, "+02:00", "2026-11-24T22:00:00Z", "2026-11-24T22:00:00Z", "2026-11-25T22:00:00Z");
        check(Every::Day, "-05:00", "2026-11-24T04:59:59Z", "2026-11-23T05:00:00Z", "2026-11-24T05:00:00Z");
        check(Every::Month, "+00:00", "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        check(Every::Month, "+00:00", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check(Every::Month, "+02:00", "2026-10-31T22:30:00Z", "2026-10-31T22:00:00Z", "2026-11-30T22:00:00Z");
        assert_eq!(Every::Total.end(Every::Total.start(Moment(5), Offset(0)), Offset(0)), None);
    }

    #[test]
    fn offsets_print_back() {
        for (text, right) in [
            ("+02:00", true),
            ("-05:30", true),
            ("+15:00", false),
            ("2:00", false),
            ("+2:00", false),
            ("+02:60", false),
        ] {
            let printed = text.parse::<Offset>().ok().map(|offset| offset.to_string());
            assert_eq!(printed.as_deref(), right.then_some(text), "{text}");
        }
    }
}
