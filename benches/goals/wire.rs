//! Replicas that talk: what a conversation weighs, and how long it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use postmerge::mailbox::{Keyword, MailboxName, Uid};
use postmerge::member::{MemberName, Role, SecretKey, Ticket};
use postmerge::net::{Endpoint, Node};
use postmerge::replica::{Founding, ImportMessage, Invitation, Link, Replica, Stay, Subscription};
use postmerge::uid::{Block, Event, KeywordChange, Seen};
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};

use crate::HEAP;
use crate::meter::{FsyncProbe, Random, Table, Unit, cpu, median, wait_until};

pub(crate) fn name(text: &str) -> MailboxName {
    text.parse().expect("a mailbox name")
}

/// A replica in a directory of its own.
pub(crate) struct Home {
    pub(crate) replica: Replica,
    key: SecretKey,
    pub(crate) dir: TempDir,
}

/// The endpoints of the first replica and of its guest.
fn first_key() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

fn guest_key() -> SecretKey {
    SecretKey::from_seed([2; 32])
}

fn node(replica: &Replica, key: &SecretKey, runtime: &Handle) -> Node {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    Node::new(replica.clone(), Endpoint::bind(any, key, runtime).expect("a socket"))
}

fn invite(replica: &Replica, address: &str) -> Ticket {
    let (role, addresses, endpoint) = (Role::Server, vec![address.into()], first_key().peer_id());
    replica.invite(&Invitation { role, addresses, endpoint, valid_for: 3600 }).expect("a ticket")
}

impl Home {
    pub(crate) fn found(work: &Path) -> Home {
        let dir = TempDir::new_in(work).expect("a directory");
        Home { replica: Home::found_at(&dir.path().join("store")), key: first_key(), dir }
    }

    pub(crate) fn found_at(dir: &Path) -> Replica {
        let (name, endpoint) = (member("first"), first_key().peer_id());
        let founding = Founding { role: Role::Server, name, block: Block::STANDARD, endpoint };
        Replica::found(dir, None, &founding).expect("an account")
    }

    pub(crate) fn ticket(&self, address: &str) -> Ticket {
        invite(&self.replica, address)
    }

    /// For a process that serves.
    pub(crate) fn node_and_ticket(replica: &Replica, runtime: &Handle) -> (Node, Ticket) {
        let node = node(replica, &first_key(), runtime);
        let address = node.endpoint().local_address().expect("an address").to_string();
        (node, invite(replica, &address))
    }

    /// For a process that joins.
    pub(crate) fn guest_at(dir: &Path, ticket: &Ticket, runtime: &Handle) -> (Replica, Node) {
        let replica = Replica::prepare_join(dir, None, ticket).expect("a guest");
        let node = node(&replica, &guest_key(), runtime);
        (replica, node)
    }

    /// For a process that joined before.
    pub(crate) fn guest_node(replica: &Replica, runtime: &Handle) -> Node {
        node(replica, &guest_key(), runtime)
    }

    /// A replica that is to join, empty.
    pub(crate) fn guest(ticket: &Ticket, work: &Path) -> Home {
        let (dir, key) = (TempDir::new_in(work).expect("a directory"), guest_key());
        let replica = Replica::prepare_join(&dir.path().join("store"), None, ticket).expect("a guest");
        Home { replica, key, dir }
    }

    /// Invites a guest that joins and takes everything, through a pipe in memory.
    pub(crate) fn invite(&self, work: &Path, address: &str) -> (Home, Wire) {
        let ticket = self.ticket(address);
        let guest = Home::guest(&ticket, work);
        let join = guest.replica.guest(&ticket, guest.key.peer_id(), member("guest")).expect("a guest");
        let from = Link::join(&guest.replica, &ticket, &join, [8; 32], Stay::Once, Duration::ZERO);
        let to = Link::respond(&self.replica, [8; 32], Some(guest.key.peer_id()), Duration::ZERO);
        let mut wire = Wire::new([&guest, self], [from.expect("a conversation"), to]);
        wire.run();
        (guest, wire)
    }

    pub(crate) fn talk(&self, with: &Home, stay: Stay) -> Wire {
        let (peer, binding) = (with.replica.id().expect("an id"), [9; 32]);
        let from =
            Link::initiate(&self.replica, peer, Some(with.key.peer_id()), binding, stay, Duration::ZERO);
        let to = Link::respond(&with.replica, binding, Some(self.key.peer_id()), Duration::ZERO);
        Wire::new([self, with], [from.expect("a conversation"), to])
    }

