//! One conversation in LMTP (RFC 2033), without I/O.
//!
//! How it is driven:
//! 1. send what [`Session::poll_send`] gives;
//! 2. act on what [`Session::poll_event`] gives; [`Event::Recipient`] and [`Event::End`] are questions, and nothing
//!    happens until they are answered;
//! 3. when it gives nothing, read, and give that to [`Session::receive`].
//!
//! Held in memory are a line, or what was received last, and the answers to that.

use smtp_proto::{
    Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_SMTPUTF8, MailFrom, RcptTo, Request as Command,
};

use super::dots::Dots;
use super::reply::Reply;

/// Longest command. RFC 5321, section 4.5.3.1, gives a path 256 bytes and a command 512; extensions add some hundred.
const MAX_LINE: usize = 2048;
/// Most recipients of a message: RFC 5321, section 4.5.3.1.8, wants 100 at least. Further ones are refused for now.
pub(super) const MAX_RECIPIENTS: usize = 100;
/// Commands that made no sense, after which this is no mail server.
const MAX_MISTAKES: u32 = 20;

/// What whoever drives a session has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Finds out whose address this is; the answer goes to [`Session::recipient`].
    Recipient {
        /// The address, without its quotes. An empty one is that of the postmaster.
        address: String,
    },
    /// A message follows, for all recipients that were taken since the last [`Event::Forget`].
    Begin {
        /// Who gets it back if need be; empty if nobody does.
        sender: String,
    },
    /// The next piece of the message.
    Text(Vec<u8>),
    /// The message is whole; what became of it goes to [`Session::delivered`].
    End,
    /// There are no recipients any more.
    Forget,
    /// The conversation is over, once what is to be sent is sent.
    Close,
}

/// What is expected next.
enum Stage {
    /// LHLO.
    Greeting,
    /// MAIL.
    Ready,
    /// RCPT or DATA.
    Envelope { sender: String, utf8: bool, recipients: usize },
    /// A message's text.
    Text { recipients: usize, dots: Dots },
}

/// What must be answered before anything goes on.
#[derive(PartialEq, Eq)]
enum Question {
    Recipient,
    /// How the message fared with so many recipients.
    Message(usize),
}

pub(super) struct Session {
    host: String,
    /// Largest message in bytes.
    max_size: u64,
    stage: Stage,
    asked: Option<Question>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The line that comes is too long: the rest of it is passed over.
    too_long: bool,
    mistakes: u32,
    /// An event behind the one that was given last.
    next: Option<Event>,
    closed: bool,
}

impl Session {
    /// Begins. `host` is what this machine calls itself.
    pub(super) fn new(host: &str, max_size: u64) -> Session {
        let mut session = Session {
            host: host.to_owned(),
            max_size,
            stage: Stage::Greeting,
            asked: None,
            input: Vec::new(),
            output: Vec::new(),
            too_long: false,
            mistakes: 0,
            next: None,
            closed: false,
        };
        session.say(&format!("220 {host} LMTP"));
        session
    }

