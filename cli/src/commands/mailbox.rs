use clap::{Args, Subcommand};
use postmerge::mailbox::{MailboxName, SpecialUse};
use postmerge::uid::AccountError;

use crate::context::{Code, Context};
use crate::text::count;

/// Makes, renames, deletes and subscribes to mailboxes.
#[derive(Args)]
pub(crate) struct Mailbox {
    #[command(subcommand)]
    act: Act,
    /// Says what would be done.
    #[arg(long, global = true)]
    dry_run: bool,
}

#[derive(Subcommand)]
enum Act {
    /// Makes a mailbox.
    Create {
        /// Its name; levels are separated by `/`.
        name: MailboxName,
        /// What it is for: archive, drafts, sent, trash, junk, all, flagged, important.
        #[arg(long, value_name = "USE", value_parser = special_use)]
        special_use: Option<SpecialUse>,
    },
    /// Gives a mailbox, and all below it, another name.
    Rename {
        /// Its name.
        from: MailboxName,
        /// Its new name.
        to: MailboxName,
    },
    /// Deletes a mailbox and expunges what is in it.
    Delete {
        /// Its name.
        name: MailboxName,
    },
    /// Subscribes to a mailbox.
    Subscribe {
        /// Its name.
        name: MailboxName,
    },
    /// Ends the subscription to a mailbox.
    Unsubscribe {
        /// Its name.
        name: MailboxName,
    },
}

fn special_use(text: &str) -> Result<SpecialUse, String> {
    let text = text.strip_prefix('\\').unwrap_or(text);
    SpecialUse::from_name(&format!("\\{text}")).ok_or_else(|| "no special use is called so".into())
}

impl Mailbox {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        if self.dry_run {
            return self.say(cx);
        }
        match &self.act {
            Act::Create { name, special_use } => drop(cx.replica.create_mailbox(name, *special_use)?),
            Act::Rename { from, to } => cx.replica.rename_mailbox(from, to)?,
            Act::Delete { name } => cx.replica.delete_mailbox(name)?,
            Act::Subscribe { name } => cx.replica.set_subscribed(name, true)?,
            Act::Unsubscribe { name } => cx.replica.set_subscribed(name, false)?,
        }
        Ok(Code::DONE)
    }

    fn say(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let mailboxes = cx.replica.mailboxes()?;
        let find = |name: &MailboxName| {
            let found = mailboxes.iter().find(|mailbox| mailbox.name == *name);
            found.ok_or_else(|| AccountError::NoMailbox { name: name.clone() })
        };
        let free = |name: &MailboxName| match find(name) {
            Ok(_) => Err(AccountError::Exists { name: name.clone() }),
            Err(_) => Ok(()),
        };
        let what = match &self.act {
            Act::Create { name, .. } => {
                free(name)?;
                format!("make mailbox {name:?}")
            }
            Act::Rename { from, to } => {
                find(from)?;
                free(to)?;
                let below = mailboxes.iter().filter(|mailbox| mailbox.name.below(from).is_some()).count();
                format!("rename mailbox {from:?} to {to:?}, and {} below it", count(below as u64, "mailbox"))
            }
            Act::Delete { name } if name.is_inbox() => return Err(AccountError::Inbox.into()),
            Act::Delete { name } => {
                let messages = count(find(name)?.messages, "message");
                format!("delete mailbox {name:?} and expunge {messages}")
            }
            Act::Subscribe { name } => format!("subscribe to mailbox {:?}", find(name)?.name),
            Act::Unsubscribe { name } => {
                format!("end the subscription to mailbox {:?}", find(name)?.name)
            }
        };
        writeln!(cx.out, "would {what}")?;
        Ok(Code::DONE)
    }
}
