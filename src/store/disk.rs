//! Every operation that changes the disk goes through here, so that tests can stop it at any one of them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StoreError;

#[cfg(test)]
pub(crate) mod fault;

/// The disk. Files that it opens remember their path, for errors.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    read_only: bool,
    #[cfg(test)]
    pub(crate) fault: Option<std::sync::Arc<fault::Fault>>,
}

#[cfg_attr(not(test), allow(clippy::derivable_impls, reason = "tests bring faults along"))]
impl Default for Disk {
    fn default() -> Disk {
        Disk {
            read_only: false,
            #[cfg(test)]
            fault: fault::current(),
        }
    }
}

/// An operation, as a test sees it.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests look at it"))]
pub(crate) enum Step<'a> {
    Create(&'a Path),
    Write { file: &'a DiskFile, offset: u64, bytes: &'a [u8] },
    SetLen(&'a DiskFile, u64),
    Sync(&'a Path),
    SyncDir(&'a Path),
    SyncAll,
    Rename(&'a Path, &'a Path),
    Remove(&'a Path),
    Replace,
}

/// An open file and its path.
#[derive(Debug)]
pub(crate) struct DiskFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

impl DiskFile {
    pub(crate) fn open(path: &Path) -> Result<DiskFile, StoreError> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        Ok(DiskFile { file, path: path.to_owned() })
    }

    pub(crate) fn len(&self) -> Result<u64, StoreError> {
        Ok(self.file.metadata().map_err(StoreError::io("measure", &self.path))?.len())
    }

    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        self.file.read_exact_at(out, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => StoreError::damaged(&self.path, offset, "the file ends here"),
            _ => StoreError::Io { action: "read", path: self.path.clone(), source },
        })
    }
}

impl DiskFile {
    /// Has the next read from an offset on come from the disk, where the system can be asked for that.
    pub(crate) fn drop_cache(&self, offset: u64) {
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&self.file, offset, None, rustix::fs::Advice::DontNeed);
        #[cfg(not(target_os = "linux"))]
        let _ = offset;
    }
}

impl Disk {
    /// A disk that refuses every change.
    pub(crate) fn read_only() -> Disk {
        Disk {
            read_only: true,
            #[cfg(test)]
            fault: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn stopped_by(fault: std::sync::Arc<fault::Fault>) -> Disk {
        Disk { read_only: false, fault: Some(fault) }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Does `act`, unless nothing may change or a test has stopped the disk.
    fn step<T>(&self, step: Step<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.read_only {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "it is open for reading only"));
        }
        #[cfg(test)]
        if let Some(fault) = &self.fault {
            return fault.step(&step, act);
        }
        let _ = step;
        act()
    }

    pub(crate) fn create_dir(&self, path: &Path) -> Result<(), StoreError> {
        // Mail is nobody else's to read.
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(path).map_err(StoreError::io("create", path))
    }

    /// Makes an empty file, or empties the one that is there.
    pub(crate) fn create(&self, path: &Path) -> Result<DiskFile, StoreError> {
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = self.step(Step::Create(path), open).map_err(StoreError::io("create", path))?;
        Ok(DiskFile { file, path: path.to_owned() })
    }

    /// Opens a file that is there for writing, as far as this disk is written to.
    pub(crate) fn open_write(&self, path: &Path) -> Result<DiskFile, StoreError> {
        if self.read_only {
            return DiskFile::open(path);
        }
        let file =
            OpenOptions::new().read(true).write(true).open(path).map_err(StoreError::io("open", path))?;
        Ok(DiskFile { file, path: path.to_owned() })
    }

    pub(crate) fn write_at_raw(&self, file: &DiskFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step(Step::Write { file, offset, bytes }, || file.file.write_all_at(bytes, offset))
    }

    pub(crate) fn write_at(&self, file: &DiskFile, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_at_raw(file, offset, bytes).map_err(StoreError::io("write", &file.path))
    }

    pub(crate) fn set_len_raw(&self, file: &DiskFile, length: u64) -> io::Result<()> {
        self.step(Step::SetLen(file, length), || file.file.set_len(length))
    }

    pub(crate) fn set_len(&self, file: &DiskFile, length: u64) -> Result<(), StoreError> {
        self.set_len_raw(file, length).map_err(StoreError::io("cut", &file.path))
    }

    pub(crate) fn sync_raw(&self, file: &DiskFile) -> io::Result<()> {
        self.step(Step::Sync(&file.path), || file.file.sync_data())
    }

    pub(crate) fn sync(&self, file: &DiskFile) -> Result<(), StoreError> {
        self.sync_raw(file).map_err(StoreError::io("sync", &file.path))
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> Result<(), StoreError> {
        self.step(Step::SyncDir(path), || File::open(path)?.sync_all()).map_err(StoreError::io("sync", path))
    }

    /// Makes everything durable that any process wrote to the file system of `path`.
    pub(crate) fn sync_all(&self, path: &Path) -> Result<(), StoreError> {
        #[cfg(target_os = "linux")]
        let sync = || Ok(rustix::fs::syncfs(File::open(path)?)?);
        #[cfg(not(target_os = "linux"))]
        let sync = || {
            rustix::fs::sync();
            Ok(())
        };
        self.step(Step::SyncAll, sync).map_err(StoreError::io("sync", path))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.step(Step::Rename(from, to), || fs::rename(from, to)).map_err(StoreError::io("rename", from))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let remove = || match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        self.step(Step::Remove(path), remove).map_err(StoreError::io("remove", path))
    }

    /// Puts a file in place as a whole: it is there with these parts, or as it was before.
    pub(crate) fn replace(&self, path: &Path, parts: &[&[u8]]) -> Result<(), StoreError> {
        let tmp = path.with_extension("tmp");
        let file = self.create(&tmp)?;
        let mut offset = 0;
        for part in parts {
            self.write_at(&file, offset, part)?;
            offset += part.len() as u64;
        }
        self.sync(&file)?;
        self.rename(&tmp, path)?;
        self.sync_dir(path.parent().expect("files of a store are in its directory"))
    }
}

/// Replaces a file that lies beside those of a store, as a whole and durably: for a test it is one operation of the disk.
pub(crate) fn replace_beside(replace: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    #[cfg(test)]
    if let Some(fault) = fault::current() {
        return fault.step(&Step::Replace, replace);
    }
    replace()
}

/// What is in a directory; nothing if it is not there, since what copies a store may leave empty directories out.
pub(crate) fn entries(
    dir: &Path,
) -> Result<impl Iterator<Item = Result<fs::DirEntry, StoreError>>, StoreError> {
    let found = match fs::read_dir(dir) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(StoreError::io("list", dir)(error)),
    };
    Ok(found.into_iter().flatten().map(move |entry| entry.map_err(StoreError::io("list", dir))))
}

/// The files of a directory whose name is `NNNNNNNN.<extension>`, by number.
pub(crate) fn numbered(dir: &Path, extension: &str) -> Result<Vec<u32>, StoreError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let name = entry.map_err(StoreError::io("list", dir))?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(extension)?.strip_suffix('.'));
        numbers.extend(stem.filter(|stem| stem.len() == 8).and_then(|stem| stem.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The path of a numbered file.
pub(crate) fn number_path(dir: &Path, number: u32, extension: &str) -> PathBuf {
    dir.join(format!("{number:08}.{extension}"))
}

/// The first `N` bytes of a BLAKE3 hash over all parts: tells damage, not forgery.
pub(crate) fn checksum<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut out = [0; N];
    hasher.finalize_xof().fill(&mut out);
    out
}
