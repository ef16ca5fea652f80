//! The goals of Maildirs kept in step, beside the programs that do the same: the same mail and the same changes, in one run.
//!
//! `cargo bench -p postmerge-cli --bench maildir -- [--quick] [--only GOAL,...] [--peers NAME,...|all] [--corpus MAILDIR]
//! [--work DIR]`. See `docs/bench.md`.

#![allow(clippy::disallowed_methods)] // a bench reads the clock and the file system

mod daemons;
mod mail;
mod meter;
mod ours;
mod peers;
mod relay;
mod table;
mod workloads;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::mail::Tree;
use crate::ours::Postmerge;
use crate::peers::Peer;
use crate::table::Table;

const GOALS: [&str; 5] = ["first", "noop", "flag", "mixed", "daemons"];

/// Those that take minutes for ten thousand messages only run when they are asked for.
const USUAL: [&str; 4] = ["rsync", "rsync-z", "dsync", "mbsync"];

struct Options {
    only: Vec<String>,
    peers: Vec<String>,
    corpus: Option<PathBuf>,
    work: PathBuf,
    /// Messages that are made up if no corpus is given.
    messages: usize,
    /// How often a run with nothing to do is run.
    noops: u32,
    /// How often the mixed changes are made.
    rounds: u32,
    /// How long daemons are left alone.
    rest: Duration,
}

fn options() -> Options {
    let mut options = Options {
        only: GOALS.map(String::from).to_vec(),
        peers: USUAL.map(String::from).to_vec(),
        corpus: None,
        work: PathBuf::from("/dev/shm"),
        messages: 10_000,
        noops: 20,
        rounds: 3,
        rest: Duration::from_secs(60),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} takes a value"));
        match argument.as_str() {
            "--bench" => {}
            "--quick" => {
                (options.messages, options.noops, options.rounds) = (1_000, 5, 1);
                options.rest = Duration::from_secs(5);
            }
            "--messages" => options.messages = value().parse().expect("a number"),
            "--only" => options.only = value().split(',').map(String::from).collect(),
            "--peers" => options.peers = value().split(',').map(String::from).collect(),
            "--corpus" => options.corpus = Some(value().into()),
            "--work" => options.work = value().into(),
            other => panic!("{other} is no option; goals are {}", GOALS.join(", ")),
        }
    }
    options
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == relay::FLAG) {
        return relay::run(&arguments[2..]);
    }
    // What a program leaves behind is still waited for, and its CPU counted.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("Linux lets a process reap");
    let options = options();
    let temp = TempDir::new_in(&options.work).expect("a work directory");
    // Dovecot's processes pass through it as another user.
    std::fs::set_permissions(temp.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    let mut table = Table::default();
    let mail = corpus(&options, temp.path(), &mut table);
    for peer in everybody(&options, &mut table) {
        let dir = temp.path().join(peer.name());
        std::fs::create_dir(&dir).expect("the work directory takes directories");
        workloads::measure(peer, &dir, &mail, &options, &mut table);
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
    println!("{}", table.markdown());
}

fn corpus(options: &Options, work: &Path, table: &mut Table) -> Tree {
    let (mail, kind) = match &options.corpus {
        Some(corpus) => (Tree::at(corpus), "a corpus that was given"),
        None => (mail::made_up(&work.join("mail"), options.messages), "made up by the bench"),
    };
    let (messages, bytes) = mail.count();
    let folders = mail.folders().len();
    let megabytes = bytes as f64 / 1e6;
    table.note(format!("The mail is {kind}: {messages} messages in {folders} folders, {megabytes:.1} MB."));
    mail
}

/// Ours first, then who is wanted and installed.
fn everybody(options: &Options, table: &mut Table) -> Vec<Box<dyn Peer>> {
    let mut all: Vec<Box<dyn Peer>> = vec![Box::new(Postmerge::default())];
    let wanted = |name: &str| options.peers.iter().any(|peer| peer == name || peer == "all");
    for peer in peers::all().into_iter().filter(|peer| wanted(peer.name())) {
        match peer.installed() {
            true => all.push(peer),
            false => table.note(format!("{} is not installed.", peer.name())),
        }
    }
    all
}
