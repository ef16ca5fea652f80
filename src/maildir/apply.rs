//! Writes a planned export.
//!
//! In each folder: every body into `tmp`, synced; then the keywords and the uidlist; only then the renames into
//! `cur`. A Dovecot that is already looking never sees a file before its UID, else it would give it one itself.

use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::body_size::BodySize;
use super::export::{ExportMessage, ExportPlan, PlannedFile, PlannedFolder};
use super::file_name::{BaseName, FileName};
use super::subscriptions;
use super::uidlist::{UidEntry, UidList};
use crate::mailbox::{MailboxName, Uid};

/// How far an export is, or a run over an attached Maildir.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Messages dealt with.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exported {
    /// Messages and bytes.
    pub written: Progress,
    /// Messages whose body was not there ([`io::ErrorKind::NotFound`]). Their UIDs stay unused.
    pub missing: Vec<(MailboxName, Uid)>,
}

/// Why an export stopped. What it wrote so far stays; a new one wants another directory.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The directory holds something. An export never mixes with what is there.
    #[error("{} is not empty", root.display())]
    NotEmpty {
        /// The directory.
        root: PathBuf,
    },
    /// Something cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A body cannot be read.
    #[error("the body of UID {uid} in mailbox {mailbox:?} cannot be read")]
    Body {
        /// The mailbox.
        mailbox: MailboxName,
        /// The message.
        uid: Uid,
        /// The store's word.
        source: io::Error,
    },
    /// A body is not as long as the plan says.
    #[error("the body of UID {uid} in mailbox {mailbox:?} has {found} bytes, not {planned}")]
    Size {
        /// The mailbox.
        mailbox: MailboxName,
        /// The message.
        uid: Uid,
        /// Its size in the plan.
        planned: u64,
        /// The bytes that came; one more than planned may stand for any number.
        found: u64,
    },
}

/// Opens the body of a message; [`io::ErrorKind::NotFound`] if it is not held.
type Open<'a> = &'a dyn Fn(&ExportMessage) -> io::Result<Box<dyn Read>>;

impl ExportPlan<'_> {
    /// Writes the tree to `root`, which must be empty or missing. Bodies are streamed; `progress` is called after
    /// each message. Everything is durable when this returns.
    pub fn apply(
        &self,
        root: &Path,
        open: &dyn Fn(&ExportMessage) -> io::Result<Box<dyn Read>>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Exported, ExportError> {
        let mut writer = Writer { open, progress, exported: Exported::default() };
        prepare(root)?;
        for folder in &self.folders {
            writer.folder(root, folder)?;
        }
        let subscribed = self.folders.iter().filter(|folder| folder.mailbox.is_some_and(|m| m.subscribed));
        let list = subscriptions::to_bytes(subscribed.map(|folder| &*folder.dir));
        write_list(&root.join("subscriptions"), &list)?;
        sync(root)?;
        Ok(writer.exported)
    }
}

fn prepare(root: &Path) -> Result<(), ExportError> {
    let result = create(root).and_then(|()| Ok(fs::read_dir(root)?.next().is_none()));
    match result {
        Ok(true) => Ok(()),
        Ok(false) => Err(ExportError::NotEmpty { root: root.into() }),
        Err(source) => Err(ExportError::Write { path: root.into(), source }),
    }
}

struct Writer<'a> {
    open: Open<'a>,
    progress: &'a mut dyn FnMut(Progress),
    exported: Exported,
}

