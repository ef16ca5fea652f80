//! Reads a mail store: which messages there are, where, with which flags and UIDs. Opens no message and
//! changes nothing: one directory listing a folder and one `stat` a file.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::file_name::{BaseName, FileNameError};
use super::keywords::KeywordTable;
use super::list::{self, LineError};
use super::uidlist::UidList;
use super::{subscriptions, tree};
use crate::mailbox::{Keyword, MailboxName, MailboxNameError, Uid};

/// What [`scan`] found.
#[derive(Debug)]
pub struct Scan {
    /// How the tree is laid out.
    pub layout: Layout,
    /// The mailboxes, by name.
    pub folders: Vec<Folder>,
    /// What was left alone, and why. A folder that could not be read as a whole is here and not in `folders`.
    pub skipped: Vec<Skipped>,
}

/// How folders become directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The root is INBOX, its folders are the directories `.A.B`.
    MaildirPlusPlus,
    /// Every directory with a `cur` or a `new` is a mailbox, named by its path.
    Directories,
}

/// One mailbox.
#[derive(Debug)]
pub struct Folder {
    /// Its name.
    pub name: MailboxName,
    /// Its directory.
    pub dir: PathBuf,
    /// Its messages, by UID where there is a uidlist (those without one last), else by internal date and name.
    pub messages: Vec<FoundMessage>,
    /// Its UIDs, if a Dovecot left some.
    pub uidlist: Option<UidList>,
    /// Its keyword letters.
    pub keywords: KeywordTable,
    /// Whether `subscriptions` lists it.
    pub subscribed: bool,
    /// Whether its directories stood still while they were read, as far as their times tell. A change of flags
    /// is a rename, which a listing can miss: only from a settled look may a message be believed to be gone.
    pub settled: bool,
}

/// One message file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMessage {
    /// The file, as it was called when it was seen.
    pub path: PathBuf,
    /// What its name says, before the `:`.
    pub base: BaseName,
    /// Its flags and keywords.
    pub keywords: BTreeSet<Keyword>,
    /// Its modification time in Unix seconds, which Maildir uses as internal date.
    pub internal_date: i64,
    /// Its UID, if the uidlist has one.
    pub uid: Option<Uid>,
    /// Its size in bytes, from the file system; a name may state another.
    pub size: u64,
}

/// Something that was left alone.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Skipped {
    /// What.
    pub path: PathBuf,
    /// Why.
    pub reason: SkipReason,
}

