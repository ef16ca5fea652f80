//! A body as IMAP clients see it: line ends are CRLF, and a NUL, which IMAP's literals cannot hold, is 0x80.

use std::io::{self, Read};

use super::parts::{Position, Span};
use super::summary::Summary;

/// Reads a range of a body in its CRLF form. Gives exactly [`len`](Text::len) bytes, or an error.
#[derive(Debug)]
pub struct Text<R> {
    raw: R,
    /// Bytes still to be given.
    left: u64,
    convert: Option<Convert>,
}

#[derive(Debug)]
struct Convert {
    keeps_nul: bool,
    after_cr: bool,
    /// Bytes of the CRLF form to pass over.
    skip: u64,
    buffer: Box<[u8]>,
    ready: Vec<u8>,
    given: usize,
}

impl<R: Read> Text<R> {
    /// Opens bytes `offset..offset + count` of a span, both in the CRLF form; what goes beyond the span is left
    /// out. `raw_at` opens the stored body at an offset. Reads at most 256 KiB to find the start.
    pub(super) fn open(
        summary: &Summary<'_>,
        span: Span,
        (offset, count): (u64, u64),
        keeps_nul: bool,
        raw_at: impl FnOnce(u64) -> io::Result<R>,
    ) -> io::Result<Text<R>> {
        let offset = offset.min(span.size());
        let left = count.min(span.size() - offset);
        let target = span.start.crlf() + offset;
        if summary.is_verbatim() {
            return Ok(Text { raw: raw_at(target)?, left, convert: None });
        }
        let mark = summary.mark_before(target);
        let (raw, from, after_cr) = if summary.size() == summary.raw_size() {
            // No line feed is bare, so one that comes first is not either.
            (raw_at(target)?, Position { raw: target, bare: 0 }, true)
        } else if mark.raw > span.start.raw {
            // Whether a line feed at the mark is bare depends on the byte before.
            let mut raw = raw_at(mark.raw - 1)?;
            let mut before = [0];
            raw.read_exact(&mut before)?;
            (raw, mark, before == *b"\r")
        } else {
            (raw_at(span.start.raw)?, span.start, false)
        };
        let convert = Convert::new(keeps_nul, after_cr, from, target);
        Ok(Text { raw, left, convert: Some(convert) })
    }

    /// Bytes still to be read.
    pub fn len(&self) -> u64 {
        self.left
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let room = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let len = match &mut self.convert {
            None => self.raw.read(&mut out[..room])?,
            Some(convert) => convert.read(&mut self.raw, &mut out[..room])?,
        };
        if len == 0 {
            // The literal's length was already promised.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= len as u64;
        Ok(len)
    }
}

impl Convert {
    fn new(keeps_nul: bool, after_cr: bool, from: Position, target: u64) -> Convert {
        let skip = target.saturating_sub(from.crlf());
        let buffer = vec![0; 16 * 1024].into_boxed_slice();
        Convert { keeps_nul, after_cr, skip, buffer, ready: Vec::new(), given: 0 }
    }

    fn read(&mut self, raw: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() {
            let len = raw.read(&mut self.buffer)?;
            if len == 0 {
                return Ok(0);
            }
            self.ready.clear();
            push_crlf(&mut self.ready, &self.buffer[..len], &mut self.after_cr);
            if !self.keeps_nul {
                self.ready.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = 0x80);
            }
            self.given = usize::try_from(self.skip).unwrap_or(usize::MAX).min(self.ready.len());
            self.skip -= self.given as u64;
        }
        let len = out.len().min(self.ready.len() - self.given);
        out[..len].copy_from_slice(&self.ready[self.given..self.given + len]);
        self.given += len;
        Ok(len)
    }
}

/// Appends a piece, with a carriage return before each line feed that has none.
fn push_crlf(out: &mut Vec<u8>, piece: &[u8], after_cr: &mut bool) {
    out.reserve(piece.len() + piece.len() / 16);
    let mut rest = piece;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let has_cr = if end == 0 { *after_cr } else { rest[end - 1] == b'\r' };
        out.extend_from_slice(&rest[..end]);
        out.extend_from_slice(if has_cr { b"\n" } else { b"\r\n" });
        rest = &rest[end + 1..];
        *after_cr = false;
    }
    out.extend_from_slice(rest);
    if let Some(last) = rest.last() {
        *after_cr = *last == b'\r';
    }
}
