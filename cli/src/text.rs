//! Text for people: tables, sizes, dates.

use std::io::{self, Write};

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

/// A count with its noun.
pub(crate) fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
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
    fn subjects_are_tamed() {
        assert_eq!(tame("a\u{1b}[31mb", 20), "a [31mb");
        assert_eq!(tame("東京都庁", 5), "東京…");
        assert_eq!(date(0), "1970-01-01 00:00");
    }
}
