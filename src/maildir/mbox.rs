//! Reads an mbox file, message by message.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};

use super::from_line;
use crate::blob::MAX_BLOB;
use crate::mailbox::Keyword;

/// How the file hides lines of a body that start with `From `. The file itself does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MboxDialect {
    /// `>` stands before every line `From `, `>From `, `>>From ` ... and is taken off. Every line `From ` behind
    /// an empty line separates.
    Rd,
    /// What is quoted cannot be told from what was written so; nothing is taken off. A line `From ` separates
    /// behind an empty line and with a date (or bare, as Thunderbird writes it).
    O,
}

/// One message of an mbox. Reading it gives the message with its line ends as they were, the headers that mboxes add
/// included; what is not read of it is passed over when the next one is asked for.
///
/// A message that is longer than one may be ends in an [`io::Error`] that holds [`MboxError::TooLarge`].
pub struct MboxMessage<'a, R> {
    /// Where its `From ` line starts in the file.
    pub offset: u64,
    /// The date of that line, in Unix seconds.
    pub internal_date: Option<i64>,
    /// What its `Status`, `X-Status` and `X-Keywords` say.
    pub keywords: BTreeSet<Keyword>,
    /// Its header, some of what follows it perhaps, or the first 256 KiB of a longer one. Reading the message gives these
    /// bytes again.
    pub header: Vec<u8>,
    /// How much of the header was read again.
    at: usize,
    mbox: &'a mut Mbox<R>,
}

/// Why a message cannot be had. After [`MboxError::TooLarge`] the next one can.
#[derive(Debug, thiserror::Error)]
pub enum MboxError {
    /// The file does not start with a `From ` line.
    #[error("byte {offset}: an mbox starts with a \"From \" line")]
    NotMbox {
        /// Where something else stands.
        offset: u64,
    },
    /// It is larger than a message may be ([`MAX_BLOB`]).
    #[error("byte {offset}: the message is longer than {limit} bytes")]
    TooLarge {
        /// Where its `From ` line starts.
        offset: u64,
        /// The limit.
        limit: u64,
    },
    /// The file cannot be read.
    #[error("byte {offset}: the mbox cannot be read")]
    Io {
        /// How far it was read.
        offset: u64,
        /// The system's word.
        source: io::Error,
    },
}

/// Most bytes of a line that are held at once; longer ones go through in pieces.
const PIECE: u64 = 64 << 10;
/// Bytes of a message's header that are looked at. Real ones have some kilobytes; what mboxes add stands near the top or
/// the end of those.
const MAX_HEADER: usize = 256 << 10;

/// The messages of an mbox, in file order. Holds a header and a line. `Content-Length` is ignored: it is wrong in any file
/// that a program without it touched.
pub struct Mbox<R> {
    input: R,
    dialect: MboxDialect,
    limit: u64,
    state: State,
    /// The bytes read so far.
    offset: u64,
    piece: Vec<u8>,
    /// Text of the present message that is ready to be read, and how much of it was.
    ready: Vec<u8>,
    taken: usize,
    /// A blank line that may turn out to belong to the mbox: one before a separator, or at the end.
    blank: Vec<u8>,
    line_start: bool,
    /// Bytes of the present message so far.
    size: u64,
}

#[derive(Clone, Copy)]
enum State {
    Start,
    /// Behind the `From ` line that starts at `offset`.
    Message {
        offset: u64,
        internal_date: Option<i64>,
    },
    /// Inside of a message that was handed out.
    Inside {
        offset: u64,
    },
    End,
}

impl<R: BufRead> Mbox<R> {
    /// Reads from the start of a file.
    pub fn new(input: R, dialect: MboxDialect) -> Mbox<R> {
        Mbox {
            input,
            dialect,
            limit: MAX_BLOB,
            state: State::Start,
            offset: 0,
            piece: Vec::new(),
            ready: Vec::new(),
            taken: 0,
            blank: Vec::new(),
            line_start: true,
            size: 0,
        }
    }

