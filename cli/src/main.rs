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
mod failure;
mod imap;
mod incoming;
mod lmtp;
mod paths;
mod progress;
mod text;
mod users;

use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::signal::unix::SignalKind;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::commands::{Command, deliver};
use crate::context::Code;
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
    listen_to_events(&cli);
    let run = || match run(&cli) {
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

/// Events go to standard error: plain lines, with colours on a terminal only.
fn listen_to_events(cli: &Cli) {
    let level = ["warn", "info", "debug", "trace"][usize::from(cli.verbose).min(3)];
    let filter = EnvFilter::try_from_env("POSTMERGE_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("error,postmerge={level}")));
    // https://no-color.org: any value but an empty one.
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let events = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(colours && std::io::stderr().is_terminal());
    match cli.command {
        // A log that is read later.
        Command::Serve(_) => events.init(),
        // Somebody waits for the command; when it was and which module said so is noise unless asked for.
        _ if cli.verbose == 0 => events.without_time().with_target(false).init(),
        _ => events.init(),
    }
}

fn run(cli: &Cli) -> anyhow::Result<Code> {
    // Replicas block, so a conversation needs a thread beside the one that drives the sockets.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let setup = Setup::new(cli, runtime.handle().clone())?;
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
