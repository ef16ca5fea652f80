//! The other client: one that tests use to act on a server and to see what it shows.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest silence of a server.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message as clients tell them apart: its Message-ID, and its flags but `\Recent`.
pub(crate) type Message = (String, BTreeSet<String>);

/// A connection that is logged in. It waits for each answer.
pub(crate) struct Imap(BufReader<TcpStream>);

impl Imap {
    pub(crate) fn connect(address: &str, user: &str, password: &str) -> Imap {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut imap = Imap(BufReader::new(stream));
        imap.response();
        imap.command(&format!("LOGIN {user} {password}"));
        imap
    }

    /// Sends a command and wants OK; gives the untagged responses, literals included.
    #[track_caller]
    pub(crate) fn command(&mut self, line: &str) -> Vec<String> {
        write!(self.0.get_mut(), "a {line}\r\n").unwrap();
        self.answer(line)
    }

    #[track_caller]
    pub(crate) fn append(&mut self, mailbox: &str, flags: &str, message: &str) {
        let line = format!("APPEND {mailbox} ({flags}) {{{}}}", message.len());
        write!(self.0.get_mut(), "a {line}\r\n").unwrap();
        while !self.response().starts_with('+') {}
        write!(self.0.get_mut(), "{message}\r\n").unwrap();
        self.answer(&line);
    }

    /// The UID of a message of the selected mailbox.
    #[track_caller]
    pub(crate) fn uid(&mut self, message_id: &str) -> String {
        let found = self.command(&format!("UID SEARCH HEADER Message-ID \"{message_id}\""));
        let uids: Vec<&str> = found.iter().filter_map(|line| line.strip_prefix("* SEARCH ")).collect();
        let one = uids.len() == 1 && uids[0].parse::<u32>().is_ok();
        assert!(one, "{message_id} is not there, or not once: {found:?}");
        uids[0].to_owned()
    }

    /// Every message of a mailbox, sorted; one that is there twice is listed twice.
    #[track_caller]
    pub(crate) fn look(&mut self, mailbox: &str) -> Vec<Message> {
        self.command(&format!("EXAMINE {mailbox}"));
        let fetched = self.command("FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])");
        let fetched = fetched.iter().filter(|line| line.contains(" FETCH ("));
        let mut messages: Vec<Message> = fetched.map(|line| (message_id(line), flags(line))).collect();
        messages.sort();
        messages
    }

    #[track_caller]
    fn answer(&mut self, line: &str) -> Vec<String> {
        let mut untagged = Vec::new();
        loop {
            let response = self.response();
            if let Some(result) = response.strip_prefix("a ") {
                assert!(result.starts_with("OK"), "{line}: {response}");
                return untagged;
            }
            untagged.push(response);
        }
    }

    /// A line, without its end; a literal stands in the place of its announcement.
    fn response(&mut self) -> String {
        let mut response = String::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the server hung up after {response:?}");
            let line = line.trim_end_matches("\r\n");
            let announced = line.strip_suffix('}').and_then(|line| line.rsplit_once('{'));
            let Some((before, length)) = announced else {
                response.push_str(line);
                return response;
            };
            let mut literal = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut literal).unwrap();
            response.push_str(before);
            response.push_str(&String::from_utf8(literal).unwrap());
        }
    }
}

/// What stands in the Message-ID header of a message or of a response that has it.
pub(crate) fn message_id(text: &str) -> String {
    let header = text.lines().map(|line| line.to_ascii_lowercase()).find_map(|line| {
        let (_, value) = line.split_once("message-id: ")?;
        Some(value.trim().to_owned())
    });
    header.unwrap_or_else(|| panic!("no Message-ID in {text:?}"))
}

fn flags(line: &str) -> BTreeSet<String> {
    let (_, rest) = line.split_once("FLAGS (").unwrap();
    let (list, _) = rest.split_once(')').unwrap();
    list.split_whitespace().filter(|flag| *flag != "\\Recent").map(str::to_owned).collect()
}
