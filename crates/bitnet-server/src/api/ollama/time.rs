//! Times and durations in the notations of Ollama's interface: RFC 3339, and those of Go.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// A time in RFC 3339, in UTC; for times before 1970, its begin.
pub(super) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / DAY, since.as_secs() % DAY);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

/// The time now.
pub(super) fn now() -> String {
    timestamp(SystemTime::now())
}

/// Year, month and day, some days after the first of January of 1970.
fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin with March have their leap day at the end; 719,468 days lie between the begin of the year 0 of
    // that kind and 1970. The calendar repeats every 400 years, which have 146,097 days.
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months from March on have 153 days, and so have the next five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (400 * cycle + year + u64::from(month <= 2), month, day)
}

/// Nanoseconds.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The seconds of a duration in Go's notation: `5m`, `1h30m`, `-1.5s`, `0`; `None` for another text.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = None;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = Some(total.unwrap_or(0.0) + unit * number.parse::<f64>().ok()?);
        rest = after;
    }
    total.map(|total| sign * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `datetime.fromtimestamp(SECONDS, timezone.utc).isoformat()`, by Python.
    #[test]
    fn timestamps_are_those_of_others() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (1_796_050_000, "2026-11-30T14:46:40"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ] {
            let time = UNIX_EPOCH + Duration::new(seconds, 12_345);
            assert_eq!(timestamp(time), format!("{expected}.000012345Z"));
        }
    }

    #[test]
    fn durations_are_told_from_other_texts() {
        for (text, expected) in [
            ("5m", 300.0),
            ("1h30m", 5400.0),
            ("-1s", -1.0),
            ("+2ms", 2e-3),
            ("1.5h", 5400.0),
            (".5s", 0.5),
            ("0", 0.0),
            ("-0", 0.0),
            ("10µs", 1e-5),
            ("300ns", 3e-7),
        ] {
            let found = seconds(text).unwrap();
            assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{text}: {found}");
        }
        for text in ["", "-", "5", "m", "-1", "5 m", "1.2.3s", ".s", "5d", "h5", "5min", "forever"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
