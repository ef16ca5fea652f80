//! APPEND and REPLACE, whose messages are not gathered (RFC 9051, section 6.3.12; RFC 3502, 4469, 6855, 8508).
//!
//! Their text is read piece by piece: each piece ends with the header of a literal that is streamed, or with the
//! command.

use super::command::Numbering;
use super::date::{DateTime, date_time};
use super::error::{Parsed, Problem};
use super::names::{Flag, MailboxArg, NameEncoding, Tag, flag_list, mailbox, tag};
use super::scanner::{LiteralHeader, Scanner};
use super::set::{SequenceNumber, sequence_number};

/// A piece of APPEND or REPLACE, in the order `Begin`, then for each message `Message`, its texts and URLs (all but
/// CATENATE have one text), `MessageEnd`, then `End`. An error ends the command at any place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendItem {
    /// The command, before its first message.
    Begin(Append),
    /// What is said about the next message.
    Message(MessageHead),
    /// The next octets of the message are those of this IMAP URL (CATENATE).
    Url(Vec<u8>),
    /// The next octets of the message follow, if the session takes them
    /// ([`Reader::accept`](super::Reader::accept), [`Reader::refuse`](super::Reader::refuse)).
    Text(TextHead),
    /// Some of them.
    Chunk(Vec<u8>),
    /// The message is complete.
    MessageEnd,
    /// The command is complete.
    End,
}

/// APPEND or REPLACE without its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// What the client calls the command.
    pub tag: Tag,
    /// Where the messages go.
    pub mailbox: MailboxArg,
    /// Which message goes away, for REPLACE: it is counted in these numbers.
    pub replaces: Option<(Numbering, SequenceNumber)>,
}

/// What is said about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageHead {
    /// Its flags.
    pub flags: Vec<Flag>,
    /// Its internal date; without it, now.
    pub date: Option<DateTime>,
}

/// A literal of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextHead {
    /// Its octets.
    pub size: u64,
    /// Whether the client waits for a continuation before it sends them.
    pub synchronizing: bool,
    /// Whether they may hold NUL (literal8, RFC 3516).
    pub binary: bool,
    /// Whether headers may hold UTF-8: `UTF8 (...)` of RFC 6855.
    pub utf8: bool,
}

/// Whether `text`, the start of a command, is that of APPEND or REPLACE.
pub(super) fn is_append(text: &[u8]) -> bool {
    let mut scanner = Scanner::new(text);
    let mut start = || {
        tag(&mut scanner)?;
        scanner.space()?;
        if scanner.eat_word("UID") {
            scanner.space()?;
            return Ok(scanner.eat_word("REPLACE"));
        }
        Parsed::Ok(scanner.eat_word("APPEND") || scanner.eat_word("REPLACE"))
    };
    start() == Ok(true)
}

/// How far the text of an APPEND or REPLACE was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AppendState {
    at: Place,
    only_one: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    BeforeMessage,
    AfterMessage,
    AfterText,
    AfterUtf8Text,
    BeforePart,
    AfterPart,
    AfterUtf8Part,
}

/// How a piece of the text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceEnd {
    Text(TextHead),
    Command,
}

impl AppendState {
    pub(super) fn new() -> AppendState {
        AppendState { at: Place::Start, only_one: false }
    }

    /// Reads the next piece. A fault at the very end of a text that ends with the header of a literal means that this
    /// is an ordinary one, to be gathered with what follows it. After a fault nothing has changed.
    pub(super) fn piece(&mut self, text: &[u8], names: NameEncoding) -> Parsed<(Vec<AppendItem>, PieceEnd)> {
        let mut state = *self;
        let mut scanner = Scanner::new(text);
        let mut items = Vec::new();
        let end = loop {
            if let Some(end) = state.step(&mut scanner, names, &mut items)? {
                break end;
            }
        };
        *self = state;
        Ok((items, end))
    }

