//! Replicas in temporary directories, and conversations between them that are pumped by hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use postmerge::mailbox::{EntryId, Keyword, MailboxName, Uid};
use postmerge::member::{MemberName, PeerId, Role, SecretKey};
use postmerge::replica::{Founding, Invitation, Link, LinkError, LinkEvent, Replica, Stay};
use postmerge::uid::Block;
use tempfile::TempDir;

/// A replica and where it lives.
pub(crate) struct Home {
    pub(crate) replica: Replica,
    pub(crate) endpoint: PeerId,
    pub(crate) dir: TempDir,
}

pub(crate) fn endpoint(seed: u8) -> PeerId {
    SecretKey::from_seed([seed; 32]).peer_id()
}

pub(crate) fn name(text: &str) -> MailboxName {
    text.parse().unwrap()
}

impl Home {
    pub(crate) fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn found(role: Role) -> Home {
        Home::found_with(role, Block::STANDARD)
    }

    pub(crate) fn found_with(role: Role, block: Block) -> Home {
        let dir = TempDir::new().unwrap();
        let founding =
            Founding { role, name: MemberName::new("first").unwrap(), block, endpoint: endpoint(1) };
        let replica =
            Replica::found(&dir.path().join("store"), Some(&dir.path().join("state")), &founding).unwrap();
        Home { replica, endpoint: endpoint(1), dir }
    }

    /// Invites, joins and does the first sync.
    pub(crate) fn invite(&self, role: Role, seed: u8) -> Home {
        self.invite_named(role, seed, "guest")
    }

    /// The same with a name for the guest.
    pub(crate) fn invite_named(&self, role: Role, seed: u8, name: &str) -> Home {
        let (guest, links) = self.invite_with(role, seed, name);
        pump(links.0, links.1).unwrap();
        guest
    }

    /// The guest and the conversation in which it joins, not pumped yet.
    pub(crate) fn invite_linked(&self, role: Role, seed: u8) -> (Home, (Link, Link)) {
        self.invite_with(role, seed, "guest")
    }

    fn invite_with(&self, role: Role, seed: u8, name: &str) -> (Home, (Link, Link)) {
        let invitation = Invitation {
            role,
            addresses: vec!["127.0.0.1:1".into()],
            endpoint: self.endpoint,
            valid_for: 60,
        };
        let ticket = self.replica.invite(&invitation).unwrap();
        let dir = TempDir::new().unwrap();
        let (store, state) = (dir.path().join("store"), dir.path().join("state"));
        let replica = Replica::prepare_join(&store, Some(&state), &ticket).unwrap();
        let guest = Home { replica, endpoint: endpoint(seed), dir };
        let join = guest.replica.guest(&ticket, guest.endpoint, MemberName::new(name).unwrap()).unwrap();
        let binding = [seed; 32];
        let from = Link::join(&guest.replica, &ticket, &join, binding, Stay::Once, Duration::ZERO).unwrap();
        let to = Link::respond(&self.replica, binding, Some(guest.endpoint), Duration::ZERO);
        (guest, (from, to))
    }

    /// One conversation with a member, until both have the same.
    pub(crate) fn sync(&self, with: &Home) -> Vec<LinkEvent> {
        let (from, to) = self.links(with);
        pump(from, to).unwrap()
    }

    pub(crate) fn links(&self, with: &Home) -> (Link, Link) {
        let (peer, binding) = (with.replica.id().unwrap(), [9; 32]);
        let (ours, theirs) = (self.endpoint, with.endpoint);
        let from = Link::initiate(&self.replica, peer, Some(theirs), binding, Stay::Once, Duration::ZERO);
        (from.unwrap(), Link::respond(&with.replica, binding, Some(ours), Duration::ZERO))
    }

    /// Both ends of a conversation that goes on.
    pub(crate) fn live(&self, with: &Home) -> [Link; 2] {
        let (peer, now, binding) = (with.replica.id().unwrap(), Duration::ZERO, [9; 32]);
        let from =
            Link::initiate(&self.replica, peer, Some(with.endpoint), binding, Stay::Live, now).unwrap();
        [from, Link::respond(&with.replica, binding, Some(self.endpoint), now)]
    }

