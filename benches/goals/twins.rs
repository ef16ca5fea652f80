//! Real mail in two replicas that are processes of their own: synced over QUIC, changed on both sides while apart, synced
//! again. What they export must be equal, message by message and flag by flag.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};
use std::time::Instant;

use postmerge::mailbox::{Keyword, MailboxName, Uid};
use postmerge::maildir::{ExportMailbox, ExportMessage, ExportPlan};
use postmerge::replica::{Replica, ReplicaError};
use postmerge::uid::{KeywordChange, Seen};
use tokio::runtime::Runtime;

use crate::first::child;
use crate::mail::{self, Corpus};
use crate::meter::{Random, Table, Unit};
use crate::wire::{Home, member, name, serve};

/// Conversations after which the two must agree: claims and burns may need a second one.
const MOST_SYNCS: usize = 4;

/// The exports of both, compared.
pub(crate) fn twins(table: &mut Table, work: &Path, corpus: &Corpus) {
    let [first, second, here, there] =
        ["twin-first", "twin-second", "from-first", "from-second"].map(|name| work.join(name));
    let wall = Instant::now();
    let mut serving = Serving::start(&first, &corpus.dir);
    let ticket = serving.ask("ticket");
    let run = |command: &str, arguments: &[&str]| {
        let mut all: Vec<OsString> = vec![command.into(), second.clone().into()];
        all.extend(arguments.iter().map(OsString::from));
        let mut child = child(&all);
        let mut said = String::new();
        child.stdout.take().expect("the child speaks").read_to_string(&mut said).expect("the child speaks");
        assert!(child.wait().expect("a child ends").success(), "{command} fails");
        said.trim().to_owned()
    };
    run("twin-join", &[&ticket]);
    // Nobody is connected: the second is no process now.
    let changes = [serving.ask("change 1"), run("twin-change", &["2"])];
    let mut syncs = 0;
    loop {
        let digest = run("twin-sync", &[]);
        syncs += 1;
        if serving.ask("digest") == digest {
            break;
        }
        assert!(syncs < MOST_SYNCS, "they still differ after {syncs} conversations");
    }
    serving.ask(&format!("export {}", here.display()));
    run("twin-export", &[&there.display().to_string()]);
    serving.stop();
    let (ours, theirs) = (read_export(&here), read_export(&there));
    let compared = ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>();
    let differ = compared.iter().filter(|key| ours.get(**key) != theirs.get(**key)).count();
    let messages = ours.keys().filter(|(_, uid)| uid.is_some()).count();
    let changed = differences_to(&ours, &read_export(&corpus.dir));
    table.row(
        &format!("two processes, {messages} messages: differences between their exports"),
        Unit::Count,
        0.0,
        differ as f64,
    );
    table.note(format!(
        "Apart, one made {} changes and the other {}; {syncs} conversation(s) later {messages} messages and {} mailboxes \
         were compared by UID, flags, date and body, {changed} of the messages not as they were imported. It took {:.0} s.",
        changes[0],
        changes[1],
        compared.len() - messages,
        wall.elapsed().as_secs_f64()
    ));
    assert_eq!(differ, 0, "two replicas with equal digests export different mail");
    assert!(changed > messages / 50, "hardly anything was changed, so that nothing was shown");
    for dir in [first, second, here, there] {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// What an export says of a message, or with no UID of its mailbox.
type Exported = BTreeMap<(String, Option<Uid>), String>;

fn read_export(dir: &Path) -> Exported {
    let mut all = Exported::new();
    let scan = mail::scan(dir);
    assert!(scan.skipped.is_empty(), "{:?}", scan.skipped);
    for folder in scan.folders {
        let uids = folder.uidlist.as_ref().map(|list| (list.validity, list.next));
        all.insert((folder.name.to_string(), None), format!("{uids:?} subscribed {:?}", folder.subscribed));
        for (n, message) in folder.messages.into_iter().enumerate() {
            let body = blake3::hash(&std::fs::read(&message.path).expect("an export can be read"));
            // A corpus without UIDs has them in order.
            let uid = message.uid.or(Uid::new(n as u32 + 1));
            let known = format!("{:?} {} {body}", message.keywords, message.internal_date);
            let twice = all.insert((folder.name.to_string(), uid), known);
            assert!(twice.is_none(), "two messages of {} have UID {uid:?}", folder.name);
        }
    }
    all
}

/// Messages that were not there so before, wherever they were.
fn differences_to(now: &Exported, before: &Exported) -> usize {
    let messages = |all: &Exported| -> BTreeMap<(String, String), usize> {
        let mut count = BTreeMap::new();
        for ((mailbox, _), known) in all.iter().filter(|((_, uid), _)| uid.is_some()) {
            *count.entry((mailbox.clone(), known.clone())).or_default() += 1;
        }
        count
    };
    let before = messages(before);
    let new = |(key, count): (&(String, String), &usize)| {
        count.saturating_sub(before.get(key).copied().unwrap_or(0))
    };
    messages(now).iter().map(new).sum()
}

/// The first replica: a process that imports, then serves and does what it is told, a line at a time.
struct Serving {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Serving {
    fn start(store: &Path, corpus: &Path) -> Serving {
        let mut child = child(&["twin-serve".into(), store.into(), corpus.into()]);
        let said = BufReader::new(child.stdout.take().expect("the child speaks"));
        Serving { child, said }
    }

    fn ask(&mut self, what: &str) -> String {
        let stdin = self.child.stdin.as_mut().expect("the child listens");
        writeln!(stdin, "{what}").and_then(|()| stdin.flush()).expect("the child listens");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("the child answers");
        assert!(!line.is_empty(), "the child fails at {what:?}");
        line.trim().to_owned()
    }

    fn stop(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("a child ends").success(), "the first process fails");
    }
}

/// What a child does; false if it is none of these.
pub(crate) fn run_child(arguments: &[String]) -> bool {
    let path = |n: usize| PathBuf::from(&arguments[n]);
    let open = || Replica::open(&path(1), None).expect("a replica opens");
    match arguments[0].as_str() {
        "twin-serve" => listen(&path(1), &path(2)),
        "twin-join" => {
            let (runtime, ticket) =
                (Runtime::new().expect("a runtime"), arguments[2].parse().expect("a ticket"));
            let (replica, node) = Home::guest_at(&path(1), &ticket, runtime.handle());
            runtime.block_on(node.join(&ticket, member("guest"), true, &mut |_| {})).expect("a first sync");
            replica.close().expect("a replica closes");
        }
        "twin-change" => {
            let replica = open();
            println!("{}", change(&replica, arguments[2].parse().expect("a number")));
            replica.close().expect("a replica closes");
        }
        "twin-sync" => {
            let (replica, runtime) = (open(), Runtime::new().expect("a runtime"));
            // Whoever shows a mailbox claims what waits in it, and burns what a merge has hidden.
            let sync = || {
                let results =
                    runtime.block_on(Home::guest_node(&replica, runtime.handle()).sync(&mut |_, _| {}));
                assert!(!results.is_empty(), "the guest knows its peer");
                results.into_iter().for_each(|result| result.result.expect("a sync"));
            };
            sync();
            replica.settle(None).expect("what waits is claimed");
            sync();
            let digest = replica.digest().expect("a digest");
            println!("{digest:?}");
            replica.close().expect("a replica closes");
        }
        "twin-export" => export(&open(), &path(2)),
        _ => return false,
    }
    true
}

fn listen(store: &Path, corpus: &Path) {
    let runtime = Runtime::new().expect("a runtime");
    let replica = Home::found_at(store);
    mail::import(&replica, corpus);
    let (node, ticket) = Home::node_and_ticket(&replica, runtime.handle());
    let serving = serve(&runtime, &node);
    for line in io::stdin().lines() {
        let line = line.expect("the parent speaks");
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("ticket", _) => println!("{ticket}"),
            ("change", side) => println!("{}", change(&replica, side.parse().expect("a number"))),
            ("digest", _) => {
                replica.settle(None).expect("what waits is claimed");
                println!("{:?}", replica.digest().expect("a digest"));
            }
            ("export", dir) => {
                export(&replica, Path::new(dir));
                println!("done");
            }
            other => panic!("nobody can {other:?}"),
        }
        io::stdout().flush().expect("the parent listens");
    }
    serving.stop();
    replica.close().expect("a replica closes");
}

/// Flags, moves, copies, expunges, deliveries and new mailboxes; gives how many. Both sides pick the same messages, so that
/// they meet in conflicts, and do something of their own to each.
fn change(replica: &Replica, side: u64) -> usize {
    let (mut common, mut own) = (Random(7), Random(side));
    let mut messages: Vec<(Seen, Uid)> = Vec::new();
    let mut targets: Vec<MailboxName> = Vec::new();
    for mailbox in replica.mailboxes().expect("mailboxes") {
        let shown = replica.messages(&mailbox.name, Uid::FIRST, usize::MAX).expect("messages");
        messages.extend(shown.into_iter().map(|message| (mailbox.seen(), message.uid)));
        targets.push(mailbox.name);
    }
    for n in (1..messages.len()).rev() {
        messages.swap(n, common.below(n + 1));
    }
    for new in ["Both", if side == 1 { "One" } else { "Other" }].map(name) {
        replica.create_mailbox(&new, None).expect("a mailbox");
        targets.push(new);
    }
    let keywords = ["\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "$Forwarded", "project-x"];
    let keywords = keywords.map(|text| text.parse::<Keyword>().expect("a keyword"));
    messages.truncate(messages.len() / 10);
    for (mailbox, uid) in &messages {
        let (uids, target) = ([*uid], &targets[own.below(targets.len())]);
        let one = || BTreeSet::from([keywords[uid.value() as usize % keywords.len()].clone()]);
        match own.below(20) {
            0 => drop(replica.expunge(*mailbox, &uids).expect("an expunge")),
            1 => drop(replica.copy(*mailbox, &uids, target).expect("a copy")),
            2 | 3 => drop(replica.move_to(*mailbox, &uids, target).expect("a move")),
            n => {
                let (set, clear) = if n < 12 { (one(), BTreeSet::new()) } else { (BTreeSet::new(), one()) };
                let change = KeywordChange::Edit { set, clear };
                drop(replica.store_keywords(*mailbox, &uids, &change, None).expect("a flag"));
            }
        }
    }
    for n in 0..20 {
        let (body, target) = (format!("Subject: {n} at {side}\n\nnew\n"), &targets[own.below(targets.len())]);
        replica
            .append(target, body.as_bytes(), BTreeSet::new(), Some(1_100_000_000 + n))
            .expect("a delivery");
    }
    messages.len() + 22
}

/// As the program exports.
fn export(replica: &Replica, to: &Path) {
    let mut mailboxes = Vec::new();
    for mailbox in replica.mailboxes().expect("mailboxes") {
        let shown = replica.messages(&mailbox.name, Uid::FIRST, usize::MAX).expect("messages");
        let messages = shown.into_iter().map(|message| ExportMessage {
            entry: message.entry,
            uid: message.uid,
            blob: message.blob,
            size: message.size,
            internal_date: message.internal_date,
            keywords: message.keywords,
        });
        mailboxes.push(ExportMailbox {
            id: mailbox.id,
            validity: mailbox.uid_validity,
            next: Uid::new(mailbox.uid_next).expect("a UID is left"),
            subscribed: mailbox.subscribed,
            messages: messages.collect(),
            name: mailbox.name,
        });
    }
    let open = |message: &ExportMessage| -> io::Result<Box<dyn Read>> {
        match replica.body(message.entry) {
            Ok(body) => Ok(Box::new(body)),
            Err(error @ ReplicaError::Owed { .. }) => Err(io::Error::new(io::ErrorKind::NotFound, error)),
            Err(error) => Err(io::Error::other(error)),
        }
    };
    let plan = ExportPlan::new(&mailboxes).expect("everything can be exported");
    let done = plan.apply(to, &open, &mut |_| {}).expect("an export");
    assert!(done.missing.is_empty(), "bodies are missing: {:?}", done.missing);
}
