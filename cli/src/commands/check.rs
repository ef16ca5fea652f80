use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use postmerge::replica::{Replica, ReplicaError};
use postmerge::store::{CheckReport, Level, Problem, Progress, Remedy};
use serde::Serialize;

use crate::context::{Code, Context};
use crate::endpoint;
use crate::failure::{Usage, advice};
use crate::paths::Setup;
use crate::progress::{self, Sink, Step};
use crate::text::count;

/// Looks at every file of the replica and changes nothing; with --repair makes a damaged one usable again.
#[derive(Args)]
pub(crate) struct Check {
    /// Repairs what can be repaired here, and says what a peer has to give.
    #[arg(long)]
    repair: bool,
    /// Reads headers and checksums only, and does not inflate and hash every body.
    #[arg(long)]
    quick: bool,
    /// With --repair: says what would be done, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Default)]
struct Report {
    dry_run: bool,
    problems: Vec<Finding>,
    groups: u64,
    bodies: u64,
    /// What was repaired, or would be.
    repaired: Vec<String>,
    lost_changes: Vec<String>,
    lost_bodies: Vec<String>,
}

#[derive(Serialize, PartialEq, Eq)]
struct Finding {
    what: String,
    remedy: &'static str,
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
        let mut report = Report::of(found);
        report.add(endpoint_problem(&cx.setup.store, &cx.replica)?);
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
        if self.repair && setup.read_only && !self.dry_run {
            return Err(Usage("--repair writes; leave out --read-only".into()).into());
        }
        if !setup.store.join("STORE").exists() {
            return Err(ReplicaError::NoReplica { path: setup.store.clone() }.into());
        }
        let mut bars: Sink = progress::paced(progress::on_terminal());
        let report = if self.repair { self.mend(setup, &mut bars)? } else { self.look(setup, &mut bars)? };
        bars(Step::End);
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            report.print(&mut std::io::stdout())?;
        }
        Ok(report.code())
    }

    fn look(&self, setup: &Setup, bars: &mut Sink) -> anyhow::Result<Report> {
        let found = Replica::check_dir(&setup.store, self.level(), &mut start(bars, &setup.store))?;
        let mut report = Report::of(found);
        match Replica::open_read_only(&setup.store) {
            Ok(replica) => {
                report.add(replica.doubts()?.iter().map(Finding::of));
                report.add(endpoint_problem(&setup.store, &replica)?);
                replica.close()?;
            }
            // The problem that keeps it shut is in the list.
            Err(_) if !report.problems.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(report)
    }

    fn mend(&self, setup: &Setup, bars: &mut Sink) -> anyhow::Result<Report> {
        let progress = &mut start(bars, &setup.store);
        let done = match self.dry_run {
            true => Replica::plan_repair(&setup.store, progress)?,
            false => Replica::repair(&setup.store, progress)?,
        };
        let mut report = Report { dry_run: self.dry_run, ..Report::default() };
        report.repaired = done.repaired.iter().map(ToString::to_string).collect();
        report.lost_bodies = done.lost_bodies.iter().map(ToString::to_string).collect();
        let changes =
            done.lost_changes.iter().map(|lost| format!("{} {}..={}", lost.actor, lost.first, lost.last));
        report.lost_changes = changes.collect();
        if done.lost_local {
            eprintln!("warning: records that no peer has may be lost: UIDs that were shown may change");
        }
        if !self.dry_run {
            let replica = Replica::open(&setup.store, setup.state())?;
            // So that the next sync asks for them.
            replica.note_lost_bodies()?;
            report.add(replica.doubts()?.iter().map(Finding::of));
            report.add(endpoint_problem(&setup.store, &replica)?);
            replica.close()?;
        }
        Ok(report)
    }

    fn level(&self) -> Level {
        if self.quick { Level::Quick } else { Level::Full }
    }
}

impl Finding {
    fn of(problem: &Problem) -> Finding {
        let remedy = match problem.remedy() {
            Remedy::Repair => "`postmerge check --repair`, and `postmerge sync` afterwards",
            Remedy::Sync => "`postmerge sync`: a peer has what is lost",
            Remedy::Restore => RESTORE,
        };
        Finding { what: problem.to_string(), remedy }
    }
}

const RESTORE: &str = "copy the file from a backup; without one, join the account as a new replica";

/// The endpoint's key belongs to the program, so the library does not look at it.
fn endpoint_problem(store: &Path, replica: &Replica) -> anyhow::Result<Option<Finding>> {
    let known = replica.peers()?.into_iter().find(|peer| peer.oneself).map(|peer| peer.member.endpoint);
    let what = match endpoint::read_key(store) {
        Err(error) => format!("{error:#}"),
        Ok(key) if known.is_some_and(|known| known != key.peer_id()) => {
            format!("{} is not the key that the members know", endpoint::file(store).display())
        }
        Ok(_) => return Ok(None),
    };
    Ok(Some(Finding { what, remedy: RESTORE }))
}

impl Report {
    fn of(found: CheckReport) -> Report {
        let problems = found.problems.iter().map(Finding::of).collect();
        Report { problems, groups: found.groups, bodies: found.bodies, ..Report::default() }
    }

    fn add(&mut self, found: impl IntoIterator<Item = Finding>) {
        for finding in found {
            if !self.problems.contains(&finding) {
                self.problems.push(finding);
            }
        }
    }

    fn print(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let (repaired, lost) = match self.dry_run {
            true => ("would repair", "would be lost until a peer gives"),
            false => ("repaired", "lost until a peer gives"),
        };
        for line in &self.repaired {
            writeln!(out, "{repaired}: {line}")?;
        }
        for changes in &self.lost_changes {
            writeln!(out, "{lost} them: changes {changes}")?;
        }
        for body in &self.lost_bodies {
            writeln!(out, "{lost} it: body {body}")?;
        }
        for problem in &self.problems {
            writeln!(out, "problem: {}", problem.what)?;
        }
        if self.groups > 0 && self.problems.is_empty() {
            let (groups, bodies) = (count(self.groups, "commit"), self.bodies);
            writeln!(out, "all is well: {groups}, {bodies} bodies")?;
        }
        if self.dry_run && self.repaired.is_empty() {
            writeln!(out, "there is nothing to repair")?;
        }
        let remedies: BTreeSet<_> = self.problems.iter().map(|problem| problem.remedy).collect();
        for remedy in remedies {
            writeln!(out, "Hint: {remedy}")?;
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
