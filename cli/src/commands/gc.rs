use clap::Args;
use postmerge::replica::{Blocker, Replica};
use serde_json::{Value, json};

use crate::config::KeepExpunged;
use crate::context::{Code, Context};
use crate::text::{count, instant, size};

/// Lets the bodies of messages go that were expunged long enough ago, and gives their space back. `serve` and `sync` do it by
/// themselves.
#[derive(Args)]
pub(crate) struct Gc {
    /// Keeps bodies for so many days, or "forever", instead of as long as the configuration says.
    #[arg(long, value_name = "DAYS")]
    keep: Option<KeepExpunged>,
    /// Says what would go.
    #[arg(long)]
    dry_run: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Bytes that are written anew between two signs of life.
const STEP: u64 = 4 << 20;

impl Gc {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let keep = self.keep.unwrap_or(cx.setup.config.now().keep_expunged).0;
        let forgotten = match self.dry_run {
            true => cx.replica.plan_forgetting(keep)?,
            false => cx.replica.forget_bodies_now(keep)?,
        };
        let mut compaction = cx.replica.plan_compaction()?;
        let mut freed = if self.dry_run { compaction.dead() } else { 0 };
        while !self.dry_run && !compaction.is_done() {
            freed += cx.replica.compact(&mut compaction, STEP)?.freed;
        }
        let blockers = waited_for(&cx.replica, &forgotten.blockers)?;
        if self.json {
            cx.json(&json!({
                "dry_run": self.dry_run,
                "bodies": forgotten.bodies,
                "bytes": forgotten.bytes,
                "kept_bodies": forgotten.kept_bodies,
                "kept_bytes": forgotten.kept_bytes,
                "freed_bytes": freed,
                "waits_for": blockers.iter().map(Waited::json).collect::<Value>(),
            }))?;
            return Ok(Code::DONE);
        }
        let would = if self.dry_run { "would have " } else { "" };
        let bodies = count(forgotten.bodies, "message");
        writeln!(cx.out, "{would}forgotten the bodies of {bodies}, {}", size(forgotten.bytes))?;
        writeln!(cx.out, "{would}given back {} of packs", size(freed))?;
        if forgotten.kept_bodies > 0 {
            let kept = count(forgotten.kept_bodies, "expunged message");
            writeln!(cx.out, "kept the bodies of {kept}, {}", size(forgotten.kept_bytes))?;
        }
        for waited in &blockers {
            writeln!(cx.out, "{}", waited.line())?;
        }
        Ok(Code::DONE)
    }
}

/// A peer that has not acknowledged expunges that are old enough.
pub(crate) struct Waited {
    name: String,
    blocker: Blocker,
}

/// The peers that bodies wait for, by name.
pub(crate) fn waited_for(replica: &Replica, blockers: &[Blocker]) -> anyhow::Result<Vec<Waited>> {
    let peers = if blockers.is_empty() { Vec::new() } else { replica.peers()? };
    let named = |blocker: &Blocker| {
        let peer = peers.iter().find(|peer| peer.member.replica == blocker.replica);
        let name = peer.map_or_else(|| blocker.replica.to_string(), |peer| peer.member.name.to_string());
        Waited { name, blocker: *blocker }
    };
    Ok(blockers.iter().map(named).collect())
}

impl Waited {
    /// For people.
    pub(crate) fn line(&self) -> String {
        let name = &self.name;
        match self.blocker.since {
            Some(at) => format!("they wait for {name}, last seen {}", instant(at)),
            None => format!("they wait for {name}, which was never met; meet it once, or forget it"),
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let replica = self.blocker.replica.to_string();
        json!({"peer": self.name, "replica": replica, "last_contact": self.blocker.since.map(instant)})
    }
}
