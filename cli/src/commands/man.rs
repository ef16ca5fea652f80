use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man as Page;

use crate::args::Cli;
use crate::context::Code;
use crate::text::{self, Moment};

/// Writes the manual pages, one for each command, into a directory.
#[derive(Args)]
pub(crate) struct Man {
    /// The directory, such as /usr/local/share/man/man1.
    dir: PathBuf,
    /// The date in the pages, for builds that must come out the same [default: today].
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<Moment>,
}

impl Man {
    pub(crate) fn run(&self) -> anyhow::Result<Code> {
        let date = text::instant(self.date.unwrap_or(Moment::Ago(Duration::ZERO)).seconds());
        let mut grammar = Cli::command().disable_help_subcommand(true);
        grammar.build();
        let write = || {
            std::fs::create_dir_all(&self.dir)?;
            write(&grammar, &date[..10], &self.dir)
        };
        write().with_context(|| format!("cannot write manual pages into {}", self.dir.display()))?;
        Ok(Code::DONE)
    }
}

/// The pages of a command and of those below it.
fn write(command: &Command, date: &str, dir: &Path) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write(below, date, dir)?;
    }
    let page = Page::new(command.clone()).date(date).source(SOURCE).manual("postmerge");
    let mut text = Vec::new();
    page.render(&mut text)?;
    // Above a list of values there is an empty line between two breaks, which manual page checkers do not like.
    let text = String::from_utf8_lossy(&text).replace("\n.br\n\n.br\n", "\n.br\n");
    std::fs::write(dir.join(page.get_filename()), text)
}

const SOURCE: &str = concat!("postmerge ", env!("CARGO_PKG_VERSION"));
