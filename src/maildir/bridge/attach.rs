//! The first meeting of a Maildir and a replica, and the end of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use data_encoding::HEXLOWER;

use super::folders::{inode, sync};
use super::ledger::{self, Attachment, FileRow, FolderRow, Ledger, ListRow, Notes, UidLists};
use super::{Brake, BridgeError, Maildirs, Progress};
use crate::blob::BlobId;
use crate::mailbox::{EntryId, Keyword, MailboxId, MailboxName, Pack, Uid};
use crate::maildir::UidList;
use crate::maildir::intake::Taken;
use crate::maildir::scan::{self, Folder, Skipped};
use crate::replica::Snapshot;

/// The file in an attached Maildir that says which attachment it is.
const MARKER: &str = ".postmerge";

/// What the first meeting came to.
#[derive(Debug, Default)]
pub struct Attached {
    /// Messages that were new to the replica.
    pub imported: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that both had.
    pub known: u64,
    /// Those of them whose files another program altered. They stay as they are.
    pub altered: u64,
    /// Files whose messages were expunged from the account before: they are left alone.
    pub expunged: u64,
    /// Mailboxes whose UIDs were adopted.
    pub adopted: u64,
    /// What cannot be a message, or could not be read.
    pub skipped: Vec<Skipped>,
}

impl Maildirs {
    /// Attaches the Maildir at `root`, an absolute path: takes in what the replica has not. Nothing in the Maildir changes but
    /// for the marker that is put into it; the first [`Maildirs::run`] brings the rest. A dry run only counts.
    pub fn attach(
        &self,
        root: &Path,
        uid_lists: UidLists,
        dry_run: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Option<Attachment>, Attached), BridgeError> {
        let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !root.is_absolute() {
            return Err(BridgeError::Relative { root: root.into() });
        }
        if self.list()?.iter().any(|attachment| attachment.root == root) {
            return Err(BridgeError::Attached { root: root.into(), here: true });
        }
        if root.join(MARKER).symlink_metadata().is_ok() {
            return Err(BridgeError::Attached { root: root.into(), here: false });
        }
        if uid_lists == UidLists::Dovecot {
            self.check_dovecot()?;
        }
        let mut scan = scan::scan(root)?;
        scan.follow_names(&self.replica)?;
        let (id, mut notes) = ledger::next_id(&self.shelf)?;
        let ledger = Ledger::new(self.shelf.clone(), id);
        let mut attached = Attached { skipped: scan.skipped, ..Attached::default() };
        let mut meeting = Meeting {
            maildirs: self,
            ledger: &ledger,
            dry_run,
            done: Progress::default(),
            undecided: None,
            progress,
        };
        for folder in &scan.folders {
            meeting.folder(root, folder, &mut attached, &mut notes)?;
        }
        // What bodies the files could give was taken by now, and need not be fetched.
        if let Some((mailbox, files)) = meeting.undecided {
            return Err(BridgeError::Undecided { mailbox, files });
        }
        if dry_run {
            return Ok((None, attached));
        }
        let marker = self.marker(id)?;
        let (root, brake) = (root.to_owned(), Brake::default());
        let attachment = Attachment { id, root, layout: scan.layout, uid_lists, marker, brake };
        ledger.put_attachment(&mut notes, &attachment);
        write_marker(&attachment)?;
        ledger.commit(&notes)?;
        Ok((Some(attachment), attached))
    }

    /// Whether this replica's UIDs can be those of a Dovecot.
    fn check_dovecot(&self) -> Result<(), BridgeError> {
        let refuse = |why| Err(BridgeError::Dovecot { why });
        match self.replica.lane()? {
            None => {
                return refuse(
                    "this replica gives out no UIDs; join the account as a server to serve its mail",
                );
            }
            Some((lane, block)) if lane.next_for_dovecot(0, block).is_none() => {
                return refuse("the account has no UIDs for Dovecots; make one with \"init --dovecot\"");
            }
            Some(_) => {}
        }
        // Two would give out the same UIDs.
        if self.list()?.iter().any(|other| other.uid_lists == UidLists::Dovecot) {
            return refuse(
                "another one is attached already; let another server of the account serve this one",
            );
        }
        Ok(())
    }

