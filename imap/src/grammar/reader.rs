//! Cuts what a client sends into commands, without I/O.
//!
//! 1. [`Reader::push`] what was received.
//! 2. [`Reader::poll`] until it gives nothing; act on each item before the next poll, as it may change how the rest is
//!    read ([`Reader::set_names`], [`Reader::set_limits`], [`Reader::expect_line`], [`Reader::take_input`]).
//! 3. Receive more. So the reader holds no more than what is pushed at once and one command within [`Limits`].
//!
//! A line may end with a bare LF, as Dovecot takes it too: people type commands by hand.

use std::collections::VecDeque;
use std::fmt;

use super::append::{AppendItem, AppendState, PieceEnd, TextHead, is_append};
use super::command::Command;
use super::error::{CommandError, Fault, Problem};
use super::names::{NameEncoding, Tag};
use super::scanner::{LiteralHeader, Scanner};
use super::session::Secret;

/// How much of a client's commands is held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of one command outside its literals, line ends and headers of literals included. It also bounds how many
    /// literals there can be.
    pub line: usize,
    /// Octets of all literals of one command together; messages do not count.
    pub literals: usize,
    /// Octets of refused literals of one command that are read and thrown away. Beyond it the connection has to end,
    /// as there is no other way to stop a client that does not wait (RFC 7888, section 4).
    pub swallow: u64,
}

impl Limits {
    /// Before login: room for LOGIN with a long password and for SASL tokens, no more for strangers.
    pub const BEFORE_LOGIN: Limits = Limits { line: 8 << 10, literals: 4 << 10, swallow: 64 << 10 };
    /// After login: clients put thousands of UIDs into one command (RFC 7162, section 4, would have them stop at about
    /// 8,192 octets), and a refused message of usual size should not cost the connection.
    pub const AFTER_LOGIN: Limits = Limits { line: 64 << 10, literals: 64 << 10, swallow: 64 << 20 };
}

/// What the client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A command.
    Command(Command),
    /// A line that was asked for with [`Reader::expect_line`], without its end. It may hold a password.
    Line(Secret),
    /// A piece of APPEND or REPLACE.
    Append(AppendItem),
    /// Something that is no command, or too much of one. Reading goes on after it.
    Bad(CommandError),
    /// The client waits for `+` before it sends the rest of a command.
    Continue,
    /// The client sends more than can be thrown away. Say BYE; nothing more is read.
    Overrun,
}

/// Cuts what a client sends into commands; the module's doc says how to drive it.
pub struct Reader {
    limits: Limits,
    names: NameEncoding,
    input: Vec<u8>,
    /// How much of `input` was read.
    read: usize,
    /// The command so far: its lines, and its literals with their headers. Of APPEND, only what follows the last
    /// streamed literal.
    text: Vec<u8>,
    /// Where in `text` the line begins that is being read.
    line: usize,
    /// Octets of literals in `text`.
    literals: usize,
    append: Option<Streaming>,
    swallowed: u64,
    state: State,
    want_line: bool,
    items: VecDeque<Item>,
}

/// An APPEND of which something was streamed.
#[derive(Debug)]
struct Streaming {
    tag: Tag,
    state: AppendState,
    /// Octets of the command before what is in `text`, without messages.
    before: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Gathers a line of a command.
    Line,
    /// Gathers so many octets of a literal.
    Literal(usize),
    /// Waits for the session to take the text of a message or not.
    Offered(TextHead),
    /// Hands out so many octets of a message.
    Stream(u64),
    /// Throws away so many octets of a literal, then the rest of the command.
    Swallow(u64),
    /// Throws away a line, and the literals that follow it unasked.
    SkipLine,
    /// Reads nothing more.
    Overrun,
}

/// The longest header of a literal with its line end: `~{9223372036854775807+}` CR LF.
const LONGEST_HEADER: usize = 25;

impl Reader {
    /// A reader at the start of a session.
    pub fn new(limits: Limits) -> Reader {
        Reader {
            limits,
            names: NameEncoding::ModifiedUtf7,
            input: Vec::new(),
            read: 0,
            text: Vec::new(),
            line: 0,
            literals: 0,
            append: None,
            swallowed: 0,
            state: State::Line,
            want_line: false,
            items: VecDeque::new(),
        }
    }

    /// Sets how much is held for commands from the next on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Sets how mailbox names are spelled in commands from the next on.
    pub fn set_names(&mut self, names: NameEncoding) {
        self.names = names;
    }

    /// Hands the next line out as it is: an answer in the course of AUTHENTICATE, or the DONE that ends IDLE. If that
    /// line is too long, it comes as [`Item::Bad`] without a tag.
    pub fn expect_line(&mut self) {
        self.want_line = true;
    }

