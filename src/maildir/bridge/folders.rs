//! Which folder is which mailbox: made, renamed and removed on either side.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::ledger::{FolderRow, ListRow, Notes};
use super::{BridgeError, Report, Run, failed, look, served};
use crate::mailbox::{MailboxId, MailboxName, Uid, UidValidity};
use crate::maildir::scan::{Layout, SkipReason, Skipped};
use crate::maildir::{folder_name, tree};
use crate::replica::{ReplicaError, Snapshot};
use crate::uid::{AccountError, Mailbox};

/// A folder in this round.
pub(super) struct Folder {
    pub(super) id: MailboxId,
    pub(super) row: FolderRow,
    /// Its directory; it need not be there.
    pub(super) dir: PathBuf,
    /// Its mailbox; nothing if the replica shows none any more.
    pub(super) mailbox: Option<Mailbox>,
    /// Whether the directory is gone.
    pub(super) vanished: bool,
}

/// The folders of a round, and the state of the replica that it works from.
pub(super) struct Folders {
    pub(super) all: BTreeMap<MailboxId, Folder>,
    pub(super) snapshot: Snapshot,
}

impl Run<'_> {
    /// Brings folders and mailboxes in step, as far as that needs no message to be moved.
    pub(super) fn folders(&mut self, report: &mut Report) -> Result<Folders, BridgeError> {
        let root = self.attachment.root.clone();
        let tree = tree::find(&root)?;
        report.skipped.extend(tree.skipped);
        let mut dirs: BTreeMap<PathBuf, MailboxName> = BTreeMap::new();
        for (name, dir) in tree.dirs {
            dirs.insert(dir.strip_prefix(&root).unwrap_or(&dir).to_owned(), name);
        }
        let mut rows: BTreeMap<MailboxId, FolderRow> = self.ledger.folders()?.into_iter().collect();
        let known: BTreeSet<PathBuf> = rows.values().map(|row| row.dir.clone()).collect();
        let mut fresh: BTreeMap<PathBuf, MailboxName> = dirs
            .iter()
            .filter(|(dir, _)| !known.contains(*dir))
            .map(|(d, n)| (d.clone(), n.clone()))
            .collect();
        let vanished = self.renamed_there(&root, &dirs, &mut rows, &mut fresh, report)?;
        let snapshot = self.replica.snapshot()?;
        let mailboxes: BTreeMap<MailboxId, Mailbox> =
            snapshot.mailboxes()?.into_iter().map(|mailbox| (mailbox.id, mailbox)).collect();
        self.renamed_here(&root, &mailboxes, &mut rows, &vanished, report)?;
        let snapshot = self.bind(&root, fresh, &mut rows, snapshot, report)?;
        let mailboxes: BTreeMap<MailboxId, Mailbox> =
            snapshot.mailboxes()?.into_iter().map(|mailbox| (mailbox.id, mailbox)).collect();
        self.make(&root, &mailboxes, &mut rows, report)?;
        let mut all = BTreeMap::new();
        for (id, row) in rows {
            let dir = root.join(&row.dir);
            let (mailbox, vanished) = (mailboxes.get(&id).cloned(), vanished.contains(&id));
            all.insert(id, Folder { id, row, dir, mailbox, vanished });
        }
        Ok(Folders { all, snapshot })
    }

    /// Folders whose directory is gone: another program renamed them, and their mailboxes follow, or removed them.
    fn renamed_there(
        &mut self,
        root: &Path,
        dirs: &BTreeMap<PathBuf, MailboxName>,
        rows: &mut BTreeMap<MailboxId, FolderRow>,
        fresh: &mut BTreeMap<PathBuf, MailboxName>,
        report: &mut Report,
    ) -> Result<BTreeSet<MailboxId>, BridgeError> {
        let mut vanished = BTreeSet::new();
        let gone: Vec<MailboxId> =
            rows.iter().filter(|(_, row)| !dirs.contains_key(&row.dir)).map(|(id, _)| *id).collect();
        for id in gone {
            let row = rows.get_mut(&id).expect("it is one of them");
            let path = root.join(&row.dir);
            let target = fresh.keys().find(|dir| inode(&root.join(dir)) == Some(row.inode)).cloned();
            if let Some(dir) = target {
                let name = fresh.remove(&dir).expect("it is one of them");
                if self.rename_mailbox(&row.name, &name)? {
                    report.into_replica.mailboxes += 1;
                    (row.dir, row.name) = (dir, name);
                    self.note_folder(id, row)?;
                    continue;
                }
                fresh.insert(dir, name);
            }
            match path.join("cur").symlink_metadata() {
                // It is there, and cannot be read: what is in it is not gone.
                Ok(_) => {
                    rows.remove(&id);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => drop(vanished.insert(id)),
                Err(error) => {
                    report.skipped.push(Skipped { path, reason: SkipReason::Io(error) });
                    rows.remove(&id);
                }
            }
        }
        Ok(vanished)
    }

    /// Whether the mailbox bears the other name now.
    fn rename_mailbox(&self, from: &MailboxName, to: &MailboxName) -> Result<bool, BridgeError> {
        if self.how.dry_run {
            return Ok(true);
        }
        let refused = |error: &ReplicaError| {
            use AccountError::{Exists, Inbox, NoMailbox};
            matches!(error, ReplicaError::Account(Exists { .. } | Inbox | NoMailbox { .. }))
        };
        match self.replica.rename_mailbox(from, to) {
            Ok(()) => Ok(true),
            // It follows a mailbox above it that was just renamed, or it was renamed here as well.
            Err(error) if refused(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Mailboxes that have another name: their directories follow.
    fn renamed_here(
        &mut self,
        root: &Path,
        mailboxes: &BTreeMap<MailboxId, Mailbox>,
        rows: &mut BTreeMap<MailboxId, FolderRow>,
        vanished: &BTreeSet<MailboxId>,
        report: &mut Report,
    ) -> Result<(), BridgeError> {
        let mut taken: BTreeSet<PathBuf> = rows.values().map(|row| row.dir.clone()).collect();
        for (id, row) in rows.iter_mut().filter(|(id, _)| !vanished.contains(*id)) {
            let Some(mailbox) = mailboxes.get(id).filter(|mailbox| mailbox.name != row.name) else {
                continue;
            };
            report.into_maildir.mailboxes += 1;
            if self.how.dry_run {
                continue;
            }
            let dir = dir_of(self.attachment.layout, &mailbox.name, root, &taken);
            if dir != row.dir {
                rename(root, &row.dir, &dir)?;
                taken.remove(&row.dir);
                taken.insert(dir.clone());
            }
            (row.dir, row.name) = (dir, mailbox.name.clone());
            self.note_folder(*id, row)?;
        }
        Ok(())
    }

    /// Directories that are new: each is the mailbox of its name, which is made if need be.
    fn bind(
        &mut self,
        root: &Path,
        fresh: BTreeMap<PathBuf, MailboxName>,
        rows: &mut BTreeMap<MailboxId, FolderRow>,
        snapshot: Snapshot,
        report: &mut Report,
    ) -> Result<Snapshot, BridgeError> {
        let (mut snapshot, mut stale) = (snapshot, false);
        for (dir, name) in fresh {
            let mut list = None;
            let id = match snapshot.find(&name)? {
                Some(id) if rows.contains_key(&id) => {
                    report
                        .skipped
                        .push(Skipped { path: root.join(dir), reason: SkipReason::SameMailbox { name } });
                    continue;
                }
                Some(id) => id,
                None => {
                    report.into_replica.mailboxes += 1;
                    if self.how.dry_run {
                        continue;
                    }
                    stale = true;
                    let validity = self.validity_in(&root.join(&dir));
                    let id = match validity {
                        Some(validity) => self.replica.adopt_mailbox(&name, validity)?,
                        None => self.replica.create_mailbox(&name, None)?,
                    };
                    self.replica.set_subscribed(&name, true)?;
                    // All that is in it Dovecot has numbered.
                    list = validity.map(|validity| ListRow { validity, told: Uid::FIRST, stamp: (0, 0) });
                    id
                }
            };
            let inode = inode(&root.join(&dir)).unwrap_or(0);
            let row = FolderRow { dir, name, inode, stamp: None, modseq: None, list };
            self.note_folder(id, &row)?;
            rows.insert(id, row);
        }
        if stale {
            snapshot = self.replica.snapshot()?;
        }
        Ok(snapshot)
    }

    /// The UIDVALIDITY that a Dovecot gave a folder which it made.
    fn validity_in(&self, dir: &Path) -> Option<UidValidity> {
        let read = self.is_served().then(|| served::read_list(dir).ok()).flatten()?;
        read.list.map(|list| list.validity)
    }

    /// Mailboxes without a folder get one.
    fn make(
        &mut self,
        root: &Path,
        mailboxes: &BTreeMap<MailboxId, Mailbox>,
        rows: &mut BTreeMap<MailboxId, FolderRow>,
        report: &mut Report,
    ) -> Result<(), BridgeError> {
        let mut taken: BTreeSet<PathBuf> = rows.values().map(|row| row.dir.clone()).collect();
        for (id, mailbox) in mailboxes {
            if rows.contains_key(id) {
                continue;
            }
            let dir = dir_of(self.attachment.layout, &mailbox.name, root, &taken);
            if root.join(&dir).join("cur").symlink_metadata().is_ok() {
                // It is there and could not be taken: it was reported.
                continue;
            }
            report.into_maildir.mailboxes += 1;
            if self.how.dry_run {
                continue;
            }
            make_folder(root, &dir, self.attachment.layout)?;
            taken.insert(dir.clone());
            let inode = inode(&root.join(&dir)).unwrap_or(0);
            let row =
                FolderRow { dir, name: mailbox.name.clone(), inode, stamp: None, modseq: None, list: None };
            self.note_folder(*id, &row)?;
            rows.insert(*id, row);
        }
        Ok(())
    }

    fn note_folder(&self, id: MailboxId, row: &FolderRow) -> Result<(), BridgeError> {
        if self.how.dry_run {
            return Ok(());
        }
        let mut notes = Notes::default();
        self.ledger.put_folder(&mut notes, id, row);
        self.ledger.commit(&notes)
    }

    /// After all files of a folder were dealt with: a folder that is gone takes its mailbox along, a mailbox that is gone its
    /// folder. Whether there is something in it again, for another round.
    pub(super) fn remove_empty(&mut self, folder: &Folder, report: &mut Report) -> Result<bool, BridgeError> {
        if !self.ledger.files(folder.id)?.is_empty() {
            return Ok(false);
        }
        match (&folder.mailbox, folder.vanished) {
            (Some(mailbox), true) if !mailbox.name.is_inbox() => {
                let now = self.replica.snapshot_of(folder.id)?.mailbox(folder.id)?;
                self.forget_folder(folder)?;
                let has_mail = now.is_some_and(|now| now.messages > 0);
                if !has_mail {
                    self.replica.delete_mailbox(&mailbox.name)?;
                    report.into_replica.mailboxes += 1;
                }
                Ok(has_mail)
            }
            (None, vanished) => {
                self.forget_folder(folder)?;
                if vanished {
                    return Ok(false);
                }
                report.into_maildir.mailboxes += 1;
                remove_folder(&folder.dir, &self.attachment.root)
            }
            (Some(_), _) => Ok(false),
        }
    }

    fn forget_folder(&self, folder: &Folder) -> Result<(), BridgeError> {
        let mut notes = Notes::default();
        self.ledger.remove_folder(&mut notes, folder.id);
        self.ledger.commit(&notes)
    }
}

/// The file system's number for a folder's `cur`.
pub(super) fn inode(dir: &Path) -> Option<u64> {
    look::stamp(dir).ok().map(|stamp| stamp.cur.1)
}

/// The directory, below the root, for a mailbox of a name.
fn dir_of(layout: Layout, name: &MailboxName, root: &Path, taken: &BTreeSet<PathBuf>) -> PathBuf {
    match layout {
        Layout::MaildirPlusPlus => {
            let mut spelt: BTreeSet<String> =
                taken.iter().filter_map(|dir| dir.to_str().map(str::to_owned)).collect();
            loop {
                let (dir, _) = folder_name::to_maildir_plus_plus(name, &spelt);
                // Something that is no folder of ours may be in the way.
                if dir.is_empty() || root.join(&dir).symlink_metadata().is_err() || !spelt.insert(dir.clone())
                {
                    return dir.into();
                }
            }
        }
        Layout::Directories => folder_name::to_directories(name, taken),
    }
}

/// Mail is private: directories are 0700.
fn create(dir: &Path) -> Result<(), BridgeError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make", dir))
}

pub(super) fn sync(dir: &Path) -> Result<(), BridgeError> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}

fn make_folder(root: &Path, dir: &Path, layout: Layout) -> Result<(), BridgeError> {
    let path = root.join(dir);
    // `cur` last: until it is there, the folder is none.
    for sub in ["tmp", "new", "cur"] {
        create(&path.join(sub))?;
    }
    if layout == Layout::MaildirPlusPlus && !dir.as_os_str().is_empty() {
        let mark = path.join("maildirfolder");
        fs::File::create(&mark).map_err(failed("make", &mark))?;
    }
    sync(&path)?;
    path.parent().map_or(Ok(()), sync)
}

/// Renames a folder with what other programs keep in it. A folder that has others below it keeps its directory for them.
fn rename(root: &Path, from: &Path, to: &Path) -> Result<(), BridgeError> {
    let (old, new) = (root.join(from), root.join(to));
    if let Some(parent) = new.parent() {
        create(parent)?;
    }
    let holds_others = from.as_os_str().is_empty() || has_folders(&old).map_err(failed("list", &old))?;
    if !holds_others && new.symlink_metadata().is_err() {
        fs::rename(&old, &new).map_err(failed("rename", &old))?;
    } else {
        create(&new)?;
        for sub in ["tmp", "new", "cur"] {
            fs::rename(old.join(sub), new.join(sub)).map_err(failed("rename", &old.join(sub)))?;
        }
        if from.as_os_str().is_empty() {
            make_folder(root, from, Layout::MaildirPlusPlus)?;
        }
    }
    new.parent().map_or(Ok(()), sync)
}

fn has_folders(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let own = [&b"cur"[..], b"new", b"tmp"].contains(&entry.file_name().as_bytes());
        if !own && entry.file_type()?.is_dir() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a mail program leaves in a folder for itself, and nobody misses once the folder is gone.
fn is_trifle(name: &[u8]) -> bool {
    name.starts_with(b"dovecot")
        || name == b"maildirfolder"
        || name == b"maildirsize"
        || name == b".uidvalidity"
}

/// Removes a folder without messages. What others keep in it stays, and then so does its directory. Whether it holds new mail.
fn remove_folder(dir: &Path, root: &Path) -> Result<bool, BridgeError> {
    if dir == root {
        return Ok(false);
    }
    for sub in ["cur", "new", "tmp"] {
        match fs::remove_dir(dir.join(sub)) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(sub != "tmp"),
            _ => {}
        }
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(_) => return Ok(false),
    };
    for entry in entries.flatten() {
        if is_trifle(entry.file_name().as_bytes()) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let path = entry.path();
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    // It fails if something is left in it, which is meant.
    let _ = fs::remove_dir(dir);
    dir.parent().map_or(Ok(()), sync)?;
    Ok(false)
}
