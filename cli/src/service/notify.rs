//! What systemd is told (sd_notify(3)): datagrams of `KEY=value` lines to the socket that it named.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// What a manager that does not read is waited for: it may be busy while a machine boots.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the service manager said in the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manager {
    /// Where it is told: a path, or an abstract name behind an `@`.
    pub(crate) socket: Option<OsString>,
    /// How often it wants to hear that the process is alive.
    pub(crate) watchdog: Option<Duration>,
}

/// Tells the service manager; nobody if there is none.
pub(crate) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// That a manager cannot be told is no reason not to serve.
    pub(crate) fn new(manager: &Manager) -> Notify {
        let to = manager.socket.as_deref().and_then(|name| {
            let connected = connect(name);
            if let Err(error) = &connected {
                tracing::warn!(?name, %error, "the service manager cannot be told anything");
            }
            connected.ok()
        });
        Notify { to, watchdog: manager.watchdog }
    }

    /// All that was asked for is there.
    pub(crate) fn ready(&self, status: &str) {
        // A line each.
        self.send(&format!("READY=1\nSTATUS={}", status.replace('\n', " ")));
    }

    /// The configuration is read again; [`ready`](Notify::ready) ends it.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the configuration"));
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=ending conversations");
    }

    /// Says again and again that the process is alive, where that is wanted.
    pub(crate) async fn keep_alive(&self) -> Infallible {
        let Some(every) = self.watchdog.filter(|_| self.to.is_some()) else { std::future::pending().await };
        // Half of it, as sd_watchdog_enabled(3) advises.
        let mut ticks = tokio::time::interval(every / 2);
        loop {
            ticks.tick().await;
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::warn!(%error, "the service manager was not told");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        [b'@', name @ ..] => abstract_address(name)?,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}
