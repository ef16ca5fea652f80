//! The `postmerge` program: arguments, wiring and printing around the library of the same name.
//!
//! A verb is a file in [`commands`]. Those that need a replica run on a [`context::Context`]: in this process, or, while
//! `serve` holds the store, inside it, reached through the socket of [`control`].

mod accounts;
mod args;
mod bridge;
mod commands;
mod config;
mod context;
mod control;
mod endpoint;
mod events;
mod failure;
mod imap;
mod incoming;
mod links;
mod lmtp;
mod metrics;
mod paths;
mod progress;
mod service;
mod text;
mod upkeep;
mod users;

use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::signal::unix::SignalKind;

use crate::args::Cli;
use crate::commands::deliver;
use crate::context::Code;
use crate::events::Events;
use crate::failure::Failure;
use crate::paths::Setup;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error)
            if error.use_stderr() && Cli::verb_of(std::env::args_os()).as_deref() == Some(deliver::VERB) =>
        {
            let _ = error.print();
            return ExitCode::from(deliver::USAGE.value());
        }
        Err(error) => error.exit(),
    };
    let events = Events::start(&cli);
    let run = || match run(&cli, events) {
        Ok(code) => code,
        Err(error) => {
            let failure = Failure::of(&error, &cli.verb);
            failure.print(&mut std::io::stderr());
            failure.code()
        }
    };
    let code = if cli.verb == deliver::VERB { deliver::guard(run) } else { run() };
    ExitCode::from(code.value())
}

/// Threads that may block in a process that serves nobody. The C library keeps for each thread what that freed, which came to half
/// the memory of a first sync.
const BLOCKING_THREADS: usize = 2;

fn run(cli: &Cli, events: Events) -> anyhow::Result<Code> {
    if let Some(result) = commands::about_itself(&cli.command) {
        return result;
    }
    // Replicas block, so a conversation needs a thread beside the one that drives the sockets.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    if !cli.command.handles_signals() {
        runtime.max_blocking_threads(BLOCKING_THREADS);
    }
    let runtime = runtime.build()?;
    let setup = Setup::new(cli, runtime.handle().clone(), events)?;
    if !cli.command.handles_signals() {
        let _inside = runtime.enter();
        let mut interrupt = tokio::signal::unix::signal(SignalKind::interrupt())?;
        let code = if cli.verb == deliver::VERB { deliver::LATER } else { Code::INTERRUPTED };
        runtime.spawn(async move {
            if interrupt.recv().await.is_some() {
                if std::io::stderr().is_terminal() {
                    // The line of the progress bar, and what the terminal shows for Ctrl-C.
                    eprint!("\r\u{1b}[2K");
                }
                // Nothing that was acknowledged is lost: the next open replays the log.
                std::process::exit(code.value().into());
            }
        });
    }
    let result = commands::run(&cli.command, &setup);
    runtime.shutdown_background();
    result
}
