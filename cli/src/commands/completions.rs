use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::context::Code;

/// Prints what a shell needs to complete the program's commands and options.
#[derive(Args)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> anyhow::Result<Code> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "postmerge", &mut script);
        std::io::Write::write_all(&mut std::io::stdout(), &script)?;
        Ok(Code::DONE)
    }
}
