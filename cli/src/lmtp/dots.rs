//! Where a message ends after DATA, and its dots (RFC 5321, section 4.5.2).
//!
//! Only CR LF is a line end here, and only CR LF `.` CR LF is the end of the message. Whoever takes a bare LF for one of
//! them lets the writer of a message decide where the next command starts (CVE-2023-51764).

/// How far into a line the text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Behind CR LF, or at the very start.
    #[default]
    LineStart,
    /// Behind the dot that starts a line, which is held back.
    Dot,
    /// Behind that and a CR, which is held back too.
    DotCr,
    /// Behind a CR.
    Cr,
    Text,
}

/// Takes the text that follows DATA apart, in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Dots(At);

impl Dots {
    /// Adds the message's bytes in `input` to `text`. At the end of the message gives how many bytes of `input` belong to
    /// it; what follows is the next command.
    pub(super) fn push(&mut self, input: &[u8], text: &mut Vec<u8>) -> Option<usize> {
        let mut at = 0;
        while let Some(byte) = input.get(at).copied() {
            at += 1;
            self.0 = match (self.0, byte) {
                (At::LineStart, b'.') => At::Dot,
                (At::Dot, b'\r') => At::DotCr,
                (At::DotCr, b'\n') => return Some(at),
                (At::Cr, b'\n') => {
                    text.push(b'\n');
                    At::LineStart
                }
                (before, b'\r') => {
                    held(before, text);
                    text.push(b'\r');
                    At::Cr
                }
                (before, _) => {
                    held(before, text);
                    let rest = &input[at - 1..];
                    let run = rest.iter().position(|byte| *byte == b'\r').unwrap_or(rest.len());
                    text.extend_from_slice(&rest[..run]);
                    at += run - 1;
                    At::Text
                }
            };
        }
        None
    }
}

/// The CR that turned out to be text. The dot before it goes: it started a line on which something follows.
fn held(before: At, text: &mut Vec<u8>) {
    if before == At::DotCr {
        text.push(b'\r');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was sent; the message, and what is left behind it. Nothing if it did not end.
    type Case = (&'static [u8], Option<(&'static [u8], &'static [u8])>);

    const CASES: &[Case] = &[
        (b".\r\n", Some((b"", b""))),
        (b"a\r\n.\r\nQUIT\r\n", Some((b"a\r\n", b"QUIT\r\n"))),
        (b"..\r\n.\r\n", Some((b".\r\n", b""))),
        (b".a\r\n..b\r\n.\r\n", Some((b"a\r\n.b\r\n", b""))),
        (b"a.\r\n.b.\r\n.\r\n", Some((b"a.\r\nb.\r\n", b""))),
        (b"\r\n\r\n.\r\n.\r\n", Some((b"\r\n\r\n", b".\r\n"))),
        // Smuggling: none of these ends a message.
        (b"a\n.\nMAIL\r\n.\r\n", Some((b"a\n.\nMAIL\r\n", b""))),
        (b"a\n.\r\nMAIL\r\n.\r\n", Some((b"a\n.\r\nMAIL\r\n", b""))),
        (b"a\r\n.\nMAIL\r\n.\r\n", Some((b"a\r\n\nMAIL\r\n", b""))),
        (b"a\r.\r\nMAIL\r\n.\r\n", Some((b"a\r.\r\nMAIL\r\n", b""))),
        (b"a\r\n.\rMAIL\r\n.\r\n", Some((b"a\r\n\rMAIL\r\n", b""))),
        (b"a\r\n.\r\r\nMAIL\r\n.\r\n", Some((b"a\r\n\r\r\nMAIL\r\n", b""))),
        (b"a\r\n\0.\r\n.\r\n", Some((b"a\r\n\0.\r\n", b""))),
        (b"a\r\r\n.\r\n", Some((b"a\r\r\n", b""))),
        (b"a\r\n.\r", None),
        (b"a\r\n..\r\n", None),
        (b"", None),
    ];

    #[test]
    fn messages_end_where_they_end() {
        for (sent, wanted) in CASES {
            let mut text = Vec::new();
            let end = Dots::default().push(sent, &mut text);
            let found = end.map(|end| (&text[..], &sent[end..]));
            assert_eq!(found, *wanted, "{:?}", String::from_utf8_lossy(sent));
        }
    }

    #[test]
    fn it_does_not_matter_where_the_text_is_cut() {
        for (sent, _) in CASES {
            let mut whole = Vec::new();
            let end = Dots::default().push(sent, &mut whole);
            for cut in 0..=sent.len() {
                let (mut dots, mut text) = (Dots::default(), Vec::new());
                let first = dots.push(&sent[..cut], &mut text);
                let found = first.or_else(|| Some(cut + dots.push(&sent[cut..], &mut text)?));
                assert_eq!((found, &text), (end, &whole), "{cut} {:?}", String::from_utf8_lossy(sent));
            }
        }
    }

    #[test]
    fn what_a_client_stuffs_is_what_it_meant() {
        let pieces: [&[u8]; 6] = [b".", b"\r\n", b"\r", b"\n", b"x", b"\0"];
        // Every text of up to five pieces, each ended as RFC 5321, section 4.1.1.4, ends it.
        for number in 0..6u32.pow(5) {
            let text: Vec<u8> =
                (0..5).flat_map(|digit| pieces[(number / 6u32.pow(digit) % 6) as usize]).copied().collect();
            let text = [&text[..], b"\r\n"].concat();
            let mut sent = Vec::new();
            for (at, byte) in text.iter().enumerate() {
                if *byte == b'.' && (at == 0 || text[..at].ends_with(b"\r\n")) {
                    sent.push(b'.');
                }
                sent.push(*byte);
            }
            sent.extend(b".\r\n");
            let mut found = Vec::new();
            assert_eq!(Dots::default().push(&sent, &mut found), Some(sent.len()), "{text:?}");
            assert_eq!(found, text);
        }
    }
}
