//! Recognises a message that a mail program wrote down with other bytes than it had. Pure, and in bounded memory.
//!
//! mbsync stamps what it copies with a header `X-TUID` and drops every bare CR; OfflineIMAP takes messages apart and puts
//! them together again: it trims spaces in headers and closes what was left open. Others change line ends.
//! What only adds something can be undone exactly, and the message's name proves it ([`Suspect`]). What
//! is lost cannot: then two texts are one message if they differ in nothing but space and what programs add ([`Form`]).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::blob::{BlobHasher, BlobId, MAX_SMALL};

/// Headers that programs add to find their own copies again.
const STAMPS: [&[u8]; 2] = [b"x-tuid", b"x-offlineimap"];
/// Those, and headers in which mailbox formats without flags keep them.
const NO_CONTENT: [&[u8]; 6] = [b"x-tuid", b"x-offlineimap", b"status", b"x-status", b"x-keywords", b"x-uid"];
/// Longest line that can be a boundary: 70 characters between two and two hyphens (RFC 2046, 5.1.1).
const MAX_BOUNDARY: usize = 74;
const PIECE: usize = 64 << 10;

/// How lines end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Lf,
    CrLf,
}

/// What is taken back of what a program did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undo {
    stamps: bool,
    closing: bool,
    ends: Option<Ends>,
}

/// What is tried, the likeliest first: a file is itself before it is anything else.
const UNDOS: [Undo; 8] = {
    const fn undo(stamps: bool, closing: bool, ends: Option<Ends>) -> Undo {
        Undo { stamps, closing, ends }
    }
    [
        undo(false, false, None),
        undo(true, false, None),
        undo(false, false, Some(Ends::Lf)),
        undo(false, false, Some(Ends::CrLf)),
        undo(true, false, Some(Ends::Lf)),
        undo(true, false, Some(Ends::CrLf)),
        undo(false, true, None),
        undo(true, true, None),
    ]
};

/// A file that may be a message with other bytes. A mebibyte of it is in memory; the rest is read anew each time.
pub(super) struct Suspect<'a> {
    start: Vec<u8>,
    /// Opens the file again; nothing if all of it is in memory.
    rest: Option<&'a dyn Fn() -> io::Result<File>>,
}

