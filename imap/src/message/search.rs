//! SEARCH in the text of messages (RFC 9051, section 6.4.4).
//!
//! Words are found wherever a person would read them: headers with their encoded words decoded, text parts with
//! their transfer encoding and charset decoded, upper and lower case and composed and decomposed accents alike
//! (compatibility decomposition, then upper case, much as RFC 5051 has it). Attachments other than text are not looked into. Text is decoded
//! in pieces; memory does not grow with a message.

use std::io::{self, Read};

use memchr::memmem::Finder;
use unicode_normalization::char::decompose_compatible;

use super::parts::{Encoding, Kind, Part, Span};
use super::summary::{self, Summary};
use super::transfer::Decoder;
use super::{charset, header, limits, words};

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// HEADER, and SUBJECT, FROM, TO, CC, BCC: fields of that name of the message's own header. An empty needle
    /// finds that there is such a field.
    Header(Vec<u8>),
    /// BODY: the text parts.
    Body,
    /// TEXT: the text parts and all headers, those of parts and inner messages too.
    Text,
}

/// What to look for, prepared once for many messages.
#[derive(Debug, Default)]
pub struct Terms {
    list: Vec<Term>,
    longest: usize,
}

#[derive(Debug)]
struct Term {
    target: Target,
    finder: Finder<'static>,
    /// Whether summaries keep the header field that is meant.
    is_kept: bool,
}

/// Which terms a message has, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found(Vec<Option<bool>>);

impl Found {
    /// Whether the message has the term with that index; nothing until its body was searched.
    pub fn has(&self, term: usize) -> Option<bool> {
        self.0.get(term).copied().flatten()
    }

    /// Whether every term is decided.
    pub fn is_complete(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}

impl Terms {
    /// No terms.
    pub fn new() -> Terms {
        Terms::default()
    }

    /// Adds a term; its index is how many there were.
    pub fn add(&mut self, target: Target, needle: &str) -> usize {
        let mut folded = Vec::new();
        fold(needle, &mut folded);
        self.longest = self.longest.max(folded.len());
        let is_kept = matches!(&target, Target::Header(name) if summary::is_kept(&name.to_ascii_lowercase()));
        self.list.push(Term { target, finder: Finder::new(&folded).into_owned(), is_kept });
        self.list.len() - 1
    }

    /// Decides what the summary alone tells.
    pub fn in_summary(&self, summary: &Summary<'_>) -> Found {
        let mut folded = Vec::new();
        let mut decide = |term: &Term| match &term.target {
            Target::Header(name) => {
                let knows = if term.is_kept { !summary.is_header_cut() } else { summary.knows(name) };
                knows.then(|| term.is_in_header(summary.header(), name, &mut folded))
            }
            // Text of no length is everywhere.
            Target::Body | Target::Text => term.finder.needle().is_empty().then_some(true),
        };
        Found(self.list.iter().map(&mut decide).collect())
    }

    /// Decides the rest by reading the body, in order and no further than needed. `raw_at` opens the stored body at
    /// an offset.
    pub fn in_body<R: Read>(
        &self,
        summary: &Summary<'_>,
        found: &mut Found,
        raw_at: impl FnMut(u64) -> io::Result<R>,
    ) -> io::Result<()> {
        found.0.resize(self.list.len(), None);
        let mut search = Search { terms: self, found, folded: Vec::new(), text: String::new() };
        let mut body = Body { raw_at, open: None };
        for (index, part) in summary.parts().iter().enumerate() {
            if search.found.is_complete() {
                return Ok(());
            }
            if index == 0 || search.wants(|target| *target == Target::Text) {
                search.header(body.at(part.header_span())?, index == 0)?;
            }
            if matches!(part.kind, Kind::Text | Kind::Status) && search.wants(|target| !is_header(target)) {
                search.part(part, body.at(part.body_span())?)?;
            }
        }
        found.0.iter_mut().for_each(|known| *known = known.or(Some(false)));
        Ok(())
    }
}

fn is_header(target: &Target) -> bool {
    matches!(target, Target::Header(_))
}

impl Term {
    fn is_in_header(&self, bytes: &[u8], name: &[u8], folded: &mut Vec<u8>) -> bool {
        header::named(bytes, name).any(|field| {
            folded.clear();
            fold(&words::decode(field.value), folded);
            self.finder.find(folded).is_some()
        })
    }
}

/// One message being searched.
struct Search<'a> {
    terms: &'a Terms,
    found: &'a mut Found,
    /// Folded text: the end of the last piece, so that a needle across two pieces is found, and the current one.
    folded: Vec<u8>,
    text: String,
}