impl Writer<'_> {
    fn folder(&mut self, root: &Path, folder: &PlannedFolder<'_>) -> Result<(), ExportError> {
        let dir = if folder.dir.is_empty() { root.to_owned() } else { root.join(&folder.dir) };
        let subs = ["tmp", "new", "cur"].map(|sub| dir.join(sub));
        for path in [&dir].into_iter().chain(&subs) {
            create(path).map_err(|source| ExportError::Write { path: path.clone(), source })?;
        }
        if !folder.dir.is_empty() {
            write_list(&dir.join("maildirfolder"), b"")?;
        }
        let [tmp, _, cur] = &subs;
        if let Some(mailbox) = folder.mailbox {
            let mut entries = Vec::with_capacity(folder.files.len());
            let mut renames = Vec::with_capacity(folder.files.len());
            for file in &folder.files {
                if let Some((written, base)) = self.file(tmp, &mailbox.name, file)? {
                    let name = FileName::new(base.clone(), file.letters.clone());
                    renames.push((written, cur.join(std::ffi::OsString::from_vec(name.to_bytes()))));
                    entries.push(UidEntry { uid: file.message.uid, fields: Vec::new(), base });
                }
            }
            if !folder.keywords.is_empty() {
                write_list(&dir.join("dovecot-keywords"), &folder.keywords.to_bytes())?;
            }
            let (guid, other) = (Some(*mailbox.id.as_bytes()), Vec::new());
            let list = UidList { validity: mailbox.validity, next: mailbox.next, guid, other, entries };
            write_list(&dir.join("dovecot-uidlist"), &list.to_bytes())?;
            sync(&dir)?;
            for (from, path) in renames {
                fs::rename(from, &path).map_err(|source| ExportError::Write { path, source })?;
            }
        }
        subs.iter().chain([&dir]).try_for_each(|path| sync(path))
    }

    /// Writes a body into `tmp`; gives its path there and its final name, nothing if the body is missing.
    fn file(
        &mut self,
        tmp: &Path,
        mailbox: &MailboxName,
        file: &PlannedFile<'_>,
    ) -> Result<Option<(PathBuf, BaseName)>, ExportError> {
        let message = file.message;
        let unreadable = |source| ExportError::Body { mailbox: mailbox.clone(), uid: message.uid, source };
        let body = match (self.open)(message) {
            Ok(body) => body,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.exported.missing.push((mailbox.clone(), message.uid));
                return Ok(None);
            }
            Err(error) => return Err(unreadable(error)),
        };
        // Not a byte more than planned, whatever the reader gives.
        let mut body = body.take(message.size + 1);
        let path = tmp.join(format!("{}.postmerge", message.entry));
        let failed = |source| ExportError::Write { path: path.clone(), source };
        let mut out = create_file(&path).map_err(failed)?;
        let mut count = BodySize::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            out.write_all(&buffer[..read]).map_err(failed)?;
            count.add(&buffer[..read]);
        }
        if count.bytes != message.size {
            let (mailbox, uid, planned, found) = (mailbox.clone(), message.uid, message.size, count.bytes);
            return Err(ExportError::Size { mailbox, uid, planned, found });
        }
        let base = file.base(count.crlf_size()).map_err(|error| failed(io::Error::other(error)))?;
        set_date(&out, message.internal_date).and_then(|()| out.sync_all()).map_err(failed)?;
        self.exported.written.messages += 1;
        self.exported.written.bytes += count.bytes;
        (self.progress)(self.exported.written);
        Ok(Some((path, base)))
    }
}

