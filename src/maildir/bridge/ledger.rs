//! What a bridge remembers of its Maildir: the state in which both sides were last equal, file by file.
//!
//! It is the common ancestor of every decision. Losing it loses no mail: files and messages are then paired by content, and
//! what was removed on one side comes back from the other.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::BridgeError;
use super::brake::Brake;
use crate::blob::BlobId;
use crate::bytes::{Reader, put_number};
use crate::mailbox::{EntryId, Keyword, MailboxId, MailboxName, ModSeq, Uid, UidValidity};
use crate::maildir::{BaseName, Layout};
use crate::store::{Edits, Shelf};
use crate::uid::TableError;

/// The number of an attached Maildir; never used again in one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttachmentId(pub(super) u16);

/// Who gives out the UIDs that clients of the Maildir see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UidLists {
    /// Nobody: the programs that read it know no UIDs.
    None,
    /// A Dovecot, by its `dovecot-uidlist`.
    Dovecot,
}

/// A Maildir that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its number.
    pub id: AttachmentId,
    /// Its root, as an absolute path.
    pub root: PathBuf,
    /// How its folders become directories.
    pub layout: Layout,
    /// Whether a Dovecot reads it.
    pub uid_lists: UidLists,
    /// What the file `.postmerge` in it must say.
    pub(super) marker: [u8; 16],
    /// Why a direction stands still.
    pub brake: Brake,
}

/// A folder, and the mailbox it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FolderRow {
    /// Its directory below the root; empty for the root.
    pub(super) dir: PathBuf,
    /// The mailbox's name when both were last equal.
    pub(super) name: MailboxName,
    /// The file system's number for `cur`: it stays when a folder is renamed.
    pub(super) inode: u64,
    /// What the directories looked like when every file in them was known; nothing if they must be looked through.
    pub(super) stamp: Option<Stamp>,
    /// The mailbox's mod-sequence up to which the folder has everything.
    pub(super) modseq: Option<ModSeq>,
    /// Its `dovecot-uidlist`, if a Dovecot reads it.
    pub(super) list: Option<ListRow>,
}

/// What a folder's `dovecot-uidlist` was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListRow {
    pub(super) validity: UidValidity,
    /// The UIDNEXT that it was told last. UIDs from there on Dovecot gives out itself.
    pub(super) told: Uid,
    /// When the file changed last, and which one it is; zeros if it must be read again.
    pub(super) stamp: (u64, u64),
}

/// When `new` and `cur` changed last, in nanoseconds, and which directories they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) new: (u64, u64),
    pub(super) cur: (u64, u64),
}

/// A file, and the message it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileRow {
    /// Nothing for a file that is left alone: its message was expunged before the Maildir was attached.
    pub(super) entry: Option<EntryId>,
    /// What its name said.
    pub(super) keywords: BTreeSet<Keyword>,
    /// The name of the file's bytes, if they are not the message's: another program altered them before the Maildir was
    /// attached. By it the file is found again wherever it goes.
    pub(super) altered: Option<BlobId>,
}

/// A file of a folder.
pub(super) type Place = (MailboxId, BaseName);

/// A file that is about to become a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intent {
    pub(super) blob: BlobId,
    /// What its name says.
    pub(super) keywords: BTreeSet<Keyword>,
}

/// Where a message's file is, and what was remembered of it.
pub(super) type Filed = (MailboxId, BaseName, FileRow);

/// The rows of one attachment.
#[derive(Clone)]
pub(super) struct Ledger {
    shelf: Arc<Shelf>,
    id: AttachmentId,
}

/// Rows to be written together.
#[derive(Default)]
pub(super) struct Notes(Edits);

const ATTACHMENT: u8 = b'A';
/// The number of the last attachment.
const LAST: u8 = b'L';
const ROWS: u8 = b'R';
const FOLDER: u8 = b'd';
const FILE: u8 = b'f';
const ENTRY: u8 = b'e';
const WAITING: u8 = b'w';
const INTENT: u8 = b'i';

