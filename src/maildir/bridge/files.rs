//! Single files of a Maildir: written, renamed, removed. Nothing is ever overwritten.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::look::OnDisk;
use super::{BridgeError, failed};
use crate::mailbox::{EntryId, Keyword, Nonce};
use crate::maildir::apply::set_date;
use crate::maildir::body_size::BodySize;
use crate::maildir::{BaseName, FileName, KeywordTable, Letters};
use crate::uid::Located;

/// The folder that a file goes to.
pub(super) struct Target {
    pub(super) dir: PathBuf,
    pub(super) keywords: KeywordTable,
}

/// Whether something could be done.
pub(super) enum Outcome<T> {
    Done(T),
    /// Somebody else changed it first; the next look tells what.
    Changed,
}

impl<T> Outcome<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Outcome::Done(value) => Outcome::Done(f(value)),
            Outcome::Changed => Outcome::Changed,
        }
    }
}

/// What a file is called, and what that says.
pub(super) type Named = (BaseName, BTreeSet<Keyword>);

/// A file that was renamed, or needed not be.
pub(super) struct Moved {
    pub(super) named: Named,
    pub(super) renamed: bool,
}

/// A file that only needs to be renamed to appear in its folder.
pub(super) struct Prepared {
    pub(super) base: BaseName,
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    /// What its name will say.
    pub(super) said: BTreeSet<Keyword>,
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> Result<Outcome<()>, BridgeError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Outcome::Done(())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Outcome::Changed),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// Gives a file the flags it should have, in the folder where it should be.
pub(super) fn relocate(
    file: &OnDisk,
    dir: &Path,
    table: &KeywordTable,
    target: &Target,
    keywords: &BTreeSet<Keyword>,
) -> Result<Outcome<Moved>, BridgeError> {
    let mut name = file.name.clone();
    // A letter of this folder's table may mean something else in another one.
    name.letters.set_keywords(&BTreeSet::new(), table);
    name.letters.set_keywords(keywords, &target.keywords);
    let (from, elsewhere) = (file.path(dir), dir != target.dir);
    let said = name.letters.keywords(&target.keywords);
    let stays = !elsewhere && name.letters == file.name.letters;
    if stays {
        return Ok(Outcome::Done(Moved { named: (name.base, said), renamed: false }));
    }
    // What no program has looked at yet stays new.
    let still_new = file.in_new && name.letters == Letters::default();
    for count in 0.. {
        let base = numbered(&name.base, count);
        let to = path(target, still_new, name.called(base.clone()));
        match rename_new(&from, &to) {
            Ok(()) => return Ok(Outcome::Done(Moved { named: (base, said), renamed: true })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Changed),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && count < 100 => {}
            Err(error) => return Err(failed("rename", &from)(error)),
        }
    }
    Ok(Outcome::Changed)
}

/// A base name that is not taken: the file of another message has it.
fn numbered(base: &BaseName, count: u32) -> BaseName {
    let (head, fields) = match base.as_bytes().iter().position(|byte| *byte == b',') {
        Some(at) => base.as_bytes().split_at(at),
        None => (base.as_bytes(), &[][..]),
    };
    let numbered = [head, format!("-{count}").as_bytes(), fields].concat();
    if count == 0 { base.clone() } else { BaseName::new(&numbered).unwrap_or_else(|_| base.clone()) }
}

fn path(target: &Target, is_new: bool, name: FileName) -> PathBuf {
    let name_bytes = if is_new { name.base.as_bytes().to_vec() } else { name.to_bytes() };
    target.dir.join(if is_new { "new" } else { "cur" }).join(std::ffi::OsString::from_vec(name_bytes))
}

