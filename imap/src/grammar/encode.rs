//! The tokens of responses: numbers, strings, names. Everything is written to the end of a buffer.

use postmerge::mailbox::MailboxName;
use postmerge::maildir::encode_mutf7;

use super::names::NameEncoding;
use super::scanner::is_astring_char;

/// Longest quoted string: a client may read lines into a buffer of fixed size (RFC 2683, section 3.2.1.5, speaks of
/// 1,000 octets for a line), and a literal says its length beforehand.
const MAX_QUOTED: usize = 800;

/// Writes a number in decimal.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes a string: quoted if it is short and plain enough, else as a literal. `utf8` says whether the client takes
/// UTF-8 in quoted strings (after `ENABLE IMAP4rev2` or `ENABLE UTF8=ACCEPT`).
///
/// NUL, which no string may hold, is left out.
pub fn put_string(out: &mut Vec<u8>, text: &[u8], utf8: bool) {
    if text.contains(&0) {
        let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
        return put_string(out, &text, utf8);
    }
    let plain = |byte: &u8| !matches!(byte, b'\r' | b'\n') && (utf8 || byte.is_ascii());
    let quotable = text.len() <= MAX_QUOTED && text.iter().all(plain);
    if quotable && (text.is_ascii() || str::from_utf8(text).is_ok()) {
        put_quoted(out, text);
    } else {
        put_literal(out, text);
    }
}

/// Writes a string, or NIL for nothing.
pub fn put_nstring(out: &mut Vec<u8>, text: Option<&[u8]>, utf8: bool) {
    match text {
        Some(text) => put_string(out, text, utf8),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// Writes an astring of ASCII text: bare if it can be, else a string.
pub fn put_astring(out: &mut Vec<u8>, text: &[u8]) {
    // NIL means a string that is not there wherever a client takes an nstring.
    let bare = !text.is_empty() && text.iter().all(|byte| is_astring_char(*byte));
    if bare && !text.eq_ignore_ascii_case(b"NIL") {
        out.extend_from_slice(text);
    } else {
        put_string(out, text, false);
    }
}

/// Writes a mailbox name in the client's spelling.
pub fn put_mailbox(out: &mut Vec<u8>, name: &MailboxName, names: NameEncoding) {
    match names {
        _ if name.as_str().bytes().all(|byte| is_astring_char(byte) && byte != b'&') => {
            put_astring(out, name.as_str().as_bytes());
        }
        NameEncoding::ModifiedUtf7 => put_string(out, encode_mutf7(name.as_str()).as_bytes(), false),
        NameEncoding::Utf8 => put_string(out, name.as_str().as_bytes(), true),
    }
}

/// Writes the header of a literal of `size` octets, which have to follow.
pub fn put_literal_header(out: &mut Vec<u8>, size: u64) {
    out.push(b'{');
    put_number(out, size);
    out.extend_from_slice(b"}\r\n");
}

/// Writes the header of a literal8, whose octets may hold NUL.
pub fn put_literal8_header(out: &mut Vec<u8>, size: u64) {
    out.push(b'~');
    put_literal_header(out, size);
}

fn put_literal(out: &mut Vec<u8>, text: &[u8]) {
    put_literal_header(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Writes a quoted string of our own: short and printable ASCII.
pub(super) fn put_quoted_ascii(out: &mut Vec<u8>, text: &str) {
    put_quoted(out, text.as_bytes());
}

fn put_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for run in text.split_inclusive(|byte| matches!(byte, b'"' | b'\\')) {
        match run {
            [plain @ .., special @ (b'"' | b'\\')] => {
                out.extend_from_slice(plain);
                out.extend_from_slice(&[b'\\', *special]);
            }
            plain => out.extend_from_slice(plain),
        }
    }
    out.push(b'"');
}

/// Writes text for people, in a line: what does not fit there becomes `?`, and no text becomes `-`, as there has to be
/// some.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str, utf8: bool) {
    if text.is_empty() {
        out.push(b'-');
    }
    let mut bytes = [0; 4];
    for c in text.chars() {
        let fits = !c.is_control() && (utf8 || c.is_ascii());
        out.extend_from_slice(if fits { c.encode_utf8(&mut bytes).as_bytes() } else { b"?" });
    }
}

/// Writes what `item` writes for each, with spaces between.
pub(super) fn put_spaced<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        put(out, item);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scanner::Scanner;
    use super::*;
    use proptest::prelude::*;

    fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers() {
        for (number, digits) in [
            (0, "0"),
            (7, "7"),
            (10, "10"),
            (4_294_967_295, "4294967295"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(text(|out| put_number(out, number)), digits);
        }
    }

    #[test]
    fn strings_are_quoted_where_they_can_be() {
        for (string, utf8, written) in [
            ("", false, "\"\""),
            ("a b", false, "\"a b\""),
            ("a\"b\\", false, "\"a\\\"b\\\\\""),
            ("ä", false, "{2}\r\nä"),
            ("ä", true, "\"ä\""),
            ("a\r\nb", true, "{4}\r\na\r\nb"),
            ("a\0b", false, "\"ab\""),
        ] {
            assert_eq!(text(|out| put_string(out, string.as_bytes(), utf8)), written);
        }
        let mut out = Vec::new();
        put_string(&mut out, b"\xff", true);
        assert_eq!(out, b"{1}\r\n\xff");
        assert!(text(|out| put_string(out, &[b'a'; 801], false)).starts_with("{801}\r\n"));
        assert_eq!(text(|out| put_nstring(out, None, false)), "NIL");
        assert_eq!(text(|out| put_astring(out, b"nil")), "\"nil\"");
        assert_eq!(text(|out| put_astring(out, b"Subject]")), "Subject]");
        assert_eq!(text(|out| put_astring(out, b"a b")), "\"a b\"");
    }

    #[test]
    fn names_of_mailboxes() {
        for (name, mutf7, utf8) in [
            ("INBOX", "INBOX", "INBOX"),
            ("Sent Mail", "\"Sent Mail\"", "\"Sent Mail\""),
            ("Entwürfe", "\"Entw&APw-rfe\"", "\"Entwürfe\""),
            ("a&b", "\"a&-b\"", "\"a&b\""),
            ("nil", "\"nil\"", "\"nil\""),
            ("a*", "\"a*\"", "\"a*\""),
        ] {
            let name = name.parse().unwrap();
            assert_eq!(text(|out| put_mailbox(out, &name, NameEncoding::ModifiedUtf7)), mutf7);
            assert_eq!(text(|out| put_mailbox(out, &name, NameEncoding::Utf8)), utf8);
        }
    }

    proptest! {
        #[test]
        fn strings_come_back(string in proptest::collection::vec(1u8.., 0..40), utf8 in any::<bool>()) {
            let mut out = Vec::new();
            put_string(&mut out, &string, utf8);
            let mut scanner = Scanner::new(&out);
            prop_assert_eq!(scanner.string("").unwrap().into_owned(), string);
            prop_assert!(scanner.at_end());
        }
    }
}
