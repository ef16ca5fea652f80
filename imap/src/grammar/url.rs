//! URLs of messages of one's own, as CATENATE has them (RFC 4469, RFC 5092, section 11).

use postmerge::mailbox::{Uid, UidValidity};

use super::command::uid_validity;
use super::error::Parsed;
use super::names::{MailboxArg, MailboxArgError};
use super::scanner::Scanner;
use super::section::{Partial, Section, section};

/// `/INBOX;UIDVALIDITY=7/;UID=20/;SECTION=1.2`: a message, or a part of it, on this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageUrl {
    /// Its mailbox; nothing for the selected one.
    pub mailbox: Option<MailboxArg>,
    /// The UIDVALIDITY that the mailbox must have.
    pub uid_validity: Option<UidValidity>,
    /// Its UID.
    pub uid: Uid,
    /// Which text of it; the whole message if nothing is said.
    pub section: Section,
    /// Which octets of that.
    pub partial: Option<Partial>,
}

impl MessageUrl {
    /// Reads it; nothing for a URL of another server, or of anything but a message.
    pub fn parse(url: &[u8]) -> Option<MessageUrl> {
        let (path, message) = match url.strip_prefix(b"/") {
            Some(rest) => {
                let end = find(rest, b"/;UID=")?;
                (Some(&rest[..end]), &rest[end + 1..])
            }
            None => (None, url),
        };
        let mut message = message.split(|byte| *byte == b'/');
        let (mut mailbox, mut validity) = (None, None);
        if let Some(path) = path {
            let end = find(path, b";UIDVALIDITY=").unwrap_or(path.len());
            mailbox = Some(name(&decode(&path[..end])?));
            validity = Some(&path[end..]).filter(|rest| !rest.is_empty());
        }
        let uid = whole(value(message.next()?, b";UID=")?, |scanner| scanner.nz_number(""))?;
        let mut url = MessageUrl {
            mailbox,
            uid_validity: None,
            uid: Uid::new(uid)?,
            section: Section::default(),
            partial: None,
        };
        if let Some(validity) = validity {
            url.uid_validity = Some(whole(value(validity, b";UIDVALIDITY=")?, uid_validity)?);
        }
        let mut next = message.next();
        if let Some(text) = next.and_then(|part| value(part, b";SECTION=")) {
            url.section = whole(&[b"[", &decode(text)?[..], b"]"].concat(), section)?;
            next = message.next();
        }
        if let Some(range) = next.and_then(|part| value(part, b";PARTIAL=")) {
            url.partial = Some(whole(range, partial)?);
            next = message.next();
        }
        next.is_none().then_some(url)
    }
}

/// `1024.500`, or `1024` for all from there on.
fn partial(scanner: &mut Scanner<'_>) -> Parsed<Partial> {
    let start = scanner.number64("the first octet")?;
    let length = match scanner.eat(b'.') {
        true => scanner.nz_number("a length above 0")?.into(),
        false => u64::MAX,
    };
    Ok(Partial { start, length })
}

/// In URLs names are in UTF-8, whatever commands have.
fn name(text: &[u8]) -> MailboxArg {
    let name = std::str::from_utf8(text).map_err(|_| MailboxArgError::Utf8)?;
    Ok(name.parse()?)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window.eq_ignore_ascii_case(what))
}

fn value<'a>(part: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = part.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

fn whole<T>(text: &[u8], read: impl FnOnce(&mut Scanner<'_>) -> Parsed<T>) -> Option<T> {
    let mut scanner = Scanner::new(text);
    let value = read(&mut scanner).ok()?;
    scanner.at_end().then_some(value)
}

/// Undoes `%20`.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            byte => *byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::SectionText;

    #[test]
    fn what_urls_mean() {
        let plain = MessageUrl::parse(b"/INBOX/;UID=20").unwrap();
        assert_eq!((plain.mailbox, plain.uid.value()), (Some(Ok("INBOX".parse().unwrap())), 20));
        assert_eq!((plain.uid_validity, plain.section, plain.partial), (None, Section::default(), None));
        let full = b"/Caf%c3%A9/a%20b;uidvalidity=7/;uid=3/;section=1.2.mime/;partial=10.5";
        let full = MessageUrl::parse(full).unwrap();
        assert_eq!(full.mailbox, Some(Ok("Caf\u{e9}/a b".parse().unwrap())));
        assert_eq!(full.uid_validity.unwrap().value(), 7);
        assert_eq!(full.section, Section { part: vec![1, 2], text: Some(SectionText::Mime) });
        assert_eq!(full.partial, Some(Partial { start: 10, length: 5 }));
        let relative = MessageUrl::parse(b";UID=9/;SECTION=HEADER.FIELDS%20(To%20Cc)/;PARTIAL=4").unwrap();
        let names = vec![b"To".to_vec(), b"Cc".to_vec()];
        assert_eq!(relative.section.text, Some(SectionText::HeaderFields { not: false, names }));
        assert_eq!((relative.mailbox, relative.partial.unwrap().start), (None, 4));
    }

    #[test]
    fn what_is_no_url_of_a_message_here() {
        for bad in [
            "",
            "/",
            "/INBOX",
            "INBOX/;UID=1",
            "imap://host/INBOX/;UID=1",
            "//host/INBOX/;UID=1",
            "/INBOX/;UID=0",
            "/INBOX/;UID=x",
            "/INBOX/;UID=1/",
            "/INBOX/;UID=1;URLAUTH=anonymous",
            "/INBOX/;UID=1/;SECTION=1.",
            "/INBOX/;UID=1/;SECTION=1]x",
            "/INBOX/;UID=1/;PARTIAL=1.0",
            "/INBOX/;UID=1/;PARTIAL=1/;SECTION=1",
            "/INBOX;UIDVALIDITY=0/;UID=1",
            "/%4/;UID=1",
            "/%zz/;UID=1",
        ] {
            let url = MessageUrl::parse(bad.as_bytes());
            assert!(url.is_none_or(|url| url.mailbox.is_some_and(|name| name.is_err())), "{bad}");
        }
    }
}
