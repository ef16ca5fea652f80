//! Every goal that the project set itself, measured: one table, with the machine's own floor beside each figure.
//!
//! `cargo bench --bench goals -- [--quick] [--only GOAL,...] [--corpus MAILDIR] [--messages N] [--work DIR] [--docs DIR]
//! [--smallest]`. See `docs/bench.md`.

#![allow(clippy::disallowed_methods)] // a bench reads the clock and the file system

mod account;
mod chart;
mod first;
mod mail;
mod meter;
mod strangers;
mod twins;
mod wire;

use std::path::PathBuf;
use std::time::Instant;

use peak_alloc::PeakAlloc;
use tempfile::TempDir;

use crate::mail::Corpus;
use crate::meter::Table;

/// Counts what is allocated.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const GOALS: [&str; 12] = [
    "document",
    "noop",
    "flag",
    "strangers",
    "store",
    "apart",
    "import",
    "sync",
    "disk",
    "memory",
    "twins",
    "pass",
];

struct Options {
    only: Vec<String>,
    corpus: Option<PathBuf>,
    work: PathBuf,
    docs: Option<PathBuf>,
    /// Messages of the documents, after which as many single changes follow as 36 % of them.
    messages: usize,
    /// Messages of made-up mail.
    mail: usize,
    /// Messages of a replica that small things happen to.
    replica: usize,
    /// Messages of the sync whose memory is measured.
    crowd: usize,
    smallest: bool,
}

fn options() -> Options {
    let mut options = Options {
        only: GOALS.map(String::from).to_vec(),
        corpus: None,
        work: std::env::temp_dir(),
        docs: None,
        messages: 1_000_000,
        mail: 10_000,
        replica: 100_000,
        crowd: 100_000,
        smallest: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} takes a value"));
        match argument.as_str() {
            "--bench" => {}
            "--quick" => {
                (options.messages, options.mail, options.replica, options.crowd) =
                    (20_000, 1_000, 2_000, 3_000);
            }
            "--messages" => options.messages = value().parse().expect("a number"),
            "--only" => options.only = value().split(',').map(String::from).collect(),
            "--corpus" => options.corpus = Some(value().into()),
            "--work" => options.work = value().into(),
            "--docs" => options.docs = Some(value().into()),
            "--smallest" => options.smallest = true,
            other => panic!("{other} is no option; goals are {}", GOALS.join(", ")),
        }
    }
    options
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("--child", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        if rest[0] == "strangers" {
            strangers::run_child(rest);
        } else if !twins::run_child(rest) {
            first::run_child(rest);
        }
        return;
    }
    let options = options();
    let temp = TempDir::new_in(&options.work).expect("a work directory");
    let work = temp.path();
    let mut table = Table::default();
    let mut mail: Option<(Corpus, Corpus)> = None;
    let (mut costs, mut first_sync) = (Vec::new(), None);
    for goal in GOALS.iter().filter(|goal| options.only.iter().any(|only| only == *goal)) {
        let start = Instant::now();
        if matches!(*goal, "import" | "sync" | "disk" | "memory" | "twins") && mail.is_none() {
            mail = Some(corpus(&options, work, &mut table));
        }
        let corpora = || mail.as_ref().expect("it was just made");
        match *goal {
            "document" => account::document(&mut table, options.messages, options.messages * 36 / 100),
            "noop" => wire::no_op(&mut table, work, options.replica),
            "flag" => wire::one_flag(&mut table, work, options.replica.min(10_000)),
            "strangers" => strangers::strangers(&mut table, work, options.replica.min(1_000)),
            "store" => wire::store_many(&mut table, work, options.replica.min(10_000)),
            "apart" => wire::apart(&mut table, work, options.replica.min(10_000)),
            "import" => first::import(&mut table, work, &corpora().0),
            "sync" => {
                let (all, text) = corpora();
                // On a disk the kernel's share of rsync's CPU was seen to vary threefold: both are compared in RAM.
                let ram = TempDir::new_in("/dev/shm").ok();
                let (place, work) = ram.as_ref().map_or(("on disk", work), |ram| ("in RAM", ram.path()));
                table.note(format!("First sync and rsync write {place}."));
                first_sync = Some(first::sync(&mut table, work, all, text, options.smallest));
            }
            "disk" => first::on_disk(&mut table, work, &corpora().0, &corpora().1),
            "memory" => first::memory(&mut table, work, &corpora().0, options.crowd),
            "twins" => {
                // No time is measured, and each exported message is an fsync of its own.
                let ram = TempDir::new_in("/dev/shm").ok();
                twins::twins(&mut table, ram.as_ref().map_or(work, TempDir::path), &corpora().0);
            }
            _ => {
                let sizes = [1_000, 10_000, 100_000, 1_000_000];
                let sizes: Vec<usize> = sizes.into_iter().filter(|size| *size <= options.messages).collect();
                costs = account::pass(&mut table, &sizes);
            }
        }
        eprintln!("  [{goal}: {:.1} s]", start.elapsed().as_secs_f64());
    }
    println!("{}", table.markdown());
    if let Some(docs) = &options.docs {
        let write =
            |name: &str, text: String| std::fs::write(docs.join(name), text).expect("a chart is written");
        write("bench-goals.svg", chart::goals(&table));
        if !costs.is_empty() {
            write("bench-pass.svg", chart::pass(&costs));
        }
        if let Some(sync) = &first_sync {
            write("bench-first-sync.svg", chart::first_sync(sync));
        }
    }
}

/// The mail, and the same without attachments.
fn corpus(options: &Options, work: &std::path::Path, table: &mut Table) -> (Corpus, Corpus) {
    let all = match &options.corpus {
        Some(dir) => Corpus::at(dir, false),
        None => Corpus::make_up(&work.join("mail"), options.mail),
    };
    let text = all.text_only(&work.join("text"));
    let kind = if all.made_up { "made up by the bench" } else { "a corpus that was given" };
    table.note(format!(
        "The mail is {kind}: {} messages, {:.1} MB; without base64 {:.1} MB.",
        all.messages,
        all.bytes as f64 / 1e6,
        text.bytes as f64 / 1e6
    ));
    (all, text)
}