    /// The next message; nothing at the end.
    pub fn next_message(&mut self) -> Result<Option<MboxMessage<'_, R>>, MboxError> {
        if let State::Start = self.state {
            self.start()?;
        }
        while let State::Inside { offset } = self.state {
            match self.fill(offset) {
                // Whoever read it was told.
                Ok(_) | Err(MboxError::TooLarge { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let State::Message { offset, internal_date } = self.state else { return Ok(None) };
        self.state = State::Inside { offset };
        (self.taken, self.size, self.line_start) = (0, 0, true);
        self.ready.clear();
        self.blank.clear();
        let mut header = Vec::new();
        while header.len() < MAX_HEADER {
            let line_start = self.line_start;
            match self.fill(offset) {
                Ok(true) => {}
                // That it is too large is told to whoever reads on.
                Ok(false) | Err(MboxError::TooLarge { .. }) => break,
                Err(error) => return Err(error),
            }
            let ends = line_start && (self.ready.starts_with(b"\n") || self.ready.starts_with(b"\r\n"));
            header.append(&mut self.ready);
            if ends {
                break;
            }
        }
        let keywords = header_keywords(&header);
        Ok(Some(MboxMessage { offset, internal_date, keywords, header, at: 0, mbox: self }))
    }

    /// Fills `piece` with the next line, or as much of it as is held at once; false at the end.
    fn next_piece(&mut self) -> Result<bool, MboxError> {
        self.piece.clear();
        let read = (&mut self.input).take(PIECE).read_until(b'\n', &mut self.piece);
        let offset = self.offset;
        let read = read.map_err(|source| {
            self.state = State::End;
            MboxError::Io { offset, source }
        })?;
        self.offset += read as u64;
        Ok(read > 0)
    }

    /// The date of a `From ` line if the piece is one that separates.
    fn separator(&self, after_blank: bool) -> Option<Option<i64>> {
        let rest = self.piece.strip_prefix(b"From ").filter(|_| after_blank)?;
        let date = from_line::date(rest);
        let separates = match self.dialect {
            MboxDialect::Rd => true,
            MboxDialect::O => date.is_some() || rest.trim_ascii().is_empty(),
        };
        separates.then_some(date)
    }

    /// Enters a message whose `From ` line is in `piece`.
    fn enter(&mut self, internal_date: Option<i64>) -> Result<(), MboxError> {
        self.state = State::Message { offset: self.offset - self.piece.len() as u64, internal_date };
        while !self.piece.ends_with(b"\n") && self.next_piece()? {}
        Ok(())
    }

    fn start(&mut self) -> Result<(), MboxError> {
        self.state = State::End;
        while self.next_piece()? {
            if is_blank(&self.piece) {
                continue;
            }
            return match self.separator(true) {
                Some(date) => self.enter(date),
                None => Err(MboxError::NotMbox { offset: self.offset - self.piece.len() as u64 }),
            };
        }
        Ok(())
    }

    /// Makes more text of the message that starts at `offset` ready; false at its end. Past the limit the rest is read and
    /// not kept.
    fn fill(&mut self, offset: u64) -> Result<bool, MboxError> {
        self.ready.clear();
        self.taken = 0;
        while self.ready.is_empty() {
            if !self.next_piece()? {
                self.state = State::End;
                return Ok(false);
            }
            if self.line_start
                && let Some(date) = self.separator(!self.blank.is_empty())
            {
                self.enter(date)?;
                return Ok(false);
            }
            let quoted = self.line_start && self.dialect == MboxDialect::Rd && is_quoted(&self.piece);
            self.ready.append(&mut self.blank);
            let text = &self.piece[usize::from(quoted)..];
            if self.line_start && is_blank(text) {
                self.blank.extend_from_slice(text);
            } else {
                self.ready.extend_from_slice(text);
            }
            self.line_start = self.piece.ends_with(b"\n");
        }
        self.size += self.ready.len() as u64;
        if self.size > self.limit {
            self.ready.clear();
            return Err(MboxError::TooLarge { offset, limit: self.limit });
        }
        Ok(true)
    }
}

impl<R: BufRead> Read for MboxMessage<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mbox = &mut *self.mbox;
        if self.at < self.header.len() {
            let length = (&self.header[self.at..]).read(out)?;
            self.at += length;
            return Ok(length);
        }
        if mbox.size > mbox.limit {
            let (offset, limit) = (self.offset, mbox.limit);
            return Err(io::Error::other(MboxError::TooLarge { offset, limit }));
        }
        if mbox.taken == mbox.ready.len() {
            let State::Inside { offset } = mbox.state else { return Ok(0) };
            match mbox.fill(offset) {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let length = (&mbox.ready[mbox.taken..]).read(out)?;
        mbox.taken += length;
        Ok(length)
    }
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
}

fn is_quoted(line: &[u8]) -> bool {
    let arrows = line.iter().take_while(|byte| **byte == b'>').count();
    arrows > 0 && line[arrows..].starts_with(b"From ")
}

/// Flags as the header of an mbox message holds them.
fn header_keywords(body: &[u8]) -> BTreeSet<Keyword> {
    let mut keywords = BTreeSet::new();
    let mut field: &[u8] = b"";
    for line in body.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty()) {
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        let value = if folded {
            line
        } else {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            field = &line[..colon];
            line.get(colon + 1..).unwrap_or_default()
        };
        let letter =
            |letter, keyword: &str| if value.contains(&letter) { keyword.parse().ok() } else { None };
        if field.eq_ignore_ascii_case(b"Status") {
            keywords.extend(letter(b'R', "\\Seen"));
        } else if field.eq_ignore_ascii_case(b"X-Status") {
            let letters = [(b'A', "\\Answered"), (b'F', "\\Flagged"), (b'T', "\\Draft"), (b'D', "\\Deleted")];
            keywords.extend(letters.iter().filter_map(|(byte, text)| letter(*byte, text)));
        } else if field.eq_ignore_ascii_case(b"X-Keywords") {
            let words =
                value.split(u8::is_ascii_whitespace).filter_map(|word| std::str::from_utf8(word).ok());
            // A system flag does not belong here.
            keywords.extend(
                words.filter_map(|word| word.parse().ok()).filter(|word: &Keyword| !word.is_system()),
            );
        }
    }
    keywords
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RD: MboxDialect = MboxDialect::Rd;
    const O: MboxDialect = MboxDialect::O;
    const FROM: &str = "From a@b Thu Jan  1 00:00:01 1970\n";

    struct Found {
        offset: u64,
        internal_date: Option<i64>,
        keywords: BTreeSet<Keyword>,
        body: Vec<u8>,
    }

    /// The next message as a whole.
    fn next(mbox: &mut Mbox<&[u8]>) -> Option<Result<Found, String>> {
        let mut message = match mbox.next_message() {
            Ok(message) => message?,
            Err(error) => return Some(Err(error.to_string())),
        };
        let mut body = Vec::new();
        let read = message.read_to_end(&mut body);
        let MboxMessage { offset, internal_date, keywords, .. } = message;
        let found = Found { offset, internal_date, keywords, body };
        Some(read.map(|_| found).map_err(|error| error.to_string()))
    }

    fn read(text: &str, dialect: MboxDialect) -> Vec<Result<Found, String>> {
        let mut mbox = Mbox::new(text.as_bytes(), dialect);
        std::iter::from_fn(|| next(&mut mbox)).collect()
    }

    #[test]
    fn bodies() {
        let two = format!("{FROM}A: 1\n\nx\n\n{FROM}B: 2\n\ny\n\n");
        for (text, dialect, bodies) in [
            ("", RD, &[][..]),
            ("\n\n", RD, &[]),
            (&two, RD, &["A: 1\n\nx\n", "B: 2\n\ny\n"]),
            (&two, O, &["A: 1\n\nx\n", "B: 2\n\ny\n"]),
            (&two.replace('\n', "\r\n"), RD, &["A: 1\r\n\r\nx\r\n", "B: 2\r\n\r\ny\r\n"]),
            (&format!("\n{FROM}A: 1\n\nx"), RD, &["A: 1\n\nx"]),
            (FROM, RD, &[""]),
            ("From ", RD, &[""]),
            (&format!("{FROM}\n{FROM}\n"), RD, &["", ""]),
            (&format!("{FROM}A: 1\n\nx\nFrom here\n"), RD, &["A: 1\n\nx\nFrom here\n"]),
            (&format!("{FROM}A: 1\n\n\n\n"), RD, &["A: 1\n\n\n"]),
            (
                &format!("{FROM}A: 1\n\n>From x\n>>From y\n> From z\n"),
                RD,
                &["A: 1\n\nFrom x\n>From y\n> From z\n"],
            ),
            (&format!("{FROM}A: 1\n\n>From x\n"), O, &["A: 1\n\n>From x\n"]),
            (&format!("{FROM}A: 1\n\nFrom here on\n\n"), O, &["A: 1\n\nFrom here on\n"]),
            (&format!("{FROM}A: 1\n\nx\n\nFrom \nB: 2\n"), O, &["A: 1\n\nx\n", "B: 2\n"]),
            (
                &format!("{FROM}Content-Length: 9000\n\nx\n\n{FROM}B: 2\n"),
                RD,
                &["Content-Length: 9000\n\nx\n", "B: 2\n"],
            ),
        ] {
            let found: Vec<String> = read(text, dialect)
                .into_iter()
                .map(|m| String::from_utf8(m.unwrap().body).unwrap())
                .collect();
            assert_eq!(found, bodies, "{text:?}");
        }
    }

    #[test]
    fn offsets_and_dates() {
        let found = read(&format!("\n{FROM}A: 1\n\nFrom ?\nB: 2\n"), RD);
        let found: Vec<_> =
            found.into_iter().map(|m| m.unwrap()).map(|m| (m.offset, m.internal_date)).collect();
        assert_eq!(found, [(1, Some(1)), (1 + FROM.len() as u64 + 6, None)]);
    }

    #[test]
    fn flags_are_read_and_their_headers_stay() {
        let head = "STATUS: RO\nX-Status: AFTD\nX-Keywords: work $junk \\Seen\n  home\nSubject: Status: R\n";
        for text in
            [format!("{FROM}{head}\nX-Keywords: no\n"), format!("{FROM}{head}\n").replace('\n', "\r\n")]
        {
            let message = read(&text, RD).remove(0).unwrap();
            let said: Vec<&str> = message.keywords.iter().map(Keyword::as_str).collect();
            assert_eq!(
                said,
                ["$Junk", "\\Answered", "\\Deleted", "\\Draft", "\\Flagged", "\\Seen", "home", "work"]
            );
            assert!(message.body.starts_with(b"STATUS: RO"));
        }
        assert!(
            read(&format!("{FROM}Status: O\nStatuses: R\n\n"), RD)[0].as_ref().unwrap().keywords.is_empty()
        );
    }

    #[test]
    fn what_is_no_mbox_is_refused() {
        let found = read("\nSubject: x\n", RD).into_iter().map(|found| found.map(drop)).collect::<Vec<_>>();
        assert_eq!(found, [Err("byte 1: an mbox starts with a \"From \" line".into())]);
        assert_eq!(read("From now on\n", O).len(), 1);
        assert!(read("From now on\n", O)[0].is_err());
    }

    #[test]
    fn a_message_over_the_limit_is_named_and_the_next_is_read() {
        let text = format!("{FROM}{}\n\n{FROM}{}\n\n{FROM}c\n", "a".repeat(9), "b".repeat(10));
        let mut mbox = Mbox::new(text.as_bytes(), RD);
        mbox.limit = 10;
        let first = next(&mut mbox).unwrap().unwrap();
        assert_eq!(first.body, b"aaaaaaaaa\n", "the separator's blank line does not count");
        let offset = FROM.len() as u64 + 11;
        let refused = mbox.next_message().unwrap().unwrap().read_to_end(&mut Vec::new()).unwrap_err();
        let refused = refused.get_ref().and_then(|error| error.downcast_ref());
        assert!(matches!(refused, Some(MboxError::TooLarge { offset: o, limit: 10 }) if *o == offset));
        assert_eq!(next(&mut mbox).unwrap().unwrap().body, b"c\n");
        assert!(next(&mut mbox).is_none());
    }

    #[test]
    fn what_is_not_read_of_a_message_is_passed_over() {
        let text = format!("{FROM}A: 1\n\n{}\n\n{FROM}B: 2\n\ny\n", "x\n\n".repeat(100_000));
        let mut mbox = Mbox::new(text.as_bytes(), RD);
        let mut first = mbox.next_message().unwrap().unwrap();
        let mut start = [0; 9];
        first.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"A: 1\n\nx\n\n");
        assert!(mbox.piece.capacity() + mbox.ready.capacity() < 1 << 20);
        assert_eq!(next(&mut mbox).unwrap().unwrap().body, b"B: 2\n\ny\n");
    }

    #[test]
    fn long_lines_go_through_in_pieces() {
        let long = "x".repeat(PIECE as usize) + "From y\n";
        let found = read(&format!("From {long}{long}\n{FROM}b\n"), RD);
        assert_eq!(found[0].as_ref().unwrap().body, long.as_bytes());
        assert_eq!(found[1].as_ref().unwrap().body, b"b\n");
    }

    proptest! {
        #[test]
        fn mboxrd_comes_back(bodies in proptest::collection::vec("([>From x]{0,8}\n|>{0,3}From x\n|\n){0,6}", 1..5)) {
            let mut text = Vec::new();
            for body in &bodies {
                text.extend(FROM.as_bytes());
                for line in body.split_inclusive('\n') {
                    if line.trim_start_matches('>').starts_with("From ") {
                        text.push(b'>');
                    }
                    text.extend(line.as_bytes());
                }
                text.push(b'\n');
            }
            let found: Vec<String> = read(std::str::from_utf8(&text).unwrap(), RD)
                .into_iter().map(|message| String::from_utf8(message.unwrap().body).unwrap()).collect();
            prop_assert_eq!(found, bodies);
        }

        #[test]
        fn no_bytes_panic(text in "(From |>|\n|\r\n|x|Status: R\n|Thu Nov 24 18:22:48 1986){0,12}", o in any::<bool>()) {
            let total: usize = read(&text, if o { O } else { RD }).iter().flatten().map(|m| m.body.len()).sum();
            prop_assert!(total <= text.len());
        }
    }
}
