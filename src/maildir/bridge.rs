//! Joins a Maildir to a replica, both ways: what other programs do to the files becomes changes of the account, and what
//! became of the account becomes files.
//!
//! A run looks at both sides, decides about each message that changed on either from what it was when both were last equal
//! ([`decide`]), and does it. What a run cannot do it leaves for the next one; what it did half before a crash the next one
//! recognises by content. So a run may be cut off anywhere, and one that has nothing to do costs a few look-ups a folder.
//!
//! - A file is gone only if two looks at a folder that stood still say so, and no other folder has it.
//! - A Maildir that is missing, or without its marker, is an error. More removals than a [`RemovalLimit`] stop a direction.
//! - Nothing that cannot be a message is touched: links, directories, files that nobody may read. They are reported.

mod attach;
mod brake;
mod compare;
mod decide;
mod files;
mod folders;
mod gather;
mod ledger;
mod lock;
mod look;
mod perform;
mod recover;
mod served;
mod uids;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use attach::Attached;
pub use brake::{Brake, RemovalLimit, Stopped};
pub use ledger::{Attachment, AttachmentId, UidLists};
pub use look::Clock;

use super::apply::Progress;
use super::scan::{MaildirError, Skipped};
use crate::mailbox::{EntryId, MailboxName};
use crate::replica::{Replica, ReplicaError};
use crate::store::Shelf;
use crate::uid::TableError;

/// Why a Maildir and a replica could not be brought in step.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The directory is not the Maildir that was attached: its file `.postmerge` is missing or another one's.
    #[error("{} is not the Maildir that was attached: {marker} in it is {found}", root.display())]
    Marker {
        /// The directory.
        root: PathBuf,
        /// The name of the file.
        marker: &'static str,
        /// What is the matter with it.
        found: &'static str,
    },
    /// The Maildir is attached already, here or elsewhere.
    #[error("{} is attached already, to {}", root.display(), if *here { "this replica" } else { "another replica" })]
    Attached {
        /// The Maildir.
        root: PathBuf,
        /// Whether to this replica.
        here: bool,
    },
    /// No Maildir in this directory is attached.
    #[error("no Maildir is attached in {}", root.display())]
    NotAttached {
        /// The directory.
        root: PathBuf,
    },
    /// Nobody can tell yet which files are new.
    #[error("{files} files, the first in mailbox {mailbox:?}, may be messages whose bodies have not arrived")]
    Undecided {
        /// The first mailbox with such files.
        mailbox: MailboxName,
        /// Files that are no message whose body is here, in all mailboxes.
        files: u64,
    },
    /// A path must not change its meaning with the directory a program is started in.
    #[error("{} is not an absolute path", root.display())]
    Relative {
        /// The path.
        root: PathBuf,
    },
    /// A Maildir that a Dovecot serves cannot be attached to this replica.
    #[error("a Maildir that a Dovecot serves cannot be attached here: {why}")]
    Dovecot {
        /// Why, and what would help.
        why: &'static str,
    },
    /// 65,535 Maildirs were attached to this replica, one after the other.
    #[error("no further Maildir can be attached to this replica")]
    TooMany,
    /// The directory cannot be read as a Maildir.
    #[error(transparent)]
    Maildir(#[from] MaildirError),
    /// Something in the Maildir cannot be written.
    #[error("cannot {action} {}", path.display())]
    Write {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// What is remembered of Maildirs cannot be read or written.
    #[error("the ledger of Maildirs in the store failed: {0}")]
    Ledger(TableError),
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<TableError> for BridgeError {
    fn from(error: TableError) -> BridgeError {
        BridgeError::Ledger(error)
    }
}

/// What could not be done in the Maildir.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BridgeError {
    let path = path.to_owned();
    move |source| BridgeError::Write { action, path, source }
}

/// How a run goes about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Plans, and does nothing.
    pub dry_run: bool,
    /// Removes however much is to be removed, this once.
    pub allow_removals: bool,
    /// What may be removed otherwise.
    pub limit: RemovalLimit,
}

/// What was done in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were new there.
    pub added: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that went to another mailbox.
    pub moved: u64,
    /// Messages whose flags changed.
    pub flagged: u64,
    /// Messages that went away.
    pub removed: u64,
    /// Mailboxes that were made, renamed or deleted.
    pub mailboxes: u64,
}

impl Counts {
    /// Whether nothing was done.
    pub fn is_nothing(&self) -> bool {
        *self == Counts::default()
    }

    fn add(&mut self, other: Counts) {
        self.added += other.added;
        self.bytes += other.bytes;
        self.moved += other.moved;
        self.flagged += other.flagged;
        self.removed += other.removed;
        self.mailboxes += other.mailboxes;
    }
}

/// What a run did, or would do.
#[derive(Debug, Default)]
pub struct Report {
    /// What the files had changed.
    pub into_replica: Counts,
    /// What the account had changed.
    pub into_maildir: Counts,
    /// Messages whose files are written once their bodies have arrived.
    pub waiting: u64,
    /// Folders that did not stand still; the next run looks at them.
    pub busy: Vec<MailboxName>,
    /// What was left alone.
    pub skipped: Vec<Skipped>,
    /// The directions that stand still.
    pub brake: Brake,
}

impl Report {
    /// Whether both sides were equal already.
    pub fn is_nothing(&self) -> bool {
        self.into_replica.is_nothing() && self.into_maildir.is_nothing()
    }

