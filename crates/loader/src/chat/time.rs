//! Dates for templates that tell the model what day it is.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// A moment in UTC, in the Gregorian calendar.
struct Moment {
    year: i64,
    month: usize,
    day: i64,
    day_of_year: i64,
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

impl Moment {
    fn new(time: SystemTime) -> Self {
        // Before 1970 nothing is dated; a clock beyond the year 10000 is cut off there, which bounds the loop.
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(253_402_300_799);
        let (days, rest) = ((seconds / 86_400) as i64, (seconds % 86_400) as i64);
        let (mut year, mut day) = (1970, days);
        while day >= 365 + i64::from(is_leap(year)) {
            day -= 365 + i64::from(is_leap(year));
            year += 1;
        }
        let day_of_year = day + 1;
        let lengths = [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        for (index, length) in lengths.into_iter().enumerate() {
            month = index;
            if day < length {
                break;
            }
            day -= length;
        }
        let weekday = (days % 7) as usize;
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        Self { year, month, day: day + 1, day_of_year, weekday, hour, minute, second }
    }
}

/// Formats a moment as Python's `strftime` does, in UTC and English. Directives that are not known stay as they are.
pub(super) fn strftime(format: &str, time: SystemTime) -> String {
    let moment = Moment::new(time);
    let month = MONTHS.get(moment.month).copied().unwrap_or_default();
    let weekday = DAYS.get(moment.weekday).copied().unwrap_or_default();
    let short = |name: &str| name.chars().take(3).collect::<String>();
    let hour12 = match moment.hour % 12 {
        0 => 12,
        hour => hour,
    };
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        // GNU's `%-d`: without leading zeros.
        let plain = directive == Some('-');
        if plain {
            directive = chars.next();
        }
        let number = |value: i64, width: usize| match plain {
            true => value.to_string(),
            false => format!("{value:0width$}"),
        };
        out.push_str(&match directive {
            Some('Y') => number(moment.year, 4),
            Some('y') => number(moment.year % 100, 2),
            Some('m') => number(moment.month as i64 + 1, 2),
            Some('d') => number(moment.day, 2),
            Some('j') => number(moment.day_of_year, 3),
            Some('H') => number(moment.hour, 2),
            Some('I') => number(hour12, 2),
            Some('M') => number(moment.minute, 2),
            Some('S') => number(moment.second, 2),
            Some('p') => if moment.hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('B') => month.to_owned(),
            Some('b' | 'h') => short(month),
            Some('A') => weekday.to_owned(),
            Some('a') => short(weekday),
            Some('F') => format!("{:04}-{:02}-{:02}", moment.year, moment.month + 1, moment.day),
            Some('T') => format!("{:02}:{:02}:{:02}", moment.hour, moment.minute, moment.second),
            Some('Z') => "UTC".to_owned(),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{}{other}", if plain { "-" } else { "" }),
            None => "%".to_owned(),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_as_python_formats_them() {
        // Expected values by Python: datetime.utcfromtimestamp(n).strftime(...).
        let cases = [
            (0, "%Y-%m-%d %H:%M:%S %A %j", "1970-01-01 00:00:00 Thursday 001"),
            (951_827_696, "%d %b %Y %a %p %I", "29 Feb 2000 Tue PM 12"),
            (1_721_952_000, "%B %-d, %y%% %F %T %Q", "July 26, 24% 2024-07-26 00:00:00 %Q"),
            (4_107_542_399, "%F %T %j", "2100-02-28 23:59:59 059"),
            (4_107_542_400, "%F", "2100-03-01"),
        ];
        for (seconds, format, expected) in cases {
            assert_eq!(strftime(format, UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
        assert_eq!(strftime("%", UNIX_EPOCH), "%");
    }
}
