use std::io::Read;

use anyhow::Context as _;
use clap::Args;
use postmerge::mailbox::{Keyword, MailboxName, Uid};

use super::select;
use crate::context::{Code, Context};
use crate::failure::advice;

/// Adds the message on standard input to a mailbox.
#[derive(Args)]
pub(crate) struct Append {
    /// The mailbox.
    mailbox: MailboxName,
    /// A flag or keyword that the message gets: `seen`, `\Seen`, `$Forwarded`, `work`.
    #[arg(long = "flag", value_name = "FLAG", value_parser = select::keyword)]
    flags: Vec<Keyword>,
    /// Its internal date in seconds since 1970 [default: now].
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    date: Option<i64>,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
    /// Reads the message and says what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Append {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let name = &self.mailbox;
        // Before anything is read: whoever misspelt it need not send the message first.
        cx.replica.mailbox(name)?;
        let mut start = Vec::new();
        cx.input.by_ref().take(1).read_to_end(&mut start)?;
        if start.is_empty() {
            let hint =
                format!("the message comes on standard input: `postmerge append {name:?} < message.eml`");
            return Err(advice("there is no message: standard input is empty", hint));
        }
        let mut message = start.chain(&mut cx.input);
        if self.dry_run {
            let bytes = std::io::copy(&mut message, &mut std::io::sink())?;
            writeln!(cx.out, "would add a message of {bytes} bytes to mailbox {name:?}")?;
            return Ok(Code::DONE);
        }
        let flags = self.flags.iter().cloned().collect();
        let added = cx.replica.append(name, &mut message, flags, self.date);
        let added = added.with_context(|| format!("cannot add the message to mailbox {name:?}"))?;
        let uid = added.uid.map(Uid::value);
        if self.json {
            let (entry, blob) = (added.entry.to_string(), added.blob.to_string());
            cx.json(&serde_json::json!({"uid": uid, "entry": entry, "blob": blob}))?;
        } else {
            let uid = uid.map_or_else(String::new, |uid| format!(" UID {uid}"));
            writeln!(cx.out, "mailbox {name:?}{uid} entry {}", added.entry)?;
        }
        Ok(Code::DONE)
    }
}
