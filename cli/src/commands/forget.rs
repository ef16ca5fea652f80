use clap::Args;

use crate::context::{Code, Context};

/// Ends the membership of a peer. What it wrote so far stays; an open session of it ends at once.
#[derive(Args)]
pub(crate) struct Forget {
    /// Its name, or the start of its replica id or endpoint.
    peer: String,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Forget {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let peer = cx.replica.peer(&self.peer)?;
        let (name, id) = (&peer.member.name, peer.member.replica);
        if peer.oneself {
            return Err(postmerge::replica::ReplicaError::Oneself.into());
        }
        if self.dry_run {
            writeln!(cx.out, "would forget {name} ({id})")?;
            return Ok(Code::DONE);
        }
        cx.replica.forget(id)?;
        writeln!(cx.err, "forgot {name} ({id})")?;
        Ok(Code::DONE)
    }
}
