//! Fields of a header whose lines end with CRLF.

use std::borrow::Cow;

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// Its name as written; empty where a line has no colon.
    pub(super) name: &'a [u8],
    /// What follows the colon, folds included, without the last line end.
    pub(super) value: &'a [u8],
    /// All its lines.
    pub(super) whole: &'a [u8],
}

impl<'a> Field<'a> {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value on one line, without blanks around it.
    pub(super) fn unfolded(&self) -> Cow<'a, [u8]> {
        unfold(self.value)
    }
}

/// The fields in order, up to the empty line.
pub(super) fn fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    wholes(header).map(read)
}

/// The fields of that name. The others are passed over by their first letters.
pub(super) fn named<'a>(header: &'a [u8], name: &[u8]) -> impl Iterator<Item = Field<'a>> {
    let begins =
        |whole: &&[u8]| whole.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    wholes(header).filter(begins).map(read).filter(|field| field.name.eq_ignore_ascii_case(name))
}

/// The first field of that name.
pub(super) fn first<'a>(header: &'a [u8], name: &str) -> Option<Field<'a>> {
    named(header, name.as_bytes()).next()
}

/// All lines of each field.
fn wholes(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() || rest.starts_with(b"\r\n") {
            return None;
        }
        let whole;
        (whole, rest) = rest.split_at(field_len(rest));
        Some(whole)
    })
}

fn read(whole: &[u8]) -> Field<'_> {
    let text = whole.strip_suffix(b"\r\n").unwrap_or(whole);
    match memchr::memchr(b':', text) {
        Some(colon) if is_name(text[..colon].trim_ascii_end()) => {
            Field { name: text[..colon].trim_ascii_end(), value: &text[colon + 1..], whole }
        }
        _ => Field { name: b"", value: text, whole },
    }
}

/// Takes the line ends out of a folded value and trims it.
pub(super) fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    let value = value.trim_ascii();
    if memchr::memchr2(b'\r', b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect())
}

/// Bytes of the first line and of those that continue it.
fn field_len(header: &[u8]) -> usize {
    let mut len = 0;
    loop {
        match memchr::memchr(b'\n', &header[len..]) {
            Some(end) => len += end + 1,
            None => return header.len(),
        }
        if !matches!(header.get(len), Some(b' ' | b'\t')) {
            return len;
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_folds() {
        let header = b"From x at noon: y\r\nA : 1\r\n\t2\r\nno colon\r\nb:\r\n\r\nC: 3\r\n";
        let found: Vec<_> = fields(header).map(|field| (field.name, field.unfolded().into_owned())).collect();
        assert_eq!(
            found,
            [
                (&b""[..], b"From x at noon: y".to_vec()),
                (b"A", b"1\t2".to_vec()),
                (b"", b"no colon".to_vec()),
                (b"b", b"".to_vec())
            ]
        );
        assert_eq!(first(header, "a").unwrap().whole, b"A : 1\r\n\t2\r\n");
        assert!(first(header, "no").is_none() && first(header, "c").is_none());
        assert_eq!(
            named(b"A: 1\r\nab: 2\r\na: 3\r\n", b"a").map(|field| field.value[1]).collect::<Vec<_>>(),
            b"13"
        );
        assert_eq!(fields(header).map(|field| field.whole.len()).sum::<usize>(), header.len() - 8);
    }
}
