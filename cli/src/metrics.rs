//! Figures for Prometheus, on an address that only this machine reaches: who has names and sizes of somebody's mail knows
//! more than a stranger should.
//!
//! [`figures`] says what is counted, [`exposition`] how it is written, [`http`] answers.

mod exposition;
mod figures;
mod http;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use postmerge::net::Node;
use postmerge::replica::Replica;
use postmerge_imap::Server;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::failure::advice;
use crate::paths::Setup;

/// What the figures are taken from.
pub(crate) struct Sources {
    /// The stores that are served.
    pub(crate) hosted: Vec<(PathBuf, Replica, Option<Node>)>,
    /// The IMAP server, if there is one.
    pub(crate) imap: Option<Arc<Server>>,
}

/// Figures, being served.
pub(crate) struct Metrics(JoinHandle<()>);

impl Metrics {
    /// Binds the socket and starts to answer; nothing if that is not asked for. Says on standard error where.
    pub(crate) fn start(
        setup: &Setup,
        asked: Option<&str>,
        sources: impl FnOnce() -> Sources,
    ) -> anyhow::Result<Option<Metrics>> {
        let config = setup.config.now();
        let Some(at) = asked.or(config.metrics.as_deref()) else { return Ok(None) };
        let found = at.to_socket_addrs().ok().and_then(|mut found| found.next());
        let found = found.with_context(|| format!("{at:?} is not ADDR:PORT"))?;
        if !found.ip().is_loopback() {
            let hint = "name a port of this machine, such as 127.0.0.1:9367; from elsewhere it is reached through ssh or a proxy that asks who comes";
            return Err(advice(format!("everybody who reaches {found} could read the metrics"), hint));
        }
        let listener = setup.runtime.block_on(TcpListener::bind(found));
        let listener = listener.with_context(|| format!("cannot listen on {found}"))?;
        let at: SocketAddr = listener.local_addr()?;
        eprintln!("metrics on http://{at}{}", http::PATH);
        let sources = sources();
        let answering = http::answer(listener, move || figures::page(&sources));
        Ok(Some(Metrics(setup.runtime.spawn(answering))))
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.0.abort();
    }
}
