//! A replica as its IMAP sessions share it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use postmerge::mailbox::{MailboxId, ModSeq, Uid};
use postmerge::replica::{Replica, ReplicaError, Snapshot};
use postmerge::uid::{Mailbox, Seen};

use crate::summaries::summarize_arrivals;
use crate::uids::UidList;

/// Mailboxes whose UIDs are remembered. A list is some kilobytes; who has more mailboxes selected at a time pays with a
/// reading of the index.
const MAX_LISTS: usize = 1000;

/// An account that sessions have opened. Clones share it.
#[derive(Clone)]
pub struct Account {
    replica: Replica,
    lists: Arc<Mutex<BTreeMap<MailboxId, Listed>>>,
}

/// The UIDs of a mailbox as of a mod-sequence.
#[derive(Clone)]
struct Listed {
    seen: Seen,
    modseq: ModSeq,
    uids: UidList,
}

impl Account {
    /// Takes a replica that is open.
    pub fn new(replica: Replica) -> Account {
        summarize_arrivals(&replica);
        Account { replica, lists: Arc::default() }
    }

    /// The replica.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Whether anybody else holds a clone: a session, say.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.lists) > 1
    }

    /// The UIDs of a mailbox in a snapshot. Costs O(changes since somebody asked last); the first time 0.5 µs for each UID.
    pub(crate) fn uids(&self, snapshot: &Snapshot, mailbox: &Mailbox) -> Result<UidList, ReplicaError> {
        let known = self.lists.lock().unwrap_or_else(PoisonError::into_inner).get(&mailbox.id).cloned();
        let known = known.filter(|known| known.seen == mailbox.seen());
        let uids = match known {
            Some(known) if known.modseq == mailbox.highest_modseq => return Ok(known.uids),
            Some(known) => match catch_up(snapshot, mailbox, known)? {
                Some(uids) => uids,
                None => read(snapshot, mailbox)?,
            },
            None => read(snapshot, mailbox)?,
        };
        let listed = Listed { seen: mailbox.seen(), modseq: mailbox.highest_modseq, uids: uids.clone() };
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.len() >= MAX_LISTS && !lists.contains_key(&mailbox.id) {
            lists.pop_first();
        }
        lists.insert(mailbox.id, listed);
        Ok(uids)
    }
}

fn read(snapshot: &Snapshot, mailbox: &Mailbox) -> Result<UidList, ReplicaError> {
    Ok(snapshot.uids(mailbox.id)?.into_iter().map(Uid::value).collect())
}

/// Nothing if what is remembered does not lead to what is there, as after an older snapshot.
fn catch_up(snapshot: &Snapshot, mailbox: &Mailbox, known: Listed) -> Result<Option<UidList>, ReplicaError> {
    let mut uids = known.uids;
    let Some(changes) = snapshot.uids_changed_since(mailbox.id, known.modseq)? else { return Ok(None) };
    let vanished: Vec<u32> = changes.vanished.iter().map(|uid| uid.value()).collect();
    uids.remove(&vanished);
    for uid in changes.shown.iter().map(|uid| uid.value()) {
        if uids.seq(uid).is_none() && !uids.push(uid) {
            return Ok(None);
        }
    }
    Ok((u64::from(uids.len()) == mailbox.messages).then_some(uids))
}
