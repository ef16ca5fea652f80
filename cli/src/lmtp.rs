//! The LMTP side of `serve` (RFC 2033): mail servers hand over mail for the users of this machine.
//!
//! A message is confirmed once it is durable, for each recipient by itself. [`session`] is the conversation without I/O,
//! [`connection`] the pump around it, [`recipients`] who gets what, [`delivery`] the way into the stores.

mod connection;
mod delivery;
mod dots;
mod recipients;
mod reply;
mod session;
mod socket;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use postmerge::replica::Replica;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::Instrument as _;

use self::connection::Connection;
use self::recipients::Recipients;
use self::socket::{Io, Socket};
use crate::paths::Setup;
use crate::users::Directory;

/// Most connections at once. Mail servers use 20 or so; each holds up to 256 KiB of a message, and a large one a file.
const MAX_CONNECTIONS: usize = 64;
/// How long connections may take to end when the server stops: what is being made durable is confirmed.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where mail servers are served.
#[derive(Args, Clone, Debug, Default)]
// IMAP's is called so too, and groups are named after types.
#[group(skip)]
pub(crate) struct Listen {
    /// Takes mail from a mail server over LMTP there: a Unix socket, or a port on this machine [default: that of the
    /// configuration, else not at all].
    #[arg(long, value_name = "PATH|ADDR:PORT")]
    lmtp: Option<String>,
    /// Who may connect to the Unix socket, as a mode in octal [default: that of the configuration, else 600].
    #[arg(long, value_name = "MODE", value_parser = mode)]
    lmtp_mode: Option<u32>,
}

/// A mode of a socket, in octal.
fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("a mode is written as 600, 660 or 666".into()),
    }
}

/// LMTP, being served.
pub(crate) struct Lmtp {
    stopping: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Lmtp {
    /// Binds the socket and starts to serve; nothing if that is not asked for. Says on standard error where.
    pub(crate) fn start(
        setup: &Setup,
        listen: &Listen,
        hosted: impl Iterator<Item = (PathBuf, Replica)>,
    ) -> anyhow::Result<Option<Lmtp>> {
        let config = setup.config.now();
        let Some(at) = listen.lmtp.as_ref().or(config.lmtp.as_ref()) else { return Ok(None) };
        let configured = config.lmtp_mode.as_deref().map(mode).transpose().map_err(anyhow::Error::msg)?;
        let mode = listen.lmtp_mode.or(configured).unwrap_or(0o600);
        let hosted = hosted.map(|(store, replica)| Ok((store.canonicalize()?, replica)));
        let hosted = hosted.collect::<std::io::Result<_>>()?;
        let recipients = Arc::new(Recipients::new(Directory::open(setup)?, hosted));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let socket = Socket::bind(setup, at, mode)?;
        eprintln!("lmtp on {socket}");
        let (stopping, stopped) = watch::channel(false);
        let accepting = setup.runtime.spawn(accept(socket, host, recipients, stopped));
        Ok(Some(Lmtp { stopping, accepting }))
    }

    /// Takes no more messages, and waits for those that are being stored.
    pub(crate) async fn stop(self) {
        self.stopping.send_replace(true);
        let _ = self.accepting.await;
    }
}

async fn accept(
    socket: Socket,
    host: String,
    recipients: Arc<Recipients>,
    mut stopped: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let told = stopped.clone();
    let stop = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = socket.accept() => match accepted {
                Ok(io) => match places.clone().try_acquire_owned() {
                    Ok(place) => {
                        let connection = Connection::new(io, &host, recipients.clone(), told.clone());
                        let conversation = async move {
                            let _place = place;
                            match connection.run().await {
                                Ok(()) => tracing::debug!("a mail server left"),
                                Err(error) => tracing::debug!(%error, "a mail server was cut off"),
                            }
                        };
                        connections.spawn(conversation.instrument(tracing::info_span!("lmtp")));
                    }
                    Err(_) => {
                        connections.spawn(refuse(io, host.clone()));
                    }
                },
                // Out of file descriptors, or the client was gone already: the next may do better.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    // Nobody connects any more, and the socket's name is gone.
    drop(socket);
    let _ = timeout(FAREWELL, async { while connections.join_next().await.is_some() {} }).await;
}

async fn refuse(mut io: Box<dyn Io>, host: String) {
    tracing::warn!("too many connections");
    let text = format!("421 4.3.2 {host} has {MAX_CONNECTIONS} connections already\r\n");
    let _ = timeout(Duration::from_secs(1), io.write_all(text.as_bytes())).await;
}
