//! The IMAP side of `serve`: sockets, certificates, and which replica a user opens.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use postmerge::replica::{Replica, Subscription};
use postmerge_imap::auth::User;
use postmerge_imap::{Account, Indexer, Limits, Mode, Server, Tls};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::ImapLimits;
use crate::failure::{Usage, advice};
use crate::paths::Setup;
use crate::users::Directory;

/// Where mail clients are served.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Listen {
    /// Serves IMAP there, in the clear or with STARTTLS [default: that of the configuration, else not at all].
    #[arg(long, value_name = "ADDR:PORT")]
    imap: Option<String>,
    /// Serves IMAP over TLS there [default: that of the configuration, else not at all].
    #[arg(long, value_name = "ADDR:PORT")]
    imaps: Option<String>,
    /// The certificate chain for TLS, in PEM form. It is read again when it changes.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM form.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

/// IMAP, being served.
pub(crate) struct Imap {
    stopping: watch::Sender<bool>,
    tasks: JoinSet<std::io::Result<()>>,
    accounts: Arc<Accounts>,
    sweeping: JoinHandle<()>,
}

impl Imap {
    /// Binds the sockets and starts to serve; nothing if no address is asked for. Says on standard error where.
    pub(crate) fn start(
        setup: &Setup,
        listen: &Listen,
        hosted: impl Iterator<Item = (PathBuf, Replica)>,
    ) -> anyhow::Result<Option<Imap>> {
        let config = &setup.config;
        let clear = listen.imap.as_ref().or(config.imap.as_ref());
        let secure = listen.imaps.as_ref().or(config.imaps.as_ref());
        if clear.is_none() && secure.is_none() {
            return Ok(None);
        }
        let certificate = listen.tls_cert.as_ref().or(config.tls_cert.as_ref());
        let key = listen.tls_key.as_ref().or(config.tls_key.as_ref());
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Arc::new(Tls::load(certificate, key)?)),
            (None, None) => None,
            _ => bail!(Usage("--tls-cert and --tls-key go together".into())),
        };
        let accounts = Arc::new(Accounts::new(setup, hosted)?);
        let directory = Directory::open(setup)?;
        let opener = accounts.clone();
        let server = Server::new(limits(&config.imap_limits), move || directory.settings(), move |user| opener.open(user));
        let _inside = setup.runtime.enter();
        let (stopping, stopped) = watch::channel(false);
        let swept = accounts.clone();
        let sweeping = tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEEP_OPEN / 5).await;
                tokio::task::block_in_place(|| swept.close_unused(false));
            }
        });
        let mut imap = Imap { stopping, tasks: JoinSet::new(), accounts, sweeping };
        if let Some(address) = clear {
            let (listener, at) = bind(setup, address)?;
            let passwords = at.ip().is_loopback() || config.imap_cleartext;
            if !passwords && tls.is_none() {
                let hint = "give --tls-cert and --tls-key, listen on 127.0.0.1, or set imap_cleartext = true";
                return Err(advice(format!("nobody could log in at {at}: passwords need TLS there"), hint));
            }
            eprintln!("imap on {at}");
            imap.serve(&server, listener, Mode::Clear { tls: tls.clone(), passwords }, stopped.clone());
        }
        if let Some(address) = secure {
            let Some(tls) = tls else {
                bail!(Usage("--imaps needs --tls-cert and --tls-key".into()));
            };
            let (listener, at) = bind(setup, address)?;
            eprintln!("imaps on {at}");
            imap.serve(&server, listener, Mode::Tls(tls), stopped);
        }
        Ok(Some(imap))
    }

    fn serve(
        &mut self,
        server: &Arc<Server>,
        listener: TcpListener,
        mode: Mode,
        mut stopped: watch::Receiver<bool>,
    ) {
        let stop = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        self.tasks.spawn(server.clone().serve(listener, mode, stop));
    }

    /// Says goodbye to the clients, and closes what was opened for them.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stopping.send_replace(true);
        self.sweeping.abort();
        while self.tasks.join_next().await.is_some() {}
        tokio::task::block_in_place(|| self.accounts.close_unused(true));
        Ok(())
    }
}

/// File descriptors that are kept for stores, peers and other commands.
const KEPT: usize = 256;

