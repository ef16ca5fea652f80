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

/// One message of an mbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MboxMessage {
    /// Where its `From ` line starts in the file.
    pub offset: u64,
    /// The date of that line, in Unix seconds.
    pub internal_date: Option<i64>,
    /// What its `Status`, `X-Status` and `X-Keywords` say.
    pub keywords: BTreeSet<Keyword>,
    /// The message, those headers included, line ends as they were.
    pub body: Vec<u8>,
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

/// The messages of an mbox, in file order. Holds one at a time. `Content-Length` is ignored: it is wrong in any
/// file that a program without it touched.
pub struct Mbox<R> {
    input: R,
    dialect: MboxDialect,
    limit: u64,
    state: State,
    /// The bytes read so far.
    offset: u64,
    piece: Vec<u8>,
}

enum State {
    Start,
    /// Behind the `From ` line that starts at `offset`.
    Message {
        offset: u64,
        internal_date: Option<i64>,
    },
    End,
}

impl<R: BufRead> Mbox<R> {
    /// Reads from the start of a file.
    pub fn new(input: R, dialect: MboxDialect) -> Mbox<R> {
        Mbox { input, dialect, limit: MAX_BLOB, state: State::Start, offset: 0, piece: Vec::new() }
    }

    /// Fills `piece` with the next line, or as much of it as is held at once; false at the end.
    fn next_piece(&mut self) -> Result<bool, MboxError> {
        self.piece.clear();
        let read = (&mut self.input).take(PIECE).read_until(b'\n', &mut self.piece);
        let offset = self.offset;
        let read = read.map_err(|source| MboxError::Io { offset, source })?;
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

    /// Reads up to the next separator and enters the message behind it.
    fn message(&mut self, offset: u64, internal_date: Option<i64>) -> Result<MboxMessage, MboxError> {
        self.state = State::End;
        let mut body = Vec::new();
        let mut size = 0;
        let (mut line_start, mut after_blank) = (true, false);
        let mut blank_len = 0;
        while self.next_piece()? {
            if line_start && let Some(date) = self.separator(after_blank) {
                self.enter(date)?;
                break;
            }
            let quoted = line_start && self.dialect == MboxDialect::Rd && is_quoted(&self.piece);
            let text = &self.piece[usize::from(quoted)..];
            size += text.len() as u64;
            // One blank line more than the limit may turn out to be the separator's.
            if size <= self.limit + 2 {
                body.extend_from_slice(text);
            }
            after_blank = line_start && is_blank(&self.piece);
            blank_len = if after_blank { text.len() } else { 0 };
            line_start = self.piece.ends_with(b"\n");
        }
        // The blank line before a separator, or at the end, belongs to the mbox.
        size -= blank_len as u64;
        if size > self.limit {
            return Err(MboxError::TooLarge { offset, limit: self.limit });
        }
        body.truncate(body.len() - blank_len);
        Ok(MboxMessage { offset, internal_date, keywords: header_keywords(&body), body })
    }
}

impl<R: BufRead> Iterator for Mbox<R> {
    type Item = Result<MboxMessage, MboxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let State::Start = self.state
            && let Err(error) = self.start()
        {
            self.state = State::End;
            return Some(Err(error));
        }
        let State::Message { offset, internal_date } = self.state else { return None };
        let result = self.message(offset, internal_date);
        if let Err(MboxError::Io { .. }) = result {
            self.state = State::End;
        }
        Some(result)
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

    fn read(text: &str, dialect: MboxDialect) -> Vec<Result<MboxMessage, String>> {
        Mbox::new(text.as_bytes(), dialect).map(|result| result.map_err(|error| error.to_string())).collect()
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
        assert_eq!(read("\nSubject: x\n", RD), [Err("byte 1: an mbox starts with a \"From \" line".into())]);
        assert_eq!(read("From now on\n", O).len(), 1);
        assert!(read("From now on\n", O)[0].is_err());
    }

    #[test]
    fn a_message_over_the_limit_is_named_and_the_next_is_read() {
        let text = format!("{FROM}{}\n\n{FROM}{}\n\n{FROM}c\n", "a".repeat(9), "b".repeat(10));
        let mut mbox = Mbox::new(text.as_bytes(), RD);
        mbox.limit = 10;
        assert_eq!(
            mbox.next().unwrap().unwrap().body,
            b"aaaaaaaaa\n",
            "the separator's blank line does not count"
        );
        let offset = FROM.len() as u64 + 11;
        assert!(
            matches!(mbox.next(), Some(Err(MboxError::TooLarge { offset: o, limit: 10 })) if o == offset)
        );
        assert_eq!(mbox.next().unwrap().unwrap().body, b"c\n");
        assert!(mbox.next().is_none());
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
            let found: Vec<String> = Mbox::new(&text[..], RD)
                .map(|message| String::from_utf8(message.unwrap().body).unwrap()).collect();
            prop_assert_eq!(found, bodies);
        }

        #[test]
        fn no_bytes_panic(text in "(From |>|\n|\r\n|x|Status: R\n|Thu Nov 24 18:22:48 1986){0,12}", o in any::<bool>()) {
            let total: usize = read(&text, if o { O } else { RD }).iter().flatten().map(|m| m.body.len()).sum();
            prop_assert!(total <= text.len());
        }
    }
}