/// All attachments of a store.
pub(super) fn attachments(shelf: &Shelf) -> Result<Vec<Attachment>, BridgeError> {
    let rows = shelf.starting_with(&[ATTACHMENT])?;
    rows.iter().map(|(key, value)| read_attachment(key, value).ok_or_else(damaged)).collect()
}

/// A number that no attachment had, and the rows that say so.
pub(super) fn next_id(shelf: &Shelf) -> Result<(AttachmentId, Notes), BridgeError> {
    let last = shelf.get(&[LAST])?.and_then(|value| value.try_into().ok()).map_or(0, u16::from_be_bytes);
    let next = last.checked_add(1).ok_or(BridgeError::TooMany)?;
    Ok((AttachmentId(next), Notes(vec![(vec![LAST], Some(next.to_be_bytes().to_vec()))])))
}

fn read_attachment(key: &[u8], value: &[u8]) -> Option<Attachment> {
    let id = AttachmentId(u16::from_be_bytes(key.get(1..)?.try_into().ok()?));
    let mut reader = Reader(value);
    let marker = reader.array()?;
    let layout = match reader.byte()? {
        0 => Layout::MaildirPlusPlus,
        1 => Layout::Directories,
        _ => return None,
    };
    let uid_lists = match reader.byte()? {
        0 => UidLists::None,
        1 => UidLists::Dovecot,
        _ => return None,
    };
    let root = path(&mut reader)?;
    let brake = Brake::read(&mut reader)?;
    Some(Attachment { id, root, layout, uid_lists, marker, brake })
}

fn path(reader: &mut Reader<'_>) -> Option<PathBuf> {
    let len = usize::try_from(reader.number()?).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(reader.take(len)?)))
}

fn put_keywords(out: &mut Vec<u8>, keywords: &BTreeSet<Keyword>) {
    keywords.iter().for_each(|keyword| put_bytes(out, keyword.as_str().as_bytes()));
}

/// The keywords that the rest of a row lists.
fn keywords(reader: &mut Reader<'_>) -> Option<BTreeSet<Keyword>> {
    let mut keywords = BTreeSet::new();
    while !reader.is_empty() {
        let len = usize::try_from(reader.number()?).ok()?;
        keywords.insert(std::str::from_utf8(reader.take(len)?).ok()?.parse().ok()?);
    }
    Some(keywords)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend(bytes);
}

fn damaged() -> BridgeError {
    BridgeError::Ledger(TableError("a row of the Maildirs' ledger is damaged".to_owned()))
}

impl Ledger {
    pub(super) fn new(shelf: Arc<Shelf>, id: AttachmentId) -> Ledger {
        Ledger { shelf, id }
    }

    pub(super) fn commit(&self, notes: &Notes) -> Result<(), BridgeError> {
        Ok(self.shelf.commit(&notes.0)?)
    }

    fn key(&self, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = vec![ROWS];
        key.extend(self.id.0.to_be_bytes());
        key.push(kind);
        parts.iter().for_each(|part| key.extend(*part));
        key
    }

    /// The attachment as it was last written.
    pub(super) fn attachment(&self) -> Result<Option<Attachment>, BridgeError> {
        let mut key = vec![ATTACHMENT];
        key.extend(self.id.0.to_be_bytes());
        let value = self.shelf.get(&key)?;
        value.map(|value| read_attachment(&key, &value).ok_or_else(damaged)).transpose()
    }

    pub(super) fn put_attachment(&self, notes: &mut Notes, attachment: &Attachment) {
        let mut key = vec![ATTACHMENT];
        key.extend(self.id.0.to_be_bytes());
        let mut out = attachment.marker.to_vec();
        out.push(u8::from(attachment.layout == Layout::Directories));
        out.push(u8::from(attachment.uid_lists == UidLists::Dovecot));
        put_bytes(&mut out, attachment.root.as_os_str().as_bytes());
        attachment.brake.write(&mut out);
        notes.0.push((key, Some(out)));
    }

