//! Clients do anything on several replicas while merges come in: what they are told always fits what they were told before,
//! and when all is quiet they know just what the replica has.

use postmerge::mailbox::{EntryId, Uid};
use postmerge::member::Role;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::peer::Peer;
use crate::strict::Strict;

/// Something that happens. `Index` picks a client, a replica or a message.
#[derive(Clone, Debug)]
enum Act {
    Append,
    Store { add: bool, flag: &'static str, silent: bool, by_uid: bool },
    Expunge,
    UidExpunge,
    Move { by_uid: bool },
    Copy,
    Fetch,
    Search,
    Noop,
    Idle,
    Reselect,
    Roam,
    Deliver,
    Mark { flag: &'static str },
    Remove,
    Merge,
    Pipeline,
    Verify,
}

fn act() -> impl Strategy<Value = Act> {
    let flag = || prop::sample::select(&["\\Seen", "\\Flagged", "\\Deleted", "work"][..]);
    prop_oneof![
        2 => Just(Act::Append),
        4 => (any::<bool>(), flag(), any::<bool>(), any::<bool>())
            .prop_map(|(add, flag, silent, by_uid)| Act::Store { add, flag, silent, by_uid }),
        2 => Just(Act::Expunge),
        1 => Just(Act::UidExpunge),
        1 => any::<bool>().prop_map(|by_uid| Act::Move { by_uid }),
        1 => Just(Act::Copy),
        2 => Just(Act::Fetch),
        1 => Just(Act::Search),
        2 => Just(Act::Noop),
        2 => Just(Act::Idle),
        1 => Just(Act::Reselect),
        1 => Just(Act::Roam),
        4 => Just(Act::Deliver),
        2 => flag().prop_map(|flag| Act::Mark { flag }),
        2 => Just(Act::Remove),
        5 => Just(Act::Merge),
        2 => Just(Act::Pipeline),
        1 => Just(Act::Verify),
    ]
}

/// Where the observer stands among the replicas. Its UIDs are its own, so nobody roams from it or to it.
const OBSERVER: usize = 2;

/// Two servers and an observer, two clients of the first server and one of each other replica.
struct World {
    peers: [Peer; 3],
    /// Each with the number of its replica.
    clients: Vec<(usize, Strict)>,
    bodies: u32,
}

impl World {
    fn new() -> World {
        let first = Peer::found();
        first.replica.create_mailbox(&"Work".parse().unwrap(), None).unwrap();
        for number in 0..4 {
            first.deliver(&format!("Subject: first {number}\r\n\r\nx\r\n"));
        }
        let peers = [first.invite(Role::Server, 2), first.invite(Role::Observer, 3)];
        let [second, observer] = peers;
        second.sync(&first);
        let clients = vec![
            (0, Strict::login(&first.account, false)),
            (0, Strict::login(&first.account, true)),
            (1, Strict::login(&second.account, true)),
            (OBSERVER, Strict::login(&observer.account, true)),
        ];
        World { peers: [first, second, observer], clients, bodies: 0 }
    }

    fn body(&mut self) -> String {
        self.bodies += 1;
        format!("Subject: {0}\r\n\r\nmessage {0}\r\n", self.bodies)
    }

    fn run(&mut self, act: &Act, who: Index, which: Index) {
        match act {
            Act::Deliver => {
                let body = self.body();
                who.get(&self.peers).deliver(&body);
            }
            Act::Mark { flag } => {
                let peer = who.get(&self.peers);
                let shown = peer.inbox();
                if !shown.is_empty() {
                    peer.mark(which.get(&shown).uid.value(), flag);
                }
            }
            Act::Remove => {
                let peer = who.get(&self.peers);
                let shown = peer.inbox();
                if !shown.is_empty() {
                    peer.expunge(which.get(&shown).uid.value());
                }
            }
            Act::Merge => self.merge(who),
            act => {
                let at = who.index(self.clients.len());
                self.client(at, act, which);
            }
        }
        for (_, client) in &mut self.clients {
            client.changed();
        }
    }

    /// Syncs until nothing is new. Servers claim and burn when they show a mailbox, which is news for the other.
    fn heal(&self) {
        let [first, second, observer] = &self.peers;
        for _ in 0..8 {
            first.sync(second);
            observer.sync(first);
            second.sync(first);
            if uids(first) == uids(second) {
                return;
            }
        }
        panic!("the servers do not come to rest");
    }

    fn merge(&self, who: Index) {
        let (one, other) = [(0, 1), (1, 0), (2, 1), (0, 2)][who.index(4)];
        self.peers[one].sync(&self.peers[other]);
    }

    fn client(&mut self, at: usize, act: &Act, which: Index) {
        let body = self.body();
        let World { peers, clients, .. } = self;
        let (server, client) = &mut clients[at];
        client.wake();
        match act {
            Act::Verify => client.verify(&peers[*server]),
            Act::Reselect => drop(client.select()),
            Act::Roam if *server == OBSERVER => {}
            Act::Roam => {
                *server = 1 - *server;
                client.roam(&peers[*server].account);
            }
            Act::Idle => client.sleep(),
            Act::Noop => drop(client.command("NOOP", true)),
            Act::Append => {
                client.command(&format!("APPEND INBOX (\\Seen) {{{}+}}\r\n{body}", body.len()), true);
            }
            Act::Expunge => drop(client.command("EXPUNGE", true)),
            _ if client.exists() == 0 => {}
            act => on_message(client, act, 1 + which.index(client.exists() as usize) as u32, &peers[..2]),
        }
        if !client.idle {
            client.look();
        }
    }
}

fn uids(peer: &Peer) -> Vec<(Uid, EntryId)> {
    peer.inbox().iter().map(|message| (message.uid, message.entry)).collect()
}

/// What is done to one message.
fn on_message(client: &mut Strict, act: &Act, seq: u32, servers: &[Peer]) {
    let uid = client.uid(seq);
    let (command, expunges) = match act {
        Act::Store { add, flag, silent: true, by_uid: false } => {
            return client.store_silent(seq, *add, flag);
        }
        Act::Store { add, flag, by_uid, .. } => {
            let sign = if *add { '+' } else { '-' };
            match by_uid {
                true => (format!("UID STORE {uid} {sign}FLAGS ({flag})"), true),
                false => (format!("STORE {seq} {sign}FLAGS ({flag})"), false),
            }
        }
        Act::UidExpunge => (format!("UID EXPUNGE {uid}"), true),
        Act::Move { by_uid: true } => (format!("UID MOVE {uid} Work"), true),
        Act::Move { by_uid: false } => (format!("MOVE {seq} Work"), true),
        Act::Copy => (format!("COPY {seq} INBOX"), true),
        Act::Fetch => (format!("FETCH {seq} (UID FLAGS EMAILID BODY.PEEK[])"), false),
        Act::Search => (format!("SEARCH UID {uid}"), false),
        Act::Pipeline => {
            let commands = [
                format!("t UID FETCH {uid} (FLAGS)"),
                format!("t STORE {seq} +FLAGS (\\Answered)"),
                format!("t FETCH {seq} (UID FLAGS)"),
            ];
            return client.pipeline(&commands, || servers[0].sync(&servers[1]));
        }
        other => unreachable!("{other:?} is about no message"),
    };
    client.command(&command, expunges);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_client_is_ever_told_a_lie(
        acts in prop::collection::vec((act(), any::<Index>(), any::<Index>()), 1..60),
    ) {
        let mut world = World::new();
        for (act, who, which) in &acts {
            world.run(act, *who, *which);
        }
        for (server, client) in &mut world.clients {
            client.verify(&world.peers[*server]);
            // And once more as a client that was away.
            client.select();
            client.verify(&world.peers[*server]);
        }
        world.heal();
        for (server, client) in &mut world.clients {
            client.verify(&world.peers[*server]);
        }
    }
}
