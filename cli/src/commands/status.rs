use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::gc::{Waited, waited_for};
use super::maildir;
use crate::context::{Code, Context};
use crate::links::PeerLink;
use crate::text::{self, count, size};

/// Says how the replica is, and how it stands with each peer. The exit code is 0 once `serve` is ready for what was asked of it, else 1.
#[derive(Args)]
pub(crate) struct Status {
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    account: String,
    replica: String,
    role: postmerge::member::Role,
    member: bool,
    ready: bool,
    serving: bool,
    listens: Option<String>,
    mailboxes: u64,
    messages: u64,
    changes: u64,
    owed_bodies: u64,
    owed_bytes: u64,
    /// Changes that follow ones which were lost to damage.
    waiting_changes: u64,
    /// Bodies of expunged messages that are kept for now, as of the last look, and peers that have not acknowledged expunges
    /// which are old enough.
    expunged_bodies: u64,
    expunged_bytes: u64,
    expunged_wait_for: Vec<serde_json::Value>,
    #[serde(skip)]
    waited: Vec<String>,
    /// Bodies that a scrub found damaged, ever, and those of them that are not here again.
    damaged_bodies: u64,
    unhealed_bodies: u64,
    /// When all bodies had been read again last.
    scrubbed: Option<String>,
    /// Names what the replica has; equal on two replicas exactly if they have the same.
    digest: String,
    connected: usize,
    /// Of those, with whom everything is exchanged.
    in_sync: usize,
    /// Active members other than this one.
    peers: Vec<PeerRow>,
    /// As `maildir list` tells of them.
    maildirs: Vec<serde_json::Value>,
}

#[derive(Serialize)]
struct PeerRow {
    name: String,
    replica: String,
    /// These two only while `serve` runs.
    connected: Option<bool>,
    in_sync: Option<bool>,
    /// Since when it is connected, or is not.
    since: Option<String>,
    last_contact: Option<String>,
    /// Changes that are here and that it has not acknowledged; not known before the first contact.
    unacknowledged_changes: Option<u64>,
    /// Changes that it said it has and that are not here.
    missing_changes: Option<u64>,
    /// When `verify` compared with it last since `serve` was started, and whether anything differed.
    verified: Option<String>,
    differs: Option<bool>,
    /// Since `serve` was started.
    sent_bytes: Option<u64>,
    received_bytes: Option<u64>,
    /// Why the last attempt failed, or the last conversation ended badly.
    error: Option<String>,
}

impl PeerRow {
    fn new(peer: &PeerLink, serving: bool) -> PeerRow {
        let traffic = peer.traffic();
        PeerRow {
            name: peer.member.name.to_string(),
            replica: peer.member.replica.to_string(),
            connected: serving.then_some(peer.connected()),
            in_sync: serving.then_some(peer.in_sync()),
            since: peer.since().map(text::instant),
            last_contact: peer.last_contact().map(text::instant),
            unacknowledged_changes: peer.contact.map(|contact| contact.unacknowledged),
            missing_changes: peer.contact.map(|contact| contact.missing),
            verified: peer.verified.map(|(at, _)| text::instant(at)),
            differs: peer.verified.map(|(_, same)| !same),
            sent_bytes: serving.then_some(traffic.sent),
            received_bytes: serving.then_some(traffic.received),
            error: peer.state.as_ref().and_then(|state| state.error.clone()),
        }
    }

    /// A row of the table; without a daemon there are no bytes to tell of.
    fn cells(&self) -> Vec<String> {
        let state = match (self.connected, self.in_sync, &self.since) {
            (Some(true), Some(true), _) => "in sync",
            (Some(true), _, _) => "connected",
            (_, _, None) => "never seen",
            _ => "away",
        };
        let number = |known: Option<u64>| known.map_or("?".to_owned(), |number| number.to_string());
        let bytes = |known: Option<u64>| known.map(size).unwrap_or_default();
        vec![
            self.name.clone(),
            state.into(),
            self.since.clone().unwrap_or_default(),
            number(self.unacknowledged_changes),
            number(self.missing_changes),
            bytes(self.sent_bytes),
            bytes(self.received_bytes),
            match (&self.error, self.differs) {
                (Some(error), _) => error.clone(),
                (None, Some(true)) => "has something else: `verify` says what".to_owned(),
                _ => String::new(),
            },
        ]
    }
}

const PEER_HEAD: [&str; 8] = ["peer", "state", "since", "it lacks", "we lack", "sent", "received", ""];

