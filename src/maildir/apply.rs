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

use super::export::{ExportMessage, ExportPlan, PlannedFile, PlannedFolder};
use super::file_name::{BaseName, FileName};
use super::subscriptions;
use super::uidlist::{UidEntry, UidList};
use crate::mailbox::{MailboxName, Uid};

/// How far an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Messages written.
    pub messages: u64,
    /// Bytes of bodies written.
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
        let mut count = LineCount::default();
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
        if count.size != message.size {
            let (mailbox, uid, planned, found) = (mailbox.clone(), message.uid, message.size, count.size);
            return Err(ExportError::Size { mailbox, uid, planned, found });
        }
        let base = file.base(count.crlf_size()).map_err(|error| failed(io::Error::other(error)))?;
        set_date(&out, message.internal_date).and_then(|()| out.sync_all()).map_err(failed)?;
        self.exported.written.messages += 1;
        self.exported.written.bytes += count.size;
        (self.progress)(self.exported.written);
        Ok(Some((path, base)))
    }
}

/// Sizes of a body that comes in pieces.
#[derive(Default)]
struct LineCount {
    size: u64,
    bare_line_feeds: u64,
    after_cr: bool,
}

impl LineCount {
    fn add(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        for byte in piece {
            self.bare_line_feeds += u64::from(*byte == b'\n' && !self.after_cr);
            self.after_cr = *byte == b'\r';
        }
    }

    /// The size once every line ends with CRLF, which is what Dovecot sends.
    fn crlf_size(&self) -> u64 {
        self.size + self.bare_line_feeds
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
fn set_date(file: &File, seconds: i64) -> io::Result<()> {
    let span = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let date = if seconds < 0 { epoch.checked_sub(span) } else { epoch.checked_add(span) };
    date.map_or(Ok(()), |date| file.set_times(FileTimes::new().set_modified(date)))
}
