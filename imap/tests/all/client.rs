//! A client that says one command at a time.

use postmerge::replica::Replica;

pub(crate) use crate::talk::{Client, Home, home};

impl Client {
    /// A client that has logged in.
    pub(crate) fn login(replica: &Replica) -> Client {
        let (mut client, _) = Client::connect(replica);
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
}
