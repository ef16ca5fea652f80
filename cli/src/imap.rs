//! The IMAP side of `serve`: sockets, certificates, and what the configuration allows.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use postmerge::replica::Replica;
use postmerge_imap::{Limits, Mode, Server, Tls};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::accounts::{Accounts, KEEP_OPEN};
use crate::config::{Config, ImapLimits};
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

impl Listen {
    /// The files of the certificate and its key, if there is one.
    fn certificate(&self, config: &Config) -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
        let certificate = self.tls_cert.as_ref().or(config.tls_cert.as_ref());
        let key = self.tls_key.as_ref().or(config.tls_key.as_ref());
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some((certificate.clone(), key.clone()))),
            (None, None) => Ok(None),
            _ => bail!(Usage("--tls-cert and --tls-key go together".into())),
        }
    }
}

/// Whether somebody may look at mail here with a mail client. Else summaries of bodies need not be made as they arrive, a fifth of
/// what it takes to store a body; who becomes a user later gets them from `serve`, which makes what is missing.
pub(crate) fn has_users(setup: &Setup) -> bool {
    setup.users.exists()
}

/// IMAP, being served.
pub(crate) struct Imap {
    server: Arc<Server>,
    tls: Option<Arc<Tls>>,
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
        let config = &*setup.config.now();
        let clear = listen.imap.as_ref().or(config.imap.as_ref());
        let secure = listen.imaps.as_ref().or(config.imaps.as_ref());
        if clear.is_none() && secure.is_none() {
            return Ok(None);
        }
        let tls = match listen.certificate(config)? {
            Some((certificate, key)) => Some(Arc::new(Tls::load(&certificate, &key)?)),
            None => None,
        };
        let state = setup.state.clone();
        let accounts = Accounts::new(hosted, move |store| Replica::open(store, state.as_deref()));
        let accounts = Arc::new(accounts?);
        let directory = Directory::open(setup)?;
        let opener = accounts.clone();
        let server = Server::new(
            limits(&config.imap_limits),
            move || directory.settings(),
            move |user| opener.open(user),
        );
        let _inside = setup.runtime.enter();
        let (stopping, stopped) = watch::channel(false);
        let swept = accounts.clone();
        let sweeping = tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEEP_OPEN / 5).await;
                tokio::task::block_in_place(|| swept.close_unused(false));
            }
        });
        let (tasks, tls_used) = (JoinSet::new(), tls.clone());
        let mut imap = Imap { server, tls: tls_used, stopping, tasks, accounts, sweeping };
        if let Some(address) = clear {
            let (listener, at) = bind(setup, address)?;
            let passwords = at.ip().is_loopback() || config.imap_cleartext;
            if !passwords && tls.is_none() {
                let hint = "give --tls-cert and --tls-key, listen on 127.0.0.1, or set imap_cleartext = true";
                return Err(advice(format!("nobody could log in at {at}: passwords need TLS there"), hint));
            }
            eprintln!("imap on {at}");
            imap.serve(listener, Mode::Clear { tls: tls.clone(), passwords }, stopped.clone());
        }
        if let Some(address) = secure {
            let Some(tls) = tls else {
                bail!(Usage("--imaps needs --tls-cert and --tls-key".into()));
            };
            let (listener, at) = bind(setup, address)?;
            eprintln!("imaps on {at}");
            imap.serve(listener, Mode::Tls(tls), stopped);
        }
        Ok(Some(imap))
    }

    fn serve(&mut self, listener: TcpListener, mode: Mode, mut stopped: watch::Receiver<bool>) {
        let stop = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        self.tasks.spawn(self.server.clone().serve(listener, mode, stop));
    }

    /// The server, for its figures.
    pub(crate) fn server(&self) -> Arc<Server> {
        self.server.clone()
    }

    /// Reads the certificate again, or another one, and takes the limits of a new configuration. If the certificate cannot be
    /// used, all stays as it is.
    pub(crate) fn reload(&self, listen: &Listen, config: &Config) -> anyhow::Result<()> {
        match (&self.tls, listen.certificate(config)?) {
            (Some(tls), Some((certificate, key))) => tls.reload(&certificate, &key)?,
            (None, None) => {}
            _ => bail!("whether there is a certificate at all is decided when `serve` starts"),
        }
        self.server.limit(limits(&config.imap_limits));
        Ok(())
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
