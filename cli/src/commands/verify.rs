use std::time::Duration;

use clap::Args;
use postmerge::replica::{MailboxVerdict, ReplicaError, Verdict};
use serde_json::{Value, json};

use crate::context::{Code, Context};
use crate::text::count;

/// Syncs with a peer and compares all that both have: mailboxes, UIDs, messages, flags and bodies. The exit code is 1 if
/// anything differs.
#[derive(Args)]
pub(crate) struct Verify {
    /// The peer's name, or the start of its replica id or endpoint.
    peer: String,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What a conversation that goes on anyway may take: each side reads all of its messages, a million in some ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);

impl Verify {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let peer = cx.replica.peer(&self.peer)?;
        if peer.oneself {
            return Err(ReplicaError::Oneself.into());
        }
        let request = cx.replica.verify(peer.member.replica);
        let node = cx.node()?;
        let talked = cx.setup.runtime.block_on(node.sync_with(&peer.member, &mut |_| {}));
        let verdict = match talked {
            // In a conversation of its own it is over by now, whatever ended that.
            Ok(()) => request.wait(PATIENCE).map_err(anyhow::Error::from),
            Err(error) => request.wait(Duration::ZERO).map_err(|_| error.into()),
        };
        let verdict = verdict.map_err(|error: anyhow::Error| {
            error.context(format!("cannot compare with {}", peer.member.name))
        })?;
        if self.json {
            cx.json(&as_json(peer.member.name.as_str(), &verdict))?;
        } else {
            print(cx, &verdict)?;
        }
        Ok(if verdict.is_equal() { Code::DONE } else { Code::FAILED })
    }
}

fn print(cx: &mut Context<'_>, verdict: &Verdict) -> anyhow::Result<()> {
    for mailbox in &verdict.mailboxes {
        let here = mailbox.here.as_ref().or(mailbox.there.as_ref()).map_or(0, |one| one.messages);
        match mailbox.differs.as_slice() {
            [] => writeln!(cx.out, "same     {}: {}", mailbox.name, count(here, "message"))?,
            differs => writeln!(cx.out, "differs  {}: {}", mailbox.name, differs.join(", "))?,
        }
    }
    if verdict.differing_buckets == 0 {
        writeln!(cx.out, "same     bodies of {}", count(verdict.bodies, "message"))?;
    } else {
        let parts = verdict.differing_buckets;
        writeln!(cx.out, "differs  bodies: in {parts} of 256 parts, of which 16 at most are listed")?;
        for blob in &verdict.only_here {
            writeln!(cx.out, "         {blob} is only here")?;
        }
        for blob in &verdict.only_there {
            writeln!(cx.out, "         {blob} is only there")?;
        }
    }
    if verdict.without_uids {
        writeln!(
            cx.out,
            "one side is an observer and has its own UIDs, so messages were compared without theirs"
        )?;
    }
    Ok(())
}

fn as_json(peer: &str, verdict: &Verdict) -> Value {
    let side = |one: &Option<postmerge::sync::SurveyedMailbox>| {
        let one = one.as_ref()?;
        Some(json!({
            "messages": one.messages,
            "uid_validity": one.uids.map(|uids| uids.validity),
            "uid_next": one.uids.map(|uids| uids.next),
        }))
    };
    let row = |mailbox: &MailboxVerdict| {
        json!({
            "name": mailbox.name.as_str(),
            "same": mailbox.differs.is_empty(),
            "differs": mailbox.differs,
            "here": side(&mailbox.here),
            "there": side(&mailbox.there),
        })
    };
    let names = |blobs: &[postmerge::blob::BlobId]| blobs.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "peer": peer,
        "same": verdict.is_equal(),
        "state": data_encoding::HEXLOWER.encode(&verdict.digest),
        "mailboxes": verdict.mailboxes.iter().map(row).collect::<Value>(),
        "bodies": verdict.bodies,
        "bodies_only_here": names(&verdict.only_here),
        "bodies_only_there": names(&verdict.only_there),
        "differing_parts": verdict.differing_buckets,
        "uids_compared": !verdict.without_uids,
    })
}
