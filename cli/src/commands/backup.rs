use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::context::{Code, Context};
use crate::endpoint;
use crate::progress::Step;

/// Copies the replica, as it is at one moment, into an empty directory. A copy that is put back goes on as a new replica.
#[derive(Args)]
pub(crate) struct Backup {
    /// The directory.
    dir: PathBuf,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Backup {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let to = cx.path(&self.dir);
        let total = super::check::bytes_in(&cx.setup.store);
        if self.dry_run {
            writeln!(cx.out, "would copy {} to {}", crate::text::size(total), to.display())?;
            return Ok(Code::DONE);
        }
        let progress = &mut cx.progress;
        progress(Step::Start { what: "backup".into(), messages: None, bytes: total });
        let done = cx.replica.backup(&to, &mut |at| progress(Step::At { messages: 0, bytes: at.done }));
        progress(Step::End);
        done.with_context(|| format!("cannot back up to {}", to.display()))?;
        // The endpoint's key belongs to who the replica is for its peers.
        endpoint::write_key(&to, &endpoint::read_key(&cx.setup.store)?)?;
        Ok(Code::DONE)
    }
}
