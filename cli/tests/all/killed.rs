//! SIGKILL, over and over, of servers that have a mail client and a peer. Nothing that a client was told may be gone.
//!
//! `POSTMERGE_KILLS` is how many times; `POSTMERGE_SEED` starts another run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use crate::support::{Serve, World, until};

/// What a client knows of a message: it was told, or it asked and never heard.
#[derive(Clone, Debug, Default)]
struct Known {
    flags: BTreeSet<String>,
    /// Flags that it asked for.
    perhaps: BTreeSet<String>,
    expunged: bool,
    perhaps_expunged: bool,
}

/// What the clients of one server were told, over all its lives.
#[derive(Default)]
struct Told {
    by_uid: BTreeMap<u32, String>,
    /// With those whose bodies had not arrived.
    uids: BTreeSet<u32>,
    next: u32,
}

/// By UID: flags and subject.
type Shown = BTreeMap<u32, (BTreeSet<String>, String)>;

/// A connection that may break at any moment.
struct Client(BufReader<TcpStream>);

/// The server is gone.
struct Gone;

impl Client {
    /// To a server whose only user is called by its port.
    fn open(port: u16) -> Client {
        let mut stream = None;
        until("the IMAP port", || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let mut client = Client(BufReader::new(stream.unwrap()));
        let mut greeting = String::new();
        client.0.read_line(&mut greeting).unwrap();
        assert!(
            client.say(&format!("LOGIN user{port} secret")).is_ok() && client.say("SELECT INBOX").is_ok()
        );
        client
    }

    /// Untagged lines and the code of the answer.
    fn say(&mut self, command: &str) -> Result<(Vec<String>, String), Gone> {
        let mut untagged = Vec::new();
        self.0.get_mut().write_all(format!("a {command}\r\n").as_bytes()).map_err(|_| Gone)?;
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Ok(1..) if line.ends_with("\r\n") => {}
                _ => return Err(Gone),
            }
            match line.strip_prefix("a ") {
                Some(result) => {
                    let missing = command.contains("FETCH") && result.starts_with("NO [UNAVAILABLE]");
                    assert!(result.starts_with("OK") || missing, "{command}: {line}");
                    return Ok((untagged, result.to_owned()));
                }
                None => untagged.push(line),
            }
        }
    }

    /// The UIDs of all messages.
    fn uids(&mut self) -> Result<BTreeSet<u32>, Gone> {
        let (lines, _) = self.say("UID SEARCH ALL")?;
        let found = lines.iter().find_map(|line| line.strip_prefix("* SEARCH"));
        Ok(found.unwrap_or("").split_whitespace().map(|uid| uid.parse().unwrap()).collect())
    }

    /// UID, flags and subject of all messages whose bodies are here. The peer may have died before it sent one.
    fn look(&mut self) -> Result<Shown, Gone> {
        let (lines, _) = self.say("UID FETCH 1:* (FLAGS ENVELOPE)")?;
        let between = |line: &str, start: &str, end: &str| {
            let (_, rest) = line.split_once(start)?;
            Some(rest.split_once(end)?.0.to_owned())
        };
        let messages = lines.iter().filter(|line| line.contains("ENVELOPE")).map(|line| {
            let uid: String =
                line.split_once("UID ").unwrap().1.chars().take_while(char::is_ascii_digit).collect();
            let flags = between(line, "FLAGS (", ")").unwrap();
            let flags =
                flags.split_whitespace().filter(|flag| *flag != "\\Recent").map(str::to_owned).collect();
            (uid.parse().unwrap(), (flags, between(line, "ENVELOPE (NIL \"", "\"").unwrap()))
        });
        Ok(messages.collect())
    }
}

impl Told {
    /// A UID means one message for ever, and a new one is not below what was said to come next.
    fn check(&mut self, client: &mut Client) -> Result<Shown, Gone> {
        for uid in client.uids()? {
            self.meet(uid);
        }
        let shown = client.look()?;
        for (uid, (_, subject)) in &shown {
            self.meet(*uid);
            let known = self.by_uid.entry(*uid).or_insert_with(|| subject.clone());
            assert_eq!(known, subject, "UID {uid}");
        }
        self.next = self.uids.last().map_or(1, |last| last + 1).max(self.next);
        Ok(shown)
    }

