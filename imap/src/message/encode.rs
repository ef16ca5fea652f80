//! IMAP's strings and numbers (RFC 9051, section 4).

/// Writes a number.
pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes a string: quoted where every client can read it so, else a literal. Bytes above 127 go into a literal,
/// since nothing says which charset they have.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    if !text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        out.push(b'{');
        number(out, text.len() as u64);
        out.extend_from_slice(b"}\r\n");
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    if memchr::memchr2(b'"', b'\\', text).is_none() {
        out.extend_from_slice(text);
    } else {
        for byte in text {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
    }
    out.push(b'"');
}

/// Writes a string, or `NIL` where there is none.
pub(super) fn nstring(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"NIL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_take_the_form_their_bytes_allow() {
        let written = |text: &[u8]| {
            let mut out = Vec::new();
            nstring(&mut out, Some(text));
            String::from_utf8_lossy(&out).into_owned()
        };
        assert_eq!(written(b""), "\"\"");
        assert_eq!(written(b"a \"b\" \\c"), r#""a \"b\" \\c""#);
        assert_eq!(written("\u{e9}".as_bytes()), "{2}\r\n\u{e9}");
        assert_eq!(written(b"a\r\nb"), "{4}\r\na\r\nb");
        let mut out = Vec::new();
        nstring(&mut out, None);
        number(&mut out, 0);
        number(&mut out, u64::MAX);
        assert_eq!(out, b"NIL018446744073709551615");
    }
}
