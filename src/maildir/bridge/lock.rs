//! Dovecot's own locks: a file beside the locked one, made by whoever holds it.
//!
//! As in Dovecot, the holder writes its process and host into it, and a lock is broken when its process is gone from this host
//! or nobody touched it for [`STALE`].

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};

use super::look::Clock;
use crate::maildir::list;

/// As long as Dovecot waits before it takes a lock of the uidlist for left over.
const STALE: Duration = Duration::from_secs(120);
/// Tries, and the time between them: a Dovecot holds the lock for the time of a scan. After half a second the folder is left
/// for the next run.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// A lock that is held; dropping it lets it go.
pub(super) struct DotLock(PathBuf);

impl DotLock {
    /// Takes the lock of a file; nothing if others hold it for long.
    pub(super) fn take(file: &Path, clock: Clock<'_>) -> io::Result<Option<DotLock>> {
        let path = with_suffix(file, ".lock");
        for _ in 0..TRIES {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut lock) => {
                    let held = DotLock(path);
                    lock.write_all(content().as_bytes())?;
                    return Ok(Some(held));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            if is_stale(&path, clock) {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => continue,
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(None)
    }
}

impl Drop for DotLock {
    fn drop(&mut self) {
        // Whoever waits for it breaks it later, should this fail.
        let _ = fs::remove_file(&self.0);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn host() -> Vec<u8> {
    rustix::system::uname().nodename().to_bytes().to_vec()
}

fn content() -> String {
    format!("{}:{}", std::process::id(), String::from_utf8_lossy(&host()))
}

fn is_stale(path: &Path, clock: Clock<'_>) -> bool {
    let Ok(meta) = path.symlink_metadata() else { return false };
    if meta.modified().is_ok_and(|at| clock().duration_since(at).is_ok_and(|age| age > STALE)) {
        return true;
    }
    let Ok(Some(bytes)) = list::read(path) else { return false };
    let Some(at) = bytes.iter().position(|byte| *byte == b':') else { return false };
    let number = std::str::from_utf8(&bytes[..at]).ok().and_then(|text| text.parse().ok());
    let dead = |pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
    bytes[at + 1..] == host() && number.and_then(Pid::from_raw).is_some_and(dead)
}

/// Replaces a list of Dovecot's, whose lock is held, as Dovecot does; the permissions stay. `written` sees the file before others do.
pub(super) fn replace<T>(
    path: &Path,
    bytes: &[u8],
    written: impl FnOnce(&fs::Metadata) -> T,
) -> io::Result<T> {
    let tmp = with_suffix(path, ".tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
    if let Ok(meta) = path.symlink_metadata() {
        file.set_permissions(meta.permissions())?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    let seen = written(&file.metadata()?);
    fs::rename(&tmp, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_lock_is_one_s_and_one_that_is_left_over_nobody_s() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("dovecot-uidlist");
        let now = || SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        let early = || SystemTime::UNIX_EPOCH;
        let held = DotLock::take(&file, &early).unwrap().unwrap();
        assert!(DotLock::take(&file, &early).unwrap().is_none(), "this process lives");
        assert_eq!(fs::read_to_string(with_suffix(&file, ".lock")).unwrap(), content());
        drop(held);
        assert!(!with_suffix(&file, ".lock").exists());
        // No process has this number: it is above Linux's largest.
        fs::write(with_suffix(&file, ".lock"), format!("2147483646:{}", String::from_utf8_lossy(&host())))
            .unwrap();
        drop(DotLock::take(&file, &early).unwrap().unwrap());
        fs::write(with_suffix(&file, ".lock"), "2147483646:another host").unwrap();
        assert!(DotLock::take(&file, &early).unwrap().is_none());
        drop(DotLock::take(&file, &now).unwrap().unwrap());
    }
}
