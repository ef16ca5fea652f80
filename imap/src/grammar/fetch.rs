//! FETCH and what it can ask for.

use postmerge::mailbox::ModSeq;

use super::command::Numbering;
use super::error::{Fault, Parsed, Problem};
use super::scanner::Scanner;
use super::section::{Partial, Section, binary_section, partial, section};
use super::set::{MessageSet, message_set};

/// FETCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// What `messages` counts in. Answers to UID FETCH hold the UID, asked for or not.
    pub numbering: Numbering,
    /// Of which messages.
    pub messages: MessageSet,
    /// What, in the client's order; macros are spelled out.
    pub items: Vec<FetchItem>,
    /// Only of messages that changed after this mod-sequence (RFC 7162).
    pub changed_since: Option<ModSeq>,
    /// Tell the UIDs that vanished since then; only with UID FETCH and `changed_since`.
    pub vanished: bool,
    /// Only of some of the messages, by their place among them (RFC 9394).
    pub partial: Option<PartialRange>,
}

/// One thing that FETCH asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchItem {
    /// BODY: the structure without extension data.
    Body,
    /// BODYSTRUCTURE
    BodyStructure,
    /// ENVELOPE
    Envelope,
    /// FLAGS
    Flags,
    /// INTERNALDATE
    InternalDate,
    /// RFC822.SIZE
    Size,
    /// UID
    Uid,
    /// MODSEQ (RFC 7162)
    ModSeq,
    /// EMAILID (RFC 8474)
    EmailId,
    /// THREADID (RFC 8474)
    ThreadId,
    /// SAVEDATE (RFC 8514)
    SaveDate,
    /// PREVIEW (RFC 8970)
    Preview {
        /// Only if it costs nothing.
        lazy: bool,
    },
    /// RFC822, which sets `\Seen`.
    Rfc822,
    /// RFC822.HEADER
    Rfc822Header,
    /// RFC822.TEXT, which sets `\Seen`.
    Rfc822Text,
    /// `BODY[...]`, `BODY.PEEK[...]`
    Section {
        /// Leave `\Seen` as it is.
        peek: bool,
        /// Which section.
        section: Section,
        /// Which octets of it.
        partial: Option<Partial>,
    },
    /// `BINARY[...]`, `BINARY.PEEK[...]` (RFC 3516): a part without its transfer encoding.
    Binary {
        /// Leave `\Seen` as it is.
        peek: bool,
        /// Numbers of the parts, outermost first; empty for the message.
        part: Vec<u32>,
        /// Which octets of what was decoded.
        partial: Option<Partial>,
    },
    /// `BINARY.SIZE[...]`: how long that would be.
    BinarySize {
        /// Numbers of the parts, outermost first; empty for the message.
        part: Vec<u32>,
    },
}

impl FetchItem {
    /// Whether asking for it sets `\Seen`.
    pub fn sets_seen(&self) -> bool {
        match self {
            FetchItem::Rfc822 | FetchItem::Rfc822Text => true,
            FetchItem::Section { peek, .. } | FetchItem::Binary { peek, .. } => !peek,
            _ => false,
        }
    }
}

/// Places among results, both included (RFC 9394).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialRange {
    /// The place nearer to the end that is counted from, from 1.
    pub first: u32,
    /// The other place.
    pub last: u32,
    /// Whether 1 is the newest result (`-1:-100`) and not the oldest.
    pub from_end: bool,
}

impl PartialRange {
    /// The places from 0, oldest first, where there are `count` results; empty if none is wanted.
    pub fn places(self, count: usize) -> std::ops::Range<usize> {
        let (first, last) = (self.first as usize, self.last as usize);
        let (from, to) = (first.saturating_sub(1).min(count), last.min(count));
        if self.from_end { count - to..count - from } else { from..to }
    }

    /// Writes the range as the client gave it, the lower number first.
    pub fn put(self, out: &mut Vec<u8>) {
        for (at, place) in [self.first, self.last].into_iter().enumerate() {
            if at > 0 {
                out.push(b':');
            }
            if self.from_end {
                out.push(b'-');
            }
            super::encode::put_number(out, place.into());
        }
    }
}

pub(super) fn partial_range(scanner: &mut Scanner<'_>) -> Parsed<PartialRange> {
    let what = "a range such as 1:500 or -1:-100";
    let from_end = scanner.eat(b'-');
    let a = scanner.nz_number(what)?;
    scanner.expect(b':', what)?;
    if from_end {
        scanner.expect(b'-', what)?;
    }
    let b = scanner.nz_number(what)?;
    Ok(PartialRange { first: a.min(b), last: a.max(b), from_end })
}

pub(super) fn fetch(scanner: &mut Scanner<'_>, numbering: Numbering) -> Parsed<Fetch> {
    scanner.space()?;
    let messages = message_set(scanner)?;
    scanner.space()?;
    let items = match scanner.peek() {
        Some(b'(') => scanner.list(fetch_item)?,
        _ => match fetch_macro(scanner) {
            Some(items) => items,
            None => vec![fetch_item(scanner)?],
        },
    };
    let mut fetch = Fetch { numbering, messages, items, changed_since: None, vanished: false, partial: None };
    if scanner.eat(b' ') {
        let at = scanner.at();
        scanner.list(|scanner| fetch_modifier(scanner, &mut fetch))?;
        if fetch.vanished && (fetch.changed_since.is_none() || numbering == Numbering::Sequence) {
            let problem = Problem::Conflict("VANISHED needs UID FETCH and CHANGEDSINCE");
            return Err(Fault { at, problem });
        }
    }
    Ok(fetch)
}

