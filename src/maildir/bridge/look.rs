//! What the Maildir is now, as far as it changed. Folders whose directories stand still are not listed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::ledger::Stamp;
use crate::blob::MAX_BLOB;
use crate::maildir::scan::{SkipReason, Skipped};
use crate::maildir::{BaseName, FileName, KeywordTable, list};

/// Reads the clock; the time of file systems, in the end.
pub type Clock<'a> = &'a dyn Fn() -> SystemTime;

/// The times of directories have ticks of up to 10 ms: what changes within this time after a look may not show.
const TICK: Duration = Duration::from_millis(20);
/// Looks before a folder that never stands still is passed over for now.
const LOOKS: usize = 3;

/// A folder's files.
pub(super) struct Files {
    pub(super) files: BTreeMap<BaseName, OnDisk>,
    pub(super) keywords: KeywordTable,
    /// What the directories looked like.
    pub(super) seen: Stamp,
    /// The same; nothing if they changed so recently that another change would not show.
    pub(super) stamp: Option<Stamp>,
}

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OnDisk {
    /// Whether it is in `new`, with the rest of its name as the directory has it.
    pub(super) in_new: bool,
    pub(super) name: FileName,
    raw: OsString,
}

/// What `stat` says of a file that nobody knew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) size: u64,
    pub(super) mtime: i64,
}

impl OnDisk {
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(if self.in_new { "new" } else { "cur" }).join(&self.raw)
    }

    /// Opens the file and looks at it, unless it is nothing that can be a message.
    pub(super) fn open(&self, dir: &Path) -> Result<(File, Measured), SkipReason> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path(dir);
        let named = path.symlink_metadata().map_err(SkipReason::Io)?;
        if named.is_symlink() {
            return Err(SkipReason::Symlink);
        }
        if !named.is_file() {
            return Err(SkipReason::NotAFile);
        }
        if named.mode() & 0o444 == 0 {
            return Err(SkipReason::Unreadable);
        }
        // What was a file a moment ago may be a link or a pipe now: neither is followed or waited for.
        let mut options = fs::OpenOptions::new();
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file =
            options.read(true).custom_flags(flags.bits() as i32).open(&path).map_err(SkipReason::Io)?;
        let meta = file.metadata().map_err(SkipReason::Io)?;
        if !meta.is_file() {
            return Err(SkipReason::NotAFile);
        }
        if meta.len() > MAX_BLOB {
            return Err(SkipReason::TooLarge { size: meta.len() });
        }
        Ok((file, Measured { size: meta.len(), mtime: meta.mtime() }))
    }
}

/// When something changed last, in nanoseconds, and the file system's number for it.
pub(super) fn changed(meta: &fs::Metadata) -> (u64, u64) {
    (meta.mtime().max(0) as u64 * 1_000_000_000 + meta.mtime_nsec().max(0) as u64, meta.ino())
}

/// When the directories of a folder changed last. Fails if one of them is missing or is no directory.
pub(super) fn stamp(dir: &Path) -> Result<Stamp, Skipped> {
    let time = |sub| {
        let path = dir.join(sub);
        let failed = |reason| Skipped { path: path.clone(), reason };
        let meta = path.symlink_metadata().map_err(SkipReason::Io).map_err(failed)?;
        if meta.is_symlink() {
            return Err(failed(SkipReason::Symlink));
        }
        if !meta.is_dir() {
            return Err(failed(SkipReason::NotAFile));
        }
        Ok(changed(&meta))
    };
    Ok(Stamp { new: time("new")?, cur: time("cur")? })
}

/// Lists a folder; nothing if it did not stand still for long enough to be believed. What cannot be a message is reported.
pub(super) fn list(
    dir: &Path,
    clock: Clock<'_>,
    skipped: &mut Vec<Skipped>,
) -> Result<Option<Files>, Skipped> {
    for _ in 0..LOOKS {
        let (started, before) = (clock(), stamp(dir)?);
        let mut left = Vec::new();
        let mut files = BTreeMap::new();
        // New first: a message that goes from new to cur meanwhile is seen twice rather than never.
        list_one(&dir.join("new"), true, &mut files, &mut left)?;
        list_one(&dir.join("cur"), false, &mut files, &mut left)?;
        if stamp(dir)? != before {
            continue;
        }
        skipped.append(&mut left);
        let keywords = read_keywords(dir, skipped);
        let stamp = is_settled(before, started).then_some(before);
        return Ok(Some(Files { files, keywords, seen: before, stamp }));
    }
    Ok(None)
}