    fn meet(&mut self, uid: u32) {
        // What comes between two looks may come in any order.
        assert!(!self.uids.insert(uid) || uid >= self.next, "UID {uid} appeared below {}", self.next);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A client that works until its server is gone, or for `most` commands. Gives how many were answered.
fn work(
    port: u16,
    told: &mut Told,
    known: &mut BTreeMap<String, Known>,
    random: &mut Random,
    (most, kill_after): (usize, usize),
    kill: &mut dyn FnMut(),
) -> usize {
    let mut client = Client::open(port);
    let Ok(mut shown) = told.check(&mut client) else { return 0 };
    for done in 0..most {
        if done == kill_after {
            kill();
        }
        let mine: Vec<(u32, String)> = shown
            .iter()
            .filter(|(_, (_, subject))| known.contains_key(subject))
            .map(|(uid, (_, subject))| (*uid, subject.clone()))
            .collect();
        let chosen = (!mine.is_empty()).then(|| mine[random.below(mine.len())].clone());
        let answer = match (random.below(6), chosen) {
            (0, Some((uid, subject))) => {
                known.get_mut(&subject).unwrap().perhaps_expunged = true;
                let store = client.say(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"));
                store.and_then(|_| client.say(&format!("UID EXPUNGE {uid}"))).map(|_| {
                    known.get_mut(&subject).unwrap().expunged = true;
                })
            }
            (1 | 2, Some((uid, subject))) => {
                let flag = ["\\Seen", "\\Flagged", "\\Answered", "work"][random.below(4)].to_owned();
                let message = known.get_mut(&subject).unwrap();
                message.perhaps.insert(flag.clone());
                let stored = client.say(&format!("UID STORE {uid} +FLAGS ({flag})"));
                stored.map(|_| {
                    message.flags.insert(flag);
                })
            }
            _ => {
                let subject = format!("{port}-{}-{}", known.len(), random.below(1 << 30));
                let message = format!("Subject: {subject}\r\n\r\n{subject}\r\n");
                let perhaps = Known { perhaps_expunged: true, ..Known::default() };
                known.insert(subject.clone(), perhaps);
                let added = client.say(&format!("APPEND INBOX {{{}+}}\r\n{message}", message.len()));
                added.map(|(_, result)| {
                    known.insert(subject.clone(), Known::default());
                    let uid = result.split_once("APPENDUID ").unwrap().1.split_once(']').unwrap().0;
                    let uid = uid.split_once(' ').unwrap().1.parse().unwrap();
                    told.meet(uid);
                    told.by_uid.insert(uid, subject);
                })
            }
        };
        let Ok(()) = answer else { return done };
        match told.check(&mut client) {
            Ok(now) => shown = now,
            Err(Gone) => return done,
        }
    }
    most
}

/// All that clients were told is there.
fn assert_kept(shown: &Shown, known: &BTreeMap<String, Known>) {
    let mut here = BTreeMap::new();
    for (flags, subject) in shown.values() {
        assert!(here.insert(subject, flags).is_none(), "{subject} is there twice");
    }
    for (subject, known) in known {
        match here.get(subject) {
            None => assert!(known.expunged || known.perhaps_expunged, "{subject} is gone"),
            Some(flags) => {
                assert!(!known.expunged, "{subject} is back");
                assert!(flags.is_superset(&known.flags), "{subject}: {flags:?} of {known:?}");
                let asked: BTreeSet<String> =
                    known.perhaps.iter().cloned().chain(["\\Deleted".to_owned()]).collect();
                assert!(flags.is_subset(&asked), "{subject}: {flags:?} of {known:?}");
            }
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn kill_9_of_servers_with_a_client_and_a_peer_loses_nothing_that_was_said() {
    let number = |name: &str, else_: u64| std::env::var(name).map_or(else_, |text| text.parse().unwrap());
    let (kills, mut random) = (number("POSTMERGE_KILLS", 4), Random(number("POSTMERGE_SEED", 1)));
    let world = World::new();
    let udp = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let imap = [(); 2].map(|()| free_port());
    let start = |at: usize| -> Serve {
        let imap = format!("127.0.0.1:{}", imap[at]);
        world.serve(["a", "b"][at], &["--listen", &udp[at], "--imap", &imap])
    };
    world.ok("a", &["init", "--role", "server", "--name", "alpha"]);
    let ticket = world.ok("a", &["invite", "--role", "server", "--address", &udp[0]]);
    let add_user = |store: &str, port: u16| {
        world.run_with(store, &["user", "add", &format!("user{port}")], b"secret\n").ok();
    };
    add_user("a", imap[0]);
    let first = start(0);
    world.ok("b", &["join", ticket.trim(), "--name", "beta"]);
    add_user("b", imap[1]);
    drop(first);

    let (mut known, mut told) = (BTreeMap::new(), [Told::default(), Told::default()]);
    let mut servers = [0, 1].map(|at| Some(start(at)));
    for round in 0..kills {
        let at = random.below(2);
        let after = random.below(8);
        let mut victim = servers[at].take();
        let [one, two] = &mut told;
        let (hurt, spared) = if at == 0 { (one, two) } else { (two, one) };
        let mut kill = || victim.take().unwrap().kill();
        work(imap[at], hurt, &mut known, &mut random, (usize::MAX, after), &mut kill);
        // The peer goes on alone for a while, and knows what it was told.
        let some = random.below(3);
        work(imap[1 - at], spared, &mut known, &mut random, (some, usize::MAX), &mut || {});
        servers[at] = Some(start(at));
        let mut client = Client::open(imap[at]);
        assert!(told[at].check(&mut client).is_ok(), "round {round}: it died by itself");
    }
    let digest = |store: &str| world.json(store, &["messages", "INBOX", "--json"]);
    until("both to have the same", || digest("a") == digest("b"));
    for (port, told) in imap.iter().zip(&mut told) {
        let mut client = Client::open(*port);
        until("all bodies", || {
            client.say("UID FETCH 1:* ENVELOPE").is_ok_and(|(_, answer)| answer.starts_with("OK"))
        });
        let Ok(shown) = told.check(&mut client) else { panic!("it died by itself") };
        assert_kept(&shown, &known);
    }
    drop(servers);
    for store in ["a", "b"] {
        assert!(world.ok(store, &["check"]).starts_with("all is well"));
    }
}
