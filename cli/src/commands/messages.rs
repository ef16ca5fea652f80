use clap::Args;
use postmerge::mailbox::{MailboxName, Uid};
use postmerge::member::Role;
use postmerge::uid::Shown;
use serde::Serialize;

use crate::context::{Code, Context};
use crate::text;

/// Lists the messages of a mailbox by ascending UID.
#[derive(Args)]
pub(crate) struct Messages {
    /// The mailbox.
    mailbox: MailboxName,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    uid: u32,
    /// On an observer, whose own UIDs are private: the one that servers show.
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_uid: Option<Option<u32>>,
    entry: String,
    blob: String,
    flags: Vec<String>,
    internal_date: i64,
    size: u64,
}

impl Messages {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let shown = cx.replica.messages(&self.mailbox, Uid::FIRST, usize::MAX)?;
        let observer = cx.replica.role()? == Role::Observer;
        if self.json {
            let rows: Vec<Row> = shown.iter().map(|message| row(message, observer)).collect();
            cx.json(&rows)?;
            return Ok(Code::DONE);
        }
        let cells: Vec<Vec<String>> = shown
            .iter()
            .map(|message| {
                let row = row(message, observer);
                let date = text::date(row.internal_date);
                vec![row.uid.to_string(), date, text::size(row.size), row.entry, row.flags.join(" ")]
            })
            .collect();
        text::table(&mut cx.out, &["uid", "date", "size", "entry", "flags"], &cells, &[0, 2])?;
        Ok(Code::DONE)
    }
}

fn row(message: &Shown, observer: bool) -> Row {
    Row {
        uid: message.uid.value(),
        shared_uid: observer.then(|| message.shared_uid.map(Uid::value)),
        entry: message.entry.to_string(),
        blob: message.blob.to_string(),
        flags: message.keywords.iter().map(ToString::to_string).collect(),
        internal_date: message.internal_date,
        size: message.size,
    }
}