/// Which of some files a folder has, under whatever flags; nothing if it did not stand still for long enough to be believed.
pub(super) fn find(dir: &Path, wanted: &BTreeSet<&[u8]>) -> Result<Option<BTreeSet<Vec<u8>>>, Skipped> {
    for _ in 0..LOOKS {
        let before = stamp(dir)?;
        let mut found = BTreeSet::new();
        for sub in ["new", "cur"] {
            let path = dir.join(sub);
            let failed = |error| Skipped { path: path.clone(), reason: SkipReason::Io(error) };
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                let base = name.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
                if wanted.contains(base) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    found.insert(base.to_vec());
                }
            }
        }
        if stamp(dir)? == before {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether whatever happened after `started` must show in another time than these.
fn is_settled(stamp: Stamp, started: SystemTime) -> bool {
    let last = SystemTime::UNIX_EPOCH + Duration::from_nanos(stamp.new.0.max(stamp.cur.0)) + TICK;
    last <= started
}

fn list_one(
    dir: &Path,
    in_new: bool,
    files: &mut BTreeMap<BaseName, OnDisk>,
    left: &mut Vec<Skipped>,
) -> Result<(), Skipped> {
    let failed = |error| Skipped { path: dir.into(), reason: SkipReason::Io(error) };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let mut skip = |reason| left.push(Skipped { path: entry.path(), reason });
        let raw = entry.file_name();
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                skip(SkipReason::Io(error));
                continue;
            }
        };
        if kind.is_symlink() {
            skip(SkipReason::Symlink);
        } else if !kind.is_file() {
            skip(SkipReason::NotAFile);
        } else {
            match FileName::parse(&raw) {
                Ok(name) => add(OnDisk { in_new, name, raw }, dir, files, left),
                Err(error) => skip(SkipReason::FileName(error)),
            }
        }
    }
    Ok(())
}

/// One file can be seen under two names: before and after a rename.
fn add(found: OnDisk, sub: &Path, files: &mut BTreeMap<BaseName, OnDisk>, left: &mut Vec<Skipped>) {
    let dir = sub.parent().unwrap_or(sub);
    if let Some(other) = files.get(&found.name.base)
        && other.path(dir).symlink_metadata().is_ok()
    {
        if found.path(dir).symlink_metadata().is_ok() {
            left.push(Skipped {
                path: found.path(dir),
                reason: SkipReason::SameFile { of: other.path(dir) },
            });
        }
        return;
    }
    files.insert(found.name.base.clone(), found);
}

/// The folder's keyword letters; none if there is no list, or one that is damaged.
pub(super) fn read_keywords(dir: &Path, skipped: &mut Vec<Skipped>) -> KeywordTable {
    let path = dir.join("dovecot-keywords");
    let bytes = match list::read(&path) {
        Ok(bytes) => bytes.unwrap_or_default(),
        Err(error) => {
            skipped.push(Skipped { path, reason: SkipReason::Io(error) });
            return KeywordTable::default();
        }
    };
    KeywordTable::parse(&bytes).unwrap_or_else(|error| {
        skipped.push(Skipped { path, reason: SkipReason::Damaged(error) });
        KeywordTable::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_for_some_files_finds_those_that_a_list_has() {
        let folder = tempfile::tempdir().unwrap();
        let (new, cur) = (folder.path().join("new"), folder.path().join("cur"));
        [&new, &cur].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
        for path in
            [new.join("a"), new.join("b:2,S"), cur.join("c:2,FS"), cur.join("d"), cur.join("other:2,")]
        {
            File::create(path).unwrap();
        }
        std::os::unix::fs::symlink("c:2,FS", cur.join("link:2,")).unwrap();
        fs::create_dir(cur.join("directory")).unwrap();
        let wanted = ["a", "b", "c", "d", "e", "link", "directory", ""].map(str::as_bytes).into();
        let found = find(folder.path(), &wanted).unwrap().unwrap();
        let listed = list(folder.path(), &|| SystemTime::UNIX_EPOCH, &mut Vec::new()).unwrap().unwrap();
        let listed = listed.files.keys().map(BaseName::as_bytes).filter(|base| wanted.contains(base));
        assert_eq!(found, listed.map(<[u8]>::to_vec).collect());
        assert_eq!(found.len(), 4);
        fs::rename(&new, folder.path().join("gone")).unwrap();
        assert!(
            find(folder.path(), &wanted).is_err(),
            "a folder that is not there says nothing of its files"
        );
    }
}
