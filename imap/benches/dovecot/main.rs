//! The goals of the IMAP server, side by side with Dovecot: the same mail, the same commands, in one run.
//!
//! `cargo bench -p postmerge-imap --bench dovecot -- [--quick] [--only GOAL,...] [--corpus MAILDIR] [--messages N]
//! [--work DIR] [--binary POSTMERGE]`. See `docs/bench.md`.

#![allow(clippy::disallowed_methods)] // a bench reads the clock and the file system

mod client;
#[path = "../../tests/support/dovecot.rs"]
mod daemon;
mod goals;
mod mail;
mod meter;
mod servers;

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::goals::Bench;
use crate::mail::Inbox;
use crate::meter::Table;

const GOALS: [&str; 6] = ["fetch", "download", "search", "store", "select", "idle"];

struct Options {
    only: Vec<String>,
    corpus: Option<PathBuf>,
    work: PathBuf,
    binary: Option<PathBuf>,
    /// Messages of ordinary mail.
    messages: usize,
    /// Messages of the mailbox that is selected.
    crowd: usize,
    /// Connections that idle.
    idle: usize,
    runs: usize,
}

fn options() -> Options {
    let mut options = Options {
        only: GOALS.map(String::from).to_vec(),
        corpus: None,
        work: std::env::temp_dir(),
        binary: None,
        messages: 10_000,
        crowd: 100_000,
        idle: 1_000,
        runs: 3,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} takes a value"));
        match argument.as_str() {
            "--bench" => {}
            "--quick" => {
                (options.messages, options.crowd, options.idle, options.runs) = (1_000, 5_000, 50, 1)
            }
            "--messages" => options.messages = value().parse().expect("a number"),
            "--only" => options.only = value().split(',').map(String::from).collect(),
            "--corpus" => options.corpus = Some(value().into()),
            "--work" => options.work = value().into(),
            "--binary" => options.binary = Some(value().into()),
            other => panic!("{other} is no option; goals are {}", GOALS.join(", ")),
        }
    }
    options
}

fn main() {
    let options = options();
    raise_open_files();
    let temp = TempDir::new_in(&options.work).expect("a work directory");
    // Dovecot's processes pass through it as another user.
    std::fs::set_permissions(temp.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    let mut table = Table::default();
    let bench = bench(&options, temp.path(), &mut table);
    let wants = |goal: &str| options.only.iter().any(|only| only == goal);
    let place = |name: &str| temp.path().join(name);
    if ["fetch", "download", "search", "store"].into_iter().any(wants) {
        let (inbox, kind) = match &options.corpus {
            Some(corpus) => {
                (Inbox::of_corpus(&place("mail"), corpus, options.messages), "a corpus that was given")
            }
            None => (Inbox::made_up(&place("mail"), options.messages), "made up by the bench"),
        };
        let megabytes = inbox.bytes as f64 / 1e6;
        table.note(format!("The mail is {kind}: {} messages, {megabytes:.1} MB.", inbox.messages));
        bench.mail(&mut table, &inbox, wants);
    }
    if wants("select") {
        bench.resync(&mut table, &Inbox::short(&place("crowd"), options.crowd));
    }
    if wants("idle") {
        bench.idle(&mut table, &Inbox::short(&place("idle"), 1_000), options.idle);
    }
    println!("{}", table.markdown());
}

fn bench<'a>(options: &Options, work: &'a Path, table: &mut Table) -> Bench<'a> {
    let binary = options.binary.clone().unwrap_or_else(build);
    let serves = servers::serves_imap(&binary);
    if !serves {
        table.note(format!("{} does not serve IMAP.", binary.display()));
    }
    let dovecot = daemon::installed();
    if !dovecot {
        table.note("Dovecot is not installed.".into());
    }
    Bench { work, binary: serves.then_some(binary), dovecot, runs: options.runs }
}

/// The program as it is shipped.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace");
    let build = Command::new(cargo)
        .args(["build", "--release", "--locked", "-p", "postmerge-cli"])
        .current_dir(root)
        .status()
        .expect("cargo runs");
    assert!(build.success(), "the program does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("release/postmerge")
}

/// A thousand connections have two thousand ends; the servers inherit the limit.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() {
        eprintln!("the limit of open files stays {:?}", limit.current);
    }
}
