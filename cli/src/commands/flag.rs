use std::collections::BTreeSet;

use clap::Args;
use postmerge::mailbox::{Keyword, MailboxName};
use postmerge::uid::KeywordChange;

use super::select::{self, UidSet};
use crate::context::{Code, Context};
use crate::failure::Usage;
use crate::text::count;

/// Sets and clears flags and keywords.
#[derive(Args)]
pub(crate) struct Flag {
    /// Says what would be done; stands before the flags.
    #[arg(long)]
    dry_run: bool,
    /// The mailbox.
    mailbox: MailboxName,
    /// The messages: `7`, `3,9`, `10:20`, `5:*`.
    uids: UidSet,
    /// `+FLAG` sets, `-FLAG` clears: `+seen`, `-\Flagged`, `+work`.
    #[arg(required = true, allow_hyphen_values = true, value_name = "+FLAG|-FLAG")]
    changes: Vec<String>,
}

impl Flag {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let mut dry = self.dry_run;
        let (mut set, mut clear): (BTreeSet<Keyword>, BTreeSet<Keyword>) = Default::default();
        for change in &self.changes {
            let keyword = |text: &str| select::keyword(text).map_err(|error| Usage(error.to_string()));
            match (change.as_str(), change.strip_prefix('+'), change.strip_prefix('-')) {
                ("--dry-run", _, _) => dry = true,
                (_, Some(text), _) => _ = set.insert(keyword(text)?),
                (_, _, Some(text)) => _ = clear.insert(keyword(text)?),
                _ => return Err(Usage(format!("{change:?} starts with neither + nor -")).into()),
            }
        }
        if let Some(both) = set.intersection(&clear).next() {
            return Err(Usage(format!("{both} is both set and cleared")).into());
        }
        let (seen, uids) = self.uids.of(&cx.replica, &self.mailbox)?;
        if dry {
            let messages = count(uids.len() as u64, "message");
            writeln!(
                cx.out,
                "would set {set:?} and clear {clear:?} on {messages} of mailbox {:?}",
                self.mailbox
            )?;
            return Ok(Code::DONE);
        }
        cx.replica.store_keywords(seen, &uids, &KeywordChange::Edit { set, clear }, None)?;
        Ok(Code::DONE)
    }
}
