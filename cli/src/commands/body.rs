use clap::Args;
use postmerge::mailbox::EntryId;

use crate::context::{Code, Context};

/// Prints a raw message.
#[derive(Args)]
pub(crate) struct Body {
    /// The message's entry, as `messages` lists it.
    entry: EntryId,
}

impl Body {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let mut body = cx.replica.body(self.entry)?;
        std::io::copy(&mut body, &mut cx.out)?;
        Ok(Code::DONE)
    }
}
