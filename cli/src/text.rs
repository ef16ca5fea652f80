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
