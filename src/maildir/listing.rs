//! Lists the message files of one folder, although other programs rename them meanwhile.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::file_name::FileName;
use super::scan::{SkipReason, Skipped};
use crate::blob::MAX_BLOB;

/// Looks before a folder that never stands still is taken as it is: a busy one changes every few seconds.
const LOOKS: usize = 3;

/// The files of a folder.
pub(super) struct Listing {
    pub(super) files: Vec<Found>,
    pub(super) settled: bool,
}

/// One file and what `stat` said.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) name: FileName,
    pub(super) mtime: i64,
    pub(super) size: u64,
    inode: (u64, u64),
}

/// Lists `new` and `cur`. A folder of which only a part can be listed is an error: the rest would look expunged.
pub(super) fn read(dir: &Path, skipped: &mut Vec<Skipped>) -> Result<Listing, Skipped> {
    let mut looks = 0;
    loop {
        looks += 1;
        let mut left = Vec::new();
        let before = times(dir)?;
        // New first: a message that goes from new to cur meanwhile is then seen twice rather than never.
        let mut files = Vec::new();
        let mut whole = true;
        for sub in ["new", "cur"] {
            whole &= list(&dir.join(sub), &mut files, &mut left)?;
        }
        whole &= times(dir)? == before;
        if whole || looks == LOOKS {
            let files = without_twins(files, &mut left);
            skipped.append(&mut left);
            return Ok(Listing { files, settled: whole });
        }
    }
}

/// When `new` and `cur` last changed.
fn times(dir: &Path) -> Result<[Option<(i64, i64)>; 2], Skipped> {
    let time = |sub| {
        let path = dir.join(sub);
        match path.symlink_metadata() {
            Ok(meta) if meta.is_symlink() => Err(Skipped { path, reason: SkipReason::Symlink }),
            Ok(meta) => Ok(Some((meta.mtime(), meta.mtime_nsec()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Skipped { path, reason: SkipReason::Io(error) }),
        }
    };
    Ok([time("new")?, time("cur")?])
}

/// Adds the files of one directory; false if one of them went away meanwhile.
fn list(dir: &Path, files: &mut Vec<Found>, left: &mut Vec<Skipped>) -> Result<bool, Skipped> {
    let failed = |error| Skipped { path: dir.into(), reason: SkipReason::Io(error) };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(failed(error)),
    };
    let mut whole = true;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        match look(&entry) {
            Ok(found) => files.push(found),
            Err(SkipReason::Io(error)) if error.kind() == io::ErrorKind::NotFound => whole = false,
            Err(reason) => left.push(Skipped { path: entry.path(), reason }),
        }
    }
    Ok(whole)
}

fn look(entry: &fs::DirEntry) -> Result<Found, SkipReason> {
    let kind = entry.file_type().map_err(SkipReason::Io)?;
    if kind.is_symlink() {
        return Err(SkipReason::Symlink);
    }
    if !kind.is_file() {
        return Err(SkipReason::NotAFile);
    }
    let file_name = entry.file_name();
    let name = FileName::parse(OsStr::new(&file_name)).map_err(SkipReason::FileName)?;
    let meta: Metadata = entry.metadata().map_err(SkipReason::Io)?;
    if meta.mode() & 0o444 == 0 {
        return Err(SkipReason::Unreadable);
    }
    if meta.len() > MAX_BLOB {
        return Err(SkipReason::TooLarge { size: meta.len() });
    }
    let inode = (meta.dev(), meta.ino());
    Ok(Found { path: entry.path(), name, mtime: meta.mtime(), size: meta.len(), inode })
}

/// One file can have been seen under two names: before and after a rename, or by a hard link. Two files with
/// one base are two messages.
fn without_twins(mut files: Vec<Found>, left: &mut Vec<Skipped>) -> Vec<Found> {
    files.sort_by(|a, b| (&a.name.base, a.inode, &a.path).cmp(&(&b.name.base, b.inode, &b.path)));
    let mut kept: Vec<Found> = Vec::with_capacity(files.len());
    for file in files {
        let twin =
            kept.last_mut().filter(|last| last.name.base == file.name.base && last.inode == file.inode);
        let Some(twin) = twin else {
            kept.push(file);
            continue;
        };
        if twin.path.symlink_metadata().is_err() {
            *twin = file;
        } else if file.path.symlink_metadata().is_ok() {
            let of = twin.path.clone();
            left.push(Skipped { path: file.path, reason: SkipReason::SameFile { of } });
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: PathBuf, inode: u64) -> Found {
        let name = FileName::parse(path.file_name().unwrap()).unwrap();
        Found { path, name, mtime: 0, size: 0, inode: (1, inode) }
    }

    #[test]
    fn a_rename_seen_twice_is_one_message() {
        let temp = tempfile::tempdir().unwrap();
        let (gone, here) = (temp.path().join("1.a:2,"), temp.path().join("1.a:2,S"));
        fs::write(&here, b"").unwrap();
        for files in [[&gone, &here], [&here, &gone]] {
            let mut left = Vec::new();
            let kept = without_twins(files.map(|path| found(path.clone(), 5)).into(), &mut left);
            assert_eq!(kept.iter().map(|file| &file.path).collect::<Vec<_>>(), [&here]);
            assert!(left.is_empty());
        }
    }

    #[test]
    fn two_files_with_one_base_are_two_messages() {
        let files = vec![found("cur/1.a:2,".into(), 5), found("new/1.a".into(), 6)];
        assert_eq!(without_twins(files, &mut Vec::new()).len(), 2);
    }

    #[test]
    fn flags_that_change_meanwhile_never_double_a_message() {
        let temp = tempfile::tempdir().unwrap();
        let name = |n: usize, flags| temp.path().join(format!("cur/{n}.a:2,{flags}"));
        fs::create_dir(temp.path().join("cur")).unwrap();
        (0..40).for_each(|n| fs::write(name(n, ""), b"").unwrap());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for _ in 0..200 {
                    let listing = read(temp.path(), &mut Vec::new()).unwrap();
                    let bases: std::collections::BTreeSet<_> =
                        listing.files.iter().map(|f| &f.name.base).collect();
                    assert_eq!(bases.len(), listing.files.len());
                }
            });
            for round in 0.. {
                let (from, to) = if round % 2 == 0 { ("", "S") } else { ("S", "") };
                (0..40).for_each(|n| fs::rename(name(n, from), name(n, to)).unwrap());
                if reader.is_finished() {
                    break;
                }
            }
        });
        let listing = read(temp.path(), &mut Vec::new()).unwrap();
        assert_eq!((listing.files.len(), listing.settled), (40, true));
    }
}
