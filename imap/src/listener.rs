//! The listener: sockets, TLS, compression and time around the sessions.
//!
//! Each connection is one task that holds no thread while its client is silent. A session's work, which reads the disk, is
//! done in steps on blocking threads, and a step is only taken once the client has read what the last one gave: a slow
//! client costs its own buffer and nothing else.

mod deflate;
mod tls;

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use postmerge::replica::Subscription;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, sleep_until, timeout};

use self::deflate::{Deflate, Inflate};
use tracing::Instrument as _;

use crate::account::Account;
use crate::auth::{Channel, User};
use crate::session::{Opened, Session, SessionEvent, Settings};

pub use self::tls::{Tls, TlsError};

/// A client that reads nothing for this long is gone; RFC 9051, section 5.4, asks for patience only with silence.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// A TLS handshake is a few round trips: who needs longer holds a connection for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long connections may take to say goodbye when the server stops.
const FAREWELL: Duration = Duration::from_secs(3);
/// Bytes read at once. An idle connection keeps this buffer, so it is small; a large APPEND costs a few reads more.
const READ_BUFFER: usize = 4096;

/// How a port speaks.
#[derive(Clone)]
pub enum Mode {
    /// In the clear, with STARTTLS where there is a certificate.
    Clear {
        /// The certificate for STARTTLS.
        tls: Option<Arc<Tls>>,
        /// Whether passwords are taken before TLS: only where other machines cannot listen.
        passwords: bool,
    },
    /// TLS from the first byte.
    Tls(Arc<Tls>),
}

/// How many connections there may be. Each limit is for the whole server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Each needs a file descriptor and up to 60 kB.
    pub connections: usize,
    /// Connections at once from one address, so that one runaway client does not lock out the others. Mail programs open up
    /// to five for each account; a household behind one address has several.
    pub connections_per_address: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 4096, connections_per_address: 64 }
    }
}

/// Gives the account of a user who has logged in, or says for the log why it cannot. It may block.
type OpenAccount = dyn Fn(&User) -> Result<Account, String> + Send + Sync;

/// What all connections of a server share.
pub struct Server {
    settings: Box<dyn Fn() -> Arc<Settings> + Send + Sync>,
    open: Box<OpenAccount>,
    limits: Mutex<Limits>,
    connections: Mutex<HashMap<IpAddr, usize>>,
    /// Failed logins of late, by address: who guesses over many connections waits as over one.
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
    accepted: AtomicU64,
    refused: AtomicU64,
    failed_logins: AtomicU64,
}

/// What a server has to do, and has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that are open.
    pub open: u64,
    /// Connections that were accepted so far.
    pub accepted: u64,
    /// Connections that were sent away, as there were too many.
    pub refused: u64,
    /// Logins that failed: a wrong password, or a name that nobody has.
    pub failed_logins: u64,
}

/// Addresses whose failed logins are remembered. The memory is small; who has more of them waits less.
const MAX_SUSPECTS: usize = 10_000;
/// Without another failure an address is trusted again after this long.
const FORGIVEN: Duration = Duration::from_secs(15 * 60);

impl Server {
    /// `settings` is asked for each connection, so that users and options can change while the server runs.
    pub fn new(
        limits: Limits,
        settings: impl Fn() -> Arc<Settings> + Send + Sync + 'static,
        open: impl Fn(&User) -> Result<Account, String> + Send + Sync + 'static,
    ) -> Arc<Server> {
        Arc::new(Server {
            settings: Box::new(settings),
            open: Box::new(open),
            limits: Mutex::new(limits),
            connections: Mutex::default(),
            failures: Mutex::default(),
            accepted: AtomicU64::default(),
            refused: AtomicU64::default(),
            failed_logins: AtomicU64::default(),
        })
    }

    /// Takes other limits; connections that are open stay.
    pub fn limit(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// What it has to do and has done.
    pub fn counts(&self) -> Counts {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            open: connections.values().sum::<usize>() as u64,
            accepted: count(&self.accepted),
            refused: count(&self.refused),
            failed_logins: count(&self.failed_logins),
        }
    }

