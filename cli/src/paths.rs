//! Where everything is. Nothing in the program but this file reads the environment.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use postmerge::blob::BlobId;
use postmerge::member::MemberName;
use tokio::runtime::Handle;

use crate::args::Cli;
use crate::config::Current;
use crate::events::Events;
use crate::service::Manager;

/// What every command is given.
#[derive(Clone)]
pub(crate) struct Setup {
    /// The replica's directory.
    pub(crate) store: PathBuf,
    /// Where notes about replicas are kept, outside of their stores.
    pub(crate) state: Option<PathBuf>,
    /// The file of the users of this machine.
    pub(crate) users: PathBuf,
    /// The directory of control sockets.
    sockets: PathBuf,
    /// Where that of a daemon may be which was started in another environment: a mail server starts programs without most
    /// of it.
    other_sockets: Vec<PathBuf>,
    /// The configuration.
    pub(crate) config: Current,
    /// Which events are said.
    pub(crate) events: Events,
    /// Who started `serve`, if that wants to be told how it goes.
    pub(crate) manager: Manager,
    /// Drives the network.
    pub(crate) runtime: Handle,
    /// Where relative paths start.
    pub(crate) cwd: PathBuf,
    /// Whether nothing may be changed.
    pub(crate) read_only: bool,
}

impl Setup {
    pub(crate) fn new(cli: &Cli, runtime: Handle, events: Events) -> anyhow::Result<Setup> {
        let base = directories::BaseDirs::new();
        let missing = "there is no home directory; say --store DIR and --config FILE";
        let store = match (&cli.store, &base) {
            (Some(dir), _) => dir.clone(),
            (None, Some(base)) => base.data_dir().join("postmerge/default"),
            (None, None) => bail!(missing),
        };
        let cwd = std::env::current_dir().context("cannot tell the current directory")?;
        let config = Current::read(match (&cli.config, &base) {
            (Some(file), _) => Some((cwd.join(file), true)),
            (None, Some(base)) => Some((base.config_dir().join("postmerge/config.toml"), false)),
            (None, None) => None,
        })?;
        let state = base.as_ref().map(|base| base.state_dir().unwrap_or(base.data_local_dir()));
        let state = state.map(|dir| dir.join("postmerge"));
        let user = rustix::process::getuid().as_raw();
        let temporary = std::env::temp_dir().join(format!("postmerge-{user}"));
        let service = PathBuf::from(SERVICE_SOCKETS);
        let (sockets, other_sockets) = match base.as_ref().and_then(directories::BaseDirs::runtime_dir) {
            Some(dir) => (dir.join("postmerge"), vec![temporary, service]),
            None => (temporary, vec![PathBuf::from(format!("/run/user/{user}/postmerge")), service]),
        };
        let users = match &base {
            Some(base) => base.data_dir().join("postmerge/users"),
            None => store.join("users"),
        };
        let (store, users) = (cwd.join(store), cwd.join(users));
        let read_only = cli.read_only;
        let manager = manager();
        Ok(Setup {
            store,
            state,
            users,
            sockets,
            other_sockets,
            config,
            events,
            manager,
            runtime,
            cwd,
            read_only,
        })
    }

    /// The same for another store.
    pub(crate) fn at(&self, store: PathBuf) -> Setup {
        Setup { store, ..self.clone() }
    }

    /// The control socket of the store: named by a hash, so that a long path fits.
    pub(crate) fn socket(&self) -> PathBuf {
        self.sockets.join(self.socket_name())
    }

    /// Where a daemon may listen for the store, in the directories that nobody else can have put a socket into.
    pub(crate) fn sockets_to_try(&self) -> Vec<PathBuf> {
        let dirs = std::iter::once(&self.sockets).chain(&self.other_sockets);
        dirs.filter(|dir| is_ours(dir)).map(|dir| dir.join(self.socket_name())).collect()
    }

    fn socket_name(&self) -> String {
        use std::os::unix::ffi::OsStrExt;
        let store = self.store.canonicalize().unwrap_or_else(|_| self.store.clone());
        let hash = BlobId::of(store.as_os_str().as_bytes()).to_string();
        format!("{}.sock", &hash[..16])
    }

    /// Makes the directory of the socket, or makes sure that it is the user's own.
    pub(crate) fn prepare_sockets(&self) -> anyhow::Result<()> {
        let dir = &self.sockets;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("cannot make {}", dir.display()))?;
        if !is_ours(dir) {
            bail!("{} belongs to somebody else, or others may write into it", dir.display());
        }
        Ok(())
    }

    /// What peers call this machine.
    pub(crate) fn name(&self, given: Option<&str>) -> anyhow::Result<MemberName> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let config = self.config.now();
        let name = given.or(config.name.as_deref()).unwrap_or(&host);
        MemberName::new(name).with_context(|| format!("{name:?} is no name"))
    }

    /// The note directory, as the library takes it.
    pub(crate) fn state(&self) -> Option<&Path> {
        self.state.as_deref()
    }
}

/// Where the system's service has its sockets; see `contrib/systemd`. Who runs commands for it has not its environment.
const SERVICE_SOCKETS: &str = "/run/postmerge/postmerge";

/// What the service manager that started this process said. What it said to a parent is not meant.
fn manager() -> Manager {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0).map(Duration::from_micros);
    Manager { socket: std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()), watchdog }
}

/// Whether nobody else can have put anything there.
fn is_ours(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|meta| {
        let private = meta.permissions().mode() & 0o077 == 0;
        meta.is_dir() && private && meta.uid() == rustix::process::getuid().as_raw()
    })
}