fn fetch_modifier(scanner: &mut Scanner<'_>, fetch: &mut Fetch) -> Parsed<()> {
    if scanner.eat_word("VANISHED") {
        fetch.vanished = true;
    } else if scanner.eat_word("CHANGEDSINCE") {
        scanner.space()?;
        // RFC 7162 wants it above 0. Thunderbird sends 0 for a mailbox it has never seen, and gives up on a BAD.
        fetch.changed_since = Some(ModSeq::from_value(scanner.number64("a mod-sequence")?));
    } else if scanner.eat_word("PARTIAL") {
        scanner.space()?;
        fetch.partial = Some(partial_range(scanner)?);
    } else {
        return Err(scanner.expected("CHANGEDSINCE, VANISHED or PARTIAL"));
    }
    Ok(())
}

fn fetch_macro(scanner: &mut Scanner<'_>) -> Option<Vec<FetchItem>> {
    let fast = [FetchItem::Flags, FetchItem::InternalDate, FetchItem::Size];
    let more: &[FetchItem] = match scanner.peek_atom().to_ascii_uppercase().as_str() {
        "FAST" => &[],
        "ALL" => &[FetchItem::Envelope],
        "FULL" => &[FetchItem::Envelope, FetchItem::Body],
        _ => return None,
    };
    scanner.atom("").ok()?;
    Some(fast.iter().chain(more).cloned().collect())
}

fn fetch_item(scanner: &mut Scanner<'_>) -> Parsed<FetchItem> {
    let what = "a FETCH item";
    let start = scanner.at();
    // Not an atom: "[" is part of atoms, and follows some of the names.
    let name = scanner.text(what, |byte| byte.is_ascii_alphanumeric() || byte == b'.')?;
    let bracket = scanner.peek() == Some(b'[');
    Ok(match (name.to_ascii_uppercase().as_str(), bracket) {
        ("BODY", false) => FetchItem::Body,
        ("BODYSTRUCTURE", false) => FetchItem::BodyStructure,
        ("ENVELOPE", false) => FetchItem::Envelope,
        ("FLAGS", false) => FetchItem::Flags,
        ("INTERNALDATE", false) => FetchItem::InternalDate,
        ("RFC822.SIZE", false) => FetchItem::Size,
        ("UID", false) => FetchItem::Uid,
        ("MODSEQ", false) => FetchItem::ModSeq,
        ("EMAILID", false) => FetchItem::EmailId,
        ("THREADID", false) => FetchItem::ThreadId,
        ("SAVEDATE", false) => FetchItem::SaveDate,
        ("PREVIEW", false) => FetchItem::Preview { lazy: preview_modifiers(scanner)? },
        ("RFC822", false) => FetchItem::Rfc822,
        ("RFC822.HEADER", false) => FetchItem::Rfc822Header,
        ("RFC822.TEXT", false) => FetchItem::Rfc822Text,
        (name @ ("BODY" | "BODY.PEEK"), true) => FetchItem::Section {
            peek: name == "BODY.PEEK",
            section: section(scanner)?,
            partial: partial(scanner)?,
        },
        (name @ ("BINARY" | "BINARY.PEEK"), true) => FetchItem::Binary {
            peek: name == "BINARY.PEEK",
            part: binary_section(scanner)?,
            partial: partial(scanner)?,
        },
        ("BINARY.SIZE", true) => FetchItem::BinarySize { part: binary_section(scanner)? },
        _ => return Err(Fault { at: start, problem: Problem::Expected(what) }),
    })
}

fn preview_modifiers(scanner: &mut Scanner<'_>) -> Parsed<bool> {
    let mut next = scanner.clone();
    if !(next.eat(b' ') && next.peek() == Some(b'(')) {
        return Ok(false);
    }
    // `FETCH 1 PREVIEW (CHANGEDSINCE 5)` has modifiers of FETCH here, not of PREVIEW.
    let mut list = next.clone();
    if !(list.eat(b'(') && list.peek_atom().eq_ignore_ascii_case("LAZY")) {
        return Ok(false);
    }
    next.list(|scanner| scanner.one_of("LAZY", &[("LAZY", ())]))?;
    *scanner = next;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_partial_range() {
        let places = |text: &str, count| {
            let places = partial_range(&mut Scanner::new(text.as_bytes())).unwrap().places(count);
            (places.start, places.end)
        };
        assert_eq!(places("1:3", 10), (0, 3));
        assert_eq!(places("3:1", 10), (0, 3));
        assert_eq!(places("-1:-3", 10), (7, 10));
        assert_eq!(places("-3:-2", 10), (7, 9));
        assert_eq!(places("9:500", 10), (8, 10));
        assert_eq!(places("-9:-500", 10), (0, 2));
        assert_eq!(places("11:20", 10), (10, 10));
        assert_eq!(places("-11:-20", 10), (0, 0));
        assert_eq!(places("1:4294967295", 0), (0, 0));
        for bad in ["0:1", "1:*", "1", "-1:3", "1:-3", "-1", ":"] {
            assert!(partial_range(&mut Scanner::new(bad.as_bytes())).is_err(), "{bad}");
        }
    }
}
