use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use postmerge::net::{Endpoint, Node};
use postmerge::replica::{Replica, ReplicaError};
use postmerge::store::StoreError;
use tokio::signal::unix::{SignalKind, signal};

use crate::bridge::Hub;
use crate::config::Config;
use crate::context::{Code, Serving};
use crate::control::{self, Control};
use crate::endpoint;
use crate::failure::{advice, advice_on};
use crate::imap::{Imap, Listen};
use crate::lmtp::{self, Lmtp};
use crate::paths::Setup;

/// Talks to the peers, and runs the other commands' work, until SIGTERM or Ctrl-C.
#[derive(Args)]
pub(crate) struct Serve {
    /// Where to listen [default: that of the configuration, else [::]:7367].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Talks to no peer; only other commands are served.
    #[arg(long, conflicts_with = "listen")]
    offline: bool,
    /// Another store to host on the same port; its replica must have been made with --share-endpoint. Can be repeated.
    #[arg(long, value_name = "DIR")]
    host: Vec<PathBuf>,
    #[command(flatten)]
    imap: Listen,
    #[command(flatten)]
    lmtp: lmtp::Listen,
}

/// What a short command may hold the store for before the daemon gives up.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

impl Serve {
    pub(crate) fn run(&self, setup: &Setup) -> anyhow::Result<Code> {
        let mut stop = {
            let _inside = setup.runtime.enter();
            Stop::new()?
        };
        if !setup.store.join("STORE").exists() {
            return Err(ReplicaError::NoReplica { path: setup.store.clone() }.into());
        }
        let endpoint = if self.offline { None } else { Some(self.bind(setup)?) };
        let listens = endpoint.as_ref().and_then(|endpoint| endpoint.local_address().ok());
        let mut hosted = Vec::new();
        for store in self.stores(setup)? {
            hosted.push(Hosted::open(setup.at(store), endpoint.as_ref())?);
        }
        if endpoint.is_some() {
            hosted.iter().try_for_each(|hosted| self.announce(&hosted.setup, &hosted.replica))?;
        }
        for Hosted { setup, .. } in &hosted {
            match listens {
                Some(listens) => eprintln!("serving {} on {listens}", setup.store.display()),
                None => eprintln!("serving {} offline", setup.store.display()),
            }
        }
        let replicas = hosted.iter().map(|hosted| (hosted.setup.store.clone(), hosted.replica.clone()));
        let imap = Imap::start(setup, &self.imap, replicas.clone())?;
        let lmtp = Lmtp::start(setup, &self.lmtp, replicas)?;
        // Last, as whoever waits for the daemon asks there: by then all that was asked for is there.
        let controls = hosted.iter().map(|hosted| hosted.control(listens));
        let controls = controls.collect::<anyhow::Result<Vec<Control>>>()?;
        hosted.iter().try_for_each(|hosted| hosted.hub.watch())?;
        let nodes: Vec<Node> = hosted.iter().filter_map(|hosted| hosted.node.clone()).collect();
        let result = setup.runtime.block_on(async {
            let result = match &endpoint {
                Some(endpoint) => postmerge::net::serve(endpoint, &nodes, stop.wait()).await,
                None => {
                    stop.wait().await;
                    Ok(())
                }
            };
            if let Some(lmtp) = lmtp {
                lmtp.stop().await;
            }
            match imap {
                Some(imap) => imap.stop().await.and(result.map_err(anyhow::Error::from)),
                None => result.map_err(anyhow::Error::from),
            }
        });
        controls.into_iter().for_each(Control::stop);
        hosted.iter().for_each(|hosted| hosted.hub.stop());
        hosted.iter().try_for_each(|hosted| hosted.replica.close())?;
        result?;
        Ok(if stop.interrupted { Code::INTERRUPTED } else { Code::DONE })
    }

