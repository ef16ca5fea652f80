//! Encoded words of header fields (RFC 2047).

use std::borrow::Cow;

use super::{charset, header, transfer};

/// The text a person reads in a field's value: unfolded, encoded words decoded, charsets guessed where not named.
pub(super) fn decode(value: &[u8]) -> Cow<'_, str> {
    match header::unfold(value) {
        // Most values.
        Cow::Borrowed(value) if memchr::memmem::find(value, b"=?").is_none() => charset::guess(value),
        value => Cow::Owned(decode_words(&value)),
    }
}

fn decode_words(value: &[u8]) -> String {
    let mut rest = value;
    let mut out = String::with_capacity(rest.len());
    // Neighbours of one charset are joined before they are decoded: some mailers split inside a character.
    let mut open: Option<(&[u8], Vec<u8>)> = None;
    while let Some(start) = memchr::memmem::find(rest, b"=?") {
        let Some((word, len)) = parse(&rest[start..]) else {
            close(&mut out, &mut open);
            out.push_str(&charset::guess(&rest[..start + 2]));
            rest = &rest[start + 2..];
            continue;
        };
        let between = &rest[..start];
        // Blanks between two encoded words are there to fold the line (RFC 2047, section 6.2).
        if open.is_none() || !between.trim_ascii().is_empty() {
            close(&mut out, &mut open);
            out.push_str(&charset::guess(between));
        }
        match &mut open {
            Some((charset, bytes)) if charset.eq_ignore_ascii_case(word.charset) => bytes.extend(word.bytes),
            _ => {
                close(&mut out, &mut open);
                open = Some((word.charset, word.bytes));
            }
        }
        rest = &rest[start + len..];
    }
    close(&mut out, &mut open);
    out.push_str(&charset::guess(rest));
    out
}

struct Word<'a> {
    charset: &'a [u8],
    bytes: Vec<u8>,
}

fn close(out: &mut String, open: &mut Option<(&[u8], Vec<u8>)>) {
    if let Some((charset, bytes)) = open.take() {
        out.push_str(&charset::decode(charset, &bytes));
    }
}

/// The encoded word at the front, and its length.
fn parse(text: &[u8]) -> Option<(Word<'_>, usize)> {
    let rest = text.strip_prefix(b"=?")?;
    let (charset, rest) = cut(rest, b'?')?;
    let (encoding, rest) = cut(rest, b'?')?;
    let end = memchr::memmem::find(rest, b"?=")?;
    let content = &rest[..end];
    // An encoded word has no blanks, except that some mailers leave them inside of Q; none has a field's length.
    if charset.is_empty() || charset.iter().any(|byte| !byte.is_ascii_graphic()) || end > 4096 {
        return None;
    }
    let bytes = match encoding {
        [b'b' | b'B'] => transfer::base64(content),
        [b'q' | b'Q'] => transfer::q(content),
        _ => return None,
    };
    let len = text.len() - rest.len() + end + 2;
    // RFC 2231, section 5: a language may follow the charset.
    let charset = charset.split(|byte| *byte == b'*').next().unwrap_or(charset);
    Some((Word { charset, bytes }, len))
}

fn cut(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    // Charsets and encodings are short: no long search for each "=?" of hostile text.
    let end = text.iter().take(80).position(|byte| *byte == at)?;
    Some((&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_rfc_2047() {
        for (encoded, text) in [
            ("plain", "plain"),
            ("=?ISO-8859-1?Q?a?=", "a"),
            ("=?ISO-8859-1?Q?a?= b", "a b"),
            ("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
            ("=?ISO-8859-1?Q?a?=\r\n  =?ISO-8859-1?Q?b?=", "ab"),
            ("=?ISO-8859-1?Q?a_b?=", "a b"),
            ("=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
            ("=?us-ascii*en?q?x?= y", "x y"),
            ("=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=", "If you can read this yo"),
            // A character cut in two.
            ("=?utf-8?Q?caf=C3?= =?utf-8?Q?=A9?=", "café"),
            ("=?utf-8?X?a?= =?", "=?utf-8?X?a?= =?"),
            ("x =?utf-8?q?never ends", "x =?utf-8?q?never ends"),
        ] {
            assert_eq!(decode(encoded.as_bytes()), text, "{encoded}");
        }
        assert_eq!(decode(b"caf\xe9 \r\n ="), "café  =");
    }

    #[test]
    fn hostile_words_cost_no_more_than_their_length() {
        // A search to the end of the text for each opening would take minutes.
        decode("=?a?q?".repeat(500_000).as_bytes());
    }
}
