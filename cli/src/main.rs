//! The `postmerge` program: arguments, wiring and printing around the library of the same name.
//!
//! A verb is a file in [`commands`]. Those that need a replica run on a [`context::Context`]: in this process, or, while
//! `serve` holds the store, inside it, reached through the socket of [`control`].

mod args;
mod commands;
mod config;
mod context;
mod control;
mod endpoint;
mod failure;
mod paths;
mod progress;
mod text;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::SignalKind;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::context::Code;
use crate::failure::Failure;
use crate::paths::Setup;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = ["warn", "info", "debug", "trace"][usize::from(cli.verbose).min(3)];
    let filter = EnvFilter::try_from_env("POSTMERGE_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("error,postmerge={level}")));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let code = match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            let failure = Failure::of(&error);
            failure.print(&mut std::io::stderr());
            failure.code()
        }
    };
    ExitCode::from(code.value())
}

fn run(cli: &Cli) -> anyhow::Result<Code> {
    // Replicas block, so a conversation needs a thread beside the one that drives the sockets.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let setup = Setup::new(cli, runtime.handle().clone())?;
    if !cli.command.handles_signals() {
        let _inside = runtime.enter();
        let mut interrupt = tokio::signal::unix::signal(SignalKind::interrupt())?;
        runtime.spawn(async move {
            if interrupt.recv().await.is_some() {
                // Nothing that was acknowledged is lost: the next open replays the log.
                std::process::exit(Code::INTERRUPTED.value().into());
            }
        });
    }
    let result = commands::run(&cli.command, &setup);
    runtime.shutdown_background();
    result
}
