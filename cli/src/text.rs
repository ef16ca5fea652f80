//! Text for people: tables, sizes, dates.

use std::io::{self, Write};
use std::time::Duration;

use unicode_width::UnicodeWidthStr;

/// Prints rows in columns as wide as they need to be; columns named in `right` are numbers.
pub(crate) fn table(
    out: &mut dyn Write,
    head: &[&str],
    rows: &[Vec<String>],
    right: &[usize],
) -> io::Result<()> {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let fill = " ".repeat(width - cell.width());
            let cell =
                if right.contains(&column) { format!("{fill}{cell}") } else { format!("{cell}{fill}") };
            line.push_str(&cell);
            line.push_str("  ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A size with a unit.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// A date in UTC.
pub(crate) fn date(seconds: i64) -> String {
    let date = mail_parser::DateTime::from_timestamp(seconds);
    format!("{:04}-{:02}-{:02} {:02}:{:02}", date.year, date.month, date.day, date.hour, date.minute)
}

/// A moment in UTC, to the second.
pub(crate) fn instant(seconds: i64) -> String {
    let date = mail_parser::DateTime::from_timestamp(seconds);
    let day = format!("{:04}-{:02}-{:02}", date.year, date.month, date.day);
    format!("{day}T{:02}:{:02}:{:02}Z", date.hour, date.minute, date.second)
}

/// A moment as people write it: so long ago, or a date in UTC, with a time or at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long before now.
    Ago(Duration),
    /// In seconds since 1970.
    At(i64),
}

impl Moment {
    /// In seconds since 1970.
    pub(crate) fn seconds(self) -> i64 {
        match self {
            Moment::At(seconds) => seconds,
            Moment::Ago(ago) => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                now.map_or(0, |now| now.saturating_sub(ago).as_secs() as i64)
            }
        }
    }
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        let how = || "a moment is written as 2h or 1d (ago), 2026-01-31 or 2026-01-31T18:30 (UTC)".to_owned();
        if let Ok(ago) = duration(text) {
            return Ok(Moment::Ago(ago));
        }
        let (day, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
        let numbers =
            |text: &str, by: char| text.split(by).map(|n| n.parse().ok()).collect::<Option<Vec<u16>>>();
        let (day, time) = (numbers(day, '-'), numbers(time.trim_end_matches('Z'), ':'));
        let (Some([year, month, day]), Some([hour, minute, rest @ ..])) = (day.as_deref(), time.as_deref())
        else {
            return Err(how());
        };
        let (small, second) = (|n: &u16| u8::try_from(*n).ok(), rest.first().unwrap_or(&0));
        let all = [month, day, hour, minute, second].map(small);
        let [Some(month), Some(day), Some(hour), Some(minute), Some(second)] = all else { return Err(how()) };
        let (tz_before_gmt, tz_hour, tz_minute, year) = (false, 0, 0, *year);
        let date = mail_parser::DateTime {
            year,
            month,
            day,
            hour,
            minute,
            second,
            tz_before_gmt,
            tz_hour,
            tz_minute,
        };
        let seconds = date.to_timestamp();
        // What is no date comes back as another one.
        let same =
            instant(seconds) == format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
        if same && rest.len() < 2 { Ok(Moment::At(seconds)) } else { Err(how()) }
    }
}

/// Reads a time as people write it: a whole number of seconds, minutes, hours or days, from a second to a year.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)].into_iter();
    let found = unit.filter_map(|(letter, seconds)| Some((text.strip_suffix(letter)?, seconds))).next();
    let seconds = found.and_then(|(number, unit)| number.parse::<u64>().ok()?.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("a time is written as 90s, 30m, 24h or 7d, and is at most a year".into()),
    }
}

/// A count with its noun, which is given in the singular.
pub(crate) fn count(number: u64, one: &str) -> String {
    match one.strip_suffix('y') {
        _ if number == 1 => format!("1 {one}"),
        Some(stem) => format!("{number} {stem}ies"),
        None if one.ends_with('x') => format!("{number} {one}es"),
        None => format!("{number} {one}s"),
    }
}

/// A noun with its article.
pub(crate) fn a(noun: impl std::fmt::Display) -> String {
    let noun = noun.to_string();
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// Text from a message, cut to a width and without anything that a terminal would obey.
pub(crate) fn tame(text: &str, width: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        out.push(c);
        if out.width() > width {
            out.pop();
            while out.width() + 1 > width {
                out.pop();
            }
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_in_any_script() {
        let mut out = Vec::new();
        let rows = vec![vec!["東京".to_owned(), "7".to_owned()], vec!["a".to_owned(), "12".to_owned()]];
        table(&mut out, &["name", "n"], &rows, &[1]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name   n\n東京   7\na     12\n");
    }

    #[test]
    fn nouns_are_counted() {
        let counted = [(0, "mailbox"), (1, "mailbox"), (2, "body"), (1, "body"), (0, "peer")];
        let counted = counted.map(|(number, noun)| count(number, noun));
        assert_eq!(counted, ["0 mailboxes", "1 mailbox", "2 bodies", "1 body", "0 peers"]);
        assert_eq!((a("server"), a("observer")), ("a server".into(), "an observer".into()));
    }

    #[test]
    fn moments_are_read_and_what_is_no_date_is_refused() {
        let read = |text: &str| text.parse::<Moment>().map_err(|error| (text.to_owned(), error));
        assert_eq!(read("2h"), Ok(Moment::Ago(Duration::from_secs(7200))));
        for (text, seconds) in [
            ("1970-01-02", 86_400),
            ("2026-11-24T08:16", 1_795_508_160),
            ("2026-11-24 08:16:24Z", 1_795_508_184),
            ("2024-02-29", 1_709_164_800),
        ] {
            assert_eq!(read(text), Ok(Moment::At(seconds)));
            assert!(instant(seconds).starts_with(&text[..10]));
        }
        for bad in
            ["", "yesterday", "2026-02-29", "2026-13-01", "2026-01-01T24:00", "2026-01", "2026-01-01T1:2:3:4"]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_read() {
        let seconds = ["90s", "30m", "24h", "7d", "365d"].map(|text| duration(text).unwrap().as_secs());
        assert_eq!(seconds, [90, 1800, 86_400, 604_800, 31_536_000]);
        for bad in ["", "24", "h", "0s", "-1s", "1.5h", "366d", "99999999999999999999s", "7 d"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn subjects_are_tamed() {
        assert_eq!(tame("a\u{1b}[31mb", 20), "a [31mb");
        assert_eq!(tame("東京都庁", 5), "東京…");
        assert_eq!(date(0), "1970-01-01 00:00");
    }
}
