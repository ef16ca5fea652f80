//! Takes in a Maildir tree or an mbox file.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use postmerge::mailbox::{MailboxName, UidValidity};
use postmerge::maildir::{self, Folder, Mbox, MboxDialect, MboxError};
use postmerge::member::Role;
use postmerge::replica::{ImportMessage, ImportReport, Importer, Replica, ReplicaError};
use serde::Serialize;

use crate::context::{Code, Context};
use crate::progress::{Sink, Step};
use crate::text;

/// Takes in a Maildir tree or an mbox file, without changing it. A second import of the same changes nothing.
#[derive(Args)]
pub(crate) struct Import {
    /// A Maildir (in either layout) or an mbox file.
    source: PathBuf,
    /// Brings back messages that were expunged here.
    #[arg(long)]
    again: bool,
    /// Where it goes: an mbox file into this mailbox [default: its name]; a tree's INBOX into it, and the tree's other
    /// mailboxes below it [default: each under its own name].
    #[arg(long)]
    mailbox: Option<MailboxName>,
    /// The mbox file does not quote lines "From " as mboxrd does.
    #[arg(long)]
    mboxo: bool,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What became of one mailbox.
#[derive(Serialize)]
pub(super) struct Row {
    mailbox: String,
    pub(super) imported: u64,
    bytes: u64,
    known: u64,
    /// Those of them whose files another program altered.
    pub(super) altered: u64,
    expunged: u64,
    pub(super) bodies: u64,
    /// Files that may be messages whose bodies are not here: left for later.
    undecided: u64,
    adopts_uids: bool,
    uids: &'static str,
}

#[derive(Serialize)]
struct Skip {
    path: PathBuf,
    reason: String,
}

/// What an import did, or would do.
#[derive(Serialize, Default)]
pub(super) struct Outcome {
    dry_run: bool,
    mailboxes: Vec<Row>,
    skipped: Vec<Skip>,
}

/// How to import.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub(super) again: bool,
    pub(super) dry_run: bool,
}

impl Import {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let source = cx.path(&self.source);
        let how = How { again: self.again, dry_run: self.dry_run };
        let meta = std::fs::metadata(&source).with_context(|| format!("cannot read {}", source.display()))?;
        let outcome = if meta.is_dir() {
            tree(&cx.replica, &source, self.mailbox.as_ref(), how, None, &mut cx.progress)?
        } else {
            self.mbox(cx, &source, meta.len(), how)?
        };
        if self.json {
            cx.json(&outcome)?;
        } else {
            outcome.print(&mut cx.out)?;
        }
        for skip in &outcome.skipped {
            writeln!(cx.err, "skipped {}: {}", skip.path.display(), skip.reason)?;
        }
        if outcome.undecided() > 0 {
            let files = text::count(outcome.undecided(), "file");
            writeln!(
                cx.err,
                "{files} may be messages whose bodies have not arrived; `postmerge sync`, then import again"
            )?;
        }
        Ok(outcome.code())
    }

    fn mbox(&self, cx: &mut Context<'_>, path: &Path, bytes: u64, how: How) -> anyhow::Result<Outcome> {
        let name = match &self.mailbox {
            Some(name) => name.clone(),
            None => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                stem.parse()
                    .with_context(|| format!("{} does not name a mailbox; say --mailbox", path.display()))?
            }
        };
        let dialect = if self.mboxo { MboxDialect::O } else { MboxDialect::Rd };
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut importer = cx.replica.import(&name, None, how.again, how.dry_run)?;
        let mut outcome = Outcome { dry_run: how.dry_run, ..Outcome::default() };
        let progress = &mut cx.progress;
        progress(Step::Start { what: name.to_string(), messages: None, bytes });
        let (mut mbox, mut messages) = (Mbox::new(BufReader::new(file), dialect), 0);
        let failed = || format!("cannot import {}", path.display());
        while let Some(message) = mbox.next_message().with_context(failed)? {
            messages += 1;
            progress(Step::At { messages, bytes: message.offset });
            let internal_date = message.internal_date.or_else(|| sent(&message.header)).unwrap_or(0);
            let keywords = message.keywords.clone();
            match importer.add(ImportMessage { internal_date, keywords, uid: None }, message) {
                Err(ReplicaError::Source { source }) if is_too_large(&source) => {
                    outcome.skipped.push(Skip { path: path.into(), reason: source.to_string() });
                }
                added => drop(added.with_context(failed)?),
            }
        }
        progress(Step::End);
        let new = !importer.existed();
        outcome.mailboxes.push(row(&name, importer.finish()?, "new ones: an mbox has none"));
        if new && !how.dry_run {
            cx.replica.set_subscribed(&name, true)?;
        }
        Ok(outcome)
    }
}

