//! What is kept of a body. Version 1 of its bytes:
//!
//! | field | form |
//! |---|---|
//! | version | byte, 1 |
//! | flags | byte: 1 a NUL in the body, 2 the header was cut, 4 has a sent date, 8 the subject says reply or forward |
//! | size | number of raw bytes, number of line feeds without carriage return |
//! | sent | signed seconds, signed minutes |
//! | base subject, preview | counted UTF-8 |
//! | header fields | counted: those of [`KEPT`] as they came, with CRLF |
//! | other names | counted: two bytes of hash each, ascending |
//! | marks | counted: for each further 256 KiB of body how many line feeds without carriage return it has |
//! | parts | the rest, see `parts` |
//!
//! Numbers are little-endian base 128, signed ones in zigzag; counted is a number and so many bytes.

use thiserror::Error;

use super::date::Sent;
use super::parts::{Part, Parts, Position, Rows, Span};
use super::wire::{Input, put_bytes, put_number, put_signed};
use super::{envelope, header, section, structure, subject, words};

/// Of the bytes; another version is made anew.
pub const VERSION: u8 = 1;
const HAS_NUL: u8 = 1;
const HEADER_CUT: u8 = 2;
const HAS_SENT: u8 = 4;
const IS_REPLY: u8 = 8;

/// How far apart the marks are: a range of a body is found by reading no more than this.
pub(super) const MARK: u64 = 256 * 1024;

/// The fields kept as they came: what ENVELOPE, SORT and THREAD need, and what clients ask for in lists. Sorted.
const KEPT: &[&str] = &[
    "auto-submitted",
    "bcc",
    "cc",
    "content-description",
    "content-disposition",
    "content-language",
    "content-transfer-encoding",
    "content-type",
    "date",
    "delivered-to",
    "disposition-notification-to",
    "from",
    "importance",
    "in-reply-to",
    "lines",
    "list-archive",
    "list-id",
    "list-post",
    "list-subscribe",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "mail-followup-to",
    "message-id",
    "mime-version",
    "newsgroups",
    "organization",
    "precedence",
    "priority",
    "references",
    "reply-to",
    "resent-date",
    "resent-from",
    "resent-to",
    "return-path",
    "sender",
    "subject",
    "to",
    "user-agent",
    "x-label",
    "x-mailer",
    "x-mailing-list",
    "x-original-to",
    "x-priority",
    "x-spam-flag",
    "x-spam-status",
    "x-tuid",
];

/// Why bytes are no summary. Either way the remedy is to make it anew from the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SummaryError {
    /// Written by another version of this program.
    #[error("a summary of version {0}")]
    Version(u8),
    /// Not written by this program.
    #[error("the bytes are no summary")]
    Damaged,
}

/// What is known of a body. Reading one costs about as much as a dozen numbers.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    flags: u8,
    end: Position,
    sent: Sent,
    base_subject: &'a [u8],
    preview: &'a [u8],
    header: &'a [u8],
    other_names: &'a [u8],
    marks: &'a [u8],
    parts: &'a [u8],
}

impl<'a> Summary<'a> {
    /// Reads a summary's bytes.
    pub fn read(bytes: &'a [u8]) -> Result<Summary<'a>, SummaryError> {
        match bytes.first() {
            Some(&VERSION) => Summary::fields_of(Input(&bytes[1..])).ok_or(SummaryError::Damaged),
            Some(version) => Err(SummaryError::Version(*version)),
            None => Err(SummaryError::Damaged),
        }
    }

    fn fields_of(mut input: Input<'a>) -> Option<Summary<'a>> {
        Some(Summary {
            flags: input.byte()?,
            end: Position { raw: input.number()?, bare: input.number()? },
            sent: Sent { seconds: input.signed()?, zone: input.signed()?.try_into().ok()? },
            base_subject: input.bytes()?,
            preview: input.bytes()?,
            header: input.bytes()?,
            other_names: input.bytes()?,
            marks: input.bytes()?,
            parts: input.0,
        })
    }

    /// RFC822.SIZE: bytes of the body with CRLF line ends.
    pub fn size(&self) -> u64 {
        self.end.crlf()
    }

    /// Bytes of the body as stored.
    pub fn raw_size(&self) -> u64 {
        self.end.raw
    }

    /// Whether the body can be sent as it is stored: every line ends with CRLF, and there is no NUL.
    pub fn is_verbatim(&self) -> bool {
        self.end.bare == 0 && !self.has_nul()
    }

    pub(super) fn has_nul(&self) -> bool {
        self.flags & HAS_NUL != 0
    }

    /// The date it says it was sent; where there is none RFC 5256 takes the internal date.
    pub fn sent(&self) -> Option<Sent> {
        (self.flags & HAS_SENT != 0).then_some(self.sent)
    }

    /// The base subject (RFC 5256, section 2.1), decoded, in its own case.
    pub fn base_subject(&self) -> &'a str {
        std::str::from_utf8(self.base_subject).unwrap_or_default()
    }

    /// Whether the subject says that this is a reply or a forward.
    pub fn is_reply(&self) -> bool {
        self.flags & IS_REPLY != 0
    }

    /// PREVIEW (RFC 8970): up to 200 characters of its first text, blanks joined; empty if it has none.
    pub fn preview(&self) -> &'a str {
        std::str::from_utf8(self.preview).unwrap_or_default()
    }

