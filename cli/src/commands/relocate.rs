use clap::Args;
use postmerge::mailbox::{MailboxName, Uid};
use postmerge::replica::{Relocated, Replica, ReplicaError};
use postmerge::uid::Seen;
use serde_json::json;

use super::select::{self, UidSet};
use crate::context::{Code, Context};
use crate::text::count;

/// Moves messages to another mailbox.
#[derive(Args)]
pub(crate) struct Move {
    #[command(flatten)]
    what: Relocation,
}

/// Copies messages to another mailbox, with their flags.
#[derive(Args)]
pub(crate) struct Copy {
    #[command(flatten)]
    what: Relocation,
}

#[derive(Args)]
struct Relocation {
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
    /// The mailbox.
    mailbox: MailboxName,
    /// The messages: `7`, `3,9`, `10:20`, `5:*`.
    uids: UidSet,
    /// The mailbox that they go to.
    target: MailboxName,
}

impl Move {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        self.what.run(cx, ["move", "moved"], Replica::move_to)
    }
}

impl Copy {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        self.what.run(cx, ["copy", "copied"], Replica::copy)
    }
}

impl Relocation {
    fn run(
        &self,
        cx: &mut Context<'_>,
        [would, did]: [&str; 2],
        act: impl Fn(&Replica, Seen, &[Uid], &MailboxName) -> Result<Relocated, ReplicaError>,
    ) -> anyhow::Result<Code> {
        let (mailbox, target) = (&self.mailbox, &self.target);
        let (seen, uids) = self.uids.of(&cx.replica, mailbox)?;
        if self.dry_run {
            cx.replica.mailbox(target)?;
            let messages = count(uids.len() as u64, "message");
            writeln!(cx.out, "would {would} {messages} from mailbox {mailbox:?} to {target:?}")?;
            return Ok(Code::DONE);
        }
        let Relocated { into, messages } = act(&cx.replica, seen, &uids, target)?;
        if self.json {
            let pairs: Vec<_> = (messages.iter())
                .map(|message| {
                    let new = message.uid.map(Uid::value);
                    json!({"uid": message.from.value(), "new_uid": new, "entry": message.entry.to_string()})
                })
                .collect();
            let uidvalidity = into.map(|into| into.uid_validity.value());
            cx.json(&json!({"mailbox": target.as_str(), "uidvalidity": uidvalidity, "messages": pairs}))?;
            return Ok(Code::DONE);
        }
        let pairs = messages.iter().filter_map(|message| Some((message.from, message.uid?)));
        let (old, new): (Vec<Uid>, Vec<Uid>) = pairs.unzip();
        write!(cx.out, "{did} {} to mailbox {target:?}", count(messages.len() as u64, "message"))?;
        if !new.is_empty() {
            write!(cx.out, ": UID {} there, {} here", select::listed(&new), select::listed(&old))?;
        }
        writeln!(cx.out)?;
        Ok(Code::DONE)
    }
}
