use clap::Args;
use postmerge::mailbox::MailboxName;

use super::select::UidSet;
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
    /// The mailbox.
    mailbox: MailboxName,
    /// The messages: `7`, `3,9`, `10:20`, `5:*`.
    uids: UidSet,
    /// The mailbox that they go to.
    target: MailboxName,
}

impl Move {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let Relocation { dry_run, mailbox, uids, target } = &self.what;
        let (seen, uids) = uids.of(&cx.replica, mailbox)?;
        if *dry_run {
            return self.what.say(cx, "move", uids.len());
        }
        cx.replica.move_to(seen, &uids, target)?;
        Ok(Code::DONE)
    }
}

impl Copy {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let Relocation { dry_run, mailbox, uids, target } = &self.what;
        let (seen, uids) = uids.of(&cx.replica, mailbox)?;
        if *dry_run {
            return self.what.say(cx, "copy", uids.len());
        }
        cx.replica.copy(seen, &uids, target)?;
        Ok(Code::DONE)
    }
}

impl Relocation {
    fn say(&self, cx: &mut Context<'_>, what: &str, messages: usize) -> anyhow::Result<Code> {
        cx.replica.mailbox(&self.target)?;
        let messages = count(messages as u64, "message");
        writeln!(cx.out, "would {what} {messages} from mailbox {:?} to {:?}", self.mailbox, self.target)?;
        Ok(Code::DONE)
    }
}
