//! A body as IMAP clients see it: line ends are CRLF, and a NUL, which IMAP's literals cannot hold, is 0x80.

use std::io::{self, BufRead, Read};

use super::parts::{Position, Span};
use super::summary::Summary;

/// Bytes that [`Text::read`] converts at a time.
const PIECE: usize = 16 * 1024;

/// Reads a range of a body in its CRLF form. Gives exactly [`len`](Text::len) bytes, or an error.
#[derive(Debug)]
pub struct Text<R> {
    raw: R,
    /// Bytes still to be given.
    left: u64,
    convert: Option<Convert>,
    /// What was converted for [`Text::read`], and how much of it was given.
    ready: (Vec<u8>, usize),
}

#[derive(Debug)]
struct Convert {
    fixes_nul: bool,
    after_cr: bool,
    /// Bytes of the CRLF form to pass over.
    skip: u64,
}

impl<R: BufRead> Text<R> {
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
            return Ok(Text { raw: raw_at(target)?, left, convert: None, ready: (Vec::new(), 0) });
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
        let fixes_nul = !keeps_nul && summary.has_nul();
        let convert = Convert { fixes_nul, after_cr, skip: target.saturating_sub(from.crlf()) };
        Ok(Text { raw, left, convert: Some(convert), ready: (Vec::new(), 0) })
    }

    /// Bytes still to be read.
    pub fn len(&self) -> u64 {
        self.left
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Appends about `room` bytes, or less; none only at the end. Not to be mixed with [`Text::read`].
    pub fn append(&mut self, out: &mut Vec<u8>, room: usize) -> io::Result<usize> {
        let (start, most) = (out.len(), usize::try_from(self.left).unwrap_or(usize::MAX));
        while self.left > 0 && out.len() == start {
            let raw = self.raw.fill_buf()?;
            if raw.is_empty() {
                // The literal's length was already promised.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // No byte gets lost by converting, so more is not needed.
            let skip = self.convert.as_ref().map_or(0, |convert| convert.skip);
            let wanted = usize::try_from(self.left.saturating_add(skip)).unwrap_or(usize::MAX);
            let piece = &raw[..raw.len().min(room.max(1)).min(wanted)];
            match &mut self.convert {
                None => out.extend_from_slice(piece),
                Some(convert) => convert.append(piece, out),
            }
            let len = piece.len();
            self.raw.consume(len);
        }
        out.truncate(start.saturating_add(most));
        self.left -= (out.len() - start) as u64;
        Ok(out.len() - start)
    }
}

impl<R: BufRead> Read for Text<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ready.1 == self.ready.0.len() {
            let mut ready = std::mem::take(&mut self.ready.0);
            ready.clear();
            let done = self.append(&mut ready, PIECE);
            self.ready = (ready, 0);
            done?;
        }
        let (ready, given) = &mut self.ready;
        let len = out.len().min(ready.len() - *given);
        out[..len].copy_from_slice(&ready[*given..*given + len]);
        *given += len;
        Ok(len)
    }
}

impl Convert {
    fn append(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        push_crlf(out, piece, &mut self.after_cr);
        if self.fixes_nul {
            out[start..].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = 0x80);
        }
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(out.len() - start);
        out.drain(start..start + skipped);
        self.skip -= skipped as u64;
    }
}

/// Appends a piece, with a carriage return before each line feed that has none.
fn push_crlf(out: &mut Vec<u8>, piece: &[u8], after_cr: &mut bool) {
    out.reserve(piece.len() + piece.len() / 16);
    let mut from = 0;
    for end in memchr::memchr_iter(b'\n', piece) {
        let has_cr = if end == 0 { *after_cr } else { piece[end - 1] == b'\r' };
        if !has_cr {
            out.extend_from_slice(&piece[from..end]);
            out.push(b'\r');
            from = end;
        }
    }
    out.extend_from_slice(&piece[from..]);
    if let Some(last) = piece.last() {
        *after_cr = *last == b'\r';
    }
}
