//! Replicas of one account that talk to each other when a test wants it, without a network.

use std::time::Duration;

use postmerge::mailbox::{Keyword, MailboxName, Uid};
use postmerge::member::{MemberName, PeerId, Role, SecretKey};
use postmerge::replica::{Founding, Invitation, Link, LinkError, Replica, Stay};
use postmerge::uid::{Block, KeywordChange, Shown};
use postmerge_imap::Account;
use tempfile::TempDir;

/// A replica that goes away with its directory.
pub(crate) struct Peer {
    pub(crate) replica: Replica,
    pub(crate) account: Account,
    endpoint: PeerId,
    _dir: TempDir,
}

fn name(mailbox: &str) -> MailboxName {
    mailbox.parse().unwrap()
}

fn endpoint(seed: u8) -> PeerId {
    SecretKey::from_seed([seed; 32]).peer_id()
}

impl Peer {
    /// The server that makes the account.
    pub(crate) fn found() -> Peer {
        let dir = tempfile::tempdir().unwrap();
        let name = MemberName::new("first").unwrap();
        let founding = Founding { role: Role::Server, name, block: Block::STANDARD, endpoint: endpoint(1) };
        let replica = Replica::found(&dir.path().join("mail"), None, &founding).unwrap();
        Peer { account: Account::new(replica.clone()), replica, endpoint: endpoint(1), _dir: dir }
    }

    /// Another replica, which has all that this one has.
    pub(crate) fn invite(&self, role: Role, seed: u8) -> Peer {
        let invitation = Invitation {
            role,
            addresses: vec!["127.0.0.1:1".into()],
            endpoint: self.endpoint,
            valid_for: 60,
        };
        let ticket = self.replica.invite(&invitation).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::prepare_join(&dir.path().join("mail"), None, &ticket).unwrap();
        let join = replica.guest(&ticket, endpoint(seed), MemberName::new("guest").unwrap()).unwrap();
        let from = Link::join(&replica, &ticket, &join, [seed; 32], Stay::Once, Duration::ZERO).unwrap();
        let to = Link::respond(&self.replica, [seed; 32], Some(endpoint(seed)), Duration::ZERO);
        pump(from, to).unwrap();
        Peer { account: Account::new(replica.clone()), replica, endpoint: endpoint(seed), _dir: dir }
    }

    /// One conversation, after which both have the same.
    pub(crate) fn sync(&self, with: &Peer) {
        let (from, to) = self.links(with);
        pump(from, to).unwrap();
    }

    /// The same, but no bodies come here.
    pub(crate) fn sync_without_bodies(&self, with: &Peer) {
        let (mut from, to) = self.links(with);
        from.leave_bodies();
        pump(from, to).unwrap();
    }

    fn links(&self, with: &Peer) -> (Link, Link) {
        let (peer, now) = (with.replica.id().unwrap(), Duration::ZERO);
        let from = Link::initiate(&self.replica, peer, Some(with.endpoint), [9; 32], Stay::Once, now);
        (from.unwrap(), Link::respond(&with.replica, [9; 32], Some(self.endpoint), now))
    }

    /// Delivers a message to INBOX.
    pub(crate) fn deliver(&self, body: &str) {
        self.deliver_to("INBOX", body);
    }

    pub(crate) fn deliver_to(&self, mailbox: &str, body: &str) {
        self.replica.append(&name(mailbox), body.as_bytes(), Default::default(), None).unwrap();
    }

    /// What INBOX shows.
    pub(crate) fn inbox(&self) -> Vec<Shown> {
        self.shown("INBOX")
    }

    /// What a mailbox shows.
    pub(crate) fn shown(&self, mailbox: &str) -> Vec<Shown> {
        self.replica.open_mailbox(&name(mailbox)).unwrap();
        self.replica.messages(&name(mailbox), Uid::FIRST, usize::MAX).unwrap()
    }

    /// The UID in INBOX of the message with this body.
    pub(crate) fn uid(&self, body: &str) -> Option<u32> {
        let blob = postmerge::blob::BlobId::of(body.as_bytes());
        self.inbox().into_iter().find(|message| message.blob == blob).map(|message| message.uid.value())
    }

    /// Sets a keyword of a message in INBOX.
    pub(crate) fn mark(&self, uid: u32, keyword: &str) {
        let set = [keyword.parse::<Keyword>().unwrap()].into();
        let change = KeywordChange::Edit { set, clear: Default::default() };
        let inbox = self.replica.mailbox(&MailboxName::inbox()).unwrap();
        self.replica.store_keywords(inbox.seen(), &[Uid::new(uid).unwrap()], &change, None).unwrap();
    }

    /// Expunges a message of INBOX.
    pub(crate) fn expunge(&self, uid: u32) {
        let inbox = self.replica.mailbox(&MailboxName::inbox()).unwrap();
        self.replica.expunge(inbox.seen(), &[Uid::new(uid).unwrap()]).unwrap();
    }
}

/// Carries bytes between two ends until the first is finished. Time stands still, but for what both wait for.
fn pump(from: Link, to: Link) -> Result<(), LinkError> {
    let (mut ends, mut now) = ([from, to], Duration::ZERO);
    loop {
        let mut quiet = true;
        for side in 0..2 {
            while let Some(bytes) = ends[side].poll_send(16 << 10)? {
                quiet = false;
                ends[1 - side].receive(&bytes, now)?;
            }
            while ends[side].poll_event().is_some() {
                ends[side].wake(now)?;
            }
        }
        if ends[0].is_finished() {
            return Ok(());
        }
        if quiet {
            now = ends.iter().filter_map(Link::poll_timeout).min().expect("both ends wait for nothing");
            for end in &mut ends {
                end.handle_timeout(now)?;
            }
        }
    }
}
