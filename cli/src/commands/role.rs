use clap::Args;
use postmerge::member::Role as MemberRole;

use crate::context::{Code, Context};
use crate::text;

/// Gives a peer another role: observer (changes mail), reader (changes nothing) or deliver (only adds messages).
///
/// A server stays one, and nobody becomes one later: its mail clients know the UIDs that it showed. The peer obeys once it
/// hears of it, and what it wrote until then stays; to shut out one that is lost or stolen, `postmerge forget` it.
#[derive(Args)]
pub(crate) struct Role {
    /// Its name, or the start of its replica id or endpoint.
    peer: String,
    /// observer, reader or deliver.
    role: MemberRole,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Role {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let peer = cx.replica.peer(&self.peer)?;
        let (name, id, role) = (&peer.member.name, peer.member.replica, text::a(self.role));
        if self.dry_run {
            writeln!(cx.out, "would make {name} ({id}), {} until now, {role}", text::a(peer.member.role))?;
            return Ok(Code::DONE);
        }
        cx.replica.assign(id, self.role)?;
        writeln!(cx.err, "{name} ({id}) is {role}")?;
        Ok(Code::DONE)
    }
}
