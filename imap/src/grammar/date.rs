//! Dates and times of IMAP (RFC 9051, section 9: `date`, `date-time`).

use super::error::{Fault, Parsed, Problem};
use super::scanner::Scanner;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const SECONDS_A_DAY: i64 = 86_400;

/// A day of the calendar, without a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i32);

impl Date {
    /// The day of a month, both from 1; nothing if the calendar has no such day or the year has over four digits.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Date> {
        let valid = year <= 9999 && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
        valid.then(|| Date(days_before(year, month) + i32::from(day) - 1))
    }

    /// Days since 1970-01-01, negative before.
    pub fn days(self) -> i32 {
        self.0
    }

    /// The day on which `seconds` since 1970 (UTC) falls where clocks are `offset_minutes` ahead of UTC.
    ///
    /// Times outside the years 0 to 9999 give the first or last day of those.
    pub fn of_time(seconds: i64, offset_minutes: i16) -> Date {
        let local = seconds.saturating_add(i64::from(offset_minutes) * 60);
        let days = local.div_euclid(SECONDS_A_DAY);
        let (first, last) = (days_before(0, 1), days_before(9999, 12) + 30);
        Date(days.clamp(first.into(), last.into()) as i32)
    }

    /// Year, month and day, the latter two from 1.
    pub fn year_month_day(self) -> (u16, u8, u8) {
        // Years run from March here, so that the leap day is the last; an era is 400 years.
        let days = self.0 + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + i32::from(month <= 2);
        (year as u16, month as u8, day as u8)
    }
}

/// A moment, and the zone that it was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime {
    /// Seconds since 1970-01-01 00:00 UTC, negative before.
    pub seconds: i64,
    /// Minutes that the zone is ahead of UTC.
    pub offset_minutes: i16,
}

/// `1-Feb-1994`, in quotes or not.
pub(super) fn date(scanner: &mut Scanner<'_>) -> Parsed<Date> {
    let what = "a date such as 1-Feb-1994";
    let start = scanner.at();
    let date = scanner.attempt(|scanner| {
        let quoted = scanner.eat(b'"');
        let first = digit(scanner)?;
        let day = digit(scanner).map_or(first, |second| first * 10 + second);
        let date = month_and_year(scanner, day)?;
        (!quoted || scanner.eat(b'"')).then_some(date)
    });
    date.ok_or(Fault { at: start, problem: Problem::Expected(what) })
}

/// `"17-Jul-1996 02:44:25 -0700"`.
pub(super) fn date_time(scanner: &mut Scanner<'_>) -> Parsed<DateTime> {
    let what = "a time such as \"17-Jul-1996 02:44:25 -0700\"";
    let start = scanner.at();
    let time = scanner.attempt(|scanner| {
        scanner.eat(b'"').then_some(())?;
        let day = if scanner.eat(b' ') { digit(scanner)? } else { two_digits(scanner)? };
        let date = month_and_year(scanner, day)?;
        scanner.eat(b' ').then_some(())?;
        let hour = two_digits(scanner).filter(|hour| *hour < 24)?;
        scanner.eat(b':').then_some(())?;
        let minute = two_digits(scanner).filter(|minute| *minute < 60)?;
        scanner.eat(b':').then_some(())?;
        // 60 is a leap second; it falls together with the next.
        let second = two_digits(scanner).filter(|second| *second <= 60)?;
        scanner.eat(b' ').then_some(())?;
        let offset_minutes = zone(scanner)?;
        scanner.eat(b'"').then_some(())?;
        let of_day = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        let local = i64::from(date.0) * SECONDS_A_DAY + of_day;
        Some(DateTime { seconds: local - i64::from(offset_minutes) * 60, offset_minutes })
    });
    time.ok_or(Fault { at: start, problem: Problem::Expected(what) })
}

/// Writes a `date-time` with its quotes, in UTC; times outside the years 0 to 9999 become the nearest inside.
pub fn put_date_time(out: &mut Vec<u8>, seconds: i64) {
    let date = Date::of_time(seconds, 0);
    let first = i64::from(date.0) * SECONDS_A_DAY;
    let of_day = (seconds.clamp(first, first + SECONDS_A_DAY - 1) - first) as u32;
    let (year, month, day) = date.year_month_day();
    out.push(b'"');
    if day < 10 {
        out.push(b' ');
        out.push(b'0' + day);
    } else {
        put_two_digits(out, day.into());
    }
    out.push(b'-');
    out.extend_from_slice(MONTHS[usize::from(month) - 1].as_bytes());
    out.push(b'-');
    put_two_digits(out, u32::from(year) / 100);
    put_two_digits(out, u32::from(year) % 100);
    out.push(b' ');
    put_two_digits(out, of_day / 3600);
    out.push(b':');
    put_two_digits(out, of_day / 60 % 60);
    out.push(b':');
    put_two_digits(out, of_day % 60);
    out.extend_from_slice(b" +0000\"");
}

