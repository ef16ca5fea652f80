//! Maildirs that are kept in step with the replica.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use postmerge::maildir::{Attachment, UidLists};
use serde_json::{Value, json};

use crate::bridge;
use crate::context::{Code, Context};
use crate::progress::Step;
use crate::text::{count, size};

/// Keeps Maildirs in step with this replica: files become messages, messages become files.
#[derive(Args)]
pub(crate) struct Maildir {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Attaches a Maildir: takes in what the replica has not, and writes what the Maildir has not. From then on `serve` and
    /// `sync` keep both in step.
    Attach {
        /// The directory that holds cur and new, or directories that do.
        path: PathBuf,
        /// Who reads it and gives out UIDs of its own.
        #[arg(long, value_enum)]
        uidlist: Option<Lists>,
        /// Says what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Prints the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ends it. Files and messages stay as they are.
    Detach {
        /// The directory.
        path: PathBuf,
    },
    /// Lists the attached ones, and how they are.
    List {
        /// Prints the result as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Lists {
    /// A Dovecot, by dovecot-uidlist.
    Dovecot,
}

impl Maildir {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        match &self.action {
            Action::Attach { path, uidlist, dry_run, json } => attach(cx, path, *uidlist, *dry_run, *json),
            Action::Detach { path } => detach(cx, path),
            Action::List { json } => list(cx, *json),
        }
    }
}

/// The directory as it is remembered: where a daemon started elsewhere finds it too.
fn absolute(cx: &Context<'_>, path: &std::path::Path) -> PathBuf {
    let path = cx.path(path);
    path.canonicalize().unwrap_or(path)
}

fn attach(
    cx: &mut Context<'_>,
    path: &std::path::Path,
    uidlist: Option<Lists>,
    dry_run: bool,
    json: bool,
) -> anyhow::Result<Code> {
    let root = absolute(cx, path);
    let lists = match uidlist {
        Some(Lists::Dovecot) => UidLists::Dovecot,
        None => UidLists::None,
    };
    let maildirs = cx.hub.open()?;
    let progress = &mut cx.progress;
    progress(Step::Start { what: "attaching".into(), messages: None, bytes: 0 });
    let met = maildirs.attach(&root, lists, dry_run, &mut |done| {
        progress(Step::At { messages: done.messages, bytes: done.bytes });
    });
    progress(Step::End);
    let (attachment, met) = met?;
    // What the Maildir has not is written at once, so that it is what it will be.
    let written = match &attachment {
        Some(attachment) => Some(bridge::run(&maildirs, attachment, cx.hub.how(), progress)?),
        None => None,
    };
    cx.hub.attached()?;
    for skip in &met.skipped {
        writeln!(cx.err, "skipped {skip}")?;
    }
    let would = if dry_run { "would be " } else { "" };
    if json {
        let run = attachment.as_ref().zip(written.as_ref()).map(|(at, report)| bridge::as_json(at, report));
        let skipped: Vec<String> = met.skipped.iter().map(ToString::to_string).collect();
        cx.json(&json!({
            "dry_run": dry_run,
            "maildir": root.display().to_string(),
            "imported": met.imported,
            "bytes": met.bytes,
            "known": met.known,
            "altered": met.altered,
            "expunged": met.expunged,
            "adopted": met.adopted,
            "skipped": skipped,
            "run": run,
        }))?;
    } else {
        let (messages, bytes) = (count(met.imported, "message"), size(met.bytes));
        writeln!(cx.out, "{}: {would}taken in: {messages}, {bytes}; known: {}", root.display(), met.known)?;
        if met.adopted > 0 {
            writeln!(cx.out, "the UIDs of {} {would}kept", count(met.adopted, "mailbox"))?;
        }
        if met.altered > 0 {
            let files = count(met.altered, "file");
            writeln!(
                cx.out,
                "{files} of messages that are known: altered by another program, {would}left as they are"
            )?;
        }
        if met.expunged > 0 {
            let files = count(met.expunged, "file");
            writeln!(cx.out, "{files} left alone: expunged from the account before")?;
        }
        if let (Some(attachment), Some(report)) = (&attachment, &written) {
            print(cx, attachment, report)?;
        }
    }
    let left_out = !met.skipped.is_empty();
    Ok(written.map_or(Code::partly_if(left_out), |report| match left_out {
        true => Code::PARTLY,
        false => bridge::code(&report),
    }))
}

fn detach(cx: &mut Context<'_>, path: &std::path::Path) -> anyhow::Result<Code> {
    let root = absolute(cx, path);
    let maildirs = cx.hub.open()?;
    maildirs.detach(&maildirs.find(&root)?)?;
    cx.hub.attached()?;
    writeln!(cx.out, "{} is on its own now", root.display())?;
    Ok(Code::DONE)
}

fn list(cx: &mut Context<'_>, json: bool) -> anyhow::Result<Code> {
    let rows = describe_all(cx)?;
    if json {
        cx.json(&rows)?;
        return Ok(Code::DONE);
    }
    for row in &rows {
        writeln!(cx.out, "{}", line(row))?;
    }
    Ok(Code::DONE)
}

/// Every attached Maildir and its state, for programs.
pub(crate) fn describe_all(cx: &Context<'_>) -> anyhow::Result<Vec<Value>> {
    let attachments = cx.hub.known()?.map(|maildirs| maildirs.list()).transpose()?.unwrap_or_default();
    Ok(attachments.iter().map(|attachment| describe(cx, attachment)).collect())
}

/// The same for people.
pub(crate) fn line(row: &Value) -> String {
    let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
    format!("{}  {}", text("maildir"), text("state"))
}

fn describe(cx: &Context<'_>, attachment: &Attachment) -> Value {
    let state = cx.hub.state(attachment.id);
    let stopped = |stopped: Option<postmerge::maildir::Stopped>| stopped.map(|stopped| stopped.removals);
    let error = state.as_ref().and_then(|state| state.error.clone());
    let brake = &attachment.brake;
    let word = match (&state, &error) {
        _ if !brake.is_off() => "stopped: too many removals; see `postmerge resume`".to_owned(),
        (_, Some(error)) => format!("failed: {error}"),
        (Some(state), None) if state.in_step.is_none() => "is looked through for the first time".to_owned(),
        (Some(state), None) if state.watched => "watched".to_owned(),
        (Some(_), None) => "looked at every few seconds: the system cannot watch it".to_owned(),
        (None, None) => "in step as of the last `postmerge sync`".to_owned(),
    };
    json!({
        "maildir": attachment.root.display().to_string(),
        "uidlist": (attachment.uid_lists == UidLists::Dovecot).then_some("dovecot"),
        "state": word,
        "watched": state.as_ref().map(|state| state.watched),
        "in_step": state.as_ref().and_then(|state| state.in_step),
        "error": error,
        "skipped": state.as_ref().map(|state| state.skipped),
        "waiting": state.as_ref().map(|state| state.waiting),
        "stopped": {"into_replica": stopped(brake.into_replica), "into_maildir": stopped(brake.into_maildir)},
    })
}

/// Prints what a run did.
pub(crate) fn print(
    cx: &mut Context<'_>,
    attachment: &Attachment,
    report: &postmerge::maildir::Report,
) -> anyhow::Result<()> {
    let (lines, warnings) = bridge::as_lines(attachment, report, false);
    lines.iter().try_for_each(|line| writeln!(cx.out, "{line}"))?;
    Ok(warnings.iter().try_for_each(|line| writeln!(cx.err, "{line}"))?)
}
