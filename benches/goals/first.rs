//! Import and first sync: many messages at once.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use postmerge::net::Node;
use postmerge::replica::Replica;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::mail::{self, Corpus};
use crate::meter::{Table, Unit, children_cpu, cpu, median, peak_resident, timed, tree_bytes};
use crate::wire::{Home, Relay, member, serve};

/// Goal 7.
pub(crate) fn import(table: &mut Table, work: &Path, corpus: &Corpus) {
    let files = corpus.files();
    let (mut imports, mut floors, mut walls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        floors.push(timed(|| mail::read_hash_compress(&files)).0);
        let home = Home::found(work);
        let wall = Instant::now();
        imports.push(timed(|| mail::import(&home.replica, &corpus.dir)).0);
        walls.push(wall.elapsed().as_secs_f64());
    }
    let floor = median(floors);
    let what = format!("import of {} messages ({:.0} MB): CPU", corpus.messages, corpus.bytes as f64 / 1e6);
    let measured = median(imports);
    table.beside(&what, Unit::Seconds, 2.0 * floor, measured, floor, "reading, hashing, compressing");
    table.note(format!("The import took {} of wall.", Unit::Seconds.show(median(walls))));
}

/// Goal 9.
pub(crate) fn on_disk(table: &mut Table, work: &Path, all: &Corpus, text: &Corpus) {
    for (corpus, goal, what) in [(text, Some(0.5), "text mail"), (all, None, "all mail, attachments too")] {
        let home = Home::found(work);
        mail::import(&home.replica, &corpus.dir);
        home.replica.close().expect("a replica closes");
        let store = home.dir.path().join("store");
        let bytes = tree_bytes(&store) as f64;
        let bundles = mail::read_hash_compress(&corpus.files()) as f64 / corpus.bytes as f64;
        let of = "the bundles alone";
        table.beside(
            &format!("store on disk / raw mail, {what}"),
            Unit::Share,
            goal,
            bytes / corpus.bytes as f64,
            bundles,
            of,
        );
        let mut parts: Vec<(u64, String)> = std::fs::read_dir(&store)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| {
                let size = if entry.path().is_dir() {
                    tree_bytes(&entry.path())
                } else {
                    entry.metadata().map_or(0, |m| m.len())
                };
                (size, entry.file_name().to_string_lossy().into_owned())
            })
            .collect();
        parts.sort_unstable_by(|a, b| b.cmp(a));
        let parts: Vec<String> =
            parts.iter().take(4).map(|(size, name)| format!("{name} {:.1} MB", *size as f64 / 1e6)).collect();
        table.note(format!(
            "Store of {what} ({:.1} MB raw): {}.",
            corpus.bytes as f64 / 1e6,
            parts.join(", ")
        ));
        table.note(format!(
            "Index of {what}: {}.",
            index_by_table(&store.join("index.redb"), corpus.messages)
        ));
    }
}

/// What the rows of each table of the index take for a message, and what the file has beside them.
fn index_by_table(path: &Path, messages: usize) -> String {
    use redb::{ReadableDatabase, ReadableTableMetadata, TableHandle};
    let a_message = |bytes: u64| bytes as f64 / messages as f64;
    let database = redb::Database::open(path).expect("a closed index opens");
    let read = database.begin_read().expect("an index is read");
    let (mut parts, mut rows) = (Vec::new(), 0);
    for handle in read.list_tables().expect("an index lists its tables") {
        let name = handle.name().to_owned();
        let stats = read.open_untyped_table(handle).and_then(|table| Ok(table.stats()?)).expect("a table");
        rows += stats.stored_bytes();
        if stats.stored_bytes() > 10 * messages as u64 {
            let (stored, waste) = (a_message(stats.stored_bytes()), a_message(stats.fragmented_bytes()));
            parts.push(format!("{name} {stored:.0} B and {waste:.0} B of room"));
        }
    }
    let file = std::fs::metadata(path).expect("a file").len();
    format!(
        "rows {:.0} B a message of {:.0} B of file; {}",
        a_message(rows),
        a_message(file),
        parts.join(", ")
    )
}

/// One first sync over QUIC on loopback, in this process: CPU of both ends, wall.
fn first_sync(work: &Path, runtime: &Runtime, first: &Home, node: &Node, address: &str) -> (f64, f64) {
    let ticket = first.ticket(address);
    let guest = Home::guest(&ticket, work);
    let joining = guest.node(runtime.handle());
    let wall = Instant::now();
    let (spent, joined) =
        timed(|| runtime.block_on(joining.join(&ticket, member("guest"), true, &mut |_| {})));
    joined.expect("a first sync");
    assert_eq!(first.replica.digest().expect("a digest"), node.replica().digest().expect("a digest"));
    let status = guest.replica.status().expect("a status");
    assert_eq!(status.owed_bodies, 0, "every body has arrived");
    (spent, wall.elapsed().as_secs_f64())
}

