//! Plays a script to a server that is anything which takes bytes and gives bytes.

use std::collections::BTreeMap;

use crate::pattern::{Names, fill, matches};
use crate::script::{Kind, Script, Setup, Step};

/// The session in which a case is set up.
const SETUP: usize = 0;

/// Plays it. `exchange` gets the number of a session and bytes for it, and gives bytes that came from it; the first bytes
/// that a session gives are its greeting. Without bytes to send it waits for some; if it gives none then, none will come.
///
/// # Errors
/// The first line that is not as expected.
pub(crate) fn run(
    script: &Script,
    (user, password): (&str, &str),
    exchange: &mut impl FnMut(usize, &[u8]) -> Vec<u8>,
) -> Result<(), String> {
    let mut player = Player { exchange, received: BTreeMap::new(), user, password };
    player.set_up(&script.setup)?;
    let mut names: Names =
        [("user", user), ("password", password)].map(|(name, value)| (name.into(), value.into())).into();
    let (mut steps, mut last) = (&script.steps[..], None);
    while let Some(first) = steps.first() {
        let session = first.session;
        let (kind, new) = (first.kind, !player.received.contains_key(&session));
        player.received.entry(session).or_default();
        if new && !script.greeting {
            player.log_in(session)?;
        }
        if first.kind == Kind::Client {
            // Between the lines of one command an early answer may come, which is expected after the last.
            if last != Some((session, Kind::Client)) {
                player.nothing_left(session).map_err(|what| format!("before line {}: {what}", first.line))?;
            }
            player.send(session, &fill(&first.text, &names));
            steps = &steps[1..];
        } else {
            let same = |step: &&Step| step.session == session && step.kind != Kind::Client;
            let length = steps.iter().take_while(same).count();
            player.expect(session, &steps[..length], &mut names)?;
            steps = &steps[length..];
        }
        last = Some((session, kind));
    }
    let sessions: Vec<usize> = player.received.keys().copied().collect();
    sessions.into_iter().try_for_each(|session| player.nothing_left(session))
}

struct Player<'a, E> {
    exchange: &'a mut E,
    /// What sessions gave and nobody looked at yet.
    received: BTreeMap<usize, Vec<u8>>,
    user: &'a str,
    password: &'a str,
}

impl<E: FnMut(usize, &[u8]) -> Vec<u8>> Player<'_, E> {
    fn set_up(&mut self, setup: &[Setup]) -> Result<(), String> {
        if setup.is_empty() {
            return Ok(());
        }
        self.log_in(SETUP)?;
        for act in setup {
            match act {
                Setup::Command(command) => self.command(SETUP, command, None)?,
                Setup::Append { mailbox, arguments, message } => {
                    let command = format!("APPEND {mailbox} {arguments} {{{}}}", message.len());
                    self.command(SETUP, &command, Some(message))?;
                    // Whoever looks first is told that messages are recent; the case is not to be.
                    self.command(SETUP, &format!("SELECT {mailbox}"), None)?;
                    self.command(SETUP, "UNSELECT", None)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the greeting and logs in, unless it says that this was done.
    fn log_in(&mut self, session: usize) -> Result<(), String> {
        let greeting = self.line(session).ok_or("no greeting")?;
        if greeting.starts_with("* PREAUTH ") {
            return Ok(());
        }
        let login = format!("LOGIN {} {}", self.user, self.password);
        self.command(session, &login, None)
    }

    /// Sends a command, with a literal when it is asked for, and wants OK.
    fn command(&mut self, session: usize, command: &str, literal: Option<&str>) -> Result<(), String> {
        self.send(session, &format!("setup {command}"));
        loop {
            let line = self.line(session).ok_or_else(|| format!("no answer to {command}"))?;
            if line.starts_with('+') {
                self.send(session, literal.ok_or_else(|| format!("{command} wants more"))?);
            } else if let Some(result) = line.strip_prefix("setup ") {
                return result.starts_with("OK").then_some(()).ok_or_else(|| format!("{command}: {line}"));
            }
        }
    }

    /// Reads lines until each of a block came.
    fn expect(&mut self, session: usize, block: &[Step], names: &mut Names) -> Result<(), String> {
        let mut open: Vec<&Step> = block.iter().filter(|step| step.kind != Kind::Optional).collect();
        while let Some(first) = open.first() {
            let number = first.line;
            let missing = |open: &[&Step]| {
                let texts: Vec<String> = open.iter().map(|step| fill(&step.text, names)).collect();
                format!("line {number}: expected\n    {}\n  got", texts.join("\n    "))
            };
            let Some(line) = self.line(session) else { return Err(missing(&open) + " nothing") };
            let next = open.iter().position(|step| step.kind == Kind::Ordered);
            let fits = |at: &usize| {
                let step = open[*at];
                let may =
                    step.kind == Kind::Unordered || Some(*at) == next && !(*at > 0 && is_tagged(&step.text));
                may && matches(&step.text, &line, &mut names.clone())
            };
            if let Some(at) = (0..open.len()).find(fits) {
                matches(&open.remove(at).text, &line, names);
                continue;
            }
            let optional = block.iter().filter(|step| step.kind == Kind::Optional);
            if !optional.into_iter().any(|step| matches(&step.text, &line, &mut names.clone())) {
                return Err(missing(&open) + "\n    " + &line);
            }
        }
        Ok(())
    }

    fn send(&mut self, session: usize, line: &str) {
        let came = (self.exchange)(session, format!("{line}\r\n").as_bytes());
        self.received.entry(session).or_default().extend(came);
    }

    /// The next line without its end; nothing if none comes.
    fn line(&mut self, session: usize) -> Option<String> {
        loop {
            let received = self.received.entry(session).or_default();
            if let Some(end) = received.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = received.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            let came = (self.exchange)(session, b"");
            if came.is_empty() {
                return None;
            }
            self.received.entry(session).or_default().extend(came);
        }
    }

    fn nothing_left(&self, session: usize) -> Result<(), String> {
        match self.received.get(&session).map(|bytes| String::from_utf8_lossy(bytes)) {
            Some(text) if !text.is_empty() => Err(format!("session {session} also said {text:?}")),
            _ => Ok(()),
        }
    }
}

/// Whether an expected line ends a command.
fn is_tagged(text: &str) -> bool {
    let mut words = text.split(' ');
    words.next().is_some_and(|tag| tag != "*")
        && words.next().is_some_and(|word| ["OK", "NO", "BAD"].contains(&word))
}