fn is_too_large(error: &std::io::Error) -> bool {
    matches!(error.get_ref().and_then(|error| error.downcast_ref()), Some(MboxError::TooLarge { .. }))
}

/// The date that a message gives itself.
fn sent(header: &[u8]) -> Option<i64> {
    Some(mail_parser::MessageParser::new().parse_headers(header)?.date()?.to_timestamp())
}

/// Imports every folder of a tree: its INBOX as `into` and the others below that, if it is given. Only those mailboxes, if some
/// are named.
pub(super) fn tree(
    replica: &Replica,
    root: &Path,
    into: Option<&MailboxName>,
    how: How,
    only: Option<&BTreeSet<String>>,
    progress: &mut Sink,
) -> anyhow::Result<Outcome> {
    let mut scan = maildir::scan(root)?;
    if into.is_none() {
        scan.follow_names(replica)?;
    }
    if let Some(into) = into {
        for folder in &mut scan.folders {
            let name =
                if folder.name.is_inbox() { into.to_string() } else { format!("{into}/{}", folder.name) };
            // Before anything is imported: too long or too deep a name must not stop an import half way.
            folder.name =
                name.parse().with_context(|| format!("{name:?} cannot be the name of a mailbox"))?;
        }
    }
    if let Some(only) = only {
        scan.folders.retain(|folder| only.contains(folder.name.as_str()));
    }
    let skipped = scan.skipped.into_iter();
    let skipped = skipped.map(|skip| Skip { path: skip.path, reason: skip.reason.to_string() }).collect();
    let mut outcome = Outcome { dry_run: how.dry_run, mailboxes: Vec::new(), skipped };
    let all = || scan.folders.iter().flat_map(|folder| &folder.messages);
    let messages = Some(all().count() as u64);
    let bytes = all().map(|message| message.size).sum();
    progress(Step::Start { what: "import".into(), messages, bytes });
    let mut done = (0, 0);
    for folder in &scan.folders {
        let row = one_folder(replica, folder, how, &mut outcome.skipped, &mut |size| {
            done = (done.0 + 1, done.1 + size);
            progress(Step::At { messages: done.0, bytes: done.1 });
        });
        outcome.mailboxes.push(row.with_context(|| format!("cannot import mailbox {:?}", folder.name))?);
    }
    progress(Step::End);
    Ok(outcome)
}

fn one_folder(
    replica: &Replica,
    folder: &Folder,
    how: How,
    skipped: &mut Vec<Skip>,
    done: &mut dyn FnMut(u64),
) -> anyhow::Result<Row> {
    let adopt = folder.uidlist.as_ref().map(|list| (list.validity, list.next.value()));
    let mut importer = replica.import(&folder.name, adopt, how.again, how.dry_run)?;
    let uids = fate(replica, &importer, adopt)?;
    let intake = folder.take_in(&mut importer, done)?;
    let skips = intake.skipped.into_iter();
    skipped.extend(skips.map(|skip| Skip { path: skip.path, reason: skip.reason.to_string() }));
    if !folder.settled {
        let reason = "changed while it was read; import again to be sure that nothing was missed".to_owned();
        skipped.push(Skip { path: folder.dir.clone(), reason });
    }
    let new = !importer.existed();
    let report = importer.finish()?;
    // Mail clients list what is subscribed; who never made a list of subscriptions saw every folder.
    if folder.subscribed.unwrap_or(new) && !how.dry_run {
        replica.set_subscribed(&folder.name, true)?;
    }
    let uids = if report.adopts_uids && replica.role()? == Role::Server { "adopted" } else { uids };
    Ok(Row { undecided: intake.undecided, ..row(&folder.name, report, uids) })
}