impl Search<'_> {
    /// Whether an undecided term has such a target.
    fn wants(&self, is_meant: impl Fn(&Target) -> bool) -> bool {
        self.terms
            .list
            .iter()
            .zip(&self.found.0)
            .any(|(term, known)| known.is_none() && is_meant(&term.target))
    }

    fn header(&mut self, reader: impl Read, is_own: bool) -> io::Result<()> {
        if !self.wants(|target| *target == Target::Text || is_own && is_header(target)) {
            return Ok(());
        }
        let mut raw = Vec::new();
        reader.take(limits::HEADER as u64).read_to_end(&mut raw)?;
        let bytes = with_crlf(&raw);
        if is_own {
            for (term, known) in self.terms.list.iter().zip(&mut self.found.0) {
                if let (None, Target::Header(name)) = (&known, &term.target) {
                    *known = Some(term.is_in_header(&bytes, name, &mut self.folded));
                }
            }
        }
        for field in header::fields(&bytes) {
            self.folded.clear();
            fold(&charset::guess(field.name), &mut self.folded);
            self.folded.extend_from_slice(b": ");
            fold(&words::decode(field.value), &mut self.folded);
            self.look(|target| *target == Target::Text);
        }
        Ok(())
    }

    fn part(&mut self, part: &Part<&[u8]>, mut reader: impl Read) -> io::Result<()> {
        // What cannot be decoded is searched as it is.
        let mut transfer = Decoder::new(part.encoding).unwrap_or(Decoder::Identity);
        let mut charset = charset::decoder(part.charset);
        let mut raw = vec![0; 16 * 1024];
        let mut bytes = Vec::new();
        self.folded.clear();
        loop {
            let len = reader.read(&mut raw)?;
            let is_last = len == 0;
            bytes.clear();
            if is_last {
                transfer.finish(&mut bytes);
            }
            let piece = match part.encoding {
                Encoding::Identity => &raw[..len],
                _ => {
                    transfer.piece(&raw[..len], &mut bytes);
                    &bytes
                }
            };
            self.text.clear();
            charset::decode_piece(&mut charset, piece, is_last, &mut self.text);
            fold(&self.text, &mut self.folded);
            self.look(|target| !is_header(target));
            let kept = self.terms.longest.saturating_sub(1).min(self.folded.len());
            self.folded.drain(..self.folded.len() - kept);
            if is_last || !self.wants(|target| !is_header(target)) {
                return Ok(());
            }
        }
    }

    fn look(&mut self, is_meant: impl Fn(&Target) -> bool) {
        for (term, known) in self.terms.list.iter().zip(&mut self.found.0) {
            if known.is_none() && is_meant(&term.target) && term.finder.find(&self.folded).is_some() {
                *known = Some(true);
            }
        }
    }
}

/// A stored body read mostly forwards: it is opened anew only over gaps that are worth it.
struct Body<R, F> {
    raw_at: F,
    open: Option<(R, u64)>,
}

/// Reading on is cheaper than opening again below this.
const GAP: u64 = 64 * 1024;

impl<R: Read, F: FnMut(u64) -> io::Result<R>> Body<R, F> {
    fn at(&mut self, span: Span) -> io::Result<impl Read> {
        let (start, end) = (span.start.raw, span.end.raw);
        let open = match self.open.take() {
            Some((mut raw, at)) if at <= start && start - at <= GAP => {
                io::copy(&mut raw.by_ref().take(start - at), &mut io::sink())?;
                (raw, start)
            }
            _ => ((self.raw_at)(start)?, start),
        };
        let (raw, at) = self.open.insert(open);
        Ok(Counted { raw: raw.take(end - start), at })
    }
}

struct Counted<'a, R> {
    raw: io::Take<&'a mut R>,
    at: &'a mut u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.raw.read(out)?;
        *self.at += len as u64;
        Ok(len)
    }
}

/// Header lines as `header` reads them.
fn with_crlf(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32);
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        out.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Appends text in the form in which texts are compared.
pub(super) fn fold(text: &str, out: &mut Vec<u8>) {
    let (mut rest, mut utf8) = (text, [0; 4]);
    loop {
        let len = rest.bytes().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
        let start = out.len();
        out.extend_from_slice(&rest.as_bytes()[..len]);
        out[start..].make_ascii_uppercase();
        // One character at a time, so that pieces do not matter.
        let mut others = rest[len..].chars();
        let Some(other) = others.next() else { return };
        decompose_compatible(other, |c| {
            c.to_uppercase().for_each(|c| out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()));
        });
        rest = others.as_str();
    }
}