    /// Answers clients on a socket until `stop`; then each is told BYE.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mode: Mode,
        stop: impl Future<Output = ()>,
    ) -> std::io::Result<()> {
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        if let Some(place) = self.admit(peer) {
                            let (server, mode, stopped) = (self.clone(), mode.clone(), stopped.clone());
                            tasks.spawn(async move {
                                server.connection(stream, peer, mode, stopped).await;
                                drop(place);
                            });
                        } else {
                            tasks.spawn(refuse(stream));
                        }
                    }
                    // Out of file descriptors, or the peer was gone already: the next may do better.
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            }
        }
        stopping.send_replace(true);
        let _ = timeout(FAREWELL, async { while tasks.join_next().await.is_some() {} }).await;
        Ok(())
    }

    /// Failed logins of an address of late.
    fn failures(&self, address: IpAddr) -> u32 {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failures.get(&address).filter(|(_, last)| now().duration_since(*last) < FORGIVEN);
        known.map_or(0, |(count, _)| *count)
    }

    fn note_failure(&self, address: IpAddr) {
        self.failed_logins.fetch_add(1, Ordering::Relaxed);
        let (count, now) = (self.failures(address), now());
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_SUSPECTS {
            failures.retain(|_, (_, last)| now.duration_since(*last) < FORGIVEN);
        }
        if failures.len() < MAX_SUSPECTS {
            failures.insert(address, (count.saturating_add(1), now));
        }
    }

    /// A place for a connection, unless there are too many.
    fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let limits = *self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, address) = (connections.values().sum::<usize>(), household(peer.ip()));
        let here = connections.get(&address).copied().unwrap_or(0);
        if all >= limits.connections || here >= limits.connections_per_address {
            self.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, all, here, "too many connections");
            return None;
        }
        connections.insert(address, here + 1);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Some(Place { server: self.clone(), address })
    }

    async fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        mode: Mode,
        stopped: watch::Receiver<bool>,
    ) {
        // Answers are short and awaited.
        let _ = stream.set_nodelay(true);
        let (io, channel, start_tls): (Box<dyn Io>, _, _) = match mode {
            Mode::Clear { tls, passwords } => (Box::new(stream), Channel::Clear { passwords }, tls),
            Mode::Tls(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(Box::new(stream))).await {
                Ok(Ok((io, bindings))) => (io, Channel::Tls(bindings), None),
                Ok(Err(error)) => return tracing::debug!(%peer, %error, "no TLS"),
                Err(_) => return tracing::debug!(%peer, "the TLS handshake took too long"),
            },
        };
        let settings = (self.settings)();
        let session = Session::new(settings, channel, start_tls.is_some(), now());
        let connection = Connection {
            server: self,
            address: household(peer.ip()),
            io,
            session: Some(Box::new(session)),
            start_tls,
            deflate: None,
            commits: None,
            stopped,
        };
        // Who failed to log in is logged with this.
        let span = tracing::info_span!("imap", %peer);
        match connection.run().instrument(span).await {
            Ok(()) => tracing::debug!(%peer, "a client left"),
            Err(error) => tracing::debug!(%peer, %error, "a client was cut off"),
        }
    }
}

/// What is counted as one address: an IPv6 network of 64 bits, since whoever has one address of it has all.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// One of the connections that are allowed; dropping it makes room.
struct Place {
    server: Arc<Server>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.server.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = connections.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                connections.remove(&self.address);
            }
        }
    }
}

async fn refuse(mut stream: TcpStream) {
    let text = b"* BYE [UNAVAILABLE] too many connections; close some, or try again later\r\n";
    let _ = timeout(Duration::from_secs(1), stream.write_all(text)).await;
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One client's connection.
struct Connection<'a> {
    server: &'a Server,
    address: IpAddr,
    io: Box<dyn Io>,
    /// Away only while it works.
    session: Option<Box<Session>>,
    start_tls: Option<Arc<Tls>>,
    deflate: Option<Box<(Inflate, Deflate)>>,
    /// Counts the replica's commits, once there is one.
    commits: Option<(watch::Receiver<u64>, Subscription)>,
    stopped: watch::Receiver<bool>,
}

