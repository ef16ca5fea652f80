//! Clients on real sockets, all at once, on several mailboxes of two servers, while merges and mail arrive. What the threads
//! do is drawn from a seed; in which order they come is not, so whatever order it is, no client may be told a lie.

use std::io::{BufRead, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use postmerge::member::Role;
use postmerge_imap::{Limits, Mode};

use crate::peer::Peer;
use crate::server::{Running, Wire};
use crate::strict::{Strict, Talk};

const MAILBOXES: [&str; 3] = ["INBOX", "Work", "Lists"];
/// What each client does before it rests.
const ACTS: usize = 40;

type Client = Strict<Wire<TcpStream>>;

impl Wire<TcpStream> {
    /// The next response with its literals and its end.
    fn response(&mut self) -> String {
        let mut heard = Vec::new();
        loop {
            let from = heard.len();
            assert!(self.0.read_until(b'\n', &mut heard).unwrap() > 0, "the server hung up");
            let line = std::str::from_utf8(&heard[from..]).unwrap();
            let literal = line.strip_suffix("}\r\n").and_then(|line| line.rsplit_once('{'));
            let Some(length) = literal.and_then(|(_, length)| length.parse::<u64>().ok()) else {
                return String::from_utf8(heard).unwrap();
            };
            (&mut self.0).take(length).read_to_end(&mut heard).unwrap();
        }
    }
}

impl Talk for Wire<TcpStream> {
    fn say(&mut self, bytes: &[u8], answers: usize) -> String {
        self.send(bytes);
        let (mut heard, mut answered) = (String::new(), 0);
        loop {
            let response = self.response();
            heard += &response;
            answered += usize::from(response.starts_with("t "));
            if if answers == 0 { response.starts_with('+') } else { answered == answers } {
                return heard;
            }
        }
    }
}

/// A few numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(n)) as u32
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u32) as usize]
    }
}

fn log_in(server: &Running, mailbox: &str, qresync: bool) -> Client {
    let mut wire = server.connect();
    wire.line();
    wire.ok("LOGIN kim secret");
    Strict::start(wire, mailbox, qresync)
}

/// One thing of those that clients do; `number` tells texts apart.
fn act(client: &mut Client, peer: &Peer, mailbox: &str, random: &mut Random, number: &str) {
    let text = format!("Subject: {number}\r\n\r\nfrom a client\r\n");
    let flag = random.pick(&["\\Seen", "\\Flagged", "\\Deleted", "work"]);
    let target = random.pick(&MAILBOXES);
    let seq = if client.exists() > 0 { 1 + random.below(client.exists()) } else { 0 };
    match random.below(14) {
        0 | 1 => drop(client.command(&format!("APPEND {target} {{{}+}}\r\n{text}", text.len()), true)),
        2 => drop(client.command("NOOP", true)),
        3 => drop(client.select()),
        4 => hear_in_idle(client, peer, mailbox, &text),
        5 => drop(client.command("EXPUNGE", true)),
        _ if seq == 0 => {}
        6 => client.store_silent(seq, true, flag),
        7 => drop(client.command(&format!("STORE {seq} -FLAGS ({flag})"), false)),
        8 => drop(client.command(&format!("UID STORE {} +FLAGS ({flag})", client.uid(seq)), true)),
        9 => drop(client.command(&format!("UID MOVE {} {target}", client.uid(seq)), true)),
        10 => drop(client.command(&format!("COPY {seq} {target}"), true)),
        11 => drop(client.command(&format!("SEARCH {seq} NOT SEEN"), false)),
        12 => drop(client.command(&format!("FETCH 1:{seq} (UID FLAGS EMAILID BODY.PEEK[])"), false)),
        _ => client.pipeline_at_once(&[
            format!("t UID FETCH {} (FLAGS)", client.uid(seq)),
            format!("t STORE {seq} +FLAGS (\\Answered)"),
            format!("t FETCH 1:{seq} (UID FLAGS)"),
        ]),
    }
    client.look();
}

/// Waits in IDLE for a message that is delivered meanwhile.
fn hear_in_idle(client: &mut Client, peer: &Peer, mailbox: &str, text: &str) {
    client.sleep();
    peer.deliver_to(mailbox, text);
    loop {
        let response = client.talk.response();
        client.hear(&response, true);
        if response.ends_with(" EXISTS\r\n") {
            break;
        }
    }
    client.wake();
}

/// Syncs, and delivers to a server that no client of the account may be at, until all clients rest.
fn merge(peers: &[Peer; 2], working: &AtomicUsize) {
    let mut number = 0;
    while working.load(Ordering::Acquire) > 0 {
        number += 1;
        let mailbox = MAILBOXES[number % MAILBOXES.len()];
        if number <= ACTS {
            peers[number % 2].deliver_to(mailbox, &format!("Subject: mail {number}\r\n\r\nfrom afar\r\n"));
        }
        peers[number % 2].sync(&peers[1 - number % 2]);
    }
}

/// Until both servers show the same.
fn heal(peers: &[Peer; 2]) {
    let shown = |peer: &Peer| {
        MAILBOXES
            .map(|mailbox| peer.shown(mailbox).into_iter().map(|it| (it.uid, it.entry)).collect::<Vec<_>>())
    };
    for _ in 0..8 {
        peers[0].sync(&peers[1]);
        peers[1].sync(&peers[0]);
        if shown(&peers[0]) == shown(&peers[1]) {
            return;
        }
    }
    panic!("the servers do not come to rest");
}

/// Counts a client out, also if it fails: who waits for all of them would wait for ever.
struct Working<'a>(&'a AtomicUsize);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

#[test]
fn clients_at_once_on_several_mailboxes_are_told_no_lie_while_merges_arrive() {
    let first = Peer::found();
    for mailbox in &MAILBOXES[1..] {
        first.replica.create_mailbox(&mailbox.parse().unwrap(), None).unwrap();
    }
    let second = first.invite(Role::Server, 2);
    let peers = [first, second];
    let clear = Mode::Clear { tls: None, passwords: true };
    let servers =
        [0, 1].map(|at: usize| Running::serve(peers[at].account.clone(), clear.clone(), Limits::default()));
    let places: Vec<(usize, &str, bool)> = (0..2)
        .flat_map(|at| MAILBOXES.into_iter().map(move |mailbox| (at, mailbox)))
        .flat_map(|(at, mailbox)| [false, true].map(|qresync| (at, mailbox, qresync)))
        .collect();
    let working = AtomicUsize::new(places.len());
    let mut clients: Vec<(usize, Client)> = std::thread::scope(|scope| {
        let (peers, servers, working) = (&peers, &servers, &working);
        scope.spawn(move || merge(peers, working));
        let run = |(seed, (at, mailbox, qresync)): (usize, (usize, &'static str, bool))| {
            scope.spawn(move || {
                let _working = Working(working);
                let mut random = Random(seed as u64);
                let mut client = log_in(&servers[at], mailbox, qresync);
                for number in 0..ACTS {
                    let number = format!("{seed} {number}");
                    act(&mut client, &peers[at], mailbox, &mut random, &number);
                }
                (at, client)
            })
        };
        let threads: Vec<_> = places.into_iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    heal(&peers);
    for (at, client) in &mut clients {
        client.verify(&peers[*at]);
        // And once more as a client that was away.
        client.select();
        client.verify(&peers[*at]);
    }
}
