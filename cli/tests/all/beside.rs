//! Two servers, each with an unmodified Dovecot in front of its Maildir. Clients of both remember all that they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::dovecot::{Dovecot, Imap, NOBODY, Told, give};
use crate::support::{Serve, World, until};

const DATE: &str = "01-Jan-2026 12:00:00 +0000";

fn body(subject: &str) -> String {
    format!("Subject: {subject}\r\n\r\nBody of {subject}\r\n")
}

/// A client with QRESYNC (RFC 7162) that never loads anything anew.
#[derive(Default)]
struct Client {
    validity: u32,
    modseq: u64,
    flags: BTreeMap<u32, BTreeSet<String>>,
}

fn uids(set: &str) -> impl Iterator<Item = u32> {
    set.split(',').flat_map(|range| {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        first.parse::<u32>().unwrap()..=last.parse().unwrap()
    })
}

fn between<'a>(line: &'a str, start: &str, end: &str) -> Option<&'a str> {
    line.split_once(start)?.1.split_once(end).map(|(found, _)| found)
}

impl Client {
    /// Takes what a session is told.
    fn hear(&mut self, lines: &[String]) {
        for line in lines {
            if let Some(set) = line.strip_prefix("* VANISHED ") {
                let set = set.trim_start_matches("(EARLIER) ");
                self.flags.retain(|uid, _| set.is_empty() || !uids(set).any(|gone| gone == *uid));
            } else if let (Some(rest), Some(flags)) =
                (between(line, "(UID ", ")"), between(line, "FLAGS (", ")"))
            {
                let uid = rest.split(' ').next().unwrap().parse().unwrap();
                let flags = flags.split_whitespace().filter(|flag| *flag != "\\Recent").map(str::to_owned);
                self.flags.insert(uid, flags.collect());
            }
            if let Some(modseq) = between(line, "[HIGHESTMODSEQ ", "]") {
                self.modseq = modseq.parse().unwrap();
            }
        }
    }

    /// Opens INBOX with what is remembered, and wants to know all of it afterwards.
    fn resync(&mut self, dovecot: &Dovecot) -> Told {
        let mut imap = dovecot.connect();
        imap.command("ENABLE QRESYNC");
        if self.validity == 0 {
            let opened = imap.command("SELECT INBOX");
            let code =
                |name: &str| opened.iter().find_map(|line| between(line, name, "]")).unwrap().to_owned();
            self.validity = code("[UIDVALIDITY ").parse().unwrap();
            self.hear(&opened);
            let all = imap.command("UID FETCH 1:* (FLAGS)");
            self.hear(&all);
        } else {
            let told = imap.command(&format!("SELECT INBOX (QRESYNC ({} {}))", self.validity, self.modseq));
            self.hear(&told);
        }
        let now = dovecot.connect().look("INBOX");
        assert_eq!(self.validity, now.validity);
        let there: BTreeMap<u32, BTreeSet<String>> =
            now.messages.iter().map(|(uid, message)| (*uid, message.flags.clone())).collect();
        assert_eq!(self.flags, there, "the client was told exactly what changed");
        now
    }
}

/// What every UID ever meant, at either Dovecot.
#[derive(Default)]
struct Ever(BTreeMap<(u32, u32), String>);

impl Ever {
    fn check(&mut self, told: &Told) {
        for (uid, message) in &told.messages {
            let same = self.0.entry((told.validity, *uid)).or_insert_with(|| message.body.clone());
            assert_eq!(*same, message.body, "UID {uid} means two messages");
        }
    }
}

/// Always at one port, where the other one finds it again.
fn serve(world: &World, port: u16) -> Serve {
    world.serve("a", &["--listen", &format!("127.0.0.1:{port}")])
}

fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// As a delivery agent does it, that knows nothing of Dovecot.
fn deliver(dovecot: &Dovecot, subject: &str) {
    let (tmp, new) = (dovecot.mail().join("tmp").join(subject), dovecot.mail().join("new"));
    fs::write(&tmp, body(subject)).unwrap();
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(&tmp, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::rename(tmp, new.join(format!("1700000000.{subject}.host"))).unwrap();
}

fn subjects(told: &Told) -> BTreeMap<u32, String> {
    let subject = |body: &str| body.lines().next().unwrap().to_owned();
    told.messages.iter().map(|(uid, message)| (*uid, subject(&message.body))).collect()
}

/// A Dovecot that has mail, and an empty one, each with a server of one account, in step.
fn pair(world: &World, port: u16) -> (Dovecot, Dovecot, Serve) {
    let (a, b) = (Dovecot::new(), Dovecot::new());
    a.connect().append("INBOX", "\\Seen", DATE, &body("one"));
    a.connect().append("INBOX", "", DATE, &body("two"));
    b.connect().look("INBOX");
    world.ok("a", &["init", "--name", "alpha", "--dovecot"]);
    let attach = |store: &str, dovecot: &Dovecot| {
        let mail = dovecot.mail();
        world.ok(store, &["maildir", "attach", mail.to_str().unwrap(), "--uidlist", "dovecot"]);
    };
    attach("a", &a);
    let serving = serve(world, port);
    let ticket = world.ok("a", &["invite", "--role", "server"]).trim().to_owned();
    world.ok("b", &["join", &ticket, "--name", "beta"]);
    attach("b", &b);
    (a, b, serving)
}

#[test]
#[ignore = "needs dovecot"]
fn two_dovecots_heal_into_the_same_uids_and_tell_their_clients_so() {
    let world = World::of(NOBODY, give);
    let port = free_port();
    let (a, b, serving) = pair(&world, port);
    let (mut at_a, mut at_b, mut ever) = (Client::default(), Client::default(), Ever::default());
    until("the Dovecots to agree", || {
        world.run("b", &["sync"]);
        let (a, b) = (a.connect().look("INBOX"), b.connect().look("INBOX"));
        (a.validity, subjects(&a)) == (b.validity, subjects(&b))
    });
    ever.check(&at_a.resync(&a));
    ever.check(&at_b.resync(&b));
    assert_eq!(serving.stop(), Some(0));
    for round in 0..2 {
        // Apart. Dovecot numbers what a client puts there, and what is delivered it or postmerge, whoever comes first.
        for (store, dovecot, client) in [("a", &a, &mut at_a), ("b", &b, &mut at_b)] {
            dovecot.connect().append("INBOX", "\\Flagged", DATE, &body(&format!("put-{store}-{round}")));
            ever.check(&client.resync(dovecot));
            deliver(dovecot, &format!("delivered-{store}-{round}"));
            // The other one cannot be reached, which it says.
            world.run(store, &["sync"]);
            ever.check(&client.resync(dovecot));
        }
        let mut open: [Imap; 2] = [a.connect(), b.connect()];
        for imap in &mut open {
            imap.command("ENABLE QRESYNC");
            imap.command("SELECT INBOX");
        }
        // Together, while sessions are open and store flags.
        let serving = serve(&world, port);
        let mut stored = 0;
        until("the Dovecots to agree", || {
            world.run("b", &["sync"]);
            stored += 1;
            for (imap, dovecot) in open.iter_mut().zip([&a, &b]) {
                if stored == 1 {
                    imap.command("UID STORE 1 +FLAGS (\\Answered)");
                }
                imap.command("NOOP");
                ever.check(&dovecot.connect().look("INBOX"));
            }
            let (a, b) = (a.connect().look("INBOX"), b.connect().look("INBOX"));
            assert_eq!(a.validity, b.validity);
            let flags = |told: &Told| -> Vec<_> {
                told.messages.iter().map(|(uid, message)| (*uid, message.flags.clone())).collect()
            };
            subjects(&a) == subjects(&b) && flags(&a) == flags(&b)
        });
        let (told_a, told_b) = (at_a.resync(&a), at_b.resync(&b));
        ever.check(&told_a);
        ever.check(&told_b);
        assert_eq!(told_a.messages.len(), 2 + 4 * (round + 1));
        assert!(told_a.messages[&1].flags.contains("\\Answered"));
        assert_eq!(serving.stop(), Some(0));
    }
}