    /// Forgets everything.
    pub(super) fn forget(&self) -> Result<(), BridgeError> {
        let mut key = vec![ATTACHMENT];
        key.extend(self.id.0.to_be_bytes());
        let mut edits: Edits = vec![(key, None)];
        let mut prefix = vec![ROWS];
        prefix.extend(self.id.0.to_be_bytes());
        edits.extend(self.shelf.starting_with(&prefix)?.into_iter().map(|(key, _)| (key, None)));
        Ok(self.shelf.commit(&edits)?)
    }

    pub(super) fn folders(&self) -> Result<Vec<(MailboxId, FolderRow)>, BridgeError> {
        let prefix = self.key(FOLDER, &[]);
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            Some((MailboxId::from_slice(key.get(prefix.len()..)?)?, FolderRow::decode(&value)?))
        };
        let rows = self.shelf.starting_with(&prefix)?;
        rows.into_iter().map(|row| read(row).ok_or_else(damaged)).collect()
    }

    pub(super) fn put_folder(&self, notes: &mut Notes, mailbox: MailboxId, row: &FolderRow) {
        notes.0.push((self.key(FOLDER, &[mailbox.as_bytes()]), Some(row.encode())));
    }

    pub(super) fn remove_folder(&self, notes: &mut Notes, mailbox: MailboxId) {
        notes.0.push((self.key(FOLDER, &[mailbox.as_bytes()]), None));
    }

    /// The files of a folder, by base name.
    pub(super) fn files(&self, mailbox: MailboxId) -> Result<Vec<(BaseName, FileRow)>, BridgeError> {
        let prefix = self.key(FILE, &[mailbox.as_bytes()]);
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            Some((BaseName::new(key.get(prefix.len()..)?).ok()?, FileRow::decode(&value)?))
        };
        let rows = self.shelf.starting_with(&prefix)?;
        rows.into_iter().map(|row| read(row).ok_or_else(damaged)).collect()
    }

    /// The files of messages, each with its folder, in the order of the entries.
    pub(super) fn files_of(&self, entries: &[EntryId]) -> Result<Vec<Option<Filed>>, BridgeError> {
        let keys: Vec<_> = entries.iter().map(|entry| self.key(ENTRY, &[entry.as_bytes()])).collect();
        let places = self.shelf.get_all(keys.iter().map(Vec::as_slice))?;
        let keys: Vec<_> =
            places.iter().map(|place| place.as_ref().map(|place| self.key(FILE, &[place]))).collect();
        let mut rows = self.shelf.get_all(keys.iter().flatten().map(Vec::as_slice))?.into_iter();
        let read = |place: &Vec<u8>, row: Option<Vec<u8>>| {
            let mailbox = MailboxId::from_slice(place.get(..16)?)?;
            Some((mailbox, BaseName::new(place.get(16..)?).ok()?, FileRow::decode(&row?)?))
        };
        let mut files = Vec::with_capacity(entries.len());
        for place in &places {
            let row = |place| read(place, rows.next().flatten()).ok_or_else(damaged);
            files.push(place.as_ref().map(row).transpose()?);
        }
        Ok(files)
    }

    pub(super) fn put_file(&self, notes: &mut Notes, mailbox: MailboxId, base: &BaseName, row: &FileRow) {
        notes.0.push((self.key(FILE, &[mailbox.as_bytes(), base.as_bytes()]), Some(row.encode())));
        if let Some(entry) = row.entry {
            let place = [mailbox.as_bytes(), base.as_bytes()].concat();
            notes.0.push((self.key(ENTRY, &[entry.as_bytes()]), Some(place)));
            notes.0.push((self.key(WAITING, &[entry.as_bytes()]), None));
        }
    }

    pub(super) fn remove_file(
        &self,
        notes: &mut Notes,
        mailbox: MailboxId,
        base: &BaseName,
        entry: Option<EntryId>,
    ) {
        notes.0.push((self.key(FILE, &[mailbox.as_bytes(), base.as_bytes()]), None));
        notes.0.extend(entry.map(|entry| (self.key(ENTRY, &[entry.as_bytes()]), None)));
    }

    pub(super) fn intents(&self) -> Result<Vec<(Place, Intent)>, BridgeError> {
        let prefix = self.key(INTENT, &[]);
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            let place = key.get(prefix.len()..)?;
            let base = BaseName::new(place.get(16..)?).ok()?;
            let mut reader = Reader(&value);
            let blob = BlobId::from_bytes(reader.array()?);
            let keywords = keywords(&mut reader)?;
            Some(((MailboxId::from_slice(place.get(..16)?)?, base), Intent { blob, keywords }))
        };
        let rows = self.shelf.starting_with(&prefix)?;
        rows.into_iter().map(|row| read(row).ok_or_else(damaged)).collect()
    }

    pub(super) fn put_intent(&self, notes: &mut Notes, place: &Place, intent: &Intent) {
        let mut out = intent.blob.as_bytes().to_vec();
        put_keywords(&mut out, &intent.keywords);
        notes.0.push((self.key(INTENT, &[place.0.as_bytes(), place.1.as_bytes()]), Some(out)));
    }

    pub(super) fn remove_intent(&self, notes: &mut Notes, place: &Place) {
        notes.0.push((self.key(INTENT, &[place.0.as_bytes(), place.1.as_bytes()]), None));
    }

    /// The messages that wait for their bodies, to be written then.
    pub(super) fn waiting(&self) -> Result<BTreeSet<EntryId>, BridgeError> {
        let prefix = self.key(WAITING, &[]);
        let rows = self.shelf.starting_with(&prefix)?;
        rows.iter().map(|(key, _)| EntryId::from_slice(&key[prefix.len()..]).ok_or_else(damaged)).collect()
    }

    pub(super) fn put_waiting(&self, notes: &mut Notes, entry: EntryId, waits: bool) {
        notes.0.push((self.key(WAITING, &[entry.as_bytes()]), waits.then(Vec::new)));
    }
}