    /// Ends an attachment. Files and messages stay as they are.
    pub fn detach(&self, attachment: &Attachment) -> Result<(), BridgeError> {
        let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ledger::new(self.shelf.clone(), attachment.id).forget()?;
        let path = attachment.root.join(MARKER);
        match check_marker(attachment) {
            Ok(()) => {
                fs::remove_file(&path).map_err(|source| BridgeError::Write { action: "remove", path, source })
            }
            // The directory is gone, or another's.
            Err(_) => Ok(()),
        }
    }

    /// Another one for each attachment.
    fn marker(&self, id: ledger::AttachmentId) -> Result<[u8; 16], BridgeError> {
        let mut hasher = blake3::Hasher::new_derive_key("postmerge 1 maildir marker");
        hasher.update(self.replica.id()?.as_bytes());
        hasher.update(&id.0.to_be_bytes());
        let mut marker = [0; 16];
        marker.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Ok(marker)
    }
}

fn marker_text(marker: &[u8; 16]) -> String {
    format!(
        "postmerge keeps this Maildir in step with a replica, and stops if this file is not here.\n{}\n",
        HEXLOWER.encode(marker)
    )
}

fn write_marker(attachment: &Attachment) -> Result<(), BridgeError> {
    let path = attachment.root.join(MARKER);
    let write = || {
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(marker_text(&attachment.marker).as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| BridgeError::Write { action: "write", path: path.clone(), source })?;
    sync(&attachment.root)
}

/// Whether the directory is the Maildir that was attached, and not an empty mount point.
pub(super) fn check_marker(attachment: &Attachment) -> Result<(), BridgeError> {
    let found = match fs::read(attachment.root.join(MARKER)) {
        Ok(bytes) if bytes == marker_text(&attachment.marker).as_bytes() => return Ok(()),
        Ok(_) => "that of another attachment",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "missing",
        Err(_) => "not to be read",
    };
    Err(BridgeError::Marker { root: attachment.root.clone(), marker: MARKER, found })
}

/// Takes in folders.
struct Meeting<'a> {
    maildirs: &'a Maildirs,
    ledger: &'a Ledger,
    dry_run: bool,
    done: Progress,
    /// The first mailbox with files about which nothing could be decided, and how many there are in all.
    undecided: Option<(MailboxName, u64)>,
    progress: &'a mut dyn FnMut(Progress),
}