    fn step(
        &mut self,
        scanner: &mut Scanner<'_>,
        names: NameEncoding,
        items: &mut Vec<AppendItem>,
    ) -> Parsed<Option<PieceEnd>> {
        match self.at {
            Place::Start => {
                let append = begin(scanner, names)?;
                self.only_one = append.replaces.is_some();
                items.push(AppendItem::Begin(append));
                self.at = Place::BeforeMessage;
            }
            Place::AfterMessage if scanner.at_end() => {
                items.push(AppendItem::End);
                return Ok(Some(PieceEnd::Command));
            }
            Place::AfterMessage if self.only_one => return Err(scanner.expected("the end of the command")),
            Place::BeforeMessage | Place::AfterMessage => {
                items.push(AppendItem::Message(message_head(scanner)?));
                return self.message_data(scanner);
            }
            Place::AfterText => self.message_end(items),
            Place::AfterUtf8Text => {
                scanner.close()?;
                self.message_end(items);
            }
            Place::BeforePart => return self.part(scanner, items),
            Place::AfterUtf8Part => {
                scanner.close()?;
                self.at = Place::AfterPart;
            }
            Place::AfterPart if scanner.eat(b')') => self.message_end(items),
            Place::AfterPart => {
                scanner.expect(b' ', "a space or \")\"")?;
                self.at = Place::BeforePart;
            }
        }
        Ok(None)
    }

    fn message_end(&mut self, items: &mut Vec<AppendItem>) {
        items.push(AppendItem::MessageEnd);
        self.at = Place::AfterMessage;
    }

    fn message_data(&mut self, scanner: &mut Scanner<'_>) -> Parsed<Option<PieceEnd>> {
        if scanner.eat_word("CATENATE") {
            scanner.space()?;
            scanner.open()?;
            self.at = Place::BeforePart;
            Ok(None)
        } else if scanner.eat_word("UTF8") {
            self.at = Place::AfterUtf8Text;
            utf8_text(scanner)
        } else {
            self.at = Place::AfterText;
            text(scanner, true)
        }
    }

    fn part(&mut self, scanner: &mut Scanner<'_>, items: &mut Vec<AppendItem>) -> Parsed<Option<PieceEnd>> {
        if scanner.eat_word("TEXT") {
            scanner.space()?;
            self.at = Place::AfterPart;
            text(scanner, false)
        } else if scanner.eat_word("UTF8") {
            self.at = Place::AfterUtf8Part;
            utf8_text(scanner)
        } else if scanner.eat_word("URL") {
            scanner.space()?;
            let url = scanner.astring("an IMAP URL")?.into_owned();
            items.push(AppendItem::Url(url));
            self.at = Place::AfterPart;
            Ok(None)
        } else {
            Err(scanner.expected("TEXT, UTF8 or URL"))
        }
    }
}

fn begin(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<Append> {
    let tag = tag(scanner)?;
    scanner.space()?;
    let uid = scanner.eat_word("UID");
    if uid {
        scanner.space()?;
    }
    let numbering = if uid { Numbering::Uid } else { Numbering::Sequence };
    let mut replaces = None;
    if scanner.eat_word("REPLACE") {
        scanner.space()?;
        replaces = Some((numbering, sequence_number(scanner)?));
    } else if uid || !scanner.eat_word("APPEND") {
        return Err(scanner.fault(Problem::UnknownCommand));
    }
    scanner.space()?;
    Ok(Append { tag, mailbox: mailbox(scanner, names)?, replaces })
}

/// ` (\Seen) "17-Jul-1996 02:44:25 -0700" `, with the space after it.
fn message_head(scanner: &mut Scanner<'_>) -> Parsed<MessageHead> {
    scanner.space()?;
    let mut head = MessageHead { flags: Vec::new(), date: None };
    if scanner.peek() == Some(b'(') {
        head.flags = flag_list(scanner)?;
        scanner.space()?;
    }
    if scanner.peek() == Some(b'"') {
        head.date = Some(date_time(scanner)?);
        scanner.space()?;
    }
    Ok(head)
}

/// The header of a literal that the piece ends with.
fn text(scanner: &mut Scanner<'_>, may_be_binary: bool) -> Parsed<Option<PieceEnd>> {
    let expected = scanner.expected("the literal of a message");
    let LiteralHeader { size, synchronizing, binary } = scanner.literal_header().map_err(|_| expected)?;
    if binary && !may_be_binary || !scanner.at_end() {
        return Err(expected);
    }
    Ok(Some(PieceEnd::Text(TextHead { size, synchronizing, binary, utf8: false })))
}

/// ` (~{12}`
fn utf8_text(scanner: &mut Scanner<'_>) -> Parsed<Option<PieceEnd>> {
    scanner.space()?;
    scanner.open()?;
    let expected = scanner.expected("a literal8");
    match text(scanner, true)? {
        Some(PieceEnd::Text(head)) if head.binary => {
            Ok(Some(PieceEnd::Text(TextHead { utf8: true, ..head })))
        }
        _ => Err(expected),
    }
}
