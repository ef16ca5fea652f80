use clap::Args;
use serde::Serialize;

use crate::context::{Code, Context};
use crate::text::{count, size};

/// Says how the replica is. The exit code is 0 once `serve` is ready for what was asked of it, else 1.
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
    changes: u64,
    owed_bodies: u64,
    owed_bytes: u64,
    /// Changes that follow ones which were lost to damage.
    waiting_changes: u64,
    /// Names what the replica has; equal on two replicas exactly if they have the same.
    digest: String,
    /// Active members other than this one.
    peers: usize,
    connected: usize,
    /// Of those, with whom everything is exchanged.
    in_sync: usize,
}

impl Status {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let status = cx.replica.status()?;
        let active = |peer: &postmerge::replica::Peer| {
            !peer.oneself && peer.member.status == postmerge::member::Status::Active
        };
        let states = cx.serving.and_then(|serving| Some(serving.node.as_ref()?.states())).unwrap_or_default();
        let report = Report {
            account: status.account.to_string(),
            replica: status.replica.to_string(),
            role: status.role,
            member: cx.replica.is_member()?,
            ready: status.ready,
            serving: cx.serving.is_some(),
            listens: cx.serving.and_then(|serving| Some(serving.listens?.to_string())),
            changes: status.changes,
            owed_bodies: status.owed_bodies,
            owed_bytes: status.owed_bytes,
            waiting_changes: status.waiting_changes,
            digest: data_encoding::HEXLOWER.encode(&cx.replica.digest()?),
            peers: cx.replica.peers()?.iter().filter(|peer| active(peer)).count(),
            connected: states.iter().filter(|state| state.connected).count(),
            in_sync: states.iter().filter(|state| state.in_sync).count(),
        };
        let code = if report.serving && report.ready { Code::DONE } else { Code::FAILED };
        if self.json {
            cx.json(&report)?;
            return Ok(code);
        }
        let out = &mut cx.out;
        writeln!(out, "account   {}", report.account)?;
        writeln!(out, "replica   {}, a {}", report.replica, report.role)?;
        match (&report.listens, report.serving) {
            (Some(address), _) => writeln!(out, "serving   on {address}")?,
            (None, true) => writeln!(out, "serving   offline")?,
            (None, false) => writeln!(out, "serving   no")?,
        }
        let peers = count(report.peers as u64, "peer");
        writeln!(out, "peers     {peers}, {} connected, {} in sync", report.connected, report.in_sync)?;
        writeln!(out, "changes   {} (state {})", report.changes, &report.digest[..12])?;
        if report.owed_bodies > 0 {
            let bodies = count(report.owed_bodies, "message");
            writeln!(out, "waiting   for the bodies of {bodies}, {}", size(report.owed_bytes))?;
        }
        if report.waiting_changes > 0 {
            let changes = count(report.waiting_changes, "change");
            writeln!(out, "damage    {changes} not shown before `postmerge sync` brings what was lost")?;
        }
        if !report.member {
            writeln!(
                out,
                "this replica is not a member of its account: it was forgotten, or has not joined yet"
            )?;
        } else if !report.ready {
            writeln!(out, "this server cannot show UIDs before its first sync with its inviter")?;
        }
        Ok(code)
    }
}
