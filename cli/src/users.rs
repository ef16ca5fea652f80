//! The file of the users of this machine, and the secret beside it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use postmerge_imap::auth::{Authenticator, DecoySecret, ServerNonce, Users};
use postmerge_imap::{SessionLimits, Settings};

use crate::paths::Setup;

/// Reads the file; one that is not there has no users.
pub(crate) fn read(path: &Path) -> anyhow::Result<Users> {
    match std::fs::read_to_string(path) {
        Ok(text) => Users::parse(&text).with_context(|| format!("cannot use {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Users::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes the file, durably and for nobody else to read.
pub(crate) fn write(path: &Path, users: &Users) -> anyhow::Result<()> {
    write_secret(path, users.to_text().as_bytes())
}

fn write_secret(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let dir = path.parent().context("a file has a directory")?;
    let write = || {
        std::fs::create_dir_all(dir)?;
        let tmp = path.with_extension("tmp");
        let options = &mut std::fs::OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        std::fs::rename(&tmp, path)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random numbers: {error}"))?;
    Ok(bytes)
}

/// What IMAP sessions share, read again when the file of users changes.
pub(crate) struct Directory {
    path: PathBuf,
    secret: DecoySecret,
    limits: SessionLimits,
    read: Mutex<(Option<SystemTime>, Arc<Settings>)>,
}

impl Directory {
    /// Reads the users. The secret is made when it is first needed.
    pub(crate) fn open(setup: &Setup) -> anyhow::Result<Directory> {
        let (path, limits) = (&setup.users, setup.config.now().imap_limits.session());
        let file = path.with_extension("decoys");
        let bytes: [u8; 32] = match std::fs::read(&file) {
            Ok(bytes) => {
                bytes.try_into().map_err(|_| anyhow!("{} has not 32 bytes; delete it", file.display()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let bytes = random()?;
                write_secret(&file, &bytes)?;
                bytes
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        let secret = DecoySecret::from_bytes(bytes);
        let settings = settings(read(path)?, secret.clone(), limits);
        Ok(Directory { path: path.clone(), secret, limits, read: Mutex::new((modified(path), settings)) })
    }

    /// The settings of now. A file that cannot be used is reported, and the last good state stays.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = modified(&self.path);
        if now != last.0 {
            match read(&self.path) {
                Ok(users) => *last = (now, settings(users, self.secret.clone(), self.limits)),
                Err(error) => tracing::error!("{error:#}; keeping the users as they were"),
            }
        }
        last.1.clone()
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|found| found.modified()).ok()
}

/// What sessions share, for these users.
pub(crate) fn settings(users: Users, secret: DecoySecret, limits: SessionLimits) -> Arc<Settings> {
    Arc::new(Settings { authenticator: Authenticator::new(users, secret), nonce, time, limits })
}

fn nonce() -> ServerNonce {
    // Without entropy there is no safe login; a panic ends this connection only.
    ServerNonce::from_bytes(random().expect("the system gave random numbers when it started"))
}

fn time() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