    /// Closes the replica and opens it again.
    pub(crate) fn reopen(self) -> Home {
        let Home { replica, key, dir } = self;
        replica.close().expect("a replica closes");
        drop(replica);
        let replica = Replica::open(&dir.path().join("store"), None).expect("a replica opens");
        Home { replica, key, dir }
    }

    pub(crate) fn node(&self, runtime: &Handle) -> Node {
        node(&self.replica, &self.key, runtime)
    }

    /// Takes in short messages, so that only their number counts.
    pub(crate) fn fill(&self, mailbox: &str, messages: usize) {
        let mut importer = self.replica.import(&name(mailbox), None, false, false).expect("an import");
        for n in 0..messages {
            let message = ImportMessage {
                internal_date: 1_030_000_000 + n as i64,
                keywords: BTreeSet::new(),
                uid: None,
            };
            importer
                .add(message, format!("Subject: {mailbox} {n}\n\nshort\n").as_bytes())
                .expect("a message");
        }
        importer.finish().expect("an import ends");
    }

    pub(crate) fn uids(&self, mailbox: &str) -> Vec<Uid> {
        let shown = self.replica.messages(&name(mailbox), Uid::FIRST, usize::MAX).expect("messages");
        shown.into_iter().map(|message| message.uid).collect()
    }

    pub(crate) fn flag(&self, mailbox: &str, uids: &[Uid], keyword: &str) {
        let set: BTreeSet<Keyword> = [keyword.parse().expect("a keyword")].into();
        let change = KeywordChange::Edit { set, clear: BTreeSet::new() };
        self.replica.store_keywords(self.seen(mailbox), uids, &change, None).expect("a flag");
    }

    pub(crate) fn seen(&self, mailbox: &str) -> Seen {
        self.replica.mailbox(&name(mailbox)).expect("a mailbox").seen()
    }
}

pub(crate) fn member(text: &str) -> MemberName {
    MemberName::new(text).expect("a name")
}

/// A conversation through memory, counted.
pub(crate) struct Wire {
    ends: [Link; 2],
    commits: [(Arc<AtomicU64>, u64); 2],
    _subscriptions: [Subscription; 2],
    now: Duration,
    /// Bytes that each end sent.
    pub(crate) sent: [u64; 2],
    /// CPU seconds that each end spent on what it received.
    pub(crate) receiving: [f64; 2],
    /// Frames of each type that both ends sent, and their bytes.
    pub(crate) frames: BTreeMap<u8, (u64, u64)>,
    /// Of the frame that each end is in: bytes still to come.
    rest: [Vec<u8>; 2],
    /// Changes of direction.
    pub(crate) turns: u32,
}

impl Wire {
    fn new(homes: [&Home; 2], ends: [Link; 2]) -> Wire {
        let commits = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let subscribe = |side: usize| {
            let count = commits[side].clone();
            homes[side].replica.subscribe(move |_: &[Event]| {
                count.fetch_add(1, Ordering::Relaxed);
            })
        };
        let subscriptions = [subscribe(0), subscribe(1)];
        Wire {
            ends,
            commits: commits.map(|count| (count, 0)),
            _subscriptions: subscriptions,
            now: Duration::ZERO,
            sent: [0; 2],
            receiving: [0.0; 2],
            frames: BTreeMap::new(),
            rest: [Vec::new(), Vec::new()],
            turns: 0,
        }
    }

    /// Carries what there is to say now; true if there was anything.
    pub(crate) fn step(&mut self) -> bool {
        let mut any = false;
        for side in 0..2 {
            let (count, seen) = &mut self.commits[side];
            let commits = count.load(Ordering::Relaxed);
            if commits != *seen {
                *seen = commits;
                self.ends[side].wake(self.now).expect("a conversation goes on");
            }
            let before = self.sent[side];
            while let Some(bytes) = self.ends[side].poll_send(16 << 10).expect("a conversation goes on") {
                self.sent[side] += bytes.len() as u64;
                self.tally(side, &bytes);
                let start = cpu();
                self.ends[1 - side].receive(&bytes, self.now).expect("a conversation goes on");
                self.receiving[1 - side] += cpu() - start;
            }
            while self.ends[side].poll_event().is_some() {}
            self.turns += u32::from(self.sent[side] != before);
            any |= self.sent[side] != before;
        }
        any || self.commits.iter().any(|(count, seen)| count.load(Ordering::Relaxed) != *seen)
    }