    /// The stores to host, the one that the command line names first.
    fn stores(&self, setup: &Setup) -> anyhow::Result<Vec<PathBuf>> {
        let others = if self.host.is_empty() { &setup.config.host } else { &self.host };
        let mut stores = vec![setup.store.clone()];
        for store in others.iter().map(|store| setup.cwd.join(store)) {
            if !self.offline
                && endpoint::read_key(&store)?.peer_id() != endpoint::read_key(&setup.store)?.peer_id()
            {
                let what =
                    format!("{} and {} have different endpoints", store.display(), setup.store.display());
                let hint = "make the second with --share-endpoint DIR, or serve it on a port of its own";
                return Err(advice(what, hint));
            }
            stores.push(store);
        }
        Ok(stores)
    }

    fn bind(&self, setup: &Setup) -> anyhow::Result<Endpoint> {
        let key = endpoint::read_key(&setup.store)?;
        let address = self.address(setup)?;
        match Endpoint::bind(address, &key, &setup.runtime) {
            // A machine without IPv6.
            Err(_) if self.listen.is_none() && setup.config.listen.is_none() => {
                let any = SocketAddr::from(([0, 0, 0, 0], address.port()));
                Ok(Endpoint::bind(any, &key, &setup.runtime)?)
            }
            bound => Ok(bound?),
        }
    }

    /// Where it is to listen.
    fn address(&self, setup: &Setup) -> anyhow::Result<SocketAddr> {
        let wanted = self.listen.as_deref().or(setup.config.listen.as_deref());
        let listen = wanted.unwrap_or(Config::LISTEN);
        let address = listen.to_socket_addrs().ok().and_then(|mut found| found.next());
        address.with_context(|| format!("{listen:?} is not ADDR:PORT"))
    }

    /// Tells the peers where this replica is, if that is known for certain. A port that the system chose is another one next
    /// time, and what is told to the peers stays in their log.
    fn announce(&self, setup: &Setup, replica: &Replica) -> anyhow::Result<()> {
        let listens = self.address(setup)?;
        let addresses = if !setup.config.addresses.is_empty() {
            super::peers::check(&setup.config.addresses)?;
            setup.config.addresses.clone()
        } else if self.listen.is_some() && !listens.ip().is_unspecified() && listens.port() != 0 {
            vec![listens.to_string()]
        } else {
            return Ok(());
        };
        if replica.is_member()? {
            replica.announce(addresses)?;
        }
        Ok(())
    }
}

/// One replica that is being served.
struct Hosted {
    setup: Setup,
    replica: Replica,
    node: Option<Node>,
    hub: Arc<Hub>,
}

impl Hosted {
    fn open(setup: Setup, endpoint: Option<&Endpoint>) -> anyhow::Result<Hosted> {
        let replica = open(&setup)?;
        let node = endpoint.map(|endpoint| Node::new(replica.clone(), endpoint.clone()));
        let hub = Hub::new(replica.clone(), setup.store.clone(), &setup.config);
        Ok(Hosted { setup, replica, node, hub })
    }

    /// Serves the other commands.
    fn control(&self, listens: Option<SocketAddr>) -> anyhow::Result<Control> {
        let serving = Serving { node: self.node.clone(), listens, hub: Arc::clone(&self.hub) };
        Control::start(Arc::new(self.setup.clone()), self.replica.clone(), serving)
    }
}

fn open(setup: &Setup) -> anyhow::Result<Replica> {
    let start = Instant::now();
    loop {
        match Replica::open(&setup.store, setup.state()) {
            Err(ReplicaError::Store(error @ StoreError::Locked { .. })) => {
                if control::answers(setup) {
                    let hint = "stop that one first, or name another store with --store DIR";
                    let served = format!("{} is served already", setup.store.display());
                    return Err(advice_on(error, served, hint));
                }
                if start.elapsed() > LOCK_PATIENCE {
                    return Err(error.into());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => return Ok(opened?),
        }
    }
}

/// The signals that end the daemon.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Whether it was Ctrl-C.
    interrupted: bool,
}

impl Stop {
    fn new() -> anyhow::Result<Stop> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Stop { terminate, interrupt, interrupted: false })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => self.interrupted = true,
        }
    }
}
