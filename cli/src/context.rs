//! What a command runs on, whether in its own process or inside the daemon.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postmerge::net::{Endpoint, Node};
use postmerge::replica::Replica;
use serde::Serialize;

use crate::bridge::Hub;
use crate::endpoint;
use crate::paths::Setup;
use crate::progress::Sink;

/// An exit code; scripts rely on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Code(u8);

impl Code {
    /// All was done.
    pub(crate) const DONE: Code = Code(0);
    /// Nothing was done, or it went wrong.
    pub(crate) const FAILED: Code = Code(1);
    /// The command line is wrong.
    pub(crate) const USAGE: Code = Code(2);
    /// Some of it was done; standard error says what was not.
    pub(crate) const PARTLY: Code = Code(3);
    /// There is no replica in the directory.
    pub(crate) const NO_REPLICA: Code = Code(10);
    /// Another process holds the store.
    pub(crate) const LOCKED: Code = Code(11);
    /// Somebody pressed Ctrl-C.
    pub(crate) const INTERRUPTED: Code = Code(130);

    /// A code of sysexits.h, by which programs that hand over mail know what to do with it.
    pub(crate) const fn sysexits(value: u8) -> Code {
        Code(value)
    }

    /// The number.
    pub(crate) fn value(self) -> u8 {
        self.0
    }

    /// Takes a number that the daemon sent.
    pub(crate) fn from_value(value: u8) -> Code {
        Code(value)
    }

    /// Partly done if anything was left out.
    pub(crate) fn partly_if(left_out: bool) -> Code {
        if left_out { Code::PARTLY } else { Code::DONE }
    }
}

/// A daemon, as the commands that run inside it see it.
#[derive(Clone)]
pub(crate) struct Serving {
    /// Its conversations; none with `--offline`.
    pub(crate) node: Option<Node>,
    /// Where it listens.
    pub(crate) listens: Option<SocketAddr>,
    /// Its Maildirs.
    pub(crate) hub: Arc<Hub>,
}

/// What a command runs on.
pub(crate) struct Context<'a> {
    /// The open replica.
    pub(crate) replica: Replica,
    /// Paths, configuration, runtime.
    pub(crate) setup: &'a Setup,
    /// The Maildirs that are attached to it.
    pub(crate) hub: Arc<Hub>,
    /// The daemon that the command runs in, if it does.
    pub(crate) serving: Option<&'a Serving>,
    /// Where the user's relative paths start.
    pub(crate) cwd: PathBuf,
    /// Results.
    pub(crate) out: Box<dyn Write + Send>,
    /// Everything else.
    pub(crate) err: Box<dyn Write + Send>,
    /// Standard input.
    pub(crate) input: Box<dyn Read + Send>,
    /// Progress.
    pub(crate) progress: Sink,
}

impl Context<'_> {
    /// A path as the user means it.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        self.cwd.join(path)
    }

    /// Prints a result for programs.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, value).map_err(std::io::Error::from)?;
        Ok(writeln!(self.out)?)
    }

    /// The conversations: the daemon's, or new ones from an endpoint that nobody needs to find.
    pub(crate) fn node(&self) -> anyhow::Result<Node> {
        if let Some(node) = self.serving.and_then(|serving| serving.node.clone()) {
            return Ok(node);
        }
        Ok(Node::new(self.replica.clone(), self.endpoint()?))
    }

    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        endpoint::unlisted(&endpoint::read_key(&self.setup.store)?, &self.setup.runtime)
    }
}
