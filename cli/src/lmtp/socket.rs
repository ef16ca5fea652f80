//! Where the mail server connects: a Unix socket, or a port that this machine alone reaches.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::failure::advice;
use crate::paths::Setup;

/// A stream of either kind.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Listens.
pub(super) enum Socket {
    Unix(UnixListener, Name),
    Tcp(TcpListener, SocketAddr),
}

/// The name of a Unix socket; it goes when this is dropped, unless somebody else's stands there by then.
pub(super) struct Name {
    path: PathBuf,
    file: (u64, u64),
}

impl Drop for Name {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Socket {
    /// Listens at a path, which has a slash, or at `ADDR:PORT`. A Unix socket gets `mode`.
    pub(super) fn bind(setup: &Setup, at: &str, mode: u32) -> anyhow::Result<Socket> {
        let _inside = setup.runtime.enter();
        if at.contains('/') {
            let path = setup.cwd.join(at);
            make_room(&path)?;
            let bound = unix(&path, mode).with_context(|| format!("cannot listen on {}", path.display()));
            let (listener, name) = bound?;
            return Ok(Socket::Unix(listener, name));
        }
        let found = at.to_socket_addrs().ok().and_then(|mut found| found.next());
        let found = found.with_context(|| format!("{at:?} is neither ADDR:PORT nor a path with a slash"))?;
        if !found.ip().is_loopback() && !setup.config.now().lmtp_remote {
            let hint = "use a Unix socket or 127.0.0.1, or set lmtp_remote = true for a network that is guarded otherwise";
            return Err(advice(
                format!("everybody who reaches {found} could deliver mail: LMTP has no passwords"),
                hint,
            ));
        }
        let listener = setup.runtime.block_on(TcpListener::bind(found));
        let listener = listener.with_context(|| format!("cannot listen on {found}"))?;
        let at = listener.local_addr()?;
        Ok(Socket::Tcp(listener, at))
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Box<dyn Io>> {
        match self {
            Socket::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
            Socket::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                // Answers are short and awaited.
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
        }
    }
}

impl std::fmt::Display for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Socket::Unix(_, name) => write!(f, "{}", name.path.display()),
            Socket::Tcp(_, address) => write!(f, "{address}"),
        }
    }
}

/// Makes sure that nothing at the path is in use. What a process left that died is replaced; what is no socket is not
/// touched.
fn make_room(path: &Path) -> anyhow::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.with_context(|| format!("cannot look at {}", path.display()))?,
    };
    if !found.file_type().is_socket() {
        let hint = "name a path where nothing is yet";
        return Err(advice(format!("{} is there and is no socket", path.display()), hint));
    }
    match Probe::connect(path) {
        Ok(_) => {
            let hint = "stop that process first, or name another path";
            Err(advice(format!("another process listens on {}", path.display()), hint))
        }
        // Gone meanwhile, or nobody listens.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot tell who listens on {}", path.display())),
    }
}

/// Binds under another name, so that nobody connects before the mode is right, and takes the place of an old socket at
/// once.
fn unix(path: &Path, mode: u32) -> io::Result<(UnixListener, Name)> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, PermissionsExt::from_mode(mode))?;
    let name = Name { path: path.to_owned(), file: identity(&new)? };
    std::fs::rename(&new, path)?;
    Ok((listener, name))
}

/// The device and inode: what tells this socket from a later one at the same path.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_left_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lmtp");
        // Dropped without its name: as if the process had been killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        make_room(&path).unwrap();
        let (listener, name) = unix(&path, 0o660).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let error = make_room(&path).unwrap_err();
        assert!(error.to_string().starts_with("another process listens"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        drop(name);
        assert!(!path.exists());
        drop(listener);
    }

    #[tokio::test]
    async fn what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lmtp");
        std::fs::write(&path, "a file").unwrap();
        assert!(make_room(&path).unwrap_err().to_string().ends_with("is no socket"));
        std::fs::remove_file(&path).unwrap();
        let (_first, name) = unix(&path, 0o600).unwrap();
        let (_second, _other) = unix(&path, 0o600).unwrap();
        drop(name);
        assert!(path.exists(), "it is the other one's by now");
    }
}
