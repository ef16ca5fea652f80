//! The date of an mbox's `From ` line.

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// Unix seconds of a line `From <sender> Thu Nov 24 18:22:48 1986`, without its `From `. Seconds may be
/// missing; a zone may stand before or after the year, and UTC is meant if none does.
pub(super) fn date(rest: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(rest);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    // The sender may hold anything, so the last place that looks like a date counts.
    (0..words.len()).rev().find_map(|start| date_at(&words[start..]))
}

fn date_at(words: &[&str]) -> Option<i64> {
    let [weekday, month, day, time, tail @ ..] = words else { return None };
    if !WEEKDAYS.contains(weekday) {
        return None;
    }
    let month = MONTHS.iter().position(|name| name == month)? + 1;
    let day: i64 = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    let seconds = time_of_day(time)?;
    let (year, zone) = match tail {
        [year] => (*year, None),
        [a, b, ..] if is_year(a) => (*a, Some(*b)),
        [a, b, ..] => (*b, Some(*a)),
        [] => return None,
    };
    let year: i64 = Some(year).filter(|year| is_year(year))?.parse().ok()?;
    let east = zone.and_then(zone_east).unwrap_or(0);
    Some(days_from_1970(year, month as i64, day) * 86_400 + seconds - east)
}

fn is_year(word: &str) -> bool {
    word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn time_of_day(text: &str) -> Option<i64> {
    let parts: Vec<i64> =
        text.split(':').map(|part| part.parse::<u8>().ok().map(i64::from)).collect::<Option<_>>()?;
    match parts[..] {
        [hour @ 0..24, minute @ 0..60] => Some(hour * 3600 + minute * 60),
        [hour @ 0..24, minute @ 0..60, second @ 0..=60] => Some(hour * 3600 + minute * 60 + second),
        _ => None,
    }
}

/// Seconds east of UTC of `+hhmm` or of a name of RFC 5322, section 4.3.
fn zone_east(zone: &str) -> Option<i64> {
    let named = [
        ("EST", -5),
        ("EDT", -4),
        ("CST", -6),
        ("CDT", -5),
        ("MST", -7),
        ("MDT", -6),
        ("PST", -8),
        ("PDT", -7),
    ];
    if let Some((_, hours)) = named.iter().find(|(name, _)| *name == zone) {
        return Some(hours * 3600);
    }
    let digits = zone.strip_prefix(['+', '-']).filter(|rest| rest.len() == 4)?;
    let number: i64 = digits.parse::<u16>().ok()?.into();
    let east = (number / 100 * 60 + number % 100) * 60;
    Some(if zone.starts_with('-') { -east } else { east })
}

/// Days of a Gregorian date since 1970-01-01 (Howard Hinnant's civil calendar: years start in March).
fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (line, expected) in [
            ("a@b Thu Jan  1 00:00:00 1970", Some(0)),
            ("a@b Thu Nov 24 18:22:48 1986", Some(533_240_568)),
            ("a@b Thu Nov 24 18:22 1986", Some(533_240_520)),
            ("a@b Thu Nov 24 18:22:48 1986 -0800", Some(533_269_368)),
            ("a@b Thu Nov 24 18:22:48 PST 1986", Some(533_269_368)),
            ("a@b Thu Nov 24 18:22:48 +0100 1986", Some(533_236_968)),
            ("- Tue Feb 29 12:00:00 2000", Some(951_825_600)),
            ("\"Mon Jan\" <x> Wed Dec 31 23:59:59 1969", Some(-1)),
            ("\u{e9}@b Sat Jan  1 00:00:00 2000", Some(946_684_800)),
            ("now on we go", None),
            ("a@b Thu Nov 32 18:22:48 1986", None),
            ("a@b Thu Nov 24 24:22:48 1986", None),
            ("a@b Thu Nov 24 18:22:48", None),
            ("", None),
        ] {
            assert_eq!(date(line.as_bytes()), expected, "{line}");
        }
    }
}
