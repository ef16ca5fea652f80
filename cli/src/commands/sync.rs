use clap::Args;
use postmerge::member::Member;
use postmerge::replica::LinkEvent;
use serde::Serialize;

use super::join::Meter;
use crate::context::{Code, Context};
use crate::failure::{Failure, advice};
use crate::progress::Step;

/// Exchanges everything once with each peer whose address is known; fit for cron.
#[derive(Args)]
pub(crate) struct Sync {
    /// Says with whom.
    #[arg(long)]
    dry_run: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    peer: String,
    replica: String,
    synced: bool,
    error: Option<String>,
}

impl Sync {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let peers = cx
            .replica
            .peers()?
            .into_iter()
            .filter(|peer| !peer.oneself && peer.member.status == postmerge::member::Status::Active);
        let members: Vec<_> = peers.map(|peer| peer.member).collect();
        let reachable = || members.iter().filter(|member| !member.addresses.is_empty());
        if reachable().next().is_none() {
            return match members.is_empty() {
                true => Err(advice("this replica has no peer", "`postmerge invite` prints a ticket for one")),
                false => Err(advice(
                    "no peer's address is known",
                    "this replica waits for them in `postmerge serve`; or a peer says where it is reached with \
                     `postmerge peers set-address HOST:PORT`",
                )),
            };
        }
        if self.dry_run {
            for member in reachable() {
                writeln!(cx.out, "would sync with {} at {}", member.name, member.addresses.join(", "))?;
            }
            return Ok(Code::DONE);
        }
        let node = cx.node()?;
        let (mut meter, progress) = (Meter::default(), &mut cx.progress);
        let mut take = |_: &Member, event: &LinkEvent| meter.take(event, progress);
        let results = cx.setup.runtime.block_on(node.sync(&mut take));
        (cx.progress)(Step::End);
        let mut rows = Vec::new();
        for done in results {
            let name = done.member.name.to_string();
            let error = done.result.err();
            let text = error.as_ref().map(ToString::to_string);
            if let Some(error) = error {
                let error = anyhow::Error::from(error).context(format!("cannot sync with {name}"));
                Failure::of(&error).print(&mut cx.err);
            } else if !self.json {
                writeln!(cx.out, "{name}: in sync")?;
            }
            let replica = done.member.replica.to_string();
            rows.push(Row { peer: name, replica, synced: text.is_none(), error: text });
        }
        if self.json {
            cx.json(&rows)?;
        }
        Ok(match rows.iter().filter(|row| row.synced).count() {
            0 => Code::FAILED,
            synced => Code::partly_if(synced < rows.len()),
        })
    }
}