    /// Closes the replica and opens it again.
    pub(crate) fn reopen(&mut self) {
        self.shut();
        self.open();
    }

    /// Closes the replica and lets its lock go.
    pub(crate) fn shut(&mut self) {
        self.replica.close().unwrap();
        self.replica = spare();
    }

    pub(crate) fn open(&mut self) {
        self.replica = Replica::open(&self.store(), Some(&self.state())).unwrap();
    }

    pub(crate) fn append(&self, mailbox: &str, body: &str) -> EntryId {
        self.replica.append(&name(mailbox), body.as_bytes(), Default::default(), Some(1_000)).unwrap().entry
    }

    pub(crate) fn uid_of(&self, mailbox: &str, entry: EntryId) -> Option<Uid> {
        let messages = self.replica.messages(&name(mailbox), Uid::FIRST, usize::MAX).unwrap();
        messages.into_iter().find(|message| message.entry == entry).map(|message| message.uid)
    }

    /// Everything that clients see, with the UIDs that servers show.
    pub(crate) fn picture(&self) -> Picture {
        let mut picture = Picture::new();
        for mailbox in self.replica.mailboxes().unwrap() {
            let messages = self.replica.messages(&mailbox.name, Uid::FIRST, usize::MAX).unwrap();
            assert_eq!(messages.len() as u64, mailbox.messages, "{} is counted right", mailbox.name);
            let messages = messages.into_iter().map(|message| {
                let mut body = Vec::new();
                let mut reader = self.replica.body(message.entry).unwrap();
                std::io::Read::read_to_end(&mut reader, &mut body).unwrap();
                let keywords: Vec<Keyword> = message.keywords.into_iter().collect();
                (message.entry, (message.shared_uid.map(Uid::value), keywords, body))
            });
            picture.insert(mailbox.name.to_string(), messages.collect());
        }
        picture
    }
}

fn spare() -> Replica {
    // `reopen` needs something in the place of the closed replica while its lock is let go.
    Home::found(Role::Observer).replica
}

pub(crate) type Picture = BTreeMap<String, BTreeMap<EntryId, (Option<u32>, Vec<Keyword>, Vec<u8>)>>;

/// Carries bytes between two ends until the first is finished; gives what happened on its side. Time stands still, but for
/// what both wait for.
pub(crate) fn pump(from: Link, to: Link) -> Result<Vec<LinkEvent>, LinkError> {
    let (mut ends, mut events, mut now) = ([from, to], Vec::new(), Duration::ZERO);
    let mut wire = [0u64; 2];
    loop {
        let mut quiet = true;
        for side in 0..2 {
            while let Some(bytes) = ends[side].poll_send(16 << 10)? {
                quiet = false;
                wire[side] += bytes.len() as u64;
                ends[1 - side].receive(&bytes, now)?;
            }
            while let Some(event) = ends[side].poll_event() {
                if side == 0 {
                    events.push(event);
                }
                // A commit on one side is news for its own conversation too.
                ends[side].wake(now)?;
            }
        }
        if ends[0].is_finished() {
            return Ok(events);
        }
        if quiet {
            let next = ends.iter().filter_map(Link::poll_timeout).min();
            now = next.expect("both ends wait for nothing");
            for end in &mut ends {
                end.handle_timeout(now)?;
            }
        }
    }
}

/// Carries what two live ends have to say until both are quiet, in pieces of at most `piece` bytes; gives the bytes that each
/// sent. Both hear of every commit.
pub(crate) fn exchange(ends: &mut [Link; 2], piece: usize, mut until: impl FnMut() -> bool) -> [usize; 2] {
    let (now, mut sent) = (Duration::ZERO, [0; 2]);
    let mut quiet = 0;
    while quiet < 2 && !until() {
        quiet += 1;
        for side in 0..2 {
            ends[side].wake(now).unwrap();
            while let Some(bytes) = ends[side].poll_send(piece).unwrap() {
                quiet = 0;
                sent[side] += bytes.len();
                ends[1 - side].receive(&bytes, now).unwrap();
                if until() {
                    return sent;
                }
            }
        }
    }
    sent
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
