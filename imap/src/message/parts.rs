//! The tree of a message's parts, as rows in the order in which their headers come.

use super::wire::{Input, put_bytes, put_number};

/// A place in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Bytes before it, as stored.
    pub raw: u64,
    /// Line feeds before it that have no carriage return.
    pub bare: u64,
}

impl Position {
    /// Bytes before it, as IMAP counts them.
    pub fn crlf(self) -> u64 {
        self.raw.saturating_add(self.bare)
    }

    fn since(self, earlier: Position) -> (u64, u64) {
        (self.raw - earlier.raw, self.bare - earlier.bare)
    }
}

/// What stands between two places of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it starts.
    pub start: Position,
    /// Where it ends.
    pub end: Position,
}

impl Span {
    /// Bytes as IMAP counts them.
    pub fn size(self) -> u64 {
        self.end.crlf() - self.start.crlf()
    }
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `text/*`.
    Text,
    /// Has parts.
    Multipart,
    /// `message/rfc822` or `message/global`: has one part, the message.
    Message,
    /// Other `message/*`, such as a delivery status: read by people, so searched.
    Status,
    /// Anything else.
    Other,
}

/// How a part's bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `7bit`, `8bit`, `binary`.
    Identity,
    QuotedPrintable,
    Base64,
    Unknown,
}

impl Encoding {
    pub(super) fn named(name: &[u8]) -> Encoding {
        match name {
            b"" | b"7bit" | b"8bit" | b"binary" => Encoding::Identity,
            b"quoted-printable" => Encoding::QuotedPrintable,
            b"base64" => Encoding::Base64,
            _ => Encoding::Unknown,
        }
    }
}

/// One part; the texts are slices of the summary or, while a body is read, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part<T> {
    pub(super) kind: Kind,
    pub(super) encoding: Encoding,
    /// How many of the rows that follow are its own parts' (each with its own).
    pub(super) children: u64,
    /// Where its header starts, its body starts, and its body ends.
    pub(super) header: Position,
    pub(super) body: Position,
    pub(super) end: Position,
    /// Line ends in the body.
    pub(super) lines: u64,
    /// See `Content`.
    pub(super) before: T,
    pub(super) after: T,
    pub(super) charset: T,
    /// Of a message: its envelope.
    pub(super) envelope: T,
}

impl<T> Part<T> {
    pub(super) fn header_span(&self) -> Span {
        Span { start: self.header, end: self.body }
    }

    pub(super) fn body_span(&self) -> Span {
        Span { start: self.body, end: self.end }
    }
}

pub(super) type Parts<'a> = Vec<Part<&'a [u8]>>;

/// Writes the rows.
pub(super) fn put_parts(out: &mut Vec<u8>, parts: &[Part<Vec<u8>>]) {
    put_number(out, parts.len() as u64);
    let mut last = Position::default();
    for part in parts {
        out.push(part.kind as u8 | (part.encoding as u8) << 4);
        put_number(out, part.children);
        for (from, to) in [(last, part.header), (part.header, part.body), (part.body, part.end)] {
            let (raw, bare) = to.since(from);
            put_number(out, raw);
            put_number(out, bare);
        }
        put_number(out, part.lines);
        for text in [&part.before, &part.after, &part.charset, &part.envelope] {
            put_bytes(out, text);
        }
        last = part.header;
    }
}

/// Reads one row after the other.
pub(super) struct Rows<'a> {
    input: Input<'a>,
    left: u64,
    last: Position,
}

impl<'a> Rows<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Rows<'a> {
        let mut input = Input(bytes);
        let left = input.number().unwrap_or(0);
        Rows { input, left, last: Position::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    fn row(&mut self) -> Option<Part<&'a [u8]>> {
        let input = &mut self.input;
        let tag = input.byte()?;
        let kind = match tag & 0x0f {
            0 => Kind::Text,
            1 => Kind::Multipart,
            2 => Kind::Message,
            3 => Kind::Status,
            _ => Kind::Other,
        };
        let encoding = match tag >> 4 {
            0 => Encoding::Identity,
            1 => Encoding::QuotedPrintable,
            2 => Encoding::Base64,
            _ => Encoding::Unknown,
        };
        let children = input.number()?;
        let mut at = self.last;
        let mut next = || {
            at.raw = at.raw.checked_add(input.number()?)?;
            at.bare = at.bare.checked_add(input.number()?)?;
            Some(at)
        };
        let (header, body, end) = (next()?, next()?, next()?);
        self.last = header;
        let lines = input.number()?;
        let (before, after, charset, envelope) =
            (input.bytes()?, input.bytes()?, input.bytes()?, input.bytes()?);
        Some(Part { kind, encoding, children, header, body, end, lines, before, after, charset, envelope })
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Part<&'a [u8]>;

    /// Rows of damaged bytes end early.
    fn next(&mut self) -> Option<Part<&'a [u8]>> {
        self.left = self.left.checked_sub(1)?;
        let row = self.row();
        if row.is_none() {
            self.left = 0;
        }
        row
    }
}
