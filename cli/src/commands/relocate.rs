use clap::Args;
use postmerge::mailbox::{EntryId, MailboxName, Uid};
use postmerge::replica::{Replica, ReplicaError};
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
        let words = ["move", "moved"];
        self.what.run(cx, words, |replica, mailbox, uids, target| {
            let entries = entries(replica, mailbox, uids)?;
            replica.move_to(mailbox, uids, target)?;
            Ok(entries)
        })
    }
}

impl Copy {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        self.what.run(cx, ["copy", "copied"], Replica::copy)
    }
}

impl Relocation {
    /// `act` gives the entries that are in the target now, in the order of the UIDs.
    fn run(
        &self,
        cx: &mut Context<'_>,
        [would, did]: [&str; 2],
        act: impl Fn(&Replica, &MailboxName, &[Uid], &MailboxName) -> Result<Vec<EntryId>, ReplicaError>,
    ) -> anyhow::Result<Code> {
        let (mailbox, target) = (&self.mailbox, &self.target);
        let uids = self.uids.of(&cx.replica, mailbox)?;
        let before = cx.replica.mailbox(target)?;
        let messages = count(uids.len() as u64, "message");
        if self.dry_run {
            writeln!(cx.out, "would {would} {messages} from mailbox {mailbox:?} to {target:?}")?;
            return Ok(Code::DONE);
        }
        let entries = act(&cx.replica, mailbox, &uids, target)?;
        // New UIDs are at or above what UIDNEXT was (P2).
        let new: std::collections::BTreeMap<EntryId, Uid> = match Uid::new(before.uid_next) {
            Some(first) => cx.replica.messages(target, first, usize::MAX)?,
            None => Vec::new(),
        }
        .into_iter()
        .map(|message| (message.entry, message.uid))
        .collect();
        if self.json {
            let pairs: Vec<_> = (uids.iter().zip(&entries))
                .map(|(uid, entry)| {
                    let new = new.get(entry).map(|uid| uid.value());
                    json!({"uid": uid.value(), "new_uid": new, "entry": entry.to_string()})
                })
                .collect();
            let uidvalidity = cx.replica.mailbox(target)?.uid_validity.value();
            cx.json(&json!({"mailbox": target.as_str(), "uidvalidity": uidvalidity, "messages": pairs}))?;
            return Ok(Code::DONE);
        }
        let pairs = uids.iter().zip(&entries).filter_map(|(uid, entry)| Some((*uid, *new.get(entry)?)));
        let (old, new): (Vec<Uid>, Vec<Uid>) = pairs.unzip();
        write!(cx.out, "{did} {messages} to mailbox {target:?}")?;
        if !new.is_empty() {
            write!(cx.out, ": UID {} there, {} here", select::listed(&new), select::listed(&old))?;
        }
        writeln!(cx.out)?;
        Ok(Code::DONE)
    }
}

fn entries(replica: &Replica, mailbox: &MailboxName, uids: &[Uid]) -> Result<Vec<EntryId>, ReplicaError> {
    let entry = |uid: &Uid| match replica.messages(mailbox, *uid, 1)?.first() {
        Some(message) if message.uid == *uid => Ok(message.entry),
        _ => Err(ReplicaError::NoMessage { mailbox: mailbox.clone(), uid: *uid }),
    };
    uids.iter().map(entry).collect()
}
