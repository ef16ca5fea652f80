//! Reads a body once, line by line, and finds its parts.
//!
//! Memory: one header, one line, the summary's own text, and eight bytes for each 256 KiB of body; see
//! [`limits`]. Time is linear: a line is compared with the boundaries of the open parts only if it starts with `--`.

use std::io::{self, BufRead};

use super::content::{self, Content, Place};
use super::envelope::put_envelope;
use super::limits;
use super::parts::{Encoding, Kind, Part, Position};
use super::preview::Preview;
use super::summary::{self, Facts};

/// Reads all of `raw` and makes its summary's bytes.
pub fn make(raw: &mut dyn BufRead) -> io::Result<Vec<u8>> {
    let mut maker = Maker::new();
    loop {
        match raw.fill_buf() {
            Ok([]) => return Ok(maker.finish()),
            Ok(piece) => {
                maker.push(piece);
                let len = piece.len();
                raw.consume(len);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a summary of a body that comes in pieces.
///
/// 1. [`push`](Maker::push) each piece, of any length.
/// 2. [`finish`](Maker::finish) gives the bytes that [`Summary::read`](super::Summary::read) reads.
pub struct Maker {
    parts: Vec<Part<Vec<u8>>>,
    /// The parts that have not ended, outermost first.
    open: Vec<Open>,
    /// Whether the innermost one's header has not ended.
    in_header: bool,
    header: Header,
    line: Line,
    /// Where the current line starts, and how many line ends came before.
    at: Position,
    lines: u64,
    /// Bytes of the line end before it.
    line_end: u64,
    /// Bytes of text that the parts hold.
    text: usize,
    preview: Preview,
    facts: Facts,
}

/// A part that has not ended.
struct Open {
    index: usize,
    /// What separates its parts; empty if it has none or their last one has ended.
    boundary: Vec<u8>,
    is_digest: bool,
    /// Line ends before its body.
    lines: u64,
}

/// The header being read, its lines ended with CRLF.
#[derive(Default)]
struct Header {
    bytes: Vec<u8>,
    is_cut: bool,
}

/// The start of a line whose end has not come.
#[derive(Default)]
struct Line {
    head: Vec<u8>,
    len: u64,
    ends_with_cr: bool,
}

impl Default for Maker {
    fn default() -> Maker {
        Maker::new()
    }
}

impl Maker {
    /// A maker for one body.
    pub fn new() -> Maker {
        let mut maker = Maker {
            parts: Vec::new(),
            open: Vec::new(),
            in_header: true,
            header: Header::default(),
            line: Line::default(),
            at: Position::default(),
            lines: 0,
            line_end: 0,
            text: 0,
            preview: Preview::default(),
            facts: Facts::default(),
        };
        maker.start_part(maker.at);
        maker
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.facts.has_nul |= !self.facts.has_nul && memchr::memchr(0, piece).is_some();
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            if self.line.len == 0 {
                let break_len = if line.ends_with(b"\r\n") { 2 } else { 1 };
                self.end_line(&line[..line.len() - break_len], line.len() as u64, break_len as u64);
            } else {
                self.keep(&line[..end]);
                let break_len = if self.line.ends_with_cr { 2 } else { 1 };
                let mut head = std::mem::take(&mut self.line.head);
                let len = self.line.len + 1;
                head.truncate(usize::try_from(len - break_len).unwrap_or(usize::MAX));
                self.line.len = 0;
                self.end_line(&head, len, break_len);
                head.clear();
                self.line.head = head;
            }
        }
        self.keep(rest);
    }

    /// The summary's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        if self.line.len > 0 {
            let head = std::mem::take(&mut self.line.head);
            self.end_line(&head, self.line.len, 0);
        }
        while self.in_header {
            self.end_header(self.at);
        }
        self.close_from(0, self.at, self.lines);
        self.facts.end = self.at;
        self.facts.preview = self.preview.finish();
        summary::write(&self.facts, &self.parts)
    }

    /// Keeps the start of a line; no one reads more of it than a header may have.
    fn keep(&mut self, piece: &[u8]) {
        let Some(last) = piece.last() else { return };
        self.line.len += piece.len() as u64;
        self.line.ends_with_cr = *last == b'\r';
        let room = limits::HEADER.saturating_sub(self.line.head.len());
        self.line.head.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn end_line(&mut self, text: &[u8], len: u64, mut break_len: u64) {
        // The same for a line that came in one piece as for one that did not.
        let text = &text[..text.len().min(limits::HEADER)];
        let start = self.at;
        let found = if text.starts_with(b"--") { self.find_boundary(&text[2..]) } else { None };
        self.facts.pass(start, len);
        self.at.raw += len;
        self.at.bare += u64::from(break_len == 1);
        let lines_before = self.lines;
        self.lines += u64::from(break_len > 0);
        if let Some((index, is_last)) = found {
            if self.in_header {
                self.header_without_body(start);
                // Its last line end is the header's, not the boundary's.
                self.line_end = 0;
            }
            self.end_parts(index, start, lines_before, is_last);
        } else if self.in_header {
            if text.is_empty() {
                self.end_header(self.at);
                // The empty line belongs to the header, even where a boundary follows at once.
                break_len = 0;
            } else {
                self.header.add(text);
            }
        } else {
            self.preview.line(text);
        }
        self.line_end = break_len;
        if found.is_some_and(|(_, is_last)| !is_last) {
            self.start_part(self.at);
        }
    }

    /// Which open part the line separates, and whether it ends its last part.
    ///
    /// The boundary need not be the whole line (RFC 2046, section 5.1.1). One may begin like another: the longest
    /// one that fits is meant, and of equal ones the innermost.
    fn find_boundary(&self, text: &[u8]) -> Option<(usize, bool)> {
        let mut best: Option<(usize, usize)> = None;
        for (index, open) in self.open.iter().enumerate().rev() {
            let len = open.boundary.len();
            if len > best.map_or(0, |(_, len)| len) && text.starts_with(&open.boundary) {
                best = Some((index, len));
                let rest = text[len..].trim_ascii_end();
                if rest.is_empty() || rest == b"--" {
                    break;
                }
            }
        }
        best.map(|(index, len)| (index, text[len..].starts_with(b"--")))
    }

    /// Ends the parts inside of `self.open[index]`, whose boundary stands at `start`.
    fn end_parts(&mut self, index: usize, start: Position, lines: u64, is_last: bool) {
        // The line end before a boundary belongs to the boundary.
        let end =
            Position { raw: start.raw - self.line_end, bare: start.bare - u64::from(self.line_end == 1) };
        self.close_from(index + 1, end, lines - u64::from(self.line_end > 0));
        if is_last {
            self.open[index].boundary.clear();
        }
    }

    fn close_from(&mut self, index: usize, end: Position, lines: u64) {
        for open in self.open.drain(index..) {
            let part = &mut self.parts[open.index];
            part.end = end.max(part.body);
            part.lines = lines.saturating_sub(open.lines);
        }
        self.preview.end_part();
    }

    fn start_part(&mut self, at: Position) {
        if let Some(parent) = self.open.last() {
            self.parts[parent.index].children += 1;
        }
        self.open.push(Open { index: self.parts.len(), boundary: Vec::new(), is_digest: false, lines: 0 });
        self.parts.push(Part {
            kind: Kind::Other,
            encoding: Encoding::Identity,
            children: 0,
            header: at,
            body: at,
            end: at,
            lines: 0,
            before: Vec::new(),
            after: Vec::new(),
            charset: Vec::new(),
            envelope: Vec::new(),
        });
        self.in_header = true;
        if self.parts.len() == limits::PARTS {
            // The last one takes all that follows.
            self.open.iter_mut().for_each(|open| open.boundary.clear());
        }
    }

    /// A boundary stands where the header's empty line should be.
    fn header_without_body(&mut self, at: Position) {
        while self.in_header {
            self.end_header(at);
        }
    }

    fn end_header(&mut self, body: Position) {
        self.in_header = false;
        let header = std::mem::take(&mut self.header);
        let depth = self.open.len();
        let parent = depth.checked_sub(2).map(|index| &self.open[index]);
        let place = Place {
            in_digest: parent.is_some_and(|parent| parent.is_digest),
            may_nest: depth < limits::DEPTH && self.parts.len() < limits::PARTS,
        };
        if let Some(parent) = parent.map(|parent| parent.index) {
            self.tell_envelope(parent, &header.bytes);
        } else {
            self.facts.read_header(&header.bytes, header.is_cut);
        }
        let content = self.fit(content::describe(&header.bytes, place));
        let Some(open) = self.open.last_mut() else { return };
        let part = &mut self.parts[open.index];
        (part.kind, part.encoding, part.body, part.end) = (content.kind, content.encoding, body, body);
        open.lines = self.lines;
        match content.kind {
            Kind::Multipart => {
                open.boundary = content.boundary[..content.boundary.len().min(limits::BOUNDARY)].to_vec();
                open.is_digest = content.is_digest;
            }
            Kind::Text if !content.is_attachment => {
                self.preview.start(content.is_html, content.encoding, &content.charset);
            }
            _ => {}
        }
        part.before = content.before;
        part.after = content.after;
        part.charset = content.charset;
        if content.kind == Kind::Message {
            self.start_part(body);
        }
        self.header = Header { bytes: cleared(header.bytes), is_cut: false };
    }

    /// Of a message inside a message.
    fn tell_envelope(&mut self, parent: usize, header: &[u8]) {
        let parent = &mut self.parts[parent];
        if parent.kind == Kind::Message {
            put_envelope(&mut parent.envelope, header);
            if self.text + parent.envelope.len() > limits::STRUCTURE {
                parent.envelope.clear();
                put_envelope(&mut parent.envelope, b"");
            }
            self.text += parent.envelope.len();
        }
    }

    fn fit(&mut self, content: Content) -> Content {
        let len = content.before.len() + content.after.len() + content.charset.len();
        if self.text + len > limits::STRUCTURE {
            return content::opaque();
        }
        self.text += len;
        content
    }
}

impl Header {
    fn add(&mut self, text: &[u8]) {
        if self.is_cut || self.bytes.len() + text.len() + 2 > limits::HEADER {
            self.is_cut = true;
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        if memchr::memchr(0, text).is_some() {
            // IMAP's strings have no NUL.
            self.bytes[start..].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = 0x80);
        }
        self.bytes.extend_from_slice(b"\r\n");
    }
}

fn cleared(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.clear();
    bytes
}
