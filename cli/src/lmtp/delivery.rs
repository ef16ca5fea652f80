//! A message on its way from a connection into the stores of its recipients.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::{self, Seek, Write};
use std::path::PathBuf;

use postmerge::blob::{BlobId, MAX_BLOB};
use postmerge::mailbox::MailboxName;
use postmerge::replica::{Replica, ReplicaError};
use tempfile::SpooledTempFile;

use super::recipients::Recipient;
use super::reply::Reply;
use crate::incoming;

/// Bytes of a message that are held in memory until it is whole: most messages. The rest goes to a file without a name in
/// the directory of temporary files.
const IN_MEMORY: usize = 256 << 10;

/// A message that is being received. It is kept apart from the stores until it is whole, so that a store that fails, or
/// is full, is its own recipients' trouble only.
pub(super) struct Delivery {
    spool: SpooledTempFile,
    /// Bytes so far, and how many of them are not the client's.
    length: u64,
    added: u64,
    failed: Option<io::Error>,
}

impl Delivery {
    /// Begins with the header that names the sender.
    pub(super) fn new(sender: &str) -> Delivery {
        let spool = SpooledTempFile::new(IN_MEMORY);
        let mut delivery = Delivery { spool, length: 0, added: 0, failed: None };
        delivery.push(incoming::return_path(sender, "\r\n").as_bytes());
        delivery.added = delivery.length;
        delivery
    }

    /// Adds a piece. What cannot be kept, or is too much, is counted only: the client goes on to the end, and hears of it
    /// then.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        if self.failed.is_none() && self.length <= MAX_BLOB {
            self.failed = self.spool.write_all(piece).err();
        }
    }

    /// Puts the message into the mailboxes of its recipients, once into each, and its body once into each store. What is
    /// confirmed is durable. Gives a reply for each recipient.
    pub(super) fn finish(mut self, recipients: &[Recipient]) -> Vec<Reply> {
        if let Some(refused) = self.refused() {
            return recipients.iter().map(|_| refused.clone()).collect();
        }
        let mut bodies: BTreeMap<PathBuf, Result<BlobId, Reply>> = BTreeMap::new();
        let mut done: BTreeMap<(PathBuf, MailboxName), Reply> = BTreeMap::new();
        let mut replies = Vec::with_capacity(recipients.len());
        for recipient in recipients {
            let key = (recipient.store.clone(), recipient.mailbox.clone());
            if !done.contains_key(&key) {
                let put = || self.put(recipient);
                let body = bodies.entry(recipient.store.clone()).or_insert_with(put).clone();
                let reply = body.and_then(|body| add(recipient, body));
                done.insert(key.clone(), reply.unwrap_or_else(|reply| reply));
            }
            replies.push(done[&key].clone());
        }
        replies
    }

    /// Why nobody gets it.
    fn refused(&mut self) -> Option<Reply> {
        if self.length == self.added {
            return Some(Reply::new(554, "6.0", "the message is empty"));
        }
        if self.length > MAX_BLOB {
            return Some(Reply::new(552, "3.4", format!("the message is larger than {MAX_BLOB} bytes")));
        }
        let error = self.failed.take()?;
        tracing::error!(%error, dir = %std::env::temp_dir().display(), "cannot keep a message in a temporary file");
        Some(unless_full(&error))
    }

    fn put(&mut self, recipient: &Recipient) -> Result<BlobId, Reply> {
        let put = |replica: &Replica, spool: &mut SpooledTempFile| {
            spool.rewind().map_err(|source| ReplicaError::Source { source })?;
            Ok(replica.put_body(spool)?.0)
        };
        put(&recipient.replica, &mut self.spool).map_err(|error| failed(recipient, &error))
    }
}

fn add(recipient: &Recipient, body: BlobId) -> Result<Reply, Reply> {
    let added = incoming::add(&recipient.replica, &recipient.mailbox, body, &BTreeSet::new());
    let (mailbox, added) = added.map_err(|error| failed(recipient, &error))?;
    let user = recipient.user.as_str();
    tracing::info!(user, mailbox = mailbox.as_str(), entry = %added.entry, "delivered");
    Ok(Reply::new(250, "0.0", format!("entry {}", added.entry)))
}

/// What the client is told, without the paths of this machine: a reply may come before a stranger's eyes in a bounce.
fn failed(recipient: &Recipient, error: &ReplicaError) -> Reply {
    let error: &(dyn std::error::Error + 'static) = error;
    let user = recipient.user.as_str();
    tracing::error!(user, store = %recipient.store.display(), error, "cannot deliver");
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return unless_full(error);
        }
        cause = error.source();
    }
    Reply::new(451, "3.0", "cannot be stored now; the log says why")
}