impl<'a> Suspect<'a> {
    pub(super) fn open(open: &'a dyn Fn() -> io::Result<File>) -> io::Result<Suspect<'a>> {
        let mut start = Vec::new();
        open()?.take(MAX_SMALL as u64).read_to_end(&mut start)?;
        let rest = (start.len() == MAX_SMALL).then_some(open);
        Ok(Suspect { start, rest })
    }

    /// What the file may have been, each with its name.
    pub(super) fn candidates(&self) -> impl Iterator<Item = io::Result<(Undo, BlobId)>> {
        UNDOS.into_iter().filter(|undo| self.differs(*undo)).map(|undo| {
            let (mut original, mut piece) = (self.original(undo)?, vec![0; PIECE]);
            let mut hasher = BlobHasher::new();
            loop {
                match original.read(&mut piece)? {
                    0 => return Ok((undo, hasher.finish())),
                    length => hasher.update(&piece[..length]),
                }
            }
        })
    }

    /// Whether there is anything to undo.
    fn differs(&self, undo: Undo) -> bool {
        let lf_alone = || {
            let before = std::iter::once(&b' ').chain(&self.start);
            before.zip(&self.start).any(|(before, byte)| *byte == b'\n' && *before != b'\r')
        };
        (!undo.stamps || !stamps(&self.start).is_empty())
            && (!undo.closing || self.rest.is_none() && closing(&self.start).is_some())
            && match undo.ends {
                None => true,
                Some(Ends::Lf) => self.start.windows(2).any(|pair| pair == b"\r\n"),
                Some(Ends::CrLf) => lf_alone(),
            }
    }

    /// The message as it was before.
    pub(super) fn original(&self, undo: Undo) -> io::Result<Original> {
        let mut start = self.start.clone();
        if undo.closing
            && let Some(at) = closing(&start)
        {
            start.truncate(at);
        }
        if undo.stamps {
            for range in stamps(&start).into_iter().rev() {
                start.drain(range);
            }
        }
        let rest = match self.rest {
            Some(open) => {
                let mut file = open()?;
                file.seek(SeekFrom::Start(self.start.len() as u64))?;
                Some(file)
            }
            None => None,
        };
        let mut original = Original { ends: undo.ends, last_cr: false, ready: Vec::new(), at: 0, rest };
        original.convert(&start);
        Ok(original)
    }
}

/// A message as it was.
pub(super) struct Original {
    ends: Option<Ends>,
    /// Whether the last byte was a CR; where lines are to end in LF, it was held back.
    last_cr: bool,
    ready: Vec<u8>,
    at: usize,
    rest: Option<File>,
}

impl Original {
    fn convert(&mut self, piece: &[u8]) {
        self.ready.clear();
        self.at = 0;
        let Some(ends) = self.ends else { return self.ready.extend_from_slice(piece) };
        for byte in piece {
            match (ends, *byte) {
                (Ends::Lf, b'\n') => self.ready.push(b'\n'),
                (Ends::Lf, byte) => {
                    if self.last_cr {
                        self.ready.push(b'\r');
                    }
                    if byte != b'\r' {
                        self.ready.push(byte);
                    }
                }
                (Ends::CrLf, b'\n') if !self.last_cr => self.ready.extend(b"\r\n"),
                (Ends::CrLf, byte) => self.ready.push(byte),
            }
            self.last_cr = *byte == b'\r';
        }
    }
}

impl Read for Original {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.ready.len() {
            let Some(rest) = &mut self.rest else {
                // A CR that was held back is the last byte.
                let held = self.ends == Some(Ends::Lf) && std::mem::take(&mut self.last_cr);
                if !held || out.is_empty() {
                    return Ok(0);
                }
                out[0] = b'\r';
                return Ok(1);
            };
            let mut piece = vec![0; PIECE];
            match rest.read(&mut piece) {
                Ok(0) => self.rest = None,
                Ok(length) => self.convert(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let length = out.len().min(self.ready.len() - self.at);
        out[..length].copy_from_slice(&self.ready[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// The lines of a header, each field with the lines that continue it, and where the body begins.
fn fields(start: &[u8]) -> (Vec<std::ops::Range<usize>>, usize) {
    let (mut fields, mut at) = (Vec::<std::ops::Range<usize>>::new(), 0);
    for line in start.split_inclusive(|byte| *byte == b'\n') {
        let end = at + line.len();
        if line.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            return (fields, end);
        }
        match fields.last_mut().filter(|_| matches!(line[0], b' ' | b'\t')) {
            Some(field) => field.end = end,
            None => fields.push(at..end),
        }
        at = end;
    }
    (fields, at)
}

fn is_named(field: &[u8], names: &[&[u8]]) -> bool {
    let colon = field.iter().position(|byte| *byte == b':');
    colon.is_some_and(|colon| names.iter().any(|name| field[..colon].eq_ignore_ascii_case(name)))
}

/// Where a header was stamped.
fn stamps(start: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut fields, _) = fields(start);
    fields.retain(|field| is_named(&start[field.clone()], &STAMPS));
    fields
}

/// Where the last line begins, if it closes parts.
fn closing(body: &[u8]) -> Option<usize> {
    let text = body.strip_suffix(b"\n").unwrap_or(body);
    let at = text.iter().rposition(|byte| *byte == b'\n')? + 1;
    is_closing(&text[at..]).then_some(at)
}

fn is_closing(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.len() > 4 && line.starts_with(b"--") && line.ends_with(b"--")
}

/// What a message says, without its spaces, line ends, closing boundaries, and headers that say nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form([u8; 32]);

impl Form {
    /// Reads a message to its end.
    pub(super) fn of(mut message: impl Read) -> io::Result<Form> {
        let mut start = Vec::new();
        message.by_ref().take(MAX_SMALL as u64).read_to_end(&mut start)?;
        let (fields, body) = fields(&start);
        let mut squeezed = Squeezed { hasher: blake3::Hasher::new(), line: Vec::new(), is_open: false };
        for field in fields.into_iter().map(|field| &start[field]) {
            if !is_named(field, &NO_CONTENT) {
                let visible: Vec<u8> = field.iter().copied().filter(|byte| !is_space(*byte)).collect();
                squeezed.hasher.update(&visible);
            }
        }
        // No header's text is ever part of the body's.
        squeezed.hasher.update(&[0]);
        squeezed.push(&start[body..]);
        loop {
            match message.read(&mut start[..]) {
                Ok(0) => return Ok(squeezed.finish()),
                Ok(length) => squeezed.push(&start[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A body on its way into a form.
struct Squeezed {
    hasher: blake3::Hasher,
    /// What is visible of the line, as long as it may be a closing boundary.
    line: Vec<u8>,
    /// Whether it can be none any more.
    is_open: bool,
}

impl Squeezed {
    fn push(&mut self, piece: &[u8]) {
        let mut out = Vec::with_capacity(piece.len());
        for byte in piece.iter().copied() {
            match byte {
                b'\r' | b'\n' => self.end_line(&mut out),
                b' ' | b'\t' => {}
                byte if self.is_open => out.push(byte),
                byte => {
                    self.line.push(byte);
                    let length = self.line.len();
                    self.is_open = length > MAX_BOUNDARY || length <= 2 && byte != b'-';
                    if self.is_open {
                        out.append(&mut self.line);
                    }
                }
            }
        }
        self.hasher.update(&out);
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        if is_closing(&self.line) {
            self.line.clear();
        }
        out.append(&mut self.line);
        self.is_open = false;
    }

    fn finish(mut self) -> Form {
        let mut out = Vec::new();
        self.end_line(&mut out);
        self.hasher.update(&out);
        Form(*self.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests;
