use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory};

use crate::args::Cli;
use crate::context::Code;

/// Writes the manual pages, one for each command, into a directory.
#[derive(Args)]
pub(crate) struct Man {
    /// The directory, such as /usr/local/share/man/man1.
    dir: PathBuf,
}

impl Man {
    pub(crate) fn run(&self) -> anyhow::Result<Code> {
        let write = || {
            std::fs::create_dir_all(&self.dir)?;
            clap_mangen::generate_to(Cli::command(), &self.dir)
        };
        write().with_context(|| format!("cannot write manual pages into {}", self.dir.display()))?;
        Ok(Code::DONE)
    }
}