    /// Takes in what a later run did: counts add up, and what was left is as that one left it.
    pub fn add(&mut self, other: Report) {
        self.into_replica.add(other.into_replica);
        self.into_maildir.add(other.into_maildir);
        self.waiting = other.waiting;
        self.busy = other.busy;
        self.skipped = other.skipped;
        self.brake = other.brake;
    }
}

/// Where the ledgers stand.
const SHELF: &str = "maildirs";

/// The Maildirs of one replica.
///
/// Open it once and share it: what it keeps can be open only once, and runs take turns.
pub struct Maildirs {
    replica: Replica,
    shelf: Arc<Shelf>,
    turn: Mutex<()>,
}

impl Maildirs {
    /// Opens what is remembered of the Maildirs that are attached to a replica.
    pub fn open(replica: &Replica) -> Result<Maildirs, BridgeError> {
        let shelf = Arc::new(replica.shelf(SHELF)?);
        Ok(Maildirs { replica: replica.clone(), shelf, turn: Mutex::new(()) })
    }

    /// Whether a Maildir may be attached to the replica in `store`: without a look at the replica itself.
    pub fn are_kept(store: &Path) -> bool {
        Shelf::exists(store, SHELF)
    }

    /// The Maildirs that are attached.
    pub fn list(&self) -> Result<Vec<Attachment>, BridgeError> {
        ledger::attachments(&self.shelf)
    }

    /// The one in a directory.
    pub fn find(&self, root: &Path) -> Result<Attachment, BridgeError> {
        let found = self.list()?.into_iter().find(|attachment| attachment.root == root);
        found.ok_or_else(|| BridgeError::NotAttached { root: root.into() })
    }

    /// The directories in which something that concerns a Maildir can happen, and the file system's number for each: who
    /// watches these hears of everything. Costs one call of the system each.
    pub fn directories(&self, attachment: &Attachment) -> Result<BTreeSet<(PathBuf, u64)>, BridgeError> {
        let ledger = ledger::Ledger::new(self.shelf.clone(), attachment.id);
        let mut directories = BTreeSet::from([attachment.root.clone()]);
        for (_, folder) in ledger.folders()? {
            let dir = attachment.root.join(folder.dir);
            directories.extend(["new", "cur"].map(|sub| dir.join(sub)));
            directories.insert(dir);
        }
        let number = |dir: PathBuf| Some((dir.metadata().ok()?.ino(), dir)).map(|(inode, dir)| (dir, inode));
        Ok(directories.into_iter().filter_map(number).collect())
    }

    /// Brings a Maildir and the replica in step. `progress` is called after each message.
    pub fn run(
        &self,
        id: AttachmentId,
        how: How,
        clock: Clock<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Report, BridgeError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut run = Run::new(self, id, how, clock, progress)?;
        run.all()
    }
}

/// One run over one Maildir.
struct Run<'a> {
    replica: &'a Replica,
    ledger: ledger::Ledger,
    attachment: Attachment,
    how: How,
    clock: Clock<'a>,
    progress: &'a mut dyn FnMut(Progress),
    done: Progress,
    queue: gather::Queue,
    /// Messages that an earlier run, or round, could not deal with.
    waiting: BTreeSet<EntryId>,
    /// Whether the files were looked at.
    looked: bool,
}

/// Rounds after which a run ends although something is left: somebody changes the Maildir faster than it is read.
const ROUNDS: usize = 10_000;

impl<'a> Run<'a> {
    fn new(
        maildirs: &'a Maildirs,
        id: AttachmentId,
        how: How,
        clock: Clock<'a>,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Result<Run<'a>, BridgeError> {
        let ledger = ledger::Ledger::new(maildirs.shelf.clone(), id);
        let attachment =
            ledger.attachment()?.ok_or_else(|| BridgeError::NotAttached { root: PathBuf::new() })?;
        let replica = &maildirs.replica;
        Ok(Run {
            replica,
            ledger,
            attachment,
            how,
            clock,
            progress,
            done: Progress::default(),
            queue: gather::Queue::default(),
            waiting: BTreeSet::new(),
            looked: false,
        })
    }

    fn all(&mut self) -> Result<Report, BridgeError> {
        let mut report = Report::default();
        for _ in 0..ROUNDS {
            attach::check_marker(&self.attachment)?;
            let (round, more) = self.round()?;
            report.add(round);
            if !more {
                break;
            }
        }
        if !self.how.dry_run && self.attachment.brake != report.brake {
            self.attachment.brake = report.brake;
            let mut notes = ledger::Notes::default();
            self.ledger.put_attachment(&mut notes, &self.attachment);
            self.ledger.commit(&notes)?;
        }
        Ok(report)
    }

    /// One look and what follows from it; whether there is more to be looked at.
    fn round(&mut self) -> Result<(Report, bool), BridgeError> {
        let mut report = Report::default();
        let folders = self.folders(&mut report)?;
        let mut plan = self.gather(folders, &mut report)?;
        self.brake(&mut plan, &mut report);
        if self.how.dry_run {
            plan.count(&mut report);
            return Ok((report, false));
        }
        let more = self.perform(plan, &mut report)?;
        Ok((report, more))
    }

    fn step(&mut self, bytes: u64) {
        self.done.messages += 1;
        self.done.bytes += bytes;
        (self.progress)(self.done);
    }
}