/// What goal 8 compares, for a chart: CPU in µs a message and bytes on the wire as a share of the mail.
pub(crate) struct FirstSync {
    pub(crate) ours: (f64, f64),
    pub(crate) rsync: Option<(f64, f64)>,
}

/// Goal 8.
pub(crate) fn sync(
    table: &mut Table,
    work: &Path,
    corpus: &Corpus,
    text: &Corpus,
    smallest: bool,
) -> FirstSync {
    let runtime = Runtime::new().expect("a runtime");
    let (messages, raw) = (corpus.messages as f64, corpus.bytes as f64);
    let first = Home::found(work);
    mail::import(&first.replica, &corpus.dir);
    let node = first.node(runtime.handle());
    let serving = serve(&runtime, &node);
    let address = node.endpoint().local_address().expect("an address");
    let (mut cpus, mut walls) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (spent, wall) = first_sync(work, &runtime, &first, &node, &address.to_string());
        cpus.push(spent);
        walls.push(wall);
    }
    let relay = Relay::start(address, std::time::Duration::ZERO);
    first_sync(work, &runtime, &first, &node, &relay.address);
    let (up, down) = relay.bytes();
    serving.stop();
    drop(first);
    let wire = (up + down) as f64 / raw;
    let rsync = rsync(work, &corpus.dir);
    if let Some((seconds, _)) = rsync {
        table.note(format!(
            "rsync -az used {:.0} µs a message; median of 3, as ours.",
            seconds / messages * 1e6
        ));
    }
    let rsync_share = rsync.map(|(_, bytes)| bytes / raw);
    let spent = median(cpus);
    let what = format!("first sync of {} messages: UDP bytes / raw mail", corpus.messages);
    match rsync_share {
        Some(share) => table.beside(&what, Unit::Share, 0.45, wire, share, "rsync -az"),
        None => table.row(&what, Unit::Share, 0.45, wire),
    }
    let what = "– CPU of both ends together, a message";
    match rsync {
        Some((seconds, _)) => {
            let floor = seconds / messages * 1e6;
            table.beside(what, Unit::Micros, floor, spent / messages * 1e6, floor, "rsync -az");
        }
        None => {
            table.row(what, Unit::Micros, 97.0, spent / messages * 1e6);
            table.note("rsync is not installed here; 97 µs were measured elsewhere.".into());
        }
    }
    table.note(format!("The first sync took {} of wall on loopback.", Unit::Seconds.show(median(walls))));
    text_sync(table, work, text);
    if smallest {
        for (corpus, what) in [(corpus, "all of it"), (text, "the text alone")] {
            let bytes = mail::smallest(&corpus.files()) as f64;
            table.note(format!(
                "zstd -19 --long=27 of {what} as one file: {:.3} of the raw bytes.",
                bytes / corpus.bytes as f64
            ));
        }
    }
    FirstSync {
        ours: (spent / messages * 1e6, wire),
        rsync: rsync.map(|(s, bytes)| (s / messages * 1e6, bytes / raw)),
    }
}

/// The same for text alone; through memory, which gives the bytes inside QUIC.
fn text_sync(table: &mut Table, work: &Path, text: &Corpus) {
    let first = Home::found(work);
    mail::import(&first.replica, &text.dir);
    let (_guest, wire) = first.invite(work, "127.0.0.1:1");
    table.note(format!("Frames of the first sync of the text: {}.", wire.by_frame()));
    let share = wire.sent.iter().sum::<u64>() as f64 / text.bytes as f64;
    let rsync = rsync(work, &text.dir).map_or(0.55, |(_, bytes)| bytes / text.bytes as f64);
    table.beside("– text alone: bytes inside QUIC / raw mail", Unit::Share, 0.45, share, rsync, "rsync -az");
}

