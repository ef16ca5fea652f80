//! A client that is cheap next to any server: it counts what comes and keeps only short answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest silence of a server; the slowest command takes a fraction.
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection that is logged in. It waits for each answer.
pub(crate) struct Client(BufReader<TcpStream>);

/// What came for a command.
#[derive(Default)]
pub(crate) struct Answer {
    /// Number of `FETCH` responses.
    pub(crate) fetched: usize,
    /// Bytes in literals.
    pub(crate) literal_bytes: u64,
    /// The other responses, the tagged one last.
    pub(crate) lines: Vec<String>,
}

impl Client {
    pub(crate) fn connect(address: &str, user: &str, password: &str) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        stream.set_nodelay(true).expect("a socket takes options");
        let mut client = Client(BufReader::with_capacity(64 << 10, stream));
        client.line();
        client.command(&format!("LOGIN {user} {password}"));
        client
    }

    /// Sends a command and wants OK.
    pub(crate) fn command(&mut self, line: &str) -> Answer {
        self.send(&format!("a {line}\r\n"));
        let mut answer = Answer::default();
        loop {
            let (text, literals) = self.response();
            answer.literal_bytes += literals;
            if is_fetch(&text) {
                answer.fetched += 1;
                continue;
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            let done = text.strip_prefix("a ").map(|result| result.starts_with("OK"));
            assert!(done != Some(false), "{line}: {text}");
            answer.lines.push(text);
            if done.is_some() {
                return answer;
            }
        }
    }

    /// Begins to idle, for ever.
    pub(crate) fn idle(&mut self) {
        self.send("a IDLE\r\n");
        while !self.line().starts_with(b"+") {}
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("the server reads");
    }

    /// A response without its literals, whose bytes it counts.
    fn response(&mut self) -> (Vec<u8>, u64) {
        let (mut text, mut bytes) = (Vec::new(), 0);
        loop {
            let line = self.line();
            let length = literal(&line);
            text.extend(line);
            let Some(length) = length else { return (text, bytes) };
            let read = std::io::copy(&mut (&mut self.0).take(length), &mut std::io::sink());
            assert_eq!(read.expect("the server answers"), length, "a literal was cut short");
            bytes += length;
        }
    }

    fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).expect("the server answers");
        assert!(line.ends_with(b"\n"), "the server hung up after {:?}", String::from_utf8_lossy(&line));
        line
    }
}

impl Answer {
    /// The value of a response code such as `UIDVALIDITY`.
    pub(crate) fn code(&self, name: &str) -> Option<u64> {
        let start = format!("* OK [{name} ");
        let rest = self.lines.iter().find_map(|line| line.strip_prefix(&start))?;
        rest.split(']').next()?.parse().ok()
    }

    /// How many messages a `SEARCH` named.
    pub(crate) fn found(&self) -> usize {
        let line = self.lines.iter().find_map(|line| line.strip_prefix("* SEARCH"));
        line.map_or(0, |numbers| numbers.split_whitespace().count())
    }
}

fn is_fetch(text: &[u8]) -> bool {
    let mut words = text.splitn(4, |byte| *byte == b' ');
    words.next() == Some(b"*") && words.nth(1) == Some(b"FETCH")
}

/// The length that a line announces at its end.
fn literal(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"}\r\n")?;
    let start = line.iter().rposition(|byte| *byte == b'{')?;
    std::str::from_utf8(&line[start + 1..]).ok()?.parse().ok()
}
