//! A mail client of one server: a real IMAP session without a socket, and what is said in it.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, bail};
use postmerge::replica::Replica;
use postmerge_imap::auth::{Channel, DecoySecret, Iterations, Salt, User, Users, Verifier};
use postmerge_imap::{Account, Opened, Session, SessionEvent, SessionLimits, Settings};

use serde::Serialize;

use super::client::{Broken, View};
use crate::users;

/// A client that selected INBOX, waits in IDLE and believes each line. A UID that it does not know yet is 0.
pub(super) struct Imap {
    replica: Replica,
    session: Session,
    tag: u32,
    /// The UID behind each sequence number, as the lines had it.
    uids: Vec<u32>,
    /// The UID under which a body was met first, by EMAILID.
    bodies: BTreeMap<String, u32>,
    pub(super) heard: Heard,
}

/// What the session said, from IDLE on.
#[derive(Clone, Default, Serialize)]
pub(super) struct Heard {
    /// `C: ` or `S: ` stands before each line.
    pub(super) lines: Vec<String>,
    /// Messages whose bodies the client has already, by EMAILID.
    pub(super) known: Vec<Known>,
}

/// A message under another UID.
#[derive(Clone, Serialize)]
pub(super) struct Known {
    pub(super) was: u32,
    pub(super) is: u32,
}

impl Imap {
    /// Logs in, selects INBOX, takes note of what is there and waits. `enable` comes before SELECT.
    pub(super) fn wait_at(replica: &Replica, enable: Option<&str>) -> anyhow::Result<Imap> {
        let channel = Channel::Clear { passwords: true };
        let session = Session::new(settings()?, channel, false, Instant::now());
        let mut client = Imap {
            replica: replica.clone(),
            session,
            tag: 0,
            uids: Vec::new(),
            bodies: BTreeMap::new(),
            heard: Heard::default(),
        };
        client.listen()?;
        client.command("LOGIN demo demo")?;
        if let Some(extension) = enable {
            client.command(&format!("ENABLE {extension}"))?;
        }
        client.command("SELECT INBOX")?;
        client.command("FETCH 1:* (UID EMAILID)")?;
        client.heard = Heard::default();
        client.say("IDLE")?;
        Ok(client)
    }

    /// Hears what happened meanwhile, then asks for what is new.
    pub(super) fn wake(&mut self) -> anyhow::Result<()> {
        self.session.changed();
        self.listen()?;
        self.send("DONE")?;
        if let Some(first) = self.uids.iter().position(|uid| *uid == 0) {
            self.command(&format!("FETCH {}:* (UID EMAILID FLAGS)", first + 1))?;
        }
        Ok(())
    }

    /// Whether the client believes what the server shows.
    pub(super) fn check(&self, shown: &View, broken: &mut Vec<Broken>) {
        let inbox = shown.get("INBOX").map(|sight| sight.messages.keys().copied().collect::<Vec<_>>());
        if inbox.as_ref() != Some(&self.uids) {
            broken.push(("P2", format!("an IMAP client counts {:?} where {inbox:?} are shown", self.uids)));
        }
    }

    fn command(&mut self, command: &str) -> anyhow::Result<()> {
        self.say(command)?;
        let last = self.heard.lines.last().map_or("", String::as_str);
        let done = format!("S: a{} OK", self.tag);
        if !last.starts_with(&done) {
            bail!("the server answered {command} with {last:?}");
        }
        Ok(())
    }

    fn say(&mut self, command: &str) -> anyhow::Result<()> {
        self.tag += 1;
        self.send(&format!("a{} {command}", self.tag))
    }

    fn send(&mut self, line: &str) -> anyhow::Result<()> {
        self.heard.lines.push(format!("C: {line}"));
        self.session.receive(format!("{line}\r\n").as_bytes(), Instant::now());
        self.listen()
    }

    /// Lets the session work until it waits for the client.
    fn listen(&mut self) -> anyhow::Result<()> {
        let mut heard = Vec::new();
        loop {
            while let Some(bytes) = self.session.poll_send() {
                heard.extend(bytes);
            }
            match self.session.poll_event() {
                Some(SessionEvent::Open { .. }) => {
                    self.session.opened(Opened::Account(Account::new(self.replica.clone())));
                }
                Some(event) => bail!("the session wants {event:?}"),
                None if self.session.has_work() => self.session.work(Instant::now()),
                None => break,
            }
        }
        for line in String::from_utf8(heard)?.lines() {
            self.believe(line).with_context(|| format!("the server said {line:?}"))?;
            self.heard.lines.push(format!("S: {line}"));
        }
        Ok(())
    }

    /// What a line does to the client's count.
    fn believe(&mut self, line: &str) -> anyhow::Result<()> {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["*", count, "EXISTS"] => {
                let count = count.parse()?;
                anyhow::ensure!(count >= self.uids.len(), "messages are gone unsaid");
                self.uids.resize(count, 0);
            }
            ["*", seq, "EXPUNGE"] => {
                let at = self.place(seq)?;
                self.uids.remove(at);
            }
            ["*", "VANISHED", uids] => {
                for range in uids.split(',') {
                    let (first, last) = range.split_once(':').unwrap_or((range, range));
                    let (first, last): (u32, u32) = (first.parse()?, last.parse()?);
                    self.uids.retain(|uid| !(first..=last).contains(uid));
                }
            }
            ["*", seq, "FETCH", "(UID", uid, ref rest @ ..] => {
                let (at, is) = (self.place(seq)?, uid.parse()?);
                anyhow::ensure!([0, is].contains(&self.uids[at]), "it was UID {}", self.uids[at]);
                self.uids[at] = is;
                if let ["EMAILID", id, ..] = rest {
                    let was = *self.bodies.entry(id.trim_matches(['(', ')']).to_owned()).or_insert(is);
                    self.heard.known.extend((was != is).then_some(Known { was, is }));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn place(&self, seq: &str) -> anyhow::Result<usize> {
        let at = seq.parse::<usize>()?.checked_sub(1).filter(|at| *at < self.uids.len());
        at.context("there is no message with that number")
    }
}

/// One user, and a password that is no secret: the session ends with the demo.
fn settings() -> anyhow::Result<std::sync::Arc<Settings>> {
    let mut known = Users::default();
    let salt = Salt::new(users::random::<16>()?)?;
    let verifier = Verifier::derive(b"demo", salt, Iterations::new(Iterations::MIN)?)?;
    known.insert(User::new("demo".parse()?, "demo")?, verifier);
    Ok(users::settings(known, DecoySecret::from_bytes(users::random()?), SessionLimits::default()))
}