impl FolderRow {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, self.dir.as_os_str().as_bytes());
        put_bytes(&mut out, self.name.as_str().as_bytes());
        put_number(&mut out, self.inode);
        put_number(&mut out, self.modseq.map_or(0, ModSeq::value));
        put_number(&mut out, self.list.map_or(0, |list| list.validity.value().into()));
        if let Some(list) = self.list {
            let ListRow { told, stamp, .. } = list;
            [told.value().into(), stamp.0, stamp.1]
                .into_iter()
                .for_each(|number| put_number(&mut out, number));
        }
        if let Some(Stamp { new, cur }) = self.stamp {
            [new.0, new.1, cur.0, cur.1].into_iter().for_each(|number| put_number(&mut out, number));
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<FolderRow> {
        let mut reader = Reader(bytes);
        let dir = path(&mut reader)?;
        let len = usize::try_from(reader.number()?).ok()?;
        let name = std::str::from_utf8(reader.take(len)?).ok()?.parse().ok()?;
        let inode = reader.number()?;
        let modseq = Some(reader.number()?).filter(|value| *value > 0).map(ModSeq::from_value);
        let list = match UidValidity::new(reader.number()?.try_into().ok()?) {
            None => None,
            Some(validity) => {
                let told = Uid::new(reader.number()?.try_into().ok()?)?;
                Some(ListRow { validity, told, stamp: (reader.number()?, reader.number()?) })
            }
        };
        let mut time = || Some((reader.number()?, reader.number()?));
        let stamp = time().and_then(|new| Some(Stamp { new, cur: time()? }));
        Some(FolderRow { dir, name, inode, stamp, modseq, list })
    }
}

impl FileRow {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.extend(self.entry.map_or([0; 16], |entry| *entry.as_bytes()));
        put_bytes(&mut out, self.altered.as_ref().map_or(&[], |altered| altered.as_bytes()));
        put_keywords(&mut out, &self.keywords);
        out
    }

    fn decode(bytes: &[u8]) -> Option<FileRow> {
        let mut reader = Reader(bytes);
        let entry = reader.array::<16>()?;
        let entry = Some(EntryId::from_bytes(entry)).filter(|_| entry != [0; 16]);
        let altered = match reader.number()? {
            0 => None,
            32 => Some(BlobId::from_bytes(reader.array()?)),
            _ => return None,
        };
        let keywords = keywords(&mut reader)?;
        Some(FileRow { entry, keywords, altered })
    }
}
