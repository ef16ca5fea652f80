//! The command line as a whole; each verb's own arguments are with the verb.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use crate::commands::Command;

/// A mailbox that lives on many machines at once and never lies to a mail client.
#[derive(Parser)]
#[command(name = "postmerge", version, propagate_version = true, after_help = AFTER)]
pub(crate) struct Cli {
    /// The replica's directory [default: postmerge/default in the user's data directory].
    #[arg(long, global = true, env = "POSTMERGE_STORE", value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// The configuration file [default: postmerge/config.toml in the user's configuration directory].
    #[arg(long, global = true, env = "POSTMERGE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Looks at the replica and changes nothing: a backup stays a backup. For commands that only show.
    #[arg(long, global = true)]
    pub(crate) read_only: bool,
    /// Says more on standard error; up to three times.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// The verb as it was written, for hints.
    #[arg(skip)]
    pub(crate) verb: String,
}

impl Cli {
    /// Reads a command line, the program's own name included.
    pub(crate) fn read<A>(arguments: impl IntoIterator<Item = A>) -> Result<Cli, clap::Error>
    where
        A: Into<OsString> + Clone,
    {
        let mut grammar = <Cli as CommandFactory>::command();
        let matches = grammar.try_get_matches_from_mut(arguments)?;
        let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut grammar))?;
        cli.verb = matches.subcommand_name().unwrap_or_default().to_owned();
        Ok(cli)
    }

    /// The verb of a command line, as far as it can be told from one that is wrong.
    pub(crate) fn verb_of<A>(arguments: impl IntoIterator<Item = A>) -> Option<String>
    where
        A: Into<OsString> + Clone,
    {
        let grammar = <Cli as CommandFactory>::command().ignore_errors(true);
        let matches = grammar.try_get_matches_from(arguments).ok()?;
        matches.subcommand_name().map(str::to_owned)
    }
}

const AFTER: &str =
    "Exit codes: 0 done, 1 failed, 2 usage, 3 partly done, 10 no replica here, 11 locked, 130 interrupted.";