    /// Counts whole frames: a length in LEB128, a type, a body.
    fn tally(&mut self, side: usize, bytes: &[u8]) {
        let rest = &mut self.rest[side];
        rest.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(end) = rest[start..].iter().position(|byte| *byte < 0x80) {
            let digits = rest[start..=start + end].iter().enumerate();
            let length = digits.fold(0usize, |sum, (n, byte)| sum | usize::from(byte & 0x7f) << (7 * n));
            let (head, kind) = (end + 2, rest.get(start + end + 1).copied());
            let Some(kind) = kind.filter(|_| rest.len() >= start + head + length) else { break };
            let (count, total) = self.frames.entry(kind).or_default();
            *count += 1;
            *total += (head + length) as u64;
            start += head + length;
        }
        rest.drain(..start);
    }

    /// What was sent, by type of frame.
    pub(crate) fn by_frame(&self) -> String {
        let show = |(kind, (count, bytes)): (&u8, &(u64, u64))| format!("{count} × {kind:02x} {bytes} B");
        self.frames.iter().map(show).collect::<Vec<_>>().join(", ")
    }

    /// Goes on until there is nothing more to say.
    pub(crate) fn run(&mut self) {
        loop {
            while self.step() {}
            let next = self.ends.iter().filter_map(Link::poll_timeout).min();
            match next.filter(|_| !self.ends[0].is_finished()) {
                Some(next) => {
                    self.now = next;
                    self.ends.iter_mut().for_each(|end| end.handle_timeout(next).expect("nobody stalls"));
                }
                None => return,
            }
        }
    }
}

/// Goal 3.
pub(crate) fn no_op(table: &mut Table, work: &Path, messages: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let first = Home::found(work);
    first.fill("INBOX", messages);
    let node = first.node(runtime.handle());
    let relay = Relay::start(node.endpoint().local_address().expect("an address"), Duration::from_millis(25));
    let (second, _) = first.invite(work, &relay.address);
    second.talk(&first, Stay::Once).run();
    drop(node);
    let (first, second) = (first.reopen(), second.reopen());
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let start = cpu();
    let mut wire = second.talk(&first, Stay::Once);
    wire.run();
    let (spent, heap) = (cpu() - start, (HEAP.peak_usage() - before) as f64 / 1e6);
    let most = wire.sent[0].max(wire.sent[1]) as f64;
    table.row(
        &format!("no-op sync of {messages} messages: bytes each way inside QUIC"),
        Unit::Bytes,
        150.0,
        most,
    );
    table.row(
        "– heap of both ends while it runs (a loaded document is far above 1 MB)",
        Unit::Megabytes,
        1.0,
        heap,
    );
    table.note(format!(
        "The no-op is {} bytes there and {} back in {} turns; CPU of both ends together {}.",
        wire.sent[0],
        wire.sent[1],
        wire.turns,
        Unit::Seconds.show(spent)
    ));
    drop(wire);
    let node = first.node(runtime.handle());
    relay.set_server(node.endpoint().local_address().expect("an address"));
    let serving = serve(&runtime, &node);
    let Home { replica, key, dir } = second;
    replica.close().expect("a replica closes");
    drop(replica);
    let mut walls = Vec::new();
    for _ in 0..5 {
        relay.reset();
        let start = Instant::now();
        let replica = Replica::open(&dir.path().join("store"), None).expect("a replica opens");
        let once = Home {
            replica,
            key: SecretKey::from_seed(*key.seed()),
            dir: TempDir::new_in(work).expect("a directory"),
        };
        let guest = once.node(runtime.handle());
        let results = runtime.block_on(guest.sync(&mut |_, _| {}));
        results.into_iter().for_each(|result| result.result.expect("a sync"));
        once.replica.close().expect("a replica closes");
        walls.push(start.elapsed().as_secs_f64());
    }
    let (up, down) = relay.bytes();
    table.beside(
        "– one shot over a 50 ms round trip: opened, synced and closed",
        Unit::Seconds,
        0.160,
        median(walls),
        0.050,
        "1 round trip",
    );
    table.note(format!(
        "On the wire that one shot is {up} bytes up and {down} down, QUIC handshake included."
    ));
    serving.stop();
}

/// A replica with messages, its conversations, and a second one that has what it has and knows where it is.
pub(crate) fn pair(work: &Path, messages: usize, runtime: &Runtime) -> (Home, Node, Home) {
    let first = Home::found(work);
    first.fill("INBOX", messages);
    let node = first.node(runtime.handle());
    let address = node.endpoint().local_address().expect("an address").to_string();
    let (second, _) = first.invite(work, &address);
    second.talk(&first, Stay::Once).run();
    (first, node, second)
}