    /// Takes bytes from the client.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.input.extend_from_slice(bytes);
        }
    }

    /// What is to be sent, as far as it is known.
    pub(super) fn poll_send(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.output)).filter(|output| !output.is_empty())
    }

    /// The next thing to do. Nothing while a question waits for its answer, or until something is received.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.next.take() {
            return Some(event);
        }
        while self.asked.is_none() && !self.closed {
            let event = match self.stage {
                Stage::Text { .. } if self.input.is_empty() => return None,
                Stage::Text { .. } => self.text(),
                _ => {
                    let line = self.line()?;
                    self.command(&line)
                }
            };
            if event.is_some() {
                return event;
            }
        }
        self.next.take()
    }

    /// Says whether the recipient is taken.
    pub(super) fn recipient(&mut self, answer: Result<(), Reply>) {
        if self.asked.take() != Some(Question::Recipient) {
            return;
        }
        match (answer, &mut self.stage) {
            (Ok(()), Stage::Envelope { recipients, .. }) => {
                *recipients += 1;
                self.say("250 2.1.5 taken");
            }
            (Ok(()), _) => {}
            (Err(reply), _) => self.say(&reply.to_string()),
        }
    }

    /// Says what became of the message, for each recipient that was taken, in their order (RFC 2033, section 4.2).
    pub(super) fn delivered(&mut self, replies: &[Reply]) {
        if let Some(Question::Message(count)) = self.asked.take() {
            // One line too few would shift the meaning of all that follow.
            assert_eq!(replies.len(), count, "there is a reply for each recipient");
            for reply in replies {
                self.say(&reply.to_string());
            }
        }
    }

    /// Ends the conversation for a reason that lies outside of it.
    pub(super) fn end(&mut self, reply: &Reply) {
        self.say(&reply.to_string());
        self.close();
    }

    /// Whether a message is being received.
    pub(super) fn is_inside_message(&self) -> bool {
        matches!(self.stage, Stage::Text { .. })
    }

    fn close(&mut self) -> Option<Event> {
        if !std::mem::replace(&mut self.closed, true) {
            self.input = Vec::new();
            self.next = Some(Event::Close);
        }
        None
    }

    fn say(&mut self, line: &str) {
        if !self.closed {
            self.output.extend_from_slice(line.as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
    }

    /// The next whole line with its line end.
    fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
                if self.input.len() > MAX_LINE {
                    self.too_long = true;
                }
                if self.too_long {
                    self.input.clear();
                }
                return None;
            };
            let rest = self.input.split_off(end + 1);
            let line = std::mem::replace(&mut self.input, rest);
            if std::mem::take(&mut self.too_long) || line.len() > MAX_LINE {
                self.mistake("500 5.5.6 the line is too long");
                if self.closed {
                    return None;
                }
                continue;
            }
            return Some(line);
        }
    }

    fn text(&mut self) -> Option<Event> {
        let Stage::Text { recipients, dots } = &mut self.stage else { return None };
        let mut text = Vec::new();
        let input = std::mem::take(&mut self.input);
        if let Some(end) = dots.push(&input, &mut text) {
            self.input = input[end..].to_vec();
            self.asked = Some(Question::Message(*recipients));
            self.stage = Stage::Ready;
            if text.is_empty() {
                return Some(Event::End);
            }
            self.next = Some(Event::End);
        }
        Some(Event::Text(text)).filter(|event| *event != Event::Text(Vec::new()))
    }

    fn command(&mut self, line: &[u8]) -> Option<Event> {
        let text = match std::str::from_utf8(line) {
            Ok(text) if text.ends_with("\r\n") => text.trim_end_matches("\r\n"),
            Ok(_) => return self.mistake("500 5.5.2 a line ends with CR LF"),
            Err(_) => return self.mistake("500 5.5.2 that is not UTF-8"),
        };
        // The parser takes these for parts of names, or passes over them.
        if text.chars().any(char::is_control) {
            return self.mistake("500 5.5.2 a command holds no control characters");
        }
        match Command::parse(&mut line.iter()) {
            Ok(command) => self.obey(command.into_owned()),
            // Users have names, so scripts leave out the domain; the parser insists on one.
            Err(Error::InvalidRecipientAddress) if !text.contains('@') => {
                let whole = text.replacen('>', "@localhost>", 1) + "\r\n";
                match Command::parse(&mut whole.as_bytes().iter()) {
                    Ok(Command::Rcpt { to }) => self.rcpt(to.into_owned()),
                    _ => self.mistake("553 5.1.3 that is no address"),
                }
            }
            Err(Error::InvalidSenderAddress) => self.mistake("553 5.1.7 that is no address"),
            Err(Error::InvalidRecipientAddress) => self.mistake("553 5.1.3 that is no address"),
            Err(Error::SyntaxError { syntax }) => self.mistake(&format!("501 5.5.4 write: {syntax}")),
            Err(Error::InvalidParameter { .. }) => self.mistake("501 5.5.4 a parameter has a wrong value"),
            Err(Error::UnsupportedParameter { .. }) => {
                self.mistake("555 5.5.4 there is no such parameter here")
            }
            Err(_) => self.mistake("500 5.5.1 there is no such command"),
        }
    }

    fn obey(&mut self, command: Command<String>) -> Option<Event> {
        match command {
            Command::Lhlo { .. } => {
                let greeting = [
                    format!("250-{}", self.host),
                    "250-PIPELINING".into(),
                    format!("250-SIZE {}", self.max_size),
                    "250-8BITMIME".into(),
                    "250-SMTPUTF8".into(),
                    "250 ENHANCEDSTATUSCODES".into(),
                ];
                greeting.iter().for_each(|line| self.say(line));
                self.reset()
            }
            // RFC 2033, section 4.1.
            Command::Helo { .. } | Command::Ehlo { .. } => self.mistake("500 5.5.1 this is LMTP: say LHLO"),
            Command::Mail { from } => self.mail(from),
            Command::Rcpt { to } => self.rcpt(to),
            Command::Data => self.data(),
            Command::Rset => {
                self.say("250 2.0.0 forgotten");
                if matches!(self.stage, Stage::Greeting) { None } else { self.reset() }
            }
            Command::Noop { .. } => {
                self.say("250 2.0.0 nothing done");
                None
            }
            Command::Vrfy { .. } => {
                self.say("252 2.5.0 RCPT tells");
                None
            }
            Command::Quit => {
                self.say(&format!("221 2.0.0 {} is done", self.host));
                self.close()
            }
            other => self.mistake(&format!("502 5.5.1 there is no {} here", other.name())),
        }
    }

    fn reset(&mut self) -> Option<Event> {
        let before = std::mem::replace(&mut self.stage, Stage::Ready);
        matches!(before, Stage::Envelope { .. }).then_some(Event::Forget)
    }

    fn mail(&mut self, from: MailFrom<String>) -> Option<Event> {
        match self.stage {
            Stage::Ready => {}
            Stage::Greeting => return self.mistake("503 5.5.1 first comes LHLO"),
            _ => return self.mistake("503 5.5.1 there is a sender already"),
        }
        let MailFrom { address, flags, size, .. } = &from;
        // What was not offered is refused: whoever asks for REQUIRETLS relies on it.
        let offered =
            MailFrom { address: address.clone(), flags: *flags, size: *size, ..MailFrom::default() };
        if from != offered || flags & !(MAIL_BODY_7BIT | MAIL_BODY_8BITMIME | MAIL_SMTPUTF8) != 0 {
            return self.mistake("555 5.5.4 there is no such parameter here");
        }
        let utf8 = flags & MAIL_SMTPUTF8 != 0;
        if !utf8 && !address.is_ascii() {
            return self.mistake("553 5.6.7 such an address needs SMTPUTF8");
        }
        if u64::try_from(*size).is_ok_and(|size| size > self.max_size) {
            self.say("552 5.3.4 the message is too large");
            return None;
        }
        self.stage = Stage::Envelope { sender: from.address, utf8, recipients: 0 };
        self.say("250 2.1.0 taken");
        // What an earlier message left.
        Some(Event::Forget)
    }

    fn rcpt(&mut self, to: RcptTo<String>) -> Option<Event> {
        let Stage::Envelope { utf8, recipients, .. } = self.stage else {
            return self.mistake("503 5.5.1 first comes MAIL");
        };
        if to != (RcptTo { address: to.address.clone(), ..RcptTo::default() }) {
            return self.mistake("555 5.5.4 there is no such parameter here");
        }
        if !utf8 && !to.address.is_ascii() {
            return self.mistake("553 5.6.7 such an address needs SMTPUTF8");
        }
        if recipients >= MAX_RECIPIENTS {
            self.say(&format!("452 4.5.3 {MAX_RECIPIENTS} recipients at once are the most"));
            return None;
        }
        self.asked = Some(Question::Recipient);
        Some(Event::Recipient { address: to.address })
    }

    fn data(&mut self) -> Option<Event> {
        let Stage::Envelope { sender, recipients, .. } = &mut self.stage else {
            return self.mistake("503 5.5.1 first comes MAIL");
        };
        // RFC 2033, section 4.2: it would have to be answered by no reply at all.
        if *recipients == 0 {
            return self.mistake("503 5.5.1 there are no recipients");
        }
        let (sender, recipients) = (std::mem::take(sender), *recipients);
        self.stage = Stage::Text { recipients, dots: Dots::default() };
        self.say("354 the message, then a dot on a line of its own");
        Some(Event::Begin { sender })
    }

    fn mistake(&mut self, reply: &str) -> Option<Event> {
        self.say(reply);
        self.mistakes += 1;
        if self.mistakes < MAX_MISTAKES {
            return None;
        }
        self.say("421 4.7.0 too many mistakes");
        self.close()
    }
}

#[cfg(test)]
mod tests;