/// Writes a message: into `tmp`, synced, and only then under its name. Without flags it is new, as a delivery is.
pub(super) fn write(
    entry: EntryId,
    located: &Located,
    body: impl BufRead,
    target: &Target,
    keywords: &BTreeSet<Keyword>,
) -> Result<Named, BridgeError> {
    let (tmp, unique) = write_tmp(entry, located, body, target)?;
    let mut letters = Letters::default();
    letters.set_keywords(keywords, &target.keywords);
    let said = letters.keywords(&target.keywords);
    for count in 0.. {
        let base = numbered(&unique, count);
        let to = path(target, letters == Letters::default(), FileName::new(base.clone(), letters.clone()));
        match rename_new(&tmp, &to) {
            Ok(()) => return Ok((base, said)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && count < 100 => {}
            Err(error) => return Err(failed("rename", &tmp)(error)),
        }
    }
    unreachable!("the last try returns")
}

/// Writes a message into `tmp` under a name that is not taken, for [`publish`].
pub(super) fn prepare(
    entry: EntryId,
    located: &Located,
    body: impl BufRead,
    target: &Target,
    keywords: &BTreeSet<Keyword>,
    taken: &dyn Fn(&BaseName) -> bool,
) -> Result<Prepared, BridgeError> {
    let (from, unique) = write_tmp(entry, located, body, target)?;
    let mut letters = Letters::default();
    letters.set_keywords(keywords, &target.keywords);
    let said = letters.keywords(&target.keywords);
    let base = free(&unique, taken);
    let to = path(target, letters == Letters::default(), FileName::new(base.clone(), letters));
    Ok(Prepared { base, from, to, said })
}

/// The same for a file that goes to another folder.
pub(super) fn prepare_move(
    file: &OnDisk,
    dir: &Path,
    table: &KeywordTable,
    target: &Target,
    keywords: &BTreeSet<Keyword>,
    taken: &dyn Fn(&BaseName) -> bool,
) -> Prepared {
    let mut name = file.name.clone();
    name.letters.set_keywords(&BTreeSet::new(), table);
    name.letters.set_keywords(keywords, &target.keywords);
    let said = name.letters.keywords(&target.keywords);
    let still_new = file.in_new && name.letters == Letters::default();
    let base = free(&name.base, taken);
    let to = path(target, still_new, name.called(base.clone()));
    Prepared { base, from: file.path(dir), to, said }
}

/// Lets a file appear. False if somebody was there first.
pub(super) fn publish(prepared: &Prepared) -> Result<bool, BridgeError> {
    match rename_new(&prepared.from, &prepared.to) {
        Ok(()) => Ok(true),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::AlreadyExists].contains(&error.kind()) => {
            Ok(false)
        }
        Err(error) => Err(failed("rename", &prepared.from)(error)),
    }
}

fn free(base: &BaseName, taken: &dyn Fn(&BaseName) -> bool) -> BaseName {
    let found = (0..100).map(|count| numbered(base, count)).find(|base| !taken(base));
    found.unwrap_or_else(|| base.clone())
}

fn write_tmp(
    entry: EntryId,
    located: &Located,
    mut body: impl BufRead,
    target: &Target,
) -> Result<(PathBuf, BaseName), BridgeError> {
    let tmp = target.dir.join("tmp").join(format!("{entry}.postmerge"));
    let mut options = OpenOptions::new();
    // What a run that was cut off left there is written anew.
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&tmp);
    let mut file = file.map_err(failed("make", &tmp))?;
    let size = copy(&mut body, &mut file).map_err(failed("write", &tmp))?;
    set_date(&file, located.internal_date).map_err(failed("date", &tmp))?;
    file.sync_all().map_err(failed("sync", &tmp))?;
    drop(file);
    let token = match located.place {
        // Another stay in a folder is another message to a Dovecot that looks at names.
        Some((_, nonce)) if nonce != Nonce::INITIAL => format!("{entry}-{:x}.postmerge", nonce.0),
        _ => format!("{entry}.postmerge"),
    };
    let wrong = |error| failed("name", &tmp)(io::Error::other(error));
    let unique =
        BaseName::unique(located.internal_date, &token, size.bytes, size.crlf_size()).map_err(wrong)?;
    Ok((tmp, unique))
}

fn copy(from: &mut impl BufRead, to: &mut File) -> io::Result<BodySize> {
    let mut count = BodySize::default();
    loop {
        let piece = match from.fill_buf() {
            Ok([]) => return Ok(count),
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(piece)?;
        count.add(piece);
        let length = piece.len();
        from.consume(length);
    }
}

/// Renames a file unless something has the other name.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot do it in one step.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        done => Ok(done?),
    }
}
