//! Modified UTF-7 (RFC 3501, section 5.1.3): how Maildir++ and old IMAP clients spell mailbox names.
//!
//! Every name has exactly one spelling, and only that one is taken: two spellings of one name would be two
//! folders for one mailbox.

use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;

/// Base64 with `,` for `/`, no padding, and no stray bits at the end.
static BASE64: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,");
    spec.encoding().expect("64 different symbols make an encoding")
});

/// Why bytes are not modified UTF-7; offsets count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mutf7Error {
    /// A byte outside the printable ASCII range (0x20 to 0x7E).
    #[error("byte {byte:#04x} at {offset} is not printable ASCII")]
    Unprintable {
        /// The byte.
        byte: u8,
        /// Where it is.
        offset: usize,
    },
    /// A `&` that no `-` ends.
    #[error("the \"&\" at {offset} is not ended by a \"-\"")]
    Unterminated {
        /// Where the `&` is.
        offset: usize,
    },
    /// What stands between `&` and `-` is not base64 of UTF-16.
    #[error("the text between \"&\" at {offset} and its \"-\" is not base64 of UTF-16")]
    Base64 {
        /// Where the `&` is.
        offset: usize,
    },
    /// It can be read, but is not how the name is spelled: printable ASCII in base64, or two runs in a row.
    #[error("the name has another spelling in modified UTF-7")]
    NotCanonical,
}

/// Spells `name` in modified UTF-7.
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let run = rest.find(|c: char| printable(c) != printable(first)).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(run);
        if printable(first) {
            out.push_str(&head.replace('&', "&-"));
        } else {
            let utf16: Vec<u8> = head.encode_utf16().flat_map(u16::to_be_bytes).collect();
            out.push('&');
            BASE64.encode_append(&utf16, &mut out);
            out.push('-');
        }
        rest = tail;
    }
    out
}

/// Reads modified UTF-7; refuses every spelling but the one that [`encode`] gives.
pub fn decode(spelled: &[u8]) -> Result<String, Mutf7Error> {
    if let Some(offset) = spelled.iter().position(|byte| !printable(char::from(*byte))) {
        return Err(Mutf7Error::Unprintable { byte: spelled[offset], offset });
    }
    let mut out = String::with_capacity(spelled.len());
    let mut at = 0;
    while let Some(&byte) = spelled.get(at) {
        if byte != b'&' {
            out.push(char::from(byte));
            at += 1;
            continue;
        }
        let run = &spelled[at + 1..];
        let end = run.iter().position(|b| *b == b'-').ok_or(Mutf7Error::Unterminated { offset: at })?;
        if end == 0 {
            out.push('&');
        } else {
            out.push_str(&utf16_run(&run[..end]).ok_or(Mutf7Error::Base64 { offset: at })?);
        }
        at += end + 2;
    }
    if encode(&out).as_bytes() == spelled { Ok(out) } else { Err(Mutf7Error::NotCanonical) }
}

fn utf16_run(base64: &[u8]) -> Option<String> {
    let bytes = BASE64.decode(base64).ok()?;
    let (units, odd) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
    if odd.is_empty() { String::from_utf16(&units).ok() } else { None }
}

/// DEL (0x7F) is ASCII but not printable; a library that overlooks it makes names that Dovecot refuses.
fn printable(c: char) -> bool {
    matches!(c, ' '..='~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        for (name, spelled) in [
            ("INBOX", "INBOX"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("Tom & Jerry", "Tom &- Jerry"),
            ("ä&ö", "&AOQ-&-&APY-"),
            ("📫", "&2D3c6w-"),
            ("a\u{7f}b", "a&AH8-b"),
            ("-", "-"),
            ("", ""),
        ] {
            assert_eq!(encode(name), spelled);
            assert_eq!(decode(spelled.as_bytes()).unwrap(), name);
        }
    }

    #[test]
    fn only_the_one_spelling_is_taken() {
        use Mutf7Error::*;
        for (bad, why) in [
            (&b"Entw\xc3\xbcrfe"[..], Unprintable { byte: 0xc3, offset: 4 }),
            (b"a\x7f", Unprintable { byte: 0x7f, offset: 1 }),
            (b"Tom & Jerry", Unterminated { offset: 4 }),
            (b"&APw", Unterminated { offset: 0 }),
            (b"&AP-", Base64 { offset: 0 }),
            (b"&APx-", Base64 { offset: 0 }),
            (b"&APw=-", Base64 { offset: 0 }),
            (b"&U/BTFw-", Base64 { offset: 0 }),
            (b"&2D0-", Base64 { offset: 0 }),
            (b"&AGE-", NotCanonical),
            (b"&AOQ-&APY-", NotCanonical),
        ] {
            assert_eq!(decode(bad), Err(why), "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in any::<String>()) {
            prop_assert_eq!(decode(encode(&name).as_bytes()).unwrap(), name);
        }

        #[test]
        fn what_is_taken_is_the_spelling_of_its_name(bytes in "[&A-Za-c0-2,+ ~-]{0,12}") {
            if let Ok(name) = decode(bytes.as_bytes()) {
                prop_assert_eq!(encode(&name), bytes);
            }
        }
    }
}
