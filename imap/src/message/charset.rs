//! Charsets of mail to Unicode.

use std::borrow::Cow;

use encoding_rs::{CoderResult, Decoder, Encoding, UTF_8, WINDOWS_1252};

/// Decodes text that comes in pieces. Mail that says US-ASCII, nothing, or something unknown and then has bytes
/// above 127 is UTF-8 most of the time; what is not becomes U+FFFD.
pub(super) fn decoder(label: &[u8]) -> Decoder {
    named(label).unwrap_or(UTF_8).new_decoder_without_bom_handling()
}

/// Appends a piece to `out`; `last` ends the text.
pub(super) fn decode_piece(decoder: &mut Decoder, mut piece: &[u8], last: bool, out: &mut String) {
    loop {
        // Enough for the piece in practice; the loop is for what the estimate does not promise.
        out.reserve(decoder.max_utf8_buffer_length(piece.len()).unwrap_or(piece.len()).max(16));
        let (result, read, _) = decoder.decode_to_string(piece, out, last);
        piece = &piece[read..];
        if result == CoderResult::InputEmpty {
            return;
        }
    }
}

/// Decodes a short text of that charset.
pub(super) fn decode(label: &[u8], text: &[u8]) -> String {
    match named(label) {
        Some(encoding) => encoding.decode_without_bom_handling(text).0.into_owned(),
        None => guess(text).into_owned(),
    }
}

/// Decodes bytes that no charset was named for, as in a raw header: UTF-8 if they are, else Windows-1252.
pub(super) fn guess(text: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(text) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => WINDOWS_1252.decode_without_bom_handling(text).0,
    }
}

fn named(label: &[u8]) -> Option<&'static Encoding> {
    // The web maps US-ASCII to Windows-1252, for mail see above.
    if label.eq_ignore_ascii_case(b"us-ascii") || label.eq_ignore_ascii_case(b"ascii") {
        return None;
    }
    Encoding::for_label_no_replacement(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_wholes_agree() {
        for (label, bytes, text) in [
            (&b"iso-8859-1"[..], &b"caf\xe9"[..], "café"),
            (b"UTF-8", "naïve €".as_bytes(), "naïve €"),
            (b"ISO-2022-JP", b"\x1b$B%O\x1b(B!", "ハ!"),
            (b"gb2312", b"\xc4\xe3", "你"),
            (b"us-ascii", "é".as_bytes(), "é"),
            (b"x-nonsense", "é".as_bytes(), "é"),
        ] {
            assert_eq!(decode(label, bytes), text);
            let (mut decoder, mut out) = (decoder(label), String::new());
            bytes.chunks(1).for_each(|piece| decode_piece(&mut decoder, piece, false, &mut out));
            decode_piece(&mut decoder, b"", true, &mut out);
            assert_eq!(out, text);
        }
        assert_eq!(guess(b"\xe9"), "é");
    }
}
