//! The date a message says it was sent.

/// When a message was sent by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    /// Seconds since 1970, UTC.
    pub seconds: i64,
    /// Minutes that the sender's clock was ahead of UTC.
    pub zone: i16,
}

impl Sent {
    /// Days since 1970 on the sender's calendar: SENTBEFORE, SENTON and SENTSINCE disregard time and zone.
    pub fn day(self) -> i64 {
        self.seconds.saturating_add(i64::from(self.zone) * 60).div_euclid(86_400)
    }

    /// Reads a Date field's value (RFC 5322, section 3.3, with the obsolete forms and what `asctime` writes).
    pub(super) fn parse(value: &[u8]) -> Option<Sent> {
        let mut found = Found::default();
        let text = without_comments(value.get(..value.len().min(200))?);
        for token in
            text.split(|byte| byte.is_ascii_whitespace() || *byte == b',').filter(|token| !token.is_empty())
        {
            found.token(token);
        }
        found.finish()
    }
}

#[derive(Default)]
struct Found {
    day: Option<i64>,
    month: Option<i64>,
    year: Option<i64>,
    time: Option<i64>,
    zone: Option<i64>,
}

impl Found {
    fn token(&mut self, token: &[u8]) {
        if let (b'+' | b'-', Some(_)) = (token[0], self.time) {
            self.zone = self.zone.or_else(|| offset(token));
        } else if token.contains(&b':') {
            self.time = self.time.or_else(|| clock(token));
        } else if token[0].is_ascii_digit() && token.contains(&b'-') {
            token
                .split(|byte| *byte == b'-')
                .filter(|token| !token.is_empty())
                .for_each(|token| self.token(token));
        } else if token[0].is_ascii_digit() {
            self.number(token);
        } else if self.month.is_none() && month(token).is_some() {
            self.month = month(token);
        } else if self.time.is_some() {
            self.zone = self.zone.or_else(|| named_zone(token));
        }
    }

    fn number(&mut self, token: &[u8]) {
        let Some(value) = digits(token) else { return };
        if self.day.is_none() && token.len() <= 2 {
            self.day = Some(value);
        } else if self.year.is_none() && self.month.is_some() {
            // RFC 5322, section 4.3.
            self.year = Some(match token.len() {
                1 | 2 if value < 50 => value + 2000,
                1..=3 => value + 1900,
                _ => value,
            });
        }
    }

    fn finish(self) -> Option<Sent> {
        let (day, month, year) = (self.day?, self.month?, self.year?);
        if !(1..=31).contains(&day) || !(1900..=9999).contains(&year) {
            return None;
        }
        let zone = self.zone.unwrap_or(0);
        let seconds = days(year, month, day) * 86_400 + self.time.unwrap_or(0) - zone * 60;
        Some(Sent { seconds, zone: zone as i16 })
    }
}

/// Days since 1970 of a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + of_year - 719_468
}

fn without_comments(value: &[u8]) -> Vec<u8> {
    let mut depth = 0u32;
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(*byte),
            _ => {}
        }
    }
    out
}

fn digits(token: &[u8]) -> Option<i64> {
    std::str::from_utf8(token).ok()?.parse().ok().filter(|value| (0..=9999).contains(value))
}

/// Seconds of `hh:mm[:ss]`.
fn clock(token: &[u8]) -> Option<i64> {
    let mut parts = token.split(|byte| *byte == b':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    // A leap second still belongs to its day.
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second.min(59))
}

/// Minutes of `+hhmm`.
fn offset(token: &[u8]) -> Option<i64> {
    let value = digits(&token[1..]).filter(|_| token.len() == 5)?;
    let minutes = value / 100 * 60 + value % 100;
    (minutes < 24 * 60).then_some(if token[0] == b'-' { -minutes } else { minutes })
}

fn month(token: &[u8]) -> Option<i64> {
    let name = token.get(..3)?.to_ascii_lowercase();
    let months = b"janfebmaraprmayjunjulaugsepoctnovdec";
    months.chunks(3).position(|month| month == name).map(|index| index as i64 + 1)
}

fn named_zone(token: &[u8]) -> Option<i64> {
    let hours = match token.to_ascii_uppercase().as_slice() {
        b"EDT" => -4,
        b"EST" | b"CDT" => -5,
        b"CST" | b"MDT" => -6,
        b"MST" | b"PDT" => -7,
        b"PST" => -8,
        _ => 0,
    };
    Some(hours * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_rfc_5322() {
        let sent =
            |value: &str| Sent::parse(value.as_bytes()).map(|sent| (sent.seconds, sent.zone, sent.day()));
        assert_eq!(sent("Thu, 01 Jan 1970 00:00:00 +0000"), Some((0, 0, 0)));
        assert_eq!(sent("Fri, 21 Nov 1997 09:55:06 -0600"), Some((880_127_706, -360, 10_186)));
        assert_eq!(
            sent("Thu,\r\n  13\r\n Feb\r\n 1969 23:32 -0330 (Newfoundland)"),
            Some((-27_723_480, -210, -322))
        );
        assert_eq!(sent("21 Nov 97 09:55:06 GMT"), Some((880_106_106, 0, 10_186)));
        assert_eq!(sent("Tue Sep  1 10:00:00 2020"), Some((1_598_954_400, 0, 18_506)));
        assert_eq!(sent("29-Feb-2000 23:59:60 EST"), Some((951_886_799, -300, 11_016)));
        for nothing in
            ["", "yesterday", "32 Nov 1997 00:00:00 +0000", "1 Foo 1997", "1 Nov", ",,,", "99999999999999"]
        {
            assert_eq!(sent(nothing), None, "{nothing}");
        }
    }
}