/// Disks get room again: whatever the system says, another try may do.
fn unless_full(error: &io::Error) -> Reply {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Reply::new(452, "3.1", "there is no room on the disk")
        }
        _ => Reply::new(451, "3.0", "cannot be stored now; the log says why"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use postmerge::mailbox::Uid;
    use postmerge::member::{MemberName, Role, SecretKey};
    use postmerge::replica::Founding;
    use postmerge::store::StoreError;
    use postmerge::uid::Block;
    use tempfile::TempDir;

    use super::*;

    fn replica(dir: &TempDir, name: &str) -> Replica {
        let endpoint = SecretKey::from_seed([7; 32]).peer_id();
        let founding = Founding {
            role: Role::Server,
            name: MemberName::new(name).unwrap(),
            block: Block::STANDARD,
            endpoint,
        };
        Replica::found(&dir.path().join(name), None, &founding).unwrap()
    }

    fn recipient(replica: &Replica, user: &str, mailbox: &str) -> Recipient {
        let store = replica.account().to_string().into();
        Recipient {
            user: user.parse().unwrap(),
            store,
            replica: replica.clone(),
            mailbox: mailbox.parse().unwrap(),
        }
    }

    fn bodies(replica: &Replica, mailbox: &str) -> Vec<Vec<u8>> {
        let messages = replica.messages(&mailbox.parse().unwrap(), Uid::FIRST, 100).unwrap();
        let body = |entry| {
            let mut body = Vec::new();
            replica.body(entry).unwrap().read_to_end(&mut body).unwrap();
            body
        };
        messages.iter().map(|message| body(message.entry)).collect()
    }

    fn deliver(pieces: &[&[u8]], recipients: &[Recipient]) -> Vec<String> {
        let mut delivery = Delivery::new("a@b");
        pieces.iter().for_each(|piece| delivery.push(piece));
        delivery.finish(recipients).iter().map(|reply| reply.to_string()[..9].to_owned()).collect()
    }

    #[test]
    fn each_mailbox_gets_it_once_and_a_mailbox_that_is_not_there_is_inbox() {
        let dir = TempDir::new().unwrap();
        let (kim, lee) = (replica(&dir, "kim"), replica(&dir, "lee"));
        kim.create_mailbox(&"Work".parse().unwrap(), None).unwrap();
        let recipients = [
            recipient(&kim, "kim", "INBOX"),
            recipient(&lee, "lee", "Nowhere"),
            recipient(&kim, "kim", "Work"),
            recipient(&kim, "kimberly", "INBOX"),
        ];
        let long = vec![b'x'; IN_MEMORY];
        let replies = deliver(&[b"To: a\r\n\r\n", &long, b"\r\n"], &recipients);
        assert_eq!(replies, ["250 2.0.0"; 4]);
        let whole = [b"Return-Path: <a@b>\r\nTo: a\r\n\r\n", &long[..], b"\r\n"].concat();
        for (replica, mailbox) in [(&kim, "INBOX"), (&kim, "Work"), (&lee, "INBOX")] {
            assert!(bodies(replica, mailbox) == std::slice::from_ref(&whole), "{mailbox}");
        }
    }

    #[test]
    fn a_store_that_fails_is_its_own_recipients_trouble() {
        let dir = TempDir::new().unwrap();
        let (kim, lee) = (replica(&dir, "kim"), replica(&dir, "lee"));
        kim.close().unwrap();
        let recipients = [
            recipient(&kim, "kim", "INBOX"),
            recipient(&lee, "lee", "INBOX"),
            recipient(&kim, "kim", "Work"),
        ];
        assert_eq!(deliver(&[b"x"], &recipients), ["451 4.3.0", "250 2.0.0", "451 4.3.0"]);
        assert_eq!(bodies(&lee, "INBOX"), [b"Return-Path: <a@b>\r\nx"]);
    }

    #[test]
    fn what_cannot_be_taken_is_answered_for_each() {
        let dir = TempDir::new().unwrap();
        let kim = recipient(&replica(&dir, "kim"), "kim", "INBOX");
        let two = [kim.clone(), kim.clone()];
        assert_eq!(deliver(&[], &two), ["554 5.6.0"; 2]);
        let mut large = Delivery::new("");
        large.length = MAX_BLOB;
        large.push(b"x");
        assert_eq!(large.finish(&two)[1].to_string()[..9], *"552 5.3.4");
        let mut unlucky = Delivery::new("");
        unlucky.push(b"x");
        unlucky.failed = Some(io::ErrorKind::StorageFull.into());
        assert_eq!(unlucky.finish(&two)[0].to_string()[..9], *"452 4.3.1");
        let full = StoreError::Io {
            action: "write",
            path: "/mail/x".into(),
            source: io::ErrorKind::QuotaExceeded.into(),
        };
        let told = failed(&kim, &full.into()).to_string();
        assert_eq!(told, "452 4.3.1 there is no room on the disk");
        assert!(bodies(&kim.replica, "INBOX").is_empty());
    }
}