/// Goal 4.
pub(crate) fn one_flag(table: &mut Table, work: &Path, messages: usize) {
    const CHANGES: usize = 100;
    let runtime = Runtime::new().expect("a runtime");
    let (first, node, second) = pair(work, messages, &runtime);
    let uids = first.uids("INBOX");
    let mut wire = second.talk(&first, Stay::Live);
    while wire.step() {}
    let mut weights = Vec::new();
    wire.frames.clear();
    for uid in &uids[..20] {
        let before: u64 = wire.sent.iter().sum();
        first.flag("INBOX", &[*uid], "\\Flagged");
        while wire.step() {}
        weights.push((wire.sent.iter().sum::<u64>() - before) as f64);
    }
    table.row("one flag change, connected: bytes both ways inside QUIC", Unit::Bytes, 250.0, median(weights));
    table.note(format!("Frames of 20 flag changes: {}.", wire.by_frame()));
    drop(wire);

    let guest = second.node(runtime.handle());
    let (serving, living) = (serve(&runtime, &node), serve(&runtime, &guest));
    wait_until("a conversation", || guest.states().iter().any(|state| state.connected));
    std::thread::sleep(Duration::from_millis(300));
    let (to, seen) = mpsc::channel();
    let watch = |replica: &Replica, side: u8| {
        let to = to.clone();
        replica.subscribe(move |events: &[Event]| {
            if events.iter().any(|event| matches!(event, Event::Flags { .. })) {
                let _ = to.send((side, Instant::now()));
            }
        })
    };
    let _subscriptions = [watch(&first.replica, 0), watch(&second.replica, 1)];
    let mut probe = FsyncProbe::new(work);
    let (mut delays, mut calls, mut fsyncs) = (Vec::new(), Vec::new(), Vec::new());
    for uid in uids.iter().skip(20).cycle().take(CHANGES) {
        let start = Instant::now();
        first.flag("INBOX", &[*uid], "$Forwarded");
        let mut at = [start; 2];
        for _ in 0..2 {
            let (side, when) = seen.recv_timeout(Duration::from_secs(10)).expect("the flag arrives");
            at[usize::from(side)] = when;
        }
        delays.push((at[1] - at[0]).as_secs_f64());
        calls.push((at[1] - start).as_secs_f64());
        std::thread::sleep(Duration::from_millis(3));
        fsyncs.push(probe.once());
    }
    let fsync = median(fsyncs);
    table.beside(
        "– commit until visible on the other side, loopback, p50",
        Unit::Seconds,
        0.005 + 2.0 * fsync,
        median(delays),
        2.0 * fsync,
        "2 fsyncs",
    );
    table
        .note(format!("From the call that sets the flag it is {} (p50).", Unit::Seconds.show(median(calls))));
    living.stop();
    serving.stop();
}

/// Goal 5.
pub(crate) fn store_many(table: &mut Table, work: &Path, messages: usize) {
    let first = Home::found(work);
    first.fill("INBOX", messages);
    let (second, _) = first.invite(work, "127.0.0.1:1");
    second.talk(&first, Stay::Once).run();
    let uids = first.uids("INBOX");
    let mut cpus = Vec::new();
    for keyword in ["\\Flagged", "\\Answered", "$Forwarded"] {
        let mut wire = second.talk(&first, Stay::Live);
        while wire.step() {}
        let changes = |home: &Home| home.replica.status().expect("a status").changes;
        let before = (changes(&second), wire.receiving[0], wire.sent[1]);
        let start = cpu();
        first.flag("INBOX", &uids, keyword);
        let storing = cpu() - start;
        while wire.step() {}
        cpus.push(wire.receiving[0] - before.1);
        if keyword == "$Forwarded" {
            let made = (changes(&second) - before.0) as f64;
            table.row(&format!("STORE of one flag on {messages} messages: changes"), Unit::Count, 1.0, made);
            table.note(format!(
                "That STORE is {} on the wire and costs {} of CPU where it is made.",
                Unit::Bytes.show((wire.sent[1] - before.2) as f64),
                Unit::Seconds.show(storing)
            ));
        }
    }
    let scale = (messages as f64 / 10_000.0).max(0.1);
    table.row("– applied by the other side: CPU", Unit::Seconds, 0.1 * scale, median(cpus));
}