    /// Takes what was received but not read: the start of a compressed stream after COMPRESS; to be thrown away after
    /// STARTTLS, as anybody could have sent it.
    pub fn take_input(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.input);
        rest.drain(..std::mem::take(&mut self.read));
        rest
    }

    /// Takes received octets.
    pub fn push(&mut self, octets: &[u8]) {
        self.input.drain(..std::mem::take(&mut self.read));
        self.input.extend_from_slice(octets);
    }

    /// The next item; nothing until more is pushed, or an offered text is accepted or refused.
    pub fn poll(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Some(item);
            }
            let moved = match self.state {
                State::Line => self.read_line(),
                State::Literal(left) => self.read_literal(left),
                State::Stream(left) => self.stream(left),
                State::Swallow(left) => self.swallow(left),
                State::SkipLine => self.skip_line(),
                State::Offered(_) | State::Overrun => false,
            };
            if !moved && self.items.is_empty() {
                return None;
            }
        }
    }

    /// Takes the text that was offered last ([`AppendItem::Text`]); if the client waits, `+` has to be sent to it.
    /// Does nothing if no text is on offer.
    pub fn accept(&mut self) {
        if let State::Offered(head) = self.state {
            self.state = State::Stream(head.size);
        }
    }

    /// Wants nothing more of the APPEND or REPLACE that is being read: what follows is thrown away, and the session
    /// gives the answer now. Does nothing outside of one.
    pub fn refuse(&mut self) {
        let unasked = self.items.contains(&Item::Continue);
        self.items.retain(|item| !matches!(item, Item::Append(_) | Item::Continue));
        match self.state {
            _ if self.append.is_none() => {}
            State::Offered(head) => self.drop_command(Some((head.synchronizing, head.size))),
            State::Stream(left) => self.drop_command(Some((false, left))),
            State::Literal(left) => self.drop_command(Some((unasked, left as u64))),
            _ => self.drop_line(),
        }
    }

    fn read_line(&mut self) -> bool {
        let rest = &self.input[self.read..];
        let (len, complete) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (rest.len(), false),
        };
        let room = self.limits.line.saturating_sub(self.text.len() - self.literals);
        let taken = len.min(room);
        self.text.extend_from_slice(&rest[..taken]);
        self.read += taken;
        if taken < len {
            self.line_too_long();
        } else if complete {
            self.line_complete();
        }
        len > 0
    }

    fn line_too_long(&mut self) {
        let problem = Problem::Limit { what: "octets in a line", max: self.limits.line };
        if std::mem::take(&mut self.want_line) {
            // It begins with no tag.
            self.items.push_back(Item::Bad(CommandError { tag: None, at: self.text.len(), problem }));
        } else {
            self.bad(Fault { at: self.text.len(), problem });
        }
        self.drop_line();
    }

    /// Throws away the line of which some is in `text`: also that may be a part of the header of a literal.
    fn drop_line(&mut self) {
        let tail = self.text.len().saturating_sub(LONGEST_HEADER).max(self.line);
        let tail = self.text.split_off(tail);
        self.finish_command();
        self.text = tail;
        self.state = State::SkipLine;
    }

    fn line_complete(&mut self) {
        let line = &self.text[self.line..];
        if std::mem::take(&mut self.want_line) {
            let line = without_line_end(line).to_vec();
            self.items.push_back(Item::Line(Secret::new(line)));
            return self.finish_command();
        }
        if without_line_end(&self.text).is_empty() && self.append.is_none() {
            // Nothing at all is no command: clients were seen to send one line end too many.
            return self.finish_command();
        }
        let header = literal_header_at_end(line);
        if self.append.is_some() || is_append(&self.text) {
            self.append_piece(header);
        } else if let Some(header) = header {
            self.gather(header);
        } else {
            match Command::parse(without_line_end(&self.text), self.names) {
                Ok(command) => self.items.push_back(Item::Command(command)),
                Err(error) => self.items.push_back(Item::Bad(error)),
            }
            self.finish_command();
        }
    }

    /// Makes room for an ordinary literal.
    fn gather(&mut self, header: LiteralHeader) {
        let room = self.limits.literals.saturating_sub(self.literals);
        match usize::try_from(header.size) {
            Ok(size) if size <= room => {
                if header.synchronizing {
                    self.items.push_back(Item::Continue);
                }
                self.literals += size;
                self.state = State::Literal(size);
            }
            _ => {
                let problem = Problem::Limit { what: "octets in literals", max: self.limits.literals };
                self.bad(Fault { at: self.text.len(), problem });
                self.drop_command(Some((header.synchronizing, header.size)));
            }
        }
    }

    fn append_piece(&mut self, header: Option<LiteralHeader>) {
        let mut state = self.append.as_ref().map_or_else(AppendState::new, |streaming| streaming.state);
        let text = if header.is_some() { &self.text[..] } else { without_line_end(&self.text) };
        match (state.piece(text, self.names), header) {
            (Ok((items, end)), _) => {
                self.items.extend(items.into_iter().map(Item::Append));
                match end {
                    PieceEnd::Text(head) => {
                        self.items.push_back(Item::Append(AppendItem::Text(head)));
                        self.keep_append(state);
                        self.state = State::Offered(head);
                    }
                    PieceEnd::Command => self.finish_command(),
                }
            }
            // All was read but not enough of it: this literal belongs to the text, and more follows.
            (Err(fault), Some(header)) if fault.at == self.text.len() => self.gather(header),
            (Err(fault), header) => {
                self.bad(fault);
                self.drop_command(header.map(|header| (header.synchronizing, header.size)));
            }
        }
    }

    /// Forgets the text of an APPEND that was read, but not where it stands.
    fn keep_append(&mut self, state: AppendState) {
        match &mut self.append {
            Some(streaming) => {
                streaming.state = state;
                streaming.before += self.text.len();
            }
            None => {
                let tag = Tag::of_line(&self.text);
                self.append = tag.map(|tag| Streaming { tag, state, before: self.text.len() });
            }
        }
        self.text.clear();
        self.line = 0;
        self.literals = 0;
    }

    fn read_literal(&mut self, left: usize) -> bool {
        let rest = &self.input[self.read..];
        let taken = rest.len().min(left);
        self.text.extend_from_slice(&rest[..taken]);
        self.read += taken;
        self.state = State::Literal(left - taken);
        if taken == left {
            self.line = self.text.len();
            self.state = State::Line;
        }
        taken > 0 || left == 0
    }

    fn stream(&mut self, left: u64) -> bool {
        let rest = &self.input[self.read..];
        let taken = usize::try_from(left).map_or(rest.len(), |left| rest.len().min(left));
        if taken > 0 {
            let whole = self.read == 0 && taken == self.input.len();
            let chunk = if whole { std::mem::take(&mut self.input) } else { rest[..taken].to_vec() };
            self.read += if whole { 0 } else { taken };
            self.items.push_back(Item::Append(AppendItem::Chunk(chunk)));
        }
        let left = left - taken as u64;
        self.state = if left == 0 { State::Line } else { State::Stream(left) };
        taken > 0 || left == 0
    }

    fn swallow(&mut self, left: u64) -> bool {
        let rest = self.input.len() - self.read;
        let taken = usize::try_from(left).map_or(rest, |left| rest.min(left));
        self.read += taken;
        let left = left - taken as u64;
        self.state = if left == 0 { State::SkipLine } else { State::Swallow(left) };
        taken > 0 || left == 0
    }

    fn skip_line(&mut self) -> bool {
        let rest = &self.input[self.read..];
        let (len, complete) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (rest.len(), false),
        };
        self.text.extend_from_slice(&rest[len.saturating_sub(LONGEST_HEADER)..len]);
        self.text.drain(..self.text.len().saturating_sub(LONGEST_HEADER));
        self.read += len;
        if complete {
            let header = literal_header_at_end(&self.text);
            self.drop_command(header.map(|header| (header.synchronizing, header.size)));
        }
        len > 0
    }

    /// The command is answered; what is still to come of it is thrown away. `literal` is what its text ended with:
    /// whether the client waits, and how many octets.
    fn drop_command(&mut self, literal: Option<(bool, u64)>) {
        match literal {
            Some((false, octets)) => {
                let swallowed = self.swallowed.saturating_add(octets);
                self.finish_command();
                self.swallowed = swallowed;
                self.state = State::Swallow(octets);
                if swallowed > self.limits.swallow {
                    self.state = State::Overrun;
                    self.items.push_back(Item::Overrun);
                }
            }
            // A client that waits takes the answer for its command and sends no more of it.
            Some((true, _)) | None => self.finish_command(),
        }
    }

    fn finish_command(&mut self) {
        self.text.clear();
        self.line = 0;
        self.literals = 0;
        self.append = None;
        self.swallowed = 0;
        self.state = State::Line;
    }

    fn bad(&mut self, fault: Fault) {
        let (tag, before) = match &self.append {
            Some(streaming) => (Some(streaming.tag.clone()), streaming.before),
            None => (Tag::of_line(&self.text), 0),
        };
        self.items.push_back(Item::Bad(CommandError { tag, at: before + fault.at, problem: fault.problem }));
    }
}

impl fmt::Debug for Reader {
    /// Tells nothing of what was received, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unread = self.input.len() - self.read;
        f.debug_struct("Reader")
            .field("state", &self.state)
            .field("gathered", &self.text.len())
            .field("unread", &unread)
            .finish_non_exhaustive()
    }
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The header of a literal that `line` (with its end) ends with.
fn literal_header_at_end(line: &[u8]) -> Option<LiteralHeader> {
    let tail = &line[line.len().saturating_sub(LONGEST_HEADER)..];
    let open = tail.iter().rposition(|byte| *byte == b'{')?;
    let start = if open > 0 && tail[open - 1] == b'~' { open - 1 } else { open };
    let mut scanner = Scanner::new(&tail[start..]);
    scanner.literal_header().ok().filter(|_| scanner.at_end())
}
