//! Which bytes a section of a message is (RFC 9051, section 6.4.5), and reading them.

use std::io::{self, BufRead, Read};

use super::crlf::Text;
use super::parts::{Kind, Part, Parts, Span};
use super::summary::Summary;
use super::transfer::{Decoded, TransferError};
use super::{header, limits};

/// What stands between the brackets of BODY\[...\].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Part numbers, from 1; none for the message itself.
    pub part: Vec<u32>,
    /// What of the part.
    pub text: SectionText,
}

/// What of a part is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SectionText {
    /// All of the message, or the body of a part.
    #[default]
    All,
    /// The header of a message.
    Header,
    /// Fields of such a header with these names, or `not` with these.
    Fields {
        /// Names, in any case.
        names: Vec<Vec<u8>>,
        /// Whether these are left out instead.
        not: bool,
    },
    /// The body of a message.
    Text,
    /// The header of a part.
    Mime,
}

/// `<offset.count>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Bytes to leave out.
    pub offset: u64,
    /// Bytes at most.
    pub count: u64,
}

impl Partial {
    /// Cuts an answer that is in memory.
    pub fn cut(self, mut text: Vec<u8>) -> Vec<u8> {
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX).min(text.len());
        text.drain(..start);
        text.truncate(usize::try_from(self.count).unwrap_or(usize::MAX));
        text
    }
}

impl Summary<'_> {
    /// Where a section is; of [`SectionText::Fields`] where the header is whose fields are to be filtered. Nothing
    /// if the message has no such part, which is answered with an empty string or `NIL`.
    pub fn section(&self, section: &Section) -> Option<Span> {
        let parts = self.parts();
        let part = locate(&parts, &section.part)?;
        match section.text {
            SectionText::All if section.part.is_empty() => Some(self.whole()),
            SectionText::All => Some(parts[part].body_span()),
            SectionText::Mime => Some(parts[part].header_span()),
            SectionText::Header | SectionText::Fields { .. } => {
                Some(message(&parts, part, section)?.header_span())
            }
            SectionText::Text => Some(message(&parts, part, section)?.body_span()),
        }
    }

    /// Reads a span of the body with CRLF line ends. `raw_at` opens the stored body at an offset.
    pub fn open<R: BufRead>(
        &self,
        span: Span,
        partial: Option<Partial>,
        raw_at: impl FnOnce(u64) -> io::Result<R>,
    ) -> io::Result<Text<R>> {
        let range = partial.map_or((0, u64::MAX), |partial| (partial.offset, partial.count));
        Text::open(self, span, range, false, raw_at)
    }

    /// Reads a header of the body, 1 MiB at most.
    pub fn read_header<R: BufRead>(
        &self,
        span: Span,
        raw_at: impl FnOnce(u64) -> io::Result<R>,
    ) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let limit = Partial { offset: 0, count: limits::FIELDS as u64 };
        self.open(span, Some(limit), raw_at)?.read_to_end(&mut text)?;
        Ok(text)
    }

    /// BINARY (RFC 3516): the decoded bytes of a part; nothing if the message has no such part. Of what has parts,
    /// and of the message itself, the bytes as they are.
    pub fn decoded<R: BufRead>(
        &self,
        part: &[u32],
        raw_at: impl FnOnce(u64) -> io::Result<R>,
    ) -> Result<Option<Decoded<Text<R>>>, TransferError> {
        let parts = self.parts();
        let Some(index) = locate(&parts, part) else { return Ok(None) };
        let span = if part.is_empty() { self.whole() } else { parts[index].body_span() };
        let encoding = match parts[index].kind {
            Kind::Multipart | Kind::Message => super::parts::Encoding::Identity,
            _ if part.is_empty() => super::parts::Encoding::Identity,
            _ => parts[index].encoding,
        };
        let text = Text::open(self, span, (0, u64::MAX), true, raw_at)?;
        Decoded::new(text, encoding).map(Some)
    }
}

/// The fields of a header with CRLF line ends that have one of the names, or have none of them, in their order and
/// as they are; then an empty line.
pub fn filter_fields(header: &[u8], names: &[impl AsRef<[u8]>], not: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for field in header::fields(header) {
        let is_named = names.iter().any(|name| field.name.eq_ignore_ascii_case(name.as_ref()));
        if is_named != not && out.len() + field.whole.len() <= limits::FIELDS {
            out.extend_from_slice(field.whole);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The index of a part by its numbers.
fn locate(parts: &Parts<'_>, path: &[u32]) -> Option<usize> {
    let mut at = 0;
    parts.first()?;
    for (depth, number) in path.iter().enumerate() {
        // Numbers count the parts of what a message holds. The message itself is passed over: it has no number.
        if depth > 0 {
            match parts[at].kind {
                Kind::Multipart => {}
                Kind::Message => {
                    at += 1;
                    parts.get(at)?;
                }
                _ => return None,
            }
        }
        at = match parts[at].kind {
            Kind::Multipart => child(parts, at, *number)?,
            // A message that is not multipart has one part, its body (RFC 9051, section 6.4.5.1).
            _ if *number == 1 => at,
            _ => return None,
        };
    }
    Some(at)
}

/// The message whose header and body HEADER and TEXT of a part mean.
fn message<'a, 'b>(parts: &'b Parts<'a>, part: usize, section: &Section) -> Option<&'b Part<&'a [u8]>> {
    if section.part.is_empty() {
        return parts.first();
    }
    (parts[part].kind == Kind::Message).then(|| parts.get(part + 1))?
}

/// The index of the `number`-th part of a multipart.
fn child(parts: &Parts<'_>, parent: usize, number: u32) -> Option<usize> {
    let index = u64::from(number).checked_sub(1).filter(|index| *index < parts[parent].children)?;
    let mut at = parent + 1;
    for _ in 0..index {
        at = after(parts, at)?;
    }
    (at < parts.len()).then_some(at)
}

/// The index after a part and all its parts.
fn after(parts: &Parts<'_>, part: usize) -> Option<usize> {
    let (mut at, mut left) = (part, 1u64);
    while left > 0 {
        left = (left - 1).checked_add(parts.get(at)?.children)?;
        at += 1;
    }
    Some(at)
}