impl Status {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let status = cx.replica.status()?;
        let node = cx.serving.and_then(|serving| serving.node.as_ref());
        let links = PeerLink::all(&cx.replica, node)?;
        let expunged = cx.replica.forgetting(cx.setup.config.now().keep_expunged.0)?;
        let scrubs = cx.replica.scrub_state()?;
        let waited = waited_for(&cx.replica, &expunged.blockers)?;
        let report = Report {
            account: status.account.to_string(),
            replica: status.replica.to_string(),
            role: status.role,
            member: cx.replica.is_member()?,
            ready: status.ready,
            serving: cx.serving.is_some(),
            listens: cx.serving.and_then(|serving| Some(serving.listens?.to_string())),
            mailboxes: status.mailboxes,
            messages: status.messages,
            changes: status.changes,
            owed_bodies: status.owed_bodies,
            owed_bytes: status.owed_bytes,
            waiting_changes: status.waiting_changes,
            expunged_bodies: expunged.kept_bodies,
            expunged_bytes: expunged.kept_bytes,
            expunged_wait_for: waited.iter().map(Waited::json).collect(),
            waited: waited.iter().map(Waited::line).collect(),
            damaged_bodies: scrubs.damaged,
            unhealed_bodies: scrubs.unhealed.len() as u64,
            scrubbed: scrubs.finished.map(text::instant),
            digest: data_encoding::HEXLOWER.encode(&cx.replica.digest()?),
            connected: links.iter().filter(|peer| peer.connected()).count(),
            in_sync: links.iter().filter(|peer| peer.in_sync()).count(),
            peers: links.iter().map(|peer| PeerRow::new(peer, cx.serving.is_some())).collect(),
            maildirs: match cx.setup.read_only {
                // What is remembered of them cannot be opened for reading only.
                true => Vec::new(),
                false => maildir::describe_all(cx)?,
            },
        };
        let code = if report.serving && report.ready { Code::DONE } else { Code::FAILED };
        if self.json {
            cx.json(&report)?;
            return Ok(code);
        }
        report.print(&mut cx.out)?;
        Ok(code)
    }
}

impl Report {
    /// For people.
    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "account   {}", self.account)?;
        writeln!(out, "replica   {}, a {}", self.replica, self.role)?;
        match (&self.listens, self.serving) {
            (Some(address), _) => writeln!(out, "serving   on {address}")?,
            (None, true) => writeln!(out, "serving   offline")?,
            (None, false) => writeln!(out, "serving   no")?,
        }
        let mail = count(self.messages, "message");
        writeln!(out, "mail      {mail} in {}", count(self.mailboxes, "mailbox"))?;
        writeln!(out, "changes   {} (state {})", self.changes, &self.digest[..12])?;
        if self.owed_bodies > 0 {
            let bodies = count(self.owed_bodies, "message");
            writeln!(out, "waiting   for the bodies of {bodies}, {}", size(self.owed_bytes))?;
        }
        if self.expunged_bodies > 0 {
            let kept = count(self.expunged_bodies, "expunged message");
            writeln!(out, "expunged  the bodies of {kept} are kept, {}", size(self.expunged_bytes))?;
            for waited in &self.waited {
                writeln!(out, "          {waited}")?;
            }
        }
        if self.unhealed_bodies > 0 {
            let bodies = count(self.unhealed_bodies, "body");
            writeln!(out, "damage    {bodies} lost on this disk, and asked for from the peers")?;
        }
        if self.waiting_changes > 0 {
            let changes = count(self.waiting_changes, "change");
            writeln!(out, "damage    {changes} not shown before `postmerge sync` brings what was lost")?;
        }
        for row in &self.maildirs {
            writeln!(out, "maildir   {}", maildir::line(row))?;
        }
        let peers = count(self.peers.len() as u64, "peer");
        writeln!(out, "peers     {peers}, {} connected, {} in sync", self.connected, self.in_sync)?;
        if !self.peers.is_empty() {
            writeln!(out)?;
            let mut rows: Vec<_> = self.peers.iter().map(PeerRow::cells).collect();
            let mut head = PEER_HEAD.to_vec();
            if !self.serving {
                head.drain(5..);
                rows.iter_mut().for_each(|row| drop(row.drain(5..)));
            }
            text::table(out, &head, &rows, &[3, 4, 5, 6])?;
        }
        if !self.member {
            writeln!(
                out,
                "this replica is not a member of its account: it was forgotten, or has not joined yet"
            )?;
        } else if !self.ready {
            writeln!(out, "this server cannot show UIDs before its first sync with its inviter")?;
        }
        Ok(())
    }
}