impl Connection<'_> {
    async fn run(mut self) -> std::io::Result<()> {
        loop {
            self.flush().await?;
            if let Some(event) = self.session().poll_event() {
                match event {
                    SessionEvent::Close => return self.io.shutdown().await,
                    SessionEvent::StartTls => self.secure().await?,
                    SessionEvent::Compress { input } => {
                        self.deflate = Some(Box::default());
                        self.receive(&input)?;
                    }
                    SessionEvent::Open { user } => self.open(&user),
                }
            } else if self.session().has_work() {
                self.work().await?;
            } else {
                self.wait().await?;
            }
        }
    }

    /// Sends all that the session has to say.
    async fn flush(&mut self) -> std::io::Result<()> {
        while let Some(mut bytes) = self.session().poll_send() {
            if let Some(codec) = &mut self.deflate {
                bytes = codec.1.deflate(&bytes)?;
            }
            let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the client reads nothing");
            // A slow client may take its time for all of it, if it takes some.
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let len = timeout(WRITE_TIMEOUT, self.io.write(rest)).await.map_err(|_| late())??;
                if len == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
                rest = &rest[len..];
            }
            timeout(WRITE_TIMEOUT, self.io.flush()).await.map_err(|_| late())??;
        }
        Ok(())
    }

    /// One step of work, where it may block. A panic ends this connection and no other.
    async fn work(&mut self) -> std::io::Result<()> {
        let Some(mut session) = self.session.take() else { return Ok(()) };
        let (failed, before) = (session.failed_logins(), self.server.failures(self.address));
        session.suspect(before);
        let span = tracing::Span::current();
        let done = spawn_blocking(move || {
            span.in_scope(|| session.work(now()));
            session
        });
        let session = self.session.insert(done.await.map_err(std::io::Error::other)?);
        if session.failed_logins() > failed {
            self.server.note_failure(self.address);
        }
        Ok(())
    }

    async fn wait(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; READ_BUFFER];
        let session = self.session.as_mut().expect("nothing works meanwhile");
        let deadline = session.poll_timeout();
        let wants_input = session.wants_input();
        let expired: Pin<Box<dyn Future<Output = ()> + Send>> = match deadline {
            Some(at) => Box::pin(sleep_until(at.into())),
            None => Box::pin(std::future::pending()),
        };
        let commits = self.commits.as_mut().map(|(commits, _)| commits);
        tokio::select! {
            read = self.io.read(&mut buffer), if wants_input => match read? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                len => self.receive(&buffer[..len])?,
            },
            () = committed(commits) => session.changed(),
            () = expired => session.handle_timeout(now()),
            _ = self.stopped.changed() => session.stop(),
        }
        Ok(())
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("it is away only while it works, and that is awaited")
    }

    fn receive(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let session = self.session.as_mut().expect("nothing works meanwhile");
        match &mut self.deflate {
            Some(codec) => codec.0.inflate(bytes, |plain| session.receive(plain, now())),
            None => {
                session.receive(bytes, now());
                Ok(())
            }
        }
    }

    async fn secure(&mut self) -> std::io::Result<()> {
        let tls = self.start_tls.take().ok_or(std::io::ErrorKind::Unsupported)?;
        let io = std::mem::replace(&mut self.io, Box::new(tokio::io::empty()));
        let (io, bindings) = timeout(HANDSHAKE_TIMEOUT, tls.accept(io)).await??;
        self.io = io;
        self.session().secured(Channel::Tls(bindings));
        Ok(())
    }

    fn open(&mut self, user: &User) {
        let opened = tokio::task::block_in_place(|| (self.server.open)(user));
        if let Ok(account) = &opened {
            let (count, commits) = watch::channel(0u64);
            let subscription =
                account.replica().subscribe(move |_| count.send_modify(|commits| *commits += 1));
            self.commits = Some((commits, subscription));
        }
        self.session().opened(match opened {
            Ok(account) => Opened::Account(account),
            Err(reason) => Opened::Refused(reason),
        });
    }
}

/// Until the replica has committed since the last call.
async fn committed(commits: Option<&mut watch::Receiver<u64>>) {
    let Some(commits) = commits else { return std::future::pending().await };
    if commits.changed().await.is_err() {
        std::future::pending().await
    }
}

#[expect(clippy::disallowed_methods, reason = "the listener is where the time comes in")]
fn now() -> Instant {
    Instant::now()
}