fn put_two_digits(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

fn digit(scanner: &mut Scanner<'_>) -> Option<u8> {
    let byte = scanner.peek().filter(u8::is_ascii_digit)?;
    scanner.eat(byte);
    Some(byte - b'0')
}

fn two_digits(scanner: &mut Scanner<'_>) -> Option<u8> {
    scanner.attempt(|scanner| Some(digit(scanner)? * 10 + digit(scanner)?))
}

fn month_and_year(scanner: &mut Scanner<'_>, day: u8) -> Option<Date> {
    scanner.eat(b'-').then_some(())?;
    let name = scanner.text("", |byte| byte.is_ascii_alphabetic()).ok()?;
    let month = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))? as u8 + 1;
    scanner.eat(b'-').then_some(())?;
    let year = u16::from(two_digits(scanner)?) * 100 + u16::from(two_digits(scanner)?);
    Date::new(year, month, day)
}

fn zone(scanner: &mut Scanner<'_>) -> Option<i16> {
    let negative = scanner.eat(b'-');
    (negative || scanner.eat(b'+')).then_some(())?;
    let hours = two_digits(scanner).filter(|hours| *hours < 24)?;
    let minutes = two_digits(scanner).filter(|minutes| *minutes < 60)?;
    let offset = i16::from(hours) * 60 + i16::from(minutes);
    Some(if negative { -offset } else { offset })
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u16, month: u8) -> u8 {
    match month {
        2 => 28 + u8::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of a month.
fn days_before(year: u16, month: u8) -> i32 {
    let year = i32::from(year);
    let earlier = year - 1;
    let leap_days = earlier.div_euclid(4) - earlier.div_euclid(100) + earlier.div_euclid(400);
    let months: i32 = (1..month).map(|month| i32::from(days_in(year as u16, month))).sum();
    year * 365 + leap_days - 719_527 + months
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(text: &str, parse: fn(&mut Scanner<'_>) -> Parsed<T>) -> Option<T> {
        let mut scanner = Scanner::new(text.as_bytes());
        let value = parse(&mut scanner).ok()?;
        scanner.at_end().then_some(value)
    }

    #[test]
    fn days_of_the_calendar() {
        for (text, days) in [
            ("1-Jan-1970", 0),
            ("\"1-jan-1970\"", 0),
            ("31-DEC-1969", -1),
            ("01-Mar-2000", 11_017),
            ("29-Feb-2000", 11_016),
            ("1-Jan-0000", -719_528),
            ("31-Dec-9999", 2_932_896),
        ] {
            assert_eq!(read(text, date).map(Date::days), Some(days), "{text}");
        }
        for bad in [
            "29-Feb-1900",
            "30-Feb-2000",
            "0-Jan-2000",
            "32-Jan-2000",
            "1-Foo-2000",
            "1-Jan-99",
            "\"1-Jan-2000",
            "1-Jan-02000",
        ] {
            assert_eq!(read(bad, date), None, "{bad}");
        }
    }

    #[test]
    fn every_day_of_ten_thousand_years_is_the_next_one() {
        let mut next = days_before(0, 1);
        for year in 0..=9999 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month) {
                    let date = Date::new(year, month, day).unwrap();
                    assert_eq!(date.days(), next);
                    assert_eq!(date.year_month_day(), (year, month, day));
                    next += 1;
                }
            }
        }
    }

    #[test]
    fn moments() {
        for (text, seconds, offset) in [
            ("\"17-Jul-1996 02:44:25 -0700\"", 837_596_665, -420),
            ("\" 1-Jan-1970 00:00:00 +0000\"", 0, 0),
            ("\"01-Jan-1970 01:00:00 +0100\"", 0, 60),
            ("\"31-Dec-1998 23:59:60 +0000\"", 915_148_800, 0),
        ] {
            let time = DateTime { seconds, offset_minutes: offset };
            assert_eq!(read(text, date_time), Some(time), "{text}");
        }
        for bad in [
            "\"1-Jan-1970 00:00:00 +0000\"",
            "\"01-Jan-1970 24:00:00 +0000\"",
            "\"01-Jan-1970 00:60:00 +0000\"",
            "\"01-Jan-1970 00:00:00 0000\"",
            "\"01-Jan-1970 00:00:00 +0060\"",
            "\"01-Jan-1970  0:00:00 +0000\"",
            "01-Jan-1970 00:00:00 +0000",
        ] {
            assert_eq!(read(bad, date_time), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for seconds in [0, -1, 837_596_665, 951_782_400, 253_402_300_799, -62_167_219_200] {
            let mut out = Vec::new();
            put_date_time(&mut out, seconds);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(read(&text, date_time), Some(DateTime { seconds, offset_minutes: 0 }), "{text}");
        }
        let mut out = Vec::new();
        put_date_time(&mut out, i64::MAX);
        assert_eq!(out, b"\"31-Dec-9999 23:59:59 +0000\"");
    }
}
