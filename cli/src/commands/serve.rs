mod reload;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use postmerge::net::{Endpoint, Node};
use postmerge::replica::{Replica, ReplicaError};
use postmerge::store::StoreError;

use self::reload::Running;
use crate::bridge::Hub;
use crate::config::Config;
use crate::context::{Code, Serving};
use crate::control::{self, Control};
use crate::endpoint;
use crate::failure::{advice, advice_on};
use crate::imap::{self, Imap, Listen};
use crate::lmtp::{self, Lmtp};
use crate::metrics::{Metrics, Sources};
use crate::paths::Setup;
use crate::service::{Ending, Notify, Signals};
use crate::text::count;
use crate::upkeep::Upkeep;

/// Talks to the peers, and runs the other commands' work, until SIGTERM or Ctrl-C. SIGHUP has it read its configuration
/// again.
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
    /// Shows figures for Prometheus there, at /metrics; an address of this machine only [default: that of the configuration,
    /// else not at all].
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<String>,
    #[command(flatten)]
    imap: Listen,
    #[command(flatten)]
    lmtp: lmtp::Listen,
}

/// What a short command may hold the store for before the daemon gives up.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

impl Serve {
    pub(crate) fn run(&self, setup: &Setup) -> anyhow::Result<Code> {
        let mut signals = {
            let _inside = setup.runtime.enter();
            Signals::new()?
        };
        let notify = Notify::new(&setup.manager);
        setup.events.say(setup.events.parse(setup.config.now().log.as_deref())?);
        let endpoint = self.endpoint(setup)?;
        let listens = endpoint.as_ref().and_then(|endpoint| endpoint.local_address().ok());
        let hosted = self.open(setup, endpoint.as_ref())?;
        let replicas = hosted.iter().map(|hosted| (hosted.setup.store.clone(), hosted.replica.clone()));
        let imap = Imap::start(setup, &self.imap, replicas.clone())?;
        let lmtp = Lmtp::start(setup, &self.lmtp, replicas)?;
        let sources = || Sources {
            hosted: hosted.iter().map(Hosted::source).collect(),
            imap: imap.as_ref().map(Imap::server),
        };
        let _metrics = Metrics::start(setup, self.metrics.as_deref(), sources)?;
        // Last, as whoever waits for the daemon asks there: by then all that was asked for is there.
        let controls = hosted.iter().map(|hosted| hosted.control(listens));
        let controls = controls.collect::<anyhow::Result<Vec<Control>>>()?;
        hosted.iter().try_for_each(|hosted| hosted.hub.watch())?;
        let upkeep: Vec<Upkeep> =
            hosted.iter().map(|hosted| Upkeep::start(&hosted.replica, &setup.config)).collect();
        let status = match listens {
            Some(listens) => format!("serving {} on {listens}", count(hosted.len() as u64, "account")),
            None => format!("serving {} offline", count(hosted.len() as u64, "account")),
        };
        notify.ready(&status);
        let nodes: Vec<Node> = hosted.iter().filter_map(|hosted| hosted.node.clone()).collect();
        let mut ending = Ending::Terminated;
        let result = setup.runtime.block_on(async {
            let running =
                Running { setup, hosted: &hosted, imap: imap.as_ref(), notify: &notify, status: &status };
            let stop = async {
                ending = tokio::select! {
                    ending = signals.wait(|| self.reload(&running)) => ending,
                    never = notify.keep_alive() => match never {},
                };
                notify.stopping();
                signals.force();
            };
            let result = match &endpoint {
                Some(endpoint) => postmerge::net::serve(endpoint, &nodes, stop).await,
                None => {
                    stop.await;
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
        upkeep.into_iter().for_each(Upkeep::stop);
        hosted.iter().for_each(|hosted| hosted.hub.stop());
        hosted.iter().try_for_each(|hosted| hosted.replica.close())?;
        result?;
        Ok(if ending == Ending::Interrupted { Code::INTERRUPTED } else { Code::DONE })
    }

    /// The endpoint, unless this is to talk to nobody.
    fn endpoint(&self, setup: &Setup) -> anyhow::Result<Option<Endpoint>> {
        if !setup.store.join("STORE").exists() {
            return Err(ReplicaError::NoReplica { path: setup.store.clone() }.into());
        }
        if self.offline { Ok(None) } else { self.bind(setup).map(Some) }
    }

    /// Opens the stores, and says on standard error which.
    fn open(&self, setup: &Setup, endpoint: Option<&Endpoint>) -> anyhow::Result<Vec<Hosted>> {
        let mut hosted = Vec::new();
        for store in self.stores(setup)? {
            hosted.push(Hosted::open(setup.at(store), endpoint)?);
        }
        if endpoint.is_some() {
            hosted.iter().try_for_each(|hosted| self.announce(&hosted.setup, &hosted.replica))?;
        }
        let listens = endpoint.and_then(|endpoint| endpoint.local_address().ok());
        for Hosted { setup, .. } in &hosted {
            match listens {
                Some(listens) => eprintln!("serving {} on {listens}", setup.store.display()),
                None => eprintln!("serving {} offline", setup.store.display()),
            }
        }
        Ok(hosted)
    }

    /// The stores to host, the one that the command line names first.
    fn stores(&self, setup: &Setup) -> anyhow::Result<Vec<PathBuf>> {
        let config = setup.config.now();
        let others = if self.host.is_empty() { &config.host } else { &self.host };
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
            Err(_) if self.listen.is_none() && setup.config.now().listen.is_none() => {
                let any = SocketAddr::from(([0, 0, 0, 0], address.port()));
                Ok(Endpoint::bind(any, &key, &setup.runtime)?)
            }
            bound => Ok(bound?),
        }
    }

    /// Where it is to listen.
    fn address(&self, setup: &Setup) -> anyhow::Result<SocketAddr> {
        let config = setup.config.now();
        let wanted = self.listen.as_deref().or(config.listen.as_deref());
        let listen = wanted.unwrap_or(Config::LISTEN);
        let address = listen.to_socket_addrs().ok().and_then(|mut found| found.next());
        address.with_context(|| format!("{listen:?} is not ADDR:PORT"))
    }

    /// Tells the peers where this replica is, if that is known for certain. A port that the system chose is another one next
    /// time, and what is told to the peers stays in their log.
    fn announce(&self, setup: &Setup, replica: &Replica) -> anyhow::Result<()> {
        let (listens, config) = (self.address(setup)?, setup.config.now());
        let addresses = if !config.addresses.is_empty() {
            super::peers::check(&config.addresses)?;
            config.addresses.clone()
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
        if imap::has_users(&setup) {
            postmerge_imap::summarize_arrivals(&replica);
        }
        let node = endpoint.map(|endpoint| Node::new(replica.clone(), endpoint.clone()));
        let hub = Hub::new(replica.clone(), setup.store.clone(), &setup.config.now());
        Ok(Hosted { setup, replica, node, hub })
    }

    /// Where its figures come from.
    fn source(&self) -> (PathBuf, Replica, Option<Node>) {
        (self.setup.store.clone(), self.replica.clone(), self.node.clone())
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
            opened => {
                let replica = opened?;
                endpoint::take_next_key(&setup.store, &replica)?;
                return Ok(replica);
            }
        }
    }
}
