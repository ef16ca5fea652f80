use clap::Args;
use serde::Serialize;

use crate::context::{Code, Context};
use crate::text;

/// Lists the mailboxes.
#[derive(Args)]
pub(crate) struct Mailboxes {
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    uidvalidity: u32,
    uidnext: u32,
    messages: u64,
    unseen: u64,
    subscribed: bool,
    special_use: Option<&'static str>,
}

impl Mailboxes {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let mailboxes = cx.replica.mailboxes()?;
        let rows: Vec<Row> = mailboxes
            .into_iter()
            .map(|mailbox| Row {
                name: mailbox.name.to_string(),
                uidvalidity: mailbox.uid_validity.value(),
                uidnext: mailbox.uid_next,
                messages: mailbox.messages,
                unseen: mailbox.unseen,
                subscribed: mailbox.subscribed,
                special_use: mailbox.special_use.map(|special| special.name()),
            })
            .collect();
        if self.json {
            cx.json(&rows)?;
            return Ok(Code::DONE);
        }
        let cells = rows.into_iter().map(|row| {
            let numbers = [row.messages, row.unseen, row.uidnext.into(), row.uidvalidity.into()];
            std::iter::once(row.name).chain(numbers.map(|number| number.to_string())).collect()
        });
        let head = ["mailbox", "messages", "unseen", "uidnext", "uidvalidity"];
        text::table(&mut cx.out, &head, &cells.collect::<Vec<_>>(), &[1, 2, 3, 4])?;
        Ok(Code::DONE)
    }
}
