//! Moments as people and protocols write them, in UTC; without a time zone there is nothing a library would add.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment by the calendar, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    pub year: u64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 is Monday.
    pub weekday: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl Date {
    /// Before 1970 is 1970.
    pub fn of(at: SystemTime) -> Date {
        Date::of_seconds(at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// Seconds since the beginning of 1970.
    pub fn of_seconds(seconds: u64) -> Date {
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Days to a date in the proleptic Gregorian calendar, in years that begin in March, by eras of 400 years.
        let shifted = days + 719_468;
        let (era, day) = (shifted / 146_097, shifted % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let date = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Date {
            year: year + era * 400 + u64::from(month <= 2),
            month: month as u8,
            day: date as u8,
            // 1970 began on a Thursday.
            weekday: ((days + 3) % 7) as u8,
            hour: (second / 3600) as u8,
            minute: (second / 60 % 60) as u8,
            second: (second % 60) as u8,
        }
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
    pub fn to_http(self) -> [u8; 29] {
        let Date { year, month, day, weekday, hour, minute, second } = self;
        let mut text = *b"Sun, 06 Nov 1994 08:49:37 GMT";
        let mut put = |at: usize, bytes: &[u8]| text[at..at + bytes.len()].copy_from_slice(bytes);
        let two = |value: u8| [b'0' + value / 10 % 10, b'0' + value % 10];
        put(0, DAYS[usize::from(weekday % 7)]);
        put(5, &two(day));
        put(8, MONTHS[usize::from(month.clamp(1, 12)) - 1]);
        put(12, &two((year / 100 % 100) as u8));
        put(14, &two((year % 100) as u8));
        put(17, &two(hour));
        put(20, &two(minute));
        put(23, &two(second));
        text
    }
}

const DAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_where_calendars_are_odd() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&Date::of_seconds(seconds).to_http()), Ok(expected));
        }
    }
}
