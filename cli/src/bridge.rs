//! The Maildirs of a replica, as this process has them: opened when somebody asks, and shared by the daemon and the commands
//! that run inside it.

mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use postmerge::maildir::{
    Attachment, AttachmentId, BridgeError, Counts, How, Maildirs, Progress, RemovalLimit, Report,
};
use postmerge::replica::Replica;
use serde_json::{Value, json};

use crate::config::Config;
use crate::context::{Code, Context};
use crate::progress::{Sink, Step};
use crate::text::{count, size};

pub(crate) use watch::State;

/// The Maildirs of one replica.
pub(crate) struct Hub {
    replica: Replica,
    store: PathBuf,
    limit: RemovalLimit,
    open: Mutex<Option<Arc<Maildirs>>>,
    /// Those that are watched; nothing outside of a daemon.
    watches: Mutex<Option<BTreeMap<AttachmentId, watch::Watch>>>,
}

impl Hub {
    pub(crate) fn new(replica: Replica, store: PathBuf, config: &Config) -> Arc<Hub> {
        let usual = RemovalLimit::default();
        let limit = RemovalLimit {
            count: config.removals.unwrap_or(usual.count),
            percent: config.removals_percent.unwrap_or(usual.percent),
        };
        Arc::new(Hub { replica, store, limit, open: Mutex::default(), watches: Mutex::default() })
    }

    /// What is attached; nothing if nothing ever was, and then nothing is opened.
    pub(crate) fn known(&self) -> Result<Option<Arc<Maildirs>>, BridgeError> {
        let known = lock(&self.open).is_some() || Maildirs::are_kept(&self.store);
        known.then(|| self.open()).transpose()
    }

    /// The same, for who attaches one.
    pub(crate) fn open(&self) -> Result<Arc<Maildirs>, BridgeError> {
        let mut open = lock(&self.open);
        if let Some(maildirs) = &*open {
            return Ok(Arc::clone(maildirs));
        }
        let maildirs = Arc::new(Maildirs::open(&self.replica)?);
        *open = Some(Arc::clone(&maildirs));
        Ok(maildirs)
    }

    /// How a run goes about it here.
    pub(crate) fn how(&self) -> How {
        How { limit: self.limit, ..How::default() }
    }

    /// Keeps every Maildir in step from now on, those that are attached later too.
    pub(crate) fn watch(&self) -> Result<(), BridgeError> {
        lock(&self.watches).get_or_insert_default();
        self.attached()
    }

    /// Something was attached or detached: whoever watches takes notice.
    pub(crate) fn attached(&self) -> Result<(), BridgeError> {
        let Some(maildirs) = self.known()? else { return Ok(()) };
        if let Some(watches) = &mut *lock(&self.watches) {
            let attachments = maildirs.list()?;
            watches.retain(|id, _| attachments.iter().any(|attachment| attachment.id == *id));
            for attachment in attachments {
                let start = || watch::Watch::start(&self.replica, &maildirs, &attachment, self.how());
                watches.entry(attachment.id).or_insert_with(start);
            }
        }
        Ok(())
    }

    /// How a Maildir that is watched is.
    pub(crate) fn state(&self, id: AttachmentId) -> Option<State> {
        lock(&self.watches).as_ref()?.get(&id).map(watch::Watch::state)
    }

