use clap::Args;
use postmerge::mailbox::MailboxName;

use super::select::UidSet;
use crate::context::{Code, Context};
use crate::text::count;

/// Expunges messages, whether they are marked \Deleted or not.
#[derive(Args)]
pub(crate) struct Expunge {
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
    /// The mailbox.
    mailbox: MailboxName,
    /// The messages: `7`, `3,9`, `10:20`, `5:*`.
    uids: UidSet,
}

impl Expunge {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let (seen, uids) = self.uids.of(&cx.replica, &self.mailbox)?;
        if self.dry_run {
            let messages = count(uids.len() as u64, "message");
            writeln!(cx.out, "would expunge {messages} of mailbox {:?}", self.mailbox)?;
            return Ok(Code::DONE);
        }
        cx.replica.expunge(seen, &uids)?;
        Ok(Code::DONE)
    }
}