/// Why something was left alone.
#[derive(Debug, thiserror::Error)]
pub enum SkipReason {
    /// It is a symbolic link; following it could read one message twice or somebody else's.
    #[error("is a symbolic link")]
    Symlink,
    /// It is neither a file nor a directory that belongs here.
    #[error("is not a regular file")]
    NotAFile,
    /// Nobody may read it.
    #[error("its permissions let nobody read it")]
    Unreadable,
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(io::Error),
    /// It is larger than a message may be ([`crate::blob::MAX_BLOB`]).
    #[error("its {size} bytes are more than a message may have")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// Its name is no message's.
    #[error(transparent)]
    FileName(FileNameError),
    /// It is another name (hard link) of a message that was taken.
    #[error("is the same file as {}", of.display())]
    SameFile {
        /// The one that was taken.
        of: PathBuf,
    },
    /// Its name is neither modified UTF-7 nor UTF-8.
    #[error("its name is neither modified UTF-7 nor UTF-8")]
    Spelling,
    /// No mailbox may have its name.
    #[error(transparent)]
    MailboxName(MailboxNameError),
    /// Another directory spells the same mailbox.
    #[error("mailbox {name:?} is already another directory's")]
    SameMailbox {
        /// The mailbox.
        name: MailboxName,
    },
    /// A hidden directory without `cur` and `new`.
    #[error("has neither cur nor new")]
    NoMaildir,
    /// A Maildir in a place where Maildir++ has none.
    #[error("is a Maildir whose name does not start with a dot, inside a Maildir++ tree")]
    OtherLayout,
    /// A list file is damaged and was not used.
    #[error(transparent)]
    Damaged(LineError),
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum MaildirError {
    /// The root cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The root.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// No directory in it is a Maildir that could be read. That is never taken for "no messages".
    #[error("{} holds no Maildir: no cur and new in it or below it", root.display())]
    NoMailbox {
        /// The root.
        root: PathBuf,
        /// What was seen and left alone.
        skipped: Vec<Skipped>,
    },
}

/// Reads the mail store at `root`, in whichever layout it is. Costs about 0.5 s for 100,000 messages.
pub fn scan(root: &Path) -> Result<Scan, MaildirError> {
    let tree = tree::find(root)?;
    let mut skipped = tree.skipped;
    let subscribed = read_subscriptions(root, &mut skipped);
    let mut folders = Vec::new();
    for (name, dir) in tree.dirs {
        match super::listing::read(&dir, &mut skipped) {
            Ok(listing) => {
                let subscribed = subscribed.contains(&name);
                folders.push(folder(name, dir, subscribed, listing, &mut skipped));
            }
            Err(reason) => skipped.push(reason),
        }
    }
    if folders.is_empty() {
        return Err(MaildirError::NoMailbox { root: root.into(), skipped });
    }
    Ok(Scan { layout: tree.layout, folders, skipped })
}

fn folder(
    name: MailboxName,
    dir: PathBuf,
    subscribed: bool,
    listing: super::listing::Listing,
    skipped: &mut Vec<Skipped>,
) -> Folder {
    // The lists are read after the files, so that they know every file that was seen.
    let keywords = read_list(&dir.join("dovecot-keywords"), KeywordTable::parse, skipped).unwrap_or_default();
    let uidlist = read_list(&dir.join("dovecot-uidlist"), UidList::parse, skipped);
    let mut uids: BTreeMap<&BaseName, Uid> =
        uidlist.iter().flat_map(|list| &list.entries).map(|entry| (&entry.base, entry.uid)).collect();
    let mut messages: Vec<FoundMessage> = Vec::with_capacity(listing.files.len());
    for file in listing.files {
        // Taken out: of two files with one base only the first has the UID.
        let uid = uids.remove(&file.name.base);
        messages.push(FoundMessage {
            path: file.path,
            keywords: file.name.letters.keywords(&keywords),
            base: file.name.base,
            internal_date: file.mtime,
            uid,
            size: file.size,
        });
    }
    messages.sort_by(|a, b| order(a).cmp(&order(b)));
    Folder { name, dir, messages, uidlist, keywords, subscribed, settled: listing.settled }
}

fn order(message: &FoundMessage) -> (bool, Option<Uid>, i64, &BaseName, &Path) {
    (message.uid.is_none(), message.uid, message.internal_date, &message.base, &message.path)
}

fn read_list<T>(
    path: &Path,
    parse: fn(&[u8]) -> Result<T, LineError>,
    skipped: &mut Vec<Skipped>,
) -> Option<T> {
    let parsed = match list::read(path) {
        Ok(bytes) => parse(&bytes?).map_err(SkipReason::Damaged),
        Err(source) => Err(SkipReason::Io(source)),
    };
    parsed.map_err(|reason| skipped.push(Skipped { path: path.into(), reason })).ok()
}

fn read_subscriptions(root: &Path, skipped: &mut Vec<Skipped>) -> BTreeSet<MailboxName> {
    let path = root.join("subscriptions");
    let (names, bad) = read_list(&path, |bytes| Ok(subscriptions::parse(bytes)), skipped).unwrap_or_default();
    let damaged = |error| Skipped { path: path.clone(), reason: SkipReason::Damaged(error) };
    skipped.extend(bad.into_iter().map(damaged));
    names
}
