//! A client that says one command at a time.

use postmerge_imap::Account;

pub(crate) use crate::talk::{Client, home};

impl Client {
    /// A client that has logged in.
    pub(crate) fn login(account: &Account) -> Client {
        let (mut client, _) = Client::connect(account);
        client.ok("LOGIN kim secret");
        client
    }

    /// Says a command; gives the untagged answers and the tagged one without its tag.
    pub(crate) fn command(&mut self, command: &str) -> (Vec<String>, String) {
        let heard = self.say_bytes(format!("t {command}\r\n").as_bytes());
        let mut lines: Vec<String> = heard.split_terminator("\r\n").map(str::to_owned).collect();
        let last = lines.pop().unwrap_or_default();
        let done = last.strip_prefix("t ").unwrap_or_else(|| panic!("{command}: {heard}"));
        (lines, done.to_owned())
    }

    /// A command that must be done; gives its untagged answers.
    pub(crate) fn ok(&mut self, command: &str) -> Vec<String> {
        let (lines, done) = self.command(command);
        assert!(done.starts_with("OK"), "{command}: {done}");
        lines
    }

    /// A command that must be refused; gives its tagged answer.
    pub(crate) fn refused(&mut self, command: &str) -> String {
        let (_, done) = self.command(command);
        assert!(done.starts_with("NO") || done.starts_with("BAD"), "{command}: {done}");
        done
    }

    /// One step of the session's work and what came of it; nothing if there is none to do.
    pub(crate) fn step(&mut self) -> Option<String> {
        let works = self.session.has_work();
        if works {
            self.session.work(self.now);
        }
        let mut heard = Vec::new();
        while let Some(bytes) = self.session.poll_send() {
            heard.extend(bytes);
        }
        (works || !heard.is_empty()).then(|| String::from_utf8(heard).unwrap())
    }
}