/// The connections that are configured, as far as the system lets this process have them.
fn limits(config: &ImapLimits) -> Limits {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    // Where that is refused the old limit stays.
    let _ = setrlimit(Resource::Nofile, files);
    let most = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
    let limits = config.server();
    let possible = most.map_or(limits.connections, |most| most.saturating_sub(KEPT).max(16));
    if config.connections.is_some_and(|wanted| wanted.get() > possible) {
        eprintln!(
            "imap_limits: {possible} connections are what the system allows; raise `ulimit -Hn` for more"
        );
    }
    Limits { connections: limits.connections.min(possible), ..limits }
}

fn bind(setup: &Setup, address: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let found = address.to_socket_addrs().ok().and_then(|mut found| found.next());
    let found = found.with_context(|| format!("{address:?} is not ADDR:PORT"))?;
    let listener = setup.runtime.block_on(TcpListener::bind(found));
    let listener = listener.with_context(|| format!("cannot listen on {found}"))?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}

/// How long an account that nobody uses stays open: mail clients come back within minutes.
const KEEP_OPEN: Duration = Duration::from_secs(5 * 60);

/// The replicas that users open: those that the daemon hosts, and others, which are open while somebody uses them.
struct Accounts {
    setup: Setup,
    open: Mutex<BTreeMap<PathBuf, Open>>,
}

struct Open {
    account: Account,
    /// Whether the daemon holds it anyway.
    hosted: bool,
    used: Instant,
    _indexing: Indexing,
}

impl Open {
    fn new(replica: Replica, hosted: bool) -> anyhow::Result<Open> {
        let indexing = Indexing::start(&replica)?;
        Ok(Open { account: Account::new(replica), hosted, used: now(), _indexing: indexing })
    }
}

impl Accounts {
    fn new(setup: &Setup, hosted: impl Iterator<Item = (PathBuf, Replica)>) -> anyhow::Result<Accounts> {
        let mut open = BTreeMap::new();
        for (store, replica) in hosted {
            open.insert(store.canonicalize()?, Open::new(replica, true)?);
        }
        Ok(Accounts { setup: setup.clone(), open: Mutex::new(open) })
    }

    fn open(&self, user: &User) -> Result<Account, String> {
        let store = user.replica().canonicalize().map_err(|error| {
            format!("the replica of {}, {}: {error}", user.name().as_str(), user.replica().display())
        })?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.get_mut(&store) {
            open.used = now();
            return Ok(open.account.clone());
        }
        let replica = Replica::open(&store, self.setup.state()).map_err(|error| error.to_string())?;
        let opened = Open::new(replica, false).map_err(|error| error.to_string())?;
        let account = opened.account.clone();
        open.insert(store, opened);
        Ok(account)
    }

    /// Closes what nobody has used for a while, or all that is not the daemon's.
    fn close_unused(&self, all: bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|store, open| {
            if open.account.is_shared() {
                open.used = now();
            }
            let keep = open.hosted || !(all || open.used.elapsed() > KEEP_OPEN);
            if !keep && let Err(error) = open.account.replica().close() {
                tracing::error!(store = %store.display(), %error, "cannot close an account");
            }
            keep
        });
    }
}

fn now() -> Instant {
    Instant::now()
}

/// A thread that makes summaries of what arrives, so that no client has to wait for them. It ends with the subscription.
struct Indexing {
    _subscription: Subscription,
}

impl Indexing {
    fn start(replica: &Replica) -> anyhow::Result<Indexing> {
        // One commit that waits is as good as many.
        let (wake, woken) = sync_channel(1);
        let _ = wake.try_send(());
        let subscription = replica.subscribe(move |_| {
            let _ = wake.try_send(());
        });
        let replica = replica.clone();
        std::thread::Builder::new().name("index".into()).spawn(move || index(&replica, &woken))?;
        Ok(Indexing { _subscription: subscription })
    }
}

fn index(replica: &Replica, woken: &Receiver<()>) {
    let mut indexer = Indexer::default();
    while woken.recv().is_ok() {
        loop {
            match indexer.step(replica) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "nothing can be summarised now");
                    break;
                }
            }
        }
    }
}