/// Mail is private: directories are 0700, files 0600.
fn create(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write_list(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let result = create_file(path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    result.map_err(|source| ExportError::Write { path: path.into(), source })
}

fn sync(dir: &Path) -> Result<(), ExportError> {
    let result = File::open(dir).and_then(|dir| dir.sync_all());
    result.map_err(|source| ExportError::Write { path: dir.into(), source })
}

/// Dates that the system cannot hold are left at the time of writing.
pub(super) fn set_date(file: &File, seconds: i64) -> io::Result<()> {
    let span = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let date = if seconds < 0 { epoch.checked_sub(span) } else { epoch.checked_add(span) };
    date.map_or(Ok(()), |date| file.set_times(FileTimes::new().set_modified(date)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobId;
    use crate::mailbox::{EntryId, MailboxId, UidValidity};
    use crate::maildir::{ExportMailbox, scan};
    use proptest::prelude::*;

    const KEYWORDS: [&str; 8] =
        ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "$Forwarded", "$Junk", "work"];

    fn body(seed: u8) -> Vec<u8> {
        let lines: &[&str] = &["Subject: x\n", "Subject: x\r\n\r\nbody\n", "", "a\rb\n\n", "\n\r\n"];
        lines[usize::from(seed) % lines.len()].repeat(usize::from(seed)).into_bytes()
    }

    fn message(uid: u32, seed: u8, date: i64) -> ExportMessage {
        let keywords = KEYWORDS.iter().enumerate().filter(|(bit, _)| seed >> bit & 1 == 1);
        ExportMessage {
            entry: EntryId::from_bytes(std::array::from_fn(|at| {
                seed.wrapping_mul(7) ^ uid.to_be_bytes()[at % 4]
            })),
            uid: Uid::new(uid).unwrap(),
            blob: BlobId::from_bytes([seed; 32]),
            size: body(seed).len() as u64,
            internal_date: date,
            keywords: keywords.map(|(_, text)| text.parse().unwrap()).collect(),
        }
    }

    fn mailbox(name: &str, messages: Vec<ExportMessage>) -> ExportMailbox {
        ExportMailbox {
            id: MailboxId::from_bytes([3; 16]),
            name: name.parse().unwrap(),
            validity: UidValidity::new(77).unwrap(),
            next: Uid::new(5000).unwrap(),
            subscribed: name.len() % 2 == 1,
            messages,
        }
    }

    fn open(message: &ExportMessage) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(io::Cursor::new(body(message.blob.as_bytes()[0]))))
    }

    fn export(mailboxes: &[ExportMailbox], root: &Path, open: Open<'_>) -> Result<Exported, ExportError> {
        ExportPlan::new(mailboxes).unwrap().apply(root, open, &mut |_| {})
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_scan_of_an_export_is_what_was_exported(
            mail in proptest::collection::btree_map(
                "INBOX|Sent|Lists/[a-c]|Entwürfe|Tom & Jerry",
                proptest::collection::btree_map(1u32..5000, (any::<u8>(), -9i64..4_000_000_000), 0..6),
                1..5,
            )
        ) {
            let mailboxes: Vec<ExportMailbox> = mail.iter().map(|(name, messages)| {
                mailbox(name, messages.iter().map(|(uid, (seed, date))| message(*uid, *seed, *date)).collect())
            }).collect();
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path().join("out");
            export(&mailboxes, &root, &open).unwrap();
            let scan = scan(&root).unwrap();
            prop_assert!(scan.skipped.is_empty());
            for wanted in &mailboxes {
                let found = scan.folders.iter().find(|folder| folder.name == wanted.name).unwrap();
                let list = found.uidlist.as_ref().unwrap();
                prop_assert_eq!((list.validity, list.next), (wanted.validity, wanted.next));
                prop_assert_eq!(list.guid, Some(*wanted.id.as_bytes()));
                prop_assert_eq!(found.subscribed, Some(wanted.subscribed));
                prop_assert_eq!(found.messages.len(), wanted.messages.len());
                for (found, wanted) in found.messages.iter().zip(&wanted.messages) {
                    let bytes = fs::read(&found.path).unwrap();
                    let crlf = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").replace('\n', "\r\n").len();
                    prop_assert_eq!((found.uid, &found.keywords), (Some(wanted.uid), &wanted.keywords));
                    prop_assert_eq!(found.internal_date, wanted.internal_date);
                    prop_assert_eq!(found.base.size(), Some(bytes.len() as u64));
                    prop_assert_eq!(found.base.crlf_size(), Some(crlf as u64));
                    prop_assert_eq!(bytes, body(wanted.blob.as_bytes()[0]));
                }
            }
            let tmp_left = fs::read_dir(root.join("tmp")).unwrap().count();
            prop_assert_eq!(tmp_left, 0);
        }
    }

    #[test]
    fn progress_counts_up_to_the_plan() {
        let temp = tempfile::tempdir().unwrap();
        let mailboxes = [mailbox("INBOX", vec![message(1, 5, 0), message(2, 6, 0)])];
        let plan = ExportPlan::new(&mailboxes).unwrap();
        let mut seen = Vec::new();
        let exported = plan.apply(temp.path(), &open, &mut |progress| seen.push(progress)).unwrap();
        assert_eq!((plan.messages(), plan.bytes()), (exported.written.messages, exported.written.bytes));
        assert_eq!(seen.iter().map(|progress| progress.messages).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(seen.last(), Some(&exported.written));
    }

    #[test]
    fn a_directory_that_holds_something_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("x"), b"").unwrap();
        assert!(matches!(export(&[], temp.path(), &open), Err(ExportError::NotEmpty { .. })));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn no_file_appears_before_its_uid() {
        let temp = tempfile::tempdir().unwrap();
        let open = |message: &ExportMessage| {
            fs::create_dir(temp.path().join("dovecot-uidlist"))?;
            open(message)
        };
        let result = export(&[mailbox("INBOX", vec![message(1, 5, 0)])], temp.path(), &open);
        assert!(matches!(result, Err(ExportError::Write { path, .. }) if path.ends_with("dovecot-uidlist")));
        assert_eq!(fs::read_dir(temp.path().join("cur")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(temp.path().join("tmp")).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_body_keeps_its_uid_and_stops_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let mailboxes = [mailbox("INBOX", vec![message(1, 5, 0), message(2, 6, 0)])];
        let open = |message: &ExportMessage| {
            if message.uid.value() == 1 { Err(io::ErrorKind::NotFound.into()) } else { open(message) }
        };
        let exported = export(&mailboxes, temp.path(), &open).unwrap();
        assert_eq!(exported.missing, [(MailboxName::inbox(), Uid::FIRST)]);
        let scan = scan(temp.path()).unwrap();
        assert_eq!(scan.folders[0].messages.iter().map(|m| m.uid.unwrap().value()).collect::<Vec<_>>(), [2]);
        assert_eq!(scan.folders[0].uidlist.as_ref().unwrap().next.value(), 5000);
    }

    #[test]
    fn a_body_of_another_length_is_refused() {
        for (given, counted) in [(19, 19), (21, 21), (5000, 21)] {
            let temp = tempfile::tempdir().unwrap();
            let wanted = ExportMessage { size: 20, ..message(1, 4, 0) };
            let open = move |_: &ExportMessage| -> io::Result<Box<dyn Read>> {
                Ok(Box::new(io::Cursor::new(vec![b'x'; given])))
            };
            let error = export(&[mailbox("INBOX", vec![wanted])], temp.path(), &open).unwrap_err();
            assert!(matches!(error, ExportError::Size { planned: 20, found, .. } if found == counted));
            assert!(!temp.path().join("dovecot-uidlist").exists());
        }
    }
}