    /// Ends what watches, after the run it is in.
    pub(crate) fn stop(&self) {
        // Not under the lock: what ends may ask for it.
        let watches = lock(&self.watches).take();
        drop(watches);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings one Maildir in step, telling how far it is.
pub(crate) fn run(
    maildirs: &Maildirs,
    attachment: &Attachment,
    how: How,
    sink: &mut Sink,
) -> Result<Report, BridgeError> {
    sink(Step::Start { what: attachment.root.display().to_string(), messages: None, bytes: 0 });
    let mut tell = |done: Progress| sink(Step::At { messages: done.messages, bytes: done.bytes });
    let report = maildirs.run(attachment.id, how, &SystemTime::now, &mut tell);
    sink(Step::End);
    report
}

/// Brings every attached Maildir in step with what the replica has now.
pub(crate) fn run_all(cx: &mut Context<'_>, dry_run: bool) -> anyhow::Result<Vec<(Attachment, Report)>> {
    let Some(maildirs) = cx.hub.known()? else { return Ok(Vec::new()) };
    let how = How { dry_run, ..cx.hub.how() };
    let mut reports = Vec::new();
    for attachment in maildirs.list()? {
        let report = run(&maildirs, &attachment, how, &mut cx.progress)?;
        reports.push((attachment, report));
    }
    Ok(reports)
}

/// A report for programs.
pub(crate) fn as_json(attachment: &Attachment, report: &Report) -> Value {
    let counts = |counts: &Counts| {
        json!({
            "added": counts.added,
            "bytes": counts.bytes,
            "moved": counts.moved,
            "flagged": counts.flagged,
            "removed": counts.removed,
            "mailboxes": counts.mailboxes,
        })
    };
    let stopped = |stopped: Option<postmerge::maildir::Stopped>| {
        stopped.map(|stopped| json!({"removals": stopped.removals, "messages": stopped.messages}))
    };
    json!({
        "maildir": attachment.root.display().to_string(),
        "into_replica": counts(&report.into_replica),
        "into_maildir": counts(&report.into_maildir),
        "waiting": report.waiting,
        "busy": report.busy.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "skipped": report.skipped.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "stopped": {
            "into_replica": stopped(report.brake.into_replica),
            "into_maildir": stopped(report.brake.into_maildir),
        },
    })
}

/// Lines for people, and those that go to standard error.
pub(crate) fn as_lines(
    attachment: &Attachment,
    report: &Report,
    dry_run: bool,
) -> (Vec<String>, Vec<String>) {
    let root = attachment.root.display();
    let side = |counts: &Counts, where_to: &str| {
        let mut parts = Vec::new();
        let mut part = |number: u64, what: &str| {
            if number > 0 {
                parts.push(format!("{number} {what}"));
            }
        };
        part(counts.added, "added");
        part(counts.moved, "moved");
        part(counts.flagged, "flagged");
        part(counts.removed, "removed");
        part(counts.mailboxes, if counts.mailboxes == 1 { "mailbox changed" } else { "mailboxes changed" });
        let bytes = if counts.bytes > 0 { format!(" ({})", size(counts.bytes)) } else { String::new() };
        (!parts.is_empty()).then(|| format!("{where_to} {}{bytes}", parts.join(", ")))
    };
    let would = if dry_run { "would be " } else { "" };
    let sides = [side(&report.into_replica, "from it"), side(&report.into_maildir, "into it")];
    let sides: Vec<String> = sides.into_iter().flatten().collect();
    let mut lines = vec![match sides.is_empty() {
        true => format!("{root}: in step"),
        false => format!("{root}: {would}{}", sides.join("; ")),
    }];
    if report.waiting > 0 {
        lines.push(format!(
            "{root}: {} to be written once the bodies are here",
            count(report.waiting, "message")
        ));
    }
    let mut warnings: Vec<String> = report.skipped.iter().map(|skip| format!("skipped {skip}")).collect();
    warnings.extend(
        report.busy.iter().map(|name| format!("mailbox {name:?} is being changed; the next run looks at it")),
    );
    warnings.extend(stops(attachment, report));
    (lines, warnings)
}

/// What stands still, and how it goes on.
pub(crate) fn stops(attachment: &Attachment, report: &Report) -> Vec<String> {
    let root = attachment.root.display();
    let line = |stopped: postmerge::maildir::Stopped, what: &str| {
        format!(
            "{root}: stopped: {what} {} of {} messages. If that is meant, `postmerge resume --allow-removals` goes on",
            stopped.removals, stopped.messages
        )
    };
    let into_replica =
        report.brake.into_replica.map(|stopped| line(stopped, "files are gone, which would expunge"));
    let into_maildir =
        report.brake.into_maildir.map(|stopped| line(stopped, "expunges would remove the files of"));
    into_replica.into_iter().chain(into_maildir).collect()
}

/// Partly done if something was left out.
pub(crate) fn code(report: &Report) -> Code {
    Code::partly_if(!report.brake.is_off() || !report.skipped.is_empty() || !report.busy.is_empty())
}