/// CPU seconds and bytes of `rsync -az` between two processes on this machine.
fn rsync(work: &Path, dir: &Path) -> Option<(f64, f64)> {
    let temp = TempDir::new_in(work).ok()?;
    let shell = temp.path().join("rsh");
    std::fs::write(&shell, "#!/bin/sh\nshift\nexec \"$@\"\n").ok()?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o755)).ok()?;
    let (mut cpus, mut bytes) = (Vec::new(), 0.0);
    for n in 0..3 {
        let before = children_cpu();
        let mut from = dir.as_os_str().to_owned();
        from.push("/");
        let mut to = std::ffi::OsString::from("here:");
        to.push(temp.path().join(format!("copy{n}")));
        let out = Command::new("rsync")
            .args(["-az", "--stats", "-e"])
            .arg(&shell)
            .arg(from)
            .arg(to)
            .output()
            .ok()?;
        if !out.status.success() {
            return None;
        }
        cpus.push(children_cpu() - before);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let number = |label: &str| -> Option<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(label))?;
            line.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok()
        };
        bytes = number("Total bytes sent:")? + number("Total bytes received:")?;
    }
    Some((median(cpus), bytes))
}

/// Goal 10: the two sides are processes of their own.
pub(crate) fn memory(table: &mut Table, work: &Path, corpus: &Corpus, messages: usize) {
    let (store, guest) = (work.join("memory-first"), work.join("memory-second"));
    let made =
        child(&["make".into(), store.clone().into(), corpus.dir.clone().into(), messages.to_string().into()])
            .wait()
            .expect("a child ends");
    assert!(made.success(), "the child makes a store");
    let mut server = child(&["serve".into(), store.clone().into()]);
    let mut ticket = String::new();
    let mut said = BufReader::new(server.stdout.take().expect("the child speaks"));
    said.read_line(&mut ticket).expect("the child gives a ticket");
    let wall = Instant::now();
    let mut joining = child(&["join".into(), guest.clone().into(), ticket.trim().into()]);
    let client = report(&mut BufReader::new(joining.stdout.take().expect("the child speaks")));
    joining.wait().expect("a child ends");
    let wall = wall.elapsed().as_secs_f64();
    drop(server.stdin.take());
    let served = report(&mut said);
    server.wait().expect("a child ends");
    let what = format!("first sync of {messages} messages: peak resident memory of the side that gives");
    table.row(&what, Unit::Megabytes, 200.0, served.0);
    table.row("– of the side that takes", Unit::Megabytes, 200.0, client.0);
    table.note(format!(
        "That sync took {} of wall, {} of CPU where it was given and {} where it was taken.",
        Unit::Seconds.show(wall),
        Unit::Seconds.show(served.1),
        Unit::Seconds.show(client.1)
    ));
    for dir in [store, guest] {
        let _ = std::fs::remove_dir_all(dir);
    }
}

pub(crate) fn child(arguments: &[std::ffi::OsString]) -> Child {
    let own = std::env::current_exe().expect("the bench knows itself");
    let piped = Stdio::piped;
    let spawned = Command::new(own).arg("--child").args(arguments).stdin(piped()).stdout(piped()).spawn();
    spawned.expect("a child starts")
}

/// Peak memory in MB and CPU seconds, as a child says them.
fn report(from: &mut impl Read) -> (f64, f64) {
    let mut text = String::new();
    from.read_to_string(&mut text).expect("the child speaks");
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().expect("peak memory"), numbers.next().expect("CPU"))
}

/// What a child does.
pub(crate) fn run_child(arguments: &[String]) {
    let path = |n: usize| PathBuf::from(&arguments[n]);
    match arguments[0].as_str() {
        "make" => {
            let home = Home::found_at(&path(1));
            let (mut left, mut copy): (usize, usize) = (arguments[3].parse().expect("a number"), 0);
            let size = Corpus::at(&path(2), false).messages;
            while left > 0 {
                mail::import_copies(&home, &path(2), left, copy);
                left = left.saturating_sub(size);
                copy += 1;
            }
            home.close().expect("a replica closes");
            return;
        }
        "serve" => {
            let runtime = Runtime::new().expect("a runtime");
            let replica = Replica::open(&path(1), None).expect("a replica opens");
            let (node, ticket) = Home::node_and_ticket(&replica, runtime.handle());
            let serving = serve(&runtime, &node);
            println!("{ticket}");
            std::io::stdout().flush().expect("the parent listens");
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            serving.stop();
        }
        "join" => {
            let runtime = Runtime::new().expect("a runtime");
            let ticket = arguments[2].parse().expect("a ticket");
            let (replica, node) = Home::guest_at(&path(1), &ticket, runtime.handle());
            runtime.block_on(node.join(&ticket, member("guest"), true, &mut |_| {})).expect("a first sync");
            assert_eq!(replica.status().expect("a status").owed_bodies, 0, "every body has arrived");
        }
        other => panic!("no child does {other}"),
    }
    println!("{:.1} {:.3}", peak_resident(), cpu());
}
