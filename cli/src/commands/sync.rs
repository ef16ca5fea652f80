use std::process::{Command as Process, Stdio};

use clap::Args;
use postmerge::member::Member;
use postmerge::replica::LinkEvent;
use serde::Serialize;

use super::join::Meter;
use super::stdio;
use crate::context::{Code, Context};
use crate::failure::{Failure, Usage, advice};
use crate::progress::Step;

/// Exchanges everything once with each peer whose address is known; fit for cron.
#[derive(Args)]
pub(crate) struct Sync {
    /// Talks through a command instead, such as `ssh host postmerge stdio`.
    #[arg(long, value_name = "COMMAND")]
    via: Option<String>,
    /// Who answers there; needed if there are several peers.
    #[arg(long, requires = "via")]
    peer: Option<String>,
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
        if let Some(command) = &self.via {
            return self.through(cx, command, &members);
        }
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
            let result = done.result.map_err(anyhow::Error::from);
            rows.push(self.row(cx, &done.member, result)?);
        }
        if self.json {
            cx.json(&rows)?;
        }
        Ok(match rows.iter().filter(|row| row.synced).count() {
            0 => Code::FAILED,
            synced => Code::partly_if(synced < rows.len()),
        })
    }

    fn row(&self, cx: &mut Context<'_>, member: &Member, result: anyhow::Result<()>) -> anyhow::Result<Row> {
        let (peer, replica) = (member.name.to_string(), member.replica.to_string());
        let error = result.as_ref().err().map(ToString::to_string);
        match result {
            Err(error) => {
                let error = error.context(format!("cannot sync with {peer}"));
                Failure::of(&error, "sync").print(&mut cx.err);
            }
            Ok(()) if !self.json => writeln!(cx.out, "{peer}: in sync")?,
            Ok(()) => {}
        }
        Ok(Row { peer, replica, synced: error.is_none(), error })
    }

    /// With the one peer that answers on a command's pipes.
    fn through(&self, cx: &mut Context<'_>, command: &str, members: &[Member]) -> anyhow::Result<Code> {
        let member = match (&self.peer, members) {
            (Some(name), _) => cx.replica.peer(name)?.member,
            (None, [only]) => only.clone(),
            (None, _) => {
                return Err(Usage("there is more than one peer, or none; say --peer NAME".into()).into());
            }
        };
        if self.dry_run {
            writeln!(cx.out, "would sync with {} through `{command}`", member.name)?;
            return Ok(Code::DONE);
        }
        let mut child = Process::new("sh");
        child.arg("-c").arg(command).current_dir(&cx.cwd);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (mut out, input) = (child.stdin.take(), child.stdout.take());
        let (Some(to), Some(from)) = (&mut out, input) else { anyhow::bail!("the command has no pipes") };
        let peer = Some(member.replica);
        let result = stdio::converse(&cx.setup.runtime, &cx.replica, peer, Box::new(from), to);
        // The command ends once its input does; one that did not understand may well not.
        drop(out);
        if result.is_err() {
            child.kill()?;
        }
        child.wait()?;
        let row = self.row(cx, &member, result)?;
        let code = if row.synced { Code::DONE } else { Code::FAILED };
        if self.json {
            cx.json(&[row])?;
        }
        Ok(code)
    }
}
