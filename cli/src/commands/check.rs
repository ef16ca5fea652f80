use std::path::Path;

use clap::Args;
use postmerge::replica::Replica;
use postmerge::store::{Level, Progress, Store};
use serde::Serialize;

use crate::context::{Code, Context};
use crate::failure::{Usage, advice};
use crate::paths::Setup;
use crate::progress::{self, Sink, Step};
use crate::text::count;

/// Looks at every file of the store; with --repair makes a damaged store usable again.
#[derive(Args)]
pub(crate) struct Check {
    /// Repairs what can be repaired here, and says what a peer has to give.
    #[arg(long)]
    repair: bool,
    /// Reads headers and checksums only, and does not inflate and hash every body.
    #[arg(long)]
    quick: bool,
    /// With --repair: says what is wrong, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Default)]
struct Report {
    problems: Vec<String>,
    groups: u64,
    bodies: u64,
    repaired: Vec<String>,
    lost_changes: Vec<String>,
    lost_bodies: Vec<String>,
}

impl Check {
    /// Inside the daemon, which holds the store open.
    pub(crate) fn run_inside(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        if self.repair && !self.dry_run {
            let hint = "stop `postmerge serve`, then repair";
            return Err(advice("a store cannot be repaired while it is served", hint));
        }
        let found = cx.replica.check(self.level(), &mut start(&mut cx.progress, &cx.setup.store))?;
        (cx.progress)(Step::End);
        let report = Report::of(found);
        if self.json {
            cx.json(&report)?;
        } else {
            report.print(&mut cx.out)?;
        }
        Ok(report.code())
    }

    /// On a store that nobody has open.
    pub(crate) fn run_alone(&self, setup: &Setup) -> anyhow::Result<Code> {
        if self.repair && self.quick {
            return Err(Usage("--repair looks at everything; leave out --quick".into()).into());
        }
        if !setup.store.join("STORE").exists() {
            return Err(postmerge::replica::ReplicaError::NoReplica { path: setup.store.clone() }.into());
        }
        let mut bars: Sink = progress::paced(progress::on_terminal());
        let report = if self.repair && !self.dry_run {
            let done = Store::repair(&setup.store, &mut start(&mut bars, &setup.store))?;
            let replica = Replica::open(&setup.store, setup.state())?;
            // So that the next sync asks for them.
            replica.note_lost_bodies()?;
            replica.close()?;
            if done.lost_local {
                eprintln!("warning: records that no peer has may be lost: UIDs that were shown may change");
            }
            Report {
                repaired: done.repaired.iter().map(ToString::to_string).collect(),
                lost_changes: done
                    .lost_changes
                    .iter()
                    .map(|lost| format!("{} {}..={}", lost.actor, lost.first, lost.last))
                    .collect(),
                lost_bodies: done.lost_bodies.iter().map(ToString::to_string).collect(),
                ..Report::default()
            }
        } else {
            Report::of(Store::check(&setup.store, self.level(), &mut start(&mut bars, &setup.store))?)
        };
        bars(Step::End);
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            report.print(&mut std::io::stdout())?;
        }
        Ok(report.code())
    }

    fn level(&self) -> Level {
        if self.quick { Level::Quick } else { Level::Full }
    }
}

impl Report {
    fn of(found: postmerge::store::CheckReport) -> Report {
        let problems = found.problems.iter().map(ToString::to_string).collect();
        Report { problems, groups: found.groups, bodies: found.bodies, ..Report::default() }
    }

    fn print(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        for problem in &self.problems {
            writeln!(out, "problem: {problem}")?;
        }
        for repaired in &self.repaired {
            writeln!(out, "repaired: {repaired}")?;
        }
        for lost in &self.lost_changes {
            writeln!(out, "lost until a peer gives them: changes {lost}")?;
        }
        for lost in &self.lost_bodies {
            writeln!(out, "lost until a peer gives it: body {lost}")?;
        }
        if self.groups > 0 && self.problems.is_empty() {
            let (groups, bodies) = (count(self.groups, "commit"), self.bodies);
            writeln!(out, "all is well: {groups}, {bodies} bodies")?;
        }
        if !self.problems.is_empty() {
            writeln!(out, "Hint: `postmerge check --repair`, and `postmerge sync` afterwards")?;
        }
        Ok(())
    }

    fn code(&self) -> Code {
        let lost = !self.lost_changes.is_empty() || !self.lost_bodies.is_empty();
        if self.problems.is_empty() { Code::partly_if(lost) } else { Code::FAILED }
    }
}

fn start<'a>(sink: &'a mut Sink, store: &Path) -> impl FnMut(Progress) + use<'a> {
    sink(Step::Start { what: "check".into(), messages: None, bytes: bytes_in(store) });
    |at| sink(Step::At { messages: 0, bytes: at.done })
}

/// How large a directory's files are together.
pub(crate) fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
