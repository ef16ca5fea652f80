use std::process::{Command as Process, Stdio};

use clap::Args;
use postmerge::maildir::{Attachment, Report};
use postmerge::member::Member;
use postmerge::replica::LinkEvent;
use serde::Serialize;
use serde_json::json;

use super::join::Meter;
use super::stdio;
use crate::bridge;
use crate::context::{Code, Context};
use crate::failure::{Failure, Usage, advice};
use crate::progress::Step;

/// Exchanges everything once with each peer whose address is known, and brings attached Maildirs in step before and after;
/// fit for cron.
#[derive(Args)]
pub(crate) struct Sync {
    /// Talks through a command instead, such as `ssh host postmerge stdio`.
    #[arg(long, value_name = "COMMAND")]
    via: Option<String>,
    /// Who answers there; needed if there are several peers.
    #[arg(long, requires = "via")]
    peer: Option<String>,
    /// Says with whom, and what would become of Maildirs as things are before that.
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
        let before = bridge::run_all(cx, self.dry_run)?;
        let peers = cx
            .replica
            .peers()?
            .into_iter()
            .filter(|peer| !peer.oneself && peer.member.status == postmerge::member::Status::Active);
        let members: Vec<_> = peers.map(|peer| peer.member).collect();
        let rows = match &self.via {
            Some(command) => self.through(cx, command, &members)?,
            // Who has nobody to talk to may still have Maildirs.
            None if before.is_empty() || has_address(&members) => self.with_all(cx, &members)?,
            None => Vec::new(),
        };
        let maildirs = match self.dry_run {
            true => before,
            false => {
                let mut both = before;
                let after = bridge::run_all(cx, false)?.into_iter().map(|(_, report)| report);
                both.iter_mut().zip(after).for_each(|((_, first), second)| first.add(second));
                both
            }
        };
        if !self.dry_run {
            tidy(cx)?;
        }
        self.tell(cx, &rows, &maildirs)?;
        let synced = rows.iter().filter(|row| row.synced).count();
        let left = maildirs.iter().any(|(_, report)| bridge::code(report) != Code::DONE);
        Ok(match (synced, rows.len(), self.dry_run) {
            (_, _, true) | (_, 0, false) => Code::partly_if(left),
            (0, _, false) => Code::FAILED,
            (synced, all, false) => Code::partly_if(left || synced < all),
        })
    }

    fn tell(
        &self,
        cx: &mut Context<'_>,
        rows: &[Row],
        maildirs: &[(Attachment, Report)],
    ) -> anyhow::Result<()> {
        if self.json {
            let maildirs: Vec<_> =
                maildirs.iter().map(|(attachment, report)| bridge::as_json(attachment, report)).collect();
            return cx.json(&json!({"dry_run": self.dry_run, "peers": rows, "maildirs": maildirs}));
        }
        for (attachment, report) in maildirs {
            let (lines, warnings) = bridge::as_lines(attachment, report, self.dry_run);
            lines.iter().try_for_each(|line| writeln!(cx.out, "{line}"))?;
            warnings.iter().try_for_each(|line| writeln!(cx.err, "{line}"))?;
        }
        Ok(())
    }

    fn with_all(&self, cx: &mut Context<'_>, members: &[Member]) -> anyhow::Result<Vec<Row>> {
        if !has_address(members) {
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
            for member in members.iter().filter(|member| !member.addresses.is_empty()) {
                self.would(cx, member, &format!("at {}", member.addresses.join(", ")))?;
            }
            return Ok(Vec::new());
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
        Ok(rows)
    }

    fn would(&self, cx: &mut Context<'_>, member: &Member, how: &str) -> anyhow::Result<()> {
        if !self.json {
            writeln!(cx.out, "would sync with {} {how}", member.name)?;
        }
        Ok(())
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
    fn through(&self, cx: &mut Context<'_>, command: &str, members: &[Member]) -> anyhow::Result<Vec<Row>> {
        let member = match (&self.peer, members) {
            (Some(name), _) => cx.replica.peer(name)?.member,
            (None, [only]) => only.clone(),
            (None, _) => {
                return Err(Usage("there is more than one peer, or none; say --peer NAME".into()).into());
            }
        };
        if self.dry_run {
            self.would(cx, &member, &format!("through `{command}`"))?;
            return Ok(Vec::new());
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
        Ok(vec![self.row(cx, &member, result)?])
    }
}

/// Lets bodies of expunged messages go for which it is time. A daemon does that in its own time.
fn tidy(cx: &mut Context<'_>) -> anyhow::Result<()> {
    /// One segment: what is left waits for the next time.
    const AT_ONCE: u64 = 64 << 20;
    if cx.serving.is_some() {
        return Ok(());
    }
    let forgotten = cx.replica.forget_bodies(cx.setup.config.now().keep_expunged.0)?;
    if forgotten.bodies > 0 {
        let mut compaction = cx.replica.plan_compaction()?;
        cx.replica.compact(&mut compaction, AT_ONCE)?;
    }
    Ok(())
}

fn has_address(members: &[Member]) -> bool {
    members.iter().any(|member| !member.addresses.is_empty())
}
