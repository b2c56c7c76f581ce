//! Dates for templates that tell the model the current day.

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
    /// Since 1970.
    seconds: i64,
    micros: u32,
}

/// Widest field that a format can ask for.
const MAX_WIDTH: usize = 64;

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

impl Moment {
    fn new(time: SystemTime) -> Self {
        // Before 1970 nothing is dated; a clock beyond the year 10000 is cut off there, which bounds the loop.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs().min(253_402_300_799);
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
        let (seconds, micros) = (seconds as i64, since.subsec_micros());
        Self { year, month, day: day + 1, day_of_year, weekday, hour, minute, second, seconds, micros }
    }
}

/// Modifiers of a directive: `%-d`, `%_d`, `%^a`, `%10Y`.
#[derive(Default)]
struct Flags {
    /// `-`: no padding; `_`: spaces; `0`: zeros.
    padding: Option<char>,
    upper: bool,
    swapped: bool,
    width: usize,
}

impl Flags {
    fn number(&self, value: i64, width: usize, default: char) -> String {
        let padding = self.padding.unwrap_or(default);
        let width = self.width.max(width);
        match padding {
            '-' => value.to_string(),
            '_' => format!("{value:>width$}"),
            _ => format!("{value:0width$}"),
        }
    }

    fn text(&self, text: &str) -> String {
        let text = match (self.upper, self.swapped) {
            (true, _) => text.to_uppercase(),
            // Only the names of days and months become upper case; AM and PM become lower case.
            (_, true) if text == "AM" || text == "PM" => text.to_lowercase(),
            (_, true) => text.to_uppercase(),
            _ => text.to_owned(),
        };
        let width = self.width;
        match self.padding {
            Some('0') => "0".repeat(width.saturating_sub(text.len())) + &text,
            _ => format!("{text:>width$}"),
        }
    }
}

impl Moment {
    /// The ISO 8601 year and week.
    fn iso_week(&self) -> (i64, i64) {
        let weekday = self.days_since_monday();
        let week = (self.day_of_year - 1 - weekday + 10) / 7;
        let weeks_of = |year: i64| {
            // A year has 53 weeks if it begins or ends on a Thursday.
            let last = |year: i64| (year + year / 4 - year / 100 + year / 400) % 7;
            if last(year) == 4 || last(year - 1) == 3 { 53 } else { 52 }
        };
        match week {
            0 => (self.year - 1, weeks_of(self.year - 1)),
            week if week > weeks_of(self.year) => (self.year + 1, 1),
            week => (self.year, week),
        }
    }

    fn days_since_monday(&self) -> i64 {
        (self.weekday as i64 + 3) % 7
    }

    fn days_since_sunday(&self) -> i64 {
        (self.weekday as i64 + 4) % 7
    }

    /// Output of a directive; `None` for one that does not exist.
    fn directive(&self, directive: char, flags: &Flags) -> Option<String> {
        let month = MONTHS.get(self.month).copied().unwrap_or_default();
        let weekday = DAYS.get(self.weekday).copied().unwrap_or_default();
        let short = |name: &'static str| name.get(..3).unwrap_or_default();
        let hour12 = match self.hour % 12 {
            0 => 12,
            hour => hour,
        };
        let half = if self.hour < 12 { "AM" } else { "PM" };
        let month_number = self.month as i64 + 1;
        let date = || format!("{:02}/{:02}/{:02}", month_number, self.day, self.year % 100);
        let clock = || format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second);
        Some(match directive {
            'Y' => flags.number(self.year, 4, '0'),
            'C' => flags.number(self.year / 100, 2, '0'),
            'y' => flags.number(self.year % 100, 2, '0'),
            'G' => flags.number(self.iso_week().0, 4, '0'),
            'g' => flags.number(self.iso_week().0 % 100, 2, '0'),
            'V' => flags.number(self.iso_week().1, 2, '0'),
            'U' => flags.number((self.day_of_year + 6 - self.days_since_sunday()) / 7, 2, '0'),
            'W' => flags.number((self.day_of_year + 6 - self.days_since_monday()) / 7, 2, '0'),
            'm' => flags.number(month_number, 2, '0'),
            'd' => flags.number(self.day, 2, '0'),
            'e' => flags.number(self.day, 2, '_'),
            'j' => flags.number(self.day_of_year, 3, '0'),
            'H' => flags.number(self.hour, 2, '0'),
            'I' => flags.number(hour12, 2, '0'),
            'k' => flags.number(self.hour, 2, '_'),
            'l' => flags.number(hour12, 2, '_'),
            'M' => flags.number(self.minute, 2, '0'),
            'S' => flags.number(self.second, 2, '0'),
            'f' => format!("{:06}", self.micros),
            's' => flags.number(self.seconds, 1, '0'),
            'u' => flags.number(self.days_since_monday() + 1, 1, '0'),
            'w' => flags.number(self.days_since_sunday(), 1, '0'),
            'p' => flags.text(half),
            'P' => flags.text(&half.to_lowercase()),
            'B' => flags.text(month),
            'b' | 'h' => flags.text(short(month)),
            'A' => flags.text(weekday),
            'a' => flags.text(short(weekday)),
            'F' => flags.text(&format!("{}-{:02}-{:02}", self.year, month_number, self.day)),
            'D' | 'x' => flags.text(&date()),
            'T' | 'X' => flags.text(&clock()),
            'R' => flags.text(&format!("{:02}:{:02}", self.hour, self.minute)),
            'r' => flags.text(&format!("{hour12:02}:{:02}:{:02} {half}", self.minute, self.second)),
            'c' => {
                flags.text(&format!("{} {} {:>2} {} {}", short(weekday), short(month), self.day, clock(), self.year))
            }
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            // A time without a zone has neither a name nor an offset of it.
            'z' | 'Z' => String::new(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

/// Formats a time like Python's `strftime`, in UTC and English. Unknown directives do not change.
pub(super) fn strftime(format: &str, time: SystemTime) -> String {
    let moment = Moment::new(time);
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let mut flags = Flags::default();
        let mut tail = after;
        while let Some(flag) = tail.chars().next().filter(|c| matches!(c, '-' | '_' | '0' | '^' | '#')) {
            match flag {
                '^' => flags.upper = true,
                '#' => flags.swapped = true,
                padding => flags.padding = Some(padding),
            }
            tail = tail.get(1..).unwrap_or_default();
        }
        let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        // Enough in practice, and it keeps the result in proportion to the format.
        flags.width = tail.get(..digits).and_then(|width| width.parse().ok()).unwrap_or(0).min(MAX_WIDTH);
        tail = tail.get(digits..).unwrap_or_default().trim_start_matches(['E', 'O']);
        let directive = tail.chars().next();
        match directive.and_then(|directive| Some((moment.directive(directive, &flags)?, directive.len_utf8()))) {
            Some((text, length)) => {
                out.push_str(&text);
                rest = tail.get(length..).unwrap_or_default();
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
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
            (
                1_483_228_799,
                "%G-W%V-%u %U %W %C %g|%c|%x %X|%r|%D %R|%e%k%l%P%n%t%s%z%Z",
                "2016-W52-6 52 52 20 16|Sat Dec 31 23:59:59 2016|12/31/16 23:59:59|11:59:59 PM|12/31/16 23:59|312311pm\n\t1483228799",
            ),
            (1_483_228_800, "%G-W%V-%u %^a %#p %_d %5Y %E", "2016-W52-7 SUN am  1 02017 %E"),
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