/// What happens to the folder's UIDs if they are not adopted.
fn fate(
    replica: &Replica,
    importer: &Importer<'_>,
    adopt: Option<(UidValidity, u32)>,
) -> anyhow::Result<&'static str> {
    let Some((validity, _)) = adopt else { return Ok("new ones: the folder has no dovecot-uidlist") };
    if replica.role()? == Role::Observer {
        return Ok("private: this replica is an observer");
    }
    if !importer.existed() {
        return Ok("new ones: the name bore a higher UIDVALIDITY");
    }
    let shown = replica.mailbox(importer.mailbox())?.uid_validity;
    Ok(match shown.cmp(&validity) {
        Ordering::Equal => "as they are: the mailbox has this UIDVALIDITY already",
        Ordering::Greater => "new ones: the mailbox has a higher UIDVALIDITY",
        Ordering::Less => "new ones: the mailbox has another UIDVALIDITY",
    })
}

fn row(name: &MailboxName, report: ImportReport, uids: &'static str) -> Row {
    let ImportReport { imported, bytes, known, altered, expunged, bodies, adopts_uids } = report;
    let (mailbox, undecided) = (name.to_string(), 0);
    Row { mailbox, imported, bytes, known, altered, expunged, bodies, undecided, adopts_uids, uids }
}

impl Outcome {
    pub(super) fn code(&self) -> Code {
        Code::partly_if(self.skipped_some() || self.undecided() > 0)
    }

    /// Whether something cannot be a message, or could not be read.
    pub(super) fn skipped_some(&self) -> bool {
        !self.skipped.is_empty()
    }

    /// Files about which nothing can be said before more bodies are here.
    pub(super) fn undecided(&self) -> u64 {
        self.sum(|row| row.undecided)
    }

    /// Where they are.
    pub(super) fn undecided_mailboxes(&self) -> BTreeSet<String> {
        let rows = self.mailboxes.iter().filter(|row| row.undecided > 0);
        rows.map(|row| row.mailbox.clone()).collect()
    }

    /// Lists on standard error what was left alone.
    pub(super) fn complain(&self) {
        for skip in &self.skipped {
            eprintln!("skipped {}: {}", skip.path.display(), skip.reason);
        }
    }

    pub(super) fn print(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let cells: Vec<Vec<String>> = self
            .mailboxes
            .iter()
            .map(|row| {
                let numbers = [row.imported, row.known, row.expunged].map(|number| number.to_string());
                let mut cells = vec![row.mailbox.clone()];
                cells.extend(numbers);
                let uids = row.uids.split_once(": ").map_or(row.uids, |(short, _)| short);
                cells.extend([text::size(row.bytes), uids.to_owned()]);
                cells
            })
            .collect();
        let head = [
            "mailbox",
            if self.dry_run { "would import" } else { "imported" },
            "known",
            "expunged here",
            "size",
            "UIDs",
        ];
        text::table(out, &head, &cells, &[1, 2, 3, 4])?;
        // The reasons beside each mailbox would not fit on a line.
        let reasons: BTreeSet<&str> = self.mailboxes.iter().map(|row| row.uids).collect();
        for reason in reasons.iter().filter(|reason| reason.contains(": ")) {
            writeln!(out, "UIDs: {reason}")?;
        }
        Ok(())
    }

    /// One of the numbers, over all mailboxes.
    pub(super) fn sum(&self, of: fn(&Row) -> u64) -> u64 {
        self.mailboxes.iter().map(of).sum()
    }
}