    /// Writes ENVELOPE.
    pub fn put_envelope(&self, out: &mut Vec<u8>) {
        envelope::put_envelope(out, self.header);
    }

    /// Writes BODY without a section.
    pub fn put_body(&self, out: &mut Vec<u8>) {
        structure::put_structure(out, &mut Rows::new(self.parts), false);
    }

    /// Writes BODYSTRUCTURE.
    pub fn put_body_structure(&self, out: &mut Vec<u8>) {
        structure::put_structure(out, &mut Rows::new(self.parts), true);
    }

    /// HEADER.FIELDS with these names, the empty line included; nothing if it takes the body to know.
    pub fn header_fields(&self, names: &[impl AsRef<[u8]>]) -> Option<Vec<u8>> {
        if !names.iter().all(|name| self.knows(name.as_ref())) {
            return None;
        }
        Some(section::filter_fields(self.header, names, false))
    }

    pub(super) fn is_header_cut(&self) -> bool {
        self.flags & HEADER_CUT != 0
    }

    /// Whether the summary has all fields of that name: they are kept, or there are none.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        let lower = name.to_ascii_lowercase();
        // Hashes of different names may be equal; then the body is read for nothing.
        let is_other = || self.other_names.chunks_exact(2).any(|hash| hash == name_hash(&lower));
        !self.is_header_cut() && (is_kept(&lower) || !is_other())
    }

    /// The kept fields, as they came.
    pub(super) fn header(&self) -> &'a [u8] {
        self.header
    }

    pub(super) fn parts(&self) -> Parts<'a> {
        Rows::new(self.parts).collect()
    }

    /// The whole body.
    pub fn whole(&self) -> Span {
        Span { start: Position::default(), end: self.end }
    }

    /// The last mark at or before a CRLF offset.
    pub(super) fn mark_before(&self, crlf: u64) -> Position {
        let (mut input, mut at) = (Input(self.marks), Position::default());
        while let Some(bare) = input.number() {
            let next = Position { raw: at.raw + MARK, bare: at.bare.saturating_add(bare) };
            if next.crlf() > crlf {
                break;
            }
            at = next;
        }
        at
    }
}

/// What the maker gathers beside the parts.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) has_nul: bool,
    pub(super) end: Position,
    pub(super) preview: String,
    marks: Vec<u64>,
    flags: u8,
    sent: Option<Sent>,
    base_subject: String,
    header: Vec<u8>,
    other_names: Vec<u8>,
}

impl Facts {
    /// Notes the marks that a line passes; its own line feed is its last byte.
    pub(super) fn pass(&mut self, start: Position, len: u64) {
        while (self.marks.len() as u64 + 1) * MARK < start.raw + len {
            self.marks.push(start.bare);
        }
    }

    /// Reads the message's own header.
    pub(super) fn read_header(&mut self, bytes: &[u8], is_cut: bool) {
        let mut others = Vec::new();
        for field in header::fields(bytes) {
            let lower = field.name.to_ascii_lowercase();
            if is_kept(&lower) {
                self.header.extend_from_slice(field.whole);
            } else if !lower.is_empty() {
                others.push(name_hash(&lower));
            }
        }
        others.sort_unstable();
        others.dedup();
        self.other_names = others.concat();
        if is_cut {
            self.flags |= HEADER_CUT;
        }
        self.sent = header::first(&self.header, "date").and_then(|field| Sent::parse(field.value));
        if let Some(field) = header::first(&self.header, "subject") {
            let text = words::decode(field.value);
            let (base, is_reply) = subject::base_subject(&text);
            self.base_subject = base;
            self.flags |= if is_reply { IS_REPLY } else { 0 };
        }
    }
}

/// The bytes of a summary.
pub(super) fn write(facts: &Facts, parts: &[Part<Vec<u8>>]) -> Vec<u8> {
    let sent = facts.sent.unwrap_or(Sent { seconds: 0, zone: 0 });
    let has_nul = if facts.has_nul { HAS_NUL } else { 0 };
    let has_sent = if facts.sent.is_some() { HAS_SENT } else { 0 };
    let mut out = vec![VERSION, facts.flags | has_nul | has_sent];
    put_number(&mut out, facts.end.raw);
    put_number(&mut out, facts.end.bare);
    put_signed(&mut out, sent.seconds);
    put_signed(&mut out, i64::from(sent.zone));
    let mut marks = Vec::new();
    if facts.end.bare > 0 {
        let mut last = 0;
        for bare in &facts.marks {
            put_number(&mut marks, bare - last);
            last = *bare;
        }
    }
    let texts =
        [facts.base_subject.as_bytes(), facts.preview.as_bytes(), &facts.header, &facts.other_names, &marks];
    texts.into_iter().for_each(|text| put_bytes(&mut out, text));
    super::parts::put_parts(&mut out, parts);
    out.shrink_to_fit();
    out
}

pub(super) fn is_kept(lower: &[u8]) -> bool {
    KEPT.binary_search_by(|name| name.as_bytes().cmp(lower)).is_ok()
}

/// FNV-1a of a name in lower case, folded to two bytes.
fn name_hash(lower: &[u8]) -> [u8; 2] {
    let hash =
        lower.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    ((hash >> 16 ^ hash) as u16).to_be_bytes()
}