/// Goal 6.
pub(crate) fn apart(table: &mut Table, work: &Path, messages: usize) {
    let first = Home::found(work);
    first.fill("INBOX", messages);
    first.replica.create_mailbox(&name("Archive"), None).expect("a mailbox");
    let (second, _) = first.invite(work, "127.0.0.1:1");
    second.talk(&first, Stay::Once).run();
    let uids = first.uids("INBOX");
    let mut random = Random(6);
    let mut picked = BTreeSet::new();
    while picked.len() < 480 {
        picked.insert(uids[random.below(uids.len())]);
    }
    let mut picked: Vec<Uid> = picked.into_iter().collect();
    for home in [&first, &second] {
        for n in 0..240 {
            let uid = picked.swap_remove(random.below(picked.len()));
            match n % 12 {
                0 => {
                    home.replica.move_to(home.seen("INBOX"), &[uid], &name("Archive")).expect("a move");
                }
                1 => {
                    home.replica.expunge(home.seen("INBOX"), &[uid]).expect("an expunge");
                }
                2..7 => home.flag("INBOX", &[uid], "\\Flagged"),
                _ => home.flag("INBOX", &[uid], "\\Answered"),
            }
        }
    }
    let mut total = [0u64; 2];
    let mut rounds = 0;
    while first.replica.digest().expect("a digest") != second.replica.digest().expect("a digest") {
        rounds += 1;
        assert!(rounds < 5, "two replicas that talked five times are equal");
        let mut wire = second.talk(&first, Stay::Once);
        wire.run();
        total = [total[0] + wire.sent[0], total[1] + wire.sent[1]];
    }
    let bytes = (total[0] + total[1]) as f64;
    table.row(
        "400 flag changes, 40 moves, 40 expunges, made apart: bytes both ways",
        Unit::Bytes,
        20_000.0,
        bytes,
    );
    table.note(format!(
        "They took {rounds} conversation(s): {} bytes there, {} back; {:.0} a change.",
        total[0],
        total[1],
        bytes / 480.0
    ));
}

/// A node that serves until it is told to stop.
pub(crate) struct Serving {
    stop: tokio::sync::oneshot::Sender<()>,
    done: mpsc::Receiver<()>,
}

pub(crate) fn serve(runtime: &Runtime, node: &Node) -> Serving {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (ended, done) = mpsc::channel();
    let node = node.clone();
    runtime.spawn(async move {
        node.serve(async { _ = stopped.await }).await.expect("a node serves");
        let _ = ended.send(());
    });
    Serving { stop, done }
}

impl Serving {
    pub(crate) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.done.recv_timeout(Duration::from_secs(10));
    }
}

/// Carries UDP between clients of one address and a server, late by `delay`, and counts.
pub(crate) struct Relay {
    pub(crate) address: String,
    server: Arc<std::sync::Mutex<SocketAddr>>,
    counts: Arc<[AtomicU64; 2]>,
}

impl Relay {
    pub(crate) fn start(server: SocketAddr, delay: Duration) -> Relay {
        let [front, back] = [(); 2].map(|()| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let plain = socket2::SockRef::from(&socket);
            let _ = plain.set_recv_buffer_size(8 << 20);
            let _ = plain.set_send_buffer_size(8 << 20);
            Arc::new(socket)
        });
        let address = front.local_addr().expect("an address").to_string();
        let server = Arc::new(std::sync::Mutex::new(server));
        let client = Arc::new(std::sync::Mutex::new(*server.lock().expect("nobody panics")));
        let counts: Arc<[AtomicU64; 2]> = Arc::default();
        let met = Some(client.clone());
        carry(front.clone(), back.clone(), met, server.clone(), delay, counts.clone(), 0);
        carry(back, front, None, client, delay, counts.clone(), 1);
        Relay { address, server, counts }
    }

    pub(crate) fn set_server(&self, server: SocketAddr) {
        *self.server.lock().expect("nobody panics") = server;
    }

    /// Bytes of UDP payload to the server and back.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.counts[0].load(Ordering::Relaxed), self.counts[1].load(Ordering::Relaxed))
    }

    pub(crate) fn reset(&self) {
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

/// One direction. Its threads end with the process.
fn carry(
    from: Arc<UdpSocket>,
    via: Arc<UdpSocket>,
    met: Option<Arc<std::sync::Mutex<SocketAddr>>>,
    to: Arc<std::sync::Mutex<SocketAddr>>,
    delay: Duration,
    counts: Arc<[AtomicU64; 2]>,
    side: usize,
) {
    let (queue, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, sender)) = from.recv_from(&mut buffer) {
            if let Some(met) = &met {
                *met.lock().expect("nobody panics") = sender;
            }
            counts[side].fetch_add(length as u64, Ordering::Relaxed);
            if queue.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (at, bytes) in due {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let to = *to.lock().expect("nobody panics");
            let _ = via.send_to(&bytes, to);
        }
    });
}
