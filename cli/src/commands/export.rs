use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use postmerge::mailbox::Uid;
use postmerge::maildir::{ExportMailbox, ExportMessage, ExportNote, ExportPlan};
use postmerge::replica::{Replica, ReplicaError};
use serde_json::json;

use crate::context::{Code, Context};
use crate::progress::Step;
use crate::text::{count, size};

/// Writes everything as a Maildir++ tree that Dovecot serves under the same UIDs.
#[derive(Args)]
pub(crate) struct Export {
    /// A new or empty directory.
    maildir: PathBuf,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Messages that are named when their bodies are missing: enough to see which they are. A first sync that was cut off
/// may lack all of them.
const MAX_NAMED: usize = 5;

impl Export {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let root = cx.path(&self.maildir);
        let mailboxes = mailboxes(&cx.replica)?;
        let plan = ExportPlan::new(&mailboxes)?;
        for note in plan.notes() {
            match note {
                ExportNote::Renamed { mailbox, dir } => {
                    writeln!(cx.err, "note: mailbox {mailbox:?} becomes the directory {dir}")?;
                }
                ExportNote::KeywordLost { mailbox, keyword, messages } => {
                    let messages = count(*messages, "message");
                    writeln!(cx.err, "note: {messages} of mailbox {mailbox:?} lose the keyword {keyword}")?;
                }
            }
        }
        let (messages, bytes) = (plan.messages(), plan.bytes());
        if self.dry_run {
            if self.json {
                cx.json(&json!({"dry_run": true, "messages": messages, "bytes": bytes, "missing": []}))?;
                return Ok(Code::DONE);
            }
            let (messages, boxes) =
                (count(messages, "message"), count(mailboxes.len() as u64, "mailbox folder"));
            writeln!(cx.out, "would write {boxes} with {messages}, {}, to {}", size(bytes), root.display())?;
            return Ok(Code::DONE);
        }
        let progress = &mut cx.progress;
        progress(Step::Start { what: "export".into(), messages: Some(messages), bytes });
        let replica = cx.replica.clone();
        let open = |message: &ExportMessage| open(&replica, message);
        let done = plan.apply(&root, &open, &mut |at| {
            progress(Step::At { messages: at.messages, bytes: at.bytes });
        });
        progress(Step::End);
        let done = done.with_context(|| format!("cannot export to {}", root.display()))?;
        if !done.missing.is_empty() {
            let missing = count(done.missing.len() as u64, "message");
            writeln!(cx.err, "left out {missing} whose body has not arrived here yet:")?;
            for (mailbox, uid) in done.missing.iter().take(MAX_NAMED) {
                writeln!(cx.err, "  UID {uid} of mailbox {mailbox:?}")?;
            }
            if let more @ 1.. = done.missing.len().saturating_sub(MAX_NAMED) {
                writeln!(cx.err, "  and {more} more; --json lists all")?;
            }
            writeln!(cx.err, "Hint: `postmerge sync` fetches bodies from peers")?;
        }
        if self.json {
            let missing: Vec<_> = done
                .missing
                .iter()
                .map(|(name, uid)| json!({"mailbox": name.as_str(), "uid": uid.value()}))
                .collect();
            let (messages, bytes) = (done.written.messages, done.written.bytes);
            cx.json(&json!({"dry_run": false, "messages": messages, "bytes": bytes, "missing": missing}))?;
        } else {
            let messages = count(done.written.messages, "message");
            writeln!(cx.out, "{messages}, {}, in {}", size(done.written.bytes), root.display())?;
        }
        Ok(Code::partly_if(!done.missing.is_empty()))
    }
}

/// Everything, as it is shown here.
pub(super) fn mailboxes(replica: &Replica) -> anyhow::Result<Vec<ExportMailbox>> {
    let mut mailboxes = Vec::new();
    let snapshot = replica.snapshot()?;
    for mailbox in snapshot.mailboxes()? {
        let shown = snapshot.messages(mailbox.id, Uid::FIRST, usize::MAX)?;
        let messages = shown
            .into_iter()
            .map(|message| ExportMessage {
                entry: message.entry,
                uid: message.uid,
                blob: message.blob,
                size: message.size,
                internal_date: message.internal_date,
                keywords: message.keywords,
            })
            .collect();
        mailboxes.push(ExportMailbox {
            id: mailbox.id,
            name: mailbox.name,
            validity: mailbox.uid_validity,
            next: Uid::new(mailbox.uid_next).context("a mailbox has used up its UIDs")?,
            subscribed: mailbox.subscribed,
            messages,
        });
    }
    Ok(mailboxes)
}

fn open(replica: &Replica, message: &ExportMessage) -> io::Result<Box<dyn io::Read>> {
    match replica.body(message.entry) {
        Ok(body) => Ok(Box::new(body)),
        Err(error @ ReplicaError::Owed { .. }) => Err(io::Error::new(io::ErrorKind::NotFound, error)),
        Err(error) => Err(io::Error::other(error)),
    }
}