impl Meeting<'_> {
    fn folder(
        &mut self,
        root: &Path,
        folder: &Folder,
        attached: &mut Attached,
        notes: &mut Notes,
    ) -> Result<(), BridgeError> {
        let replica = &self.maildirs.replica;
        let adopt = folder.uidlist.as_ref().map(|list| (list.validity, list.next.value()));
        let mut importer = replica.import(&folder.name, adopt, false, self.dry_run)?;
        let intake = {
            let (done, progress) = (&mut self.done, &mut self.progress);
            folder.take_in(&mut importer, &mut |size| {
                (done.messages, done.bytes) = (done.messages + 1, done.bytes + size);
                progress(*done);
            })?
        };
        attached.skipped.extend(intake.skipped);
        if intake.undecided > 0 {
            self.undecided.get_or_insert((folder.name.clone(), 0)).1 += intake.undecided;
        }
        let made = !importer.existed();
        let report = importer.finish()?;
        attached.imported += report.imported;
        attached.bytes += report.bytes;
        attached.known += report.known;
        attached.altered += report.altered;
        attached.expunged += report.expunged;
        attached.adopted += u64::from(report.adopts_uids);
        if self.dry_run {
            return Ok(());
        }
        if made && folder.subscribed.unwrap_or(true) && replica.snapshot()?.find(&folder.name)?.is_some() {
            replica.set_subscribed(&folder.name, true)?;
        }
        self.pair(root, folder, &intake.taken, notes)
    }

    /// Notes which file is which message.
    fn pair(
        &self,
        root: &Path,
        folder: &Folder,
        files: &BTreeMap<usize, Taken>,
        notes: &mut Notes,
    ) -> Result<(), BridgeError> {
        let snapshot = self.maildirs.replica.snapshot()?;
        // A folder of which everything was expunged made no mailbox: the first run does.
        let Some(mailbox) = snapshot.find(&folder.name)? else { return Ok(()) };
        let dir = folder.dir.strip_prefix(root).unwrap_or(&folder.dir).to_owned();
        let inode = inode(&folder.dir).unwrap_or(0);
        let mut row =
            FolderRow { dir, name: folder.name.clone(), inode, stamp: None, modseq: None, list: None };
        let mut here: BTreeMap<BlobId, Vec<(EntryId, BTreeSet<Keyword>)>> = BTreeMap::new();
        for entry in snapshot.entries(mailbox)? {
            if let Some(located) = snapshot.locate(entry)? {
                here.entry(located.blob).or_default().push((entry, system(&located.keywords)));
            }
        }
        let homes = snapshot.incarnations(&folder.name)?;
        let (mut met, mut paired): (BTreeMap<BlobId, u32>, BTreeMap<Uid, EntryId>) = Default::default();
        for (index, Taken { body: blob, file }) in files {
            let message = &folder.messages[*index];
            let occurrence = met.entry(*blob).or_default();
            let imported = |home: &MailboxId| Pack::imported_id(*home, blob, *occurrence);
            let imported: Vec<EntryId> = homes.iter().map(imported).collect();
            *occurrence += 1;
            let waiting = here.get_mut(blob).filter(|entries| !entries.is_empty());
            let entry = match waiting {
                Some(entries) => {
                    // Of equal ones that with the same flags, else the one that was imported in this place.
                    let flags = system(&message.keywords);
                    let same = entries.iter().position(|(_, keywords)| *keywords == flags);
                    let own = || entries.iter().position(|(entry, _)| imported.contains(entry));
                    let at = same.or_else(own).unwrap_or(0);
                    Some(entries.swap_remove(at).0)
                }
                None => {
                    let mut found = None;
                    for entry in &imported {
                        let located = snapshot.locate(*entry)?;
                        found =
                            found.or(located.map(|located| Some(*entry).filter(|_| located.place.is_some())));
                    }
                    // One that came in since waits for the first run.
                    let Some(found) = found else { continue };
                    found
                }
            };
            paired.extend(message.uid.zip(entry));
            let located = entry.map(|entry| snapshot.locate(entry)).transpose()?.flatten();
            let keywords = match located {
                Some(located) => both_had(&message.keywords, &located.keywords),
                None => message.keywords.clone(),
            };
            let row = FileRow { entry, keywords, altered: Some(*file).filter(|file| file != blob) };
            self.ledger.put_file(notes, mailbox, &message.base, &row);
        }
        row.list = told(&snapshot, mailbox, folder.uidlist.as_ref(), &paired)?;
        self.ledger.put_folder(notes, mailbox, &row);
        Ok(())
    }
}

/// The flags that every Maildir can say.
fn system(keywords: &BTreeSet<Keyword>) -> BTreeSet<Keyword> {
    keywords.iter().filter(|keyword| keyword.as_str().starts_with('\\')).cloned().collect()
}

/// What two that never met are taken to have agreed on, so that marks of both are kept, except `\Deleted`, which both must
/// have: as if both had been in step before they were set.
fn both_had(disk: &BTreeSet<Keyword>, replica: &BTreeSet<Keyword>) -> BTreeSet<Keyword> {
    let mut both: BTreeSet<Keyword> = disk.intersection(replica).cloned().collect();
    both.extend(disk.union(replica).filter(|keyword| **keyword == Keyword::deleted()).cloned());
    both
}

/// From where on a list's UIDs are Dovecot's own: above the last on which it and the account agree.
fn told(
    snapshot: &Snapshot,
    mailbox: MailboxId,
    list: Option<&UidList>,
    paired: &BTreeMap<Uid, EntryId>,
) -> Result<Option<ListRow>, BridgeError> {
    let shown = snapshot.mailbox(mailbox)?;
    let Some(list) = list.filter(|list| shown.is_some_and(|shown| shown.uid_validity == list.validity))
    else {
        return Ok(None);
    };
    let mut agreed = None;
    for (uid, entry) in paired {
        let here = snapshot.locate(*entry)?.is_some_and(|located| {
            located.shared_uid == Some(*uid) && located.place.is_some_and(|(at, _)| at == mailbox)
        });
        agreed = agreed.max(Some(*uid).filter(|_| here));
    }
    let told = agreed.and_then(|uid| Uid::new(uid.value() + 1)).unwrap_or(list.next);
    Ok(Some(ListRow { validity: list.validity, told, stamp: (0, 0) }))
}
