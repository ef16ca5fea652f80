//! Reads a mail store: which messages there are, where, with which flags and UIDs. Opens no message and
//! changes nothing: one directory listing a folder and one `stat` a file (again while it is being changed).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::file_name::{BaseName, FileName, FileNameError};
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
    /// Whether `subscriptions` lists it; nothing if there is no such file.
    pub subscribed: Option<bool>,
    /// Whether its directories stood still while they were read. A change of flags is a rename, which a listing
    /// can miss, and directory times have ticks of up to 10 ms: only two settled looks show that one is gone.
    pub settled: bool,
}

impl Folder {
    /// Opens a message. A change of flags is a rename, so a file that is gone is looked for under its other names.
    pub fn open(&self, message: &FoundMessage) -> io::Result<File> {
        match File::open(&message.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for dir in ["cur", "new"].map(|sub| self.dir.join(sub)) {
                    for entry in fs::read_dir(dir)?.flatten() {
                        let base = FileName::parse(&entry.file_name()).ok().map(|name| name.base);
                        if base.as_ref() == Some(&message.base) {
                            return File::open(entry.path());
                        }
                    }
                }
                Err(error)
            }
            opened => opened,
        }
    }
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

/// Reads the mail store at `root`, in whichever layout it is. Costs 0.7 s for 100,000 messages, unoptimized.
pub fn scan(root: &Path) -> Result<Scan, MaildirError> {
    let tree = tree::find(root)?;
    let mut skipped = tree.skipped;
    let subscribed = read_subscriptions(root, tree.layout, &mut skipped);
    let mut folders = Vec::new();
    for (name, dir) in tree.dirs {
        match super::listing::read(&dir, &mut skipped) {
            Ok(listing) => {
                let subscribed = subscribed.as_ref().map(|listed| listed.contains(&name));
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
    subscribed: Option<bool>,
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
    parse: impl Fn(&[u8]) -> Result<T, LineError>,
    skipped: &mut Vec<Skipped>,
) -> Option<T> {
    let parsed = match list::read(path) {
        Ok(bytes) => parse(&bytes?).map_err(SkipReason::Damaged),
        Err(source) => Err(SkipReason::Io(source)),
    };
    parsed.map_err(|reason| skipped.push(Skipped { path: path.into(), reason })).ok()
}

/// The mailboxes that `subscriptions` lists; nothing if there is no such file.
fn read_subscriptions(
    root: &Path,
    layout: Layout,
    skipped: &mut Vec<Skipped>,
) -> Option<BTreeSet<MailboxName>> {
    let path = root.join("subscriptions");
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return None;
    }
    let (names, bad) =
        read_list(&path, |bytes| Ok(subscriptions::parse(bytes, layout)), skipped).unwrap_or_default();
    let damaged = |error| Skipped { path: path.clone(), reason: SkipReason::Damaged(error) };
    skipped.extend(bad.into_iter().map(damaged));
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs::{FileTimes, Permissions};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, SystemTime};

    fn maildir(dir: &Path) -> PathBuf {
        for sub in ["cur", "new", "tmp"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        dir.to_owned()
    }

    fn message(dir: &Path, name: &[u8], date: u64) -> PathBuf {
        let path = dir.join(OsStr::from_bytes(name));
        fs::write(&path, b"Subject: x\n\n").unwrap();
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(date);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(FileTimes::new().set_modified(date))
            .unwrap();
        path
    }

    fn names(scan: &Scan) -> Vec<&str> {
        scan.folders.iter().map(|folder| folder.name.as_str()).collect()
    }

    fn skips(skipped: &[Skipped], root: &Path) -> Vec<String> {
        let mut lines: Vec<String> =
            skipped.iter().map(|s| s.to_string().replace(&format!("{}/", root.display()), "")).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_maildir_plus_plus_tree_of_dovecot() {
        let temp = tempfile::tempdir().unwrap();
        let root = maildir(temp.path());
        message(&root, b"cur/1.b,S=12:2,Sa", 50);
        message(&root, b"cur/2.a:2,FZ", 40);
        message(&root, b"new/3.\xff\xfe", 30);
        message(&root, b"tmp/4.half", 20);
        fs::write(root.join("dovecot-uidlist"), b"3 V7 N12\n9 :2.a\n10 :gone\n11 :1.b,S=12\n").unwrap();
        fs::write(root.join("dovecot-keywords"), b"0 work\n").unwrap();
        fs::write(root.join("subscriptions"), b"V\t2\n\nEntw&APw-rfe\nGone\n").unwrap();
        maildir(&root.join(".Entw&APw-rfe"));
        message(&maildir(&root.join(".Größe.1")), b"cur/5.x", 10);
        let scan = scan(&root).unwrap();
        assert_eq!(scan.layout, Layout::MaildirPlusPlus);
        assert_eq!(names(&scan), ["Entwürfe", "Größe/1", "INBOX"]);
        assert_eq!(
            scan.folders.iter().map(|f| f.subscribed).collect::<Vec<_>>(),
            [true, false, false].map(Some)
        );
        assert_eq!(skips(&scan.skipped, &root), [""; 0]);
        let inbox = &scan.folders[2];
        let list = inbox.uidlist.as_ref().unwrap();
        assert_eq!((list.validity.value(), list.next.value(), inbox.settled), (7, 12, true));
        let seen: Vec<_> =
            inbox.messages.iter().map(|m| (m.uid.map(Uid::value), m.internal_date, m.size)).collect();
        assert_eq!(seen, [(Some(9), 40, 12), (Some(11), 50, 12), (None, 30, 12)]);
        assert_eq!(format!("{:?}", inbox.messages[1].keywords), "{\\Seen, work}");
        assert_eq!(inbox.messages[2].path.file_name().unwrap().as_bytes(), b"3.\xff\xfe");
    }

    #[test]
    fn without_a_uidlist_the_dates_order() {
        let temp = tempfile::tempdir().unwrap();
        let root = maildir(temp.path());
        for (name, date) in [("cur/1.c", 9), ("cur/2.b", 9), ("new/0.z", 10), ("cur/9.a", 1)] {
            message(&root, name.as_bytes(), date);
        }
        let scan = scan(&root).unwrap();
        let order: Vec<String> = scan.folders[0].messages.iter().map(|m| m.base.to_string()).collect();
        assert_eq!(order, ["9.a", "1.c", "2.b", "0.z"]);
    }

    #[test]
    fn what_does_not_belong_is_reported_and_left() {
        let temp = tempfile::tempdir().unwrap();
        let root = maildir(temp.path());
        let file = message(&root, b"cur/1.a:2,S", 1);
        symlink(&file, root.join("cur/2.link")).unwrap();
        fs::hard_link(&file, root.join("cur/1.a:2,")).unwrap();
        fs::create_dir(root.join("cur/dir")).unwrap();
        fs::write(root.join("cur/.nfs1"), b"x").unwrap();
        let closed = message(&root, b"cur/3.closed", 1);
        fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
        File::create(root.join("cur/4.huge")).unwrap().set_len(crate::blob::MAX_BLOB + 1).unwrap();
        fs::write(root.join("dovecot-uidlist"), b"3 V7 N12\nx :2.a\n").unwrap();
        fs::write(root.join("subscriptions"), b"..\n").unwrap();
        fs::create_dir(root.join("dovecot-keywords")).unwrap();
        maildir(&root.join("Archive"));
        maildir(&root.join(".a..b"));
        maildir(&root.join(OsStr::from_bytes(b".\xff")));
        maildir(&root.join(".Entwürfe"));
        maildir(&root.join(".Entw&APw-rfe"));
        fs::create_dir(root.join(".git")).unwrap();
        fs::create_dir(root.join("sieve")).unwrap();
        fs::create_dir(root.join(".broken")).unwrap();
        fs::write(root.join(".broken/cur"), b"a file").unwrap();
        symlink(root.join("Archive"), root.join(".link")).unwrap();
        symlink("/nowhere", root.join(".dangling")).unwrap();
        let scan = scan(&root).unwrap();
        assert_eq!(names(&scan), ["Entwürfe", "INBOX"]);
        assert_eq!(scan.folders[1].messages.len(), 1);
        assert!(scan.folders[1].uidlist.is_none());
        assert_eq!(
            skips(&scan.skipped, &root),
            [
                ".Entwürfe: mailbox \"Entwürfe\" is already another directory's",
                ".a..b: mailbox name \"a//b\" has a level that is empty, \".\" or \"..\"",
                ".broken/cur: cannot be read: Not a directory (os error 20)",
                ".dangling: is a symbolic link",
                ".git: has neither cur nor new",
                ".link: is a symbolic link",
                ".\u{fffd}: its name is neither modified UTF-7 nor UTF-8",
                "Archive: is a Maildir whose name does not start with a dot, inside a Maildir++ tree",
                "cur/.nfs1: a message file's name starts with a dot",
                "cur/1.a:2,S: is the same file as cur/1.a:2,",
                "cur/2.link: is a symbolic link",
                "cur/3.closed: its permissions let nobody read it",
                "cur/4.huge: its 268435457 bytes are more than a message may have",
                "cur/dir: is not a regular file",
                "dovecot-keywords: cannot be read: not a regular file",
                "dovecot-uidlist: line 2: no valid UID",
                "subscriptions: line 1: no mailbox can have this name",
            ]
        );
    }

    #[test]
    fn a_tree_of_plain_directories() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("Mail");
        message(&maildir(&root.join("inbox")), b"cur/1.a", 1);
        maildir(&root.join("Lists/v1.0/Entw&APw-rfe"));
        maildir(&root.join("Lists/.sub.x"));
        maildir(&root.join("Work"));
        fs::create_dir_all(root.join("empty/.git/objects")).unwrap();
        fs::write(root.join("subscriptions"), b"Lists/v1.0/Entw&APw-rfe\nWork\n").unwrap();
        symlink(root.join("Work"), root.join("Also")).unwrap();
        let scan = scan(&root).unwrap();
        assert_eq!(scan.layout, Layout::Directories);
        assert_eq!(names(&scan), ["INBOX", "Lists/sub/x", "Lists/v1.0/Entwürfe", "Work"]);
        assert_eq!(
            scan.folders.iter().map(|f| f.subscribed).collect::<Vec<_>>(),
            [false, false, true, true].map(Some)
        );
        assert_eq!(scan.folders[0].messages.len(), 1);
        assert_eq!(
            skips(&scan.skipped, &root),
            ["Also: is a symbolic link", "empty/.git: has neither cur nor new"]
        );
    }

    #[test]
    fn nothing_there_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        assert!(matches!(scan(&temp.path().join("none")), Err(MaildirError::Io { .. })));
        assert!(
            matches!(scan(temp.path()), Err(MaildirError::NoMailbox { skipped, .. }) if skipped.is_empty())
        );
        symlink("/nowhere", temp.path().join("cur")).unwrap();
        assert!(
            matches!(scan(temp.path()), Err(MaildirError::NoMailbox { skipped, .. }) if skipped.len() == 1)
        );
    }
}
