//! What clients are shown, and how the replica is.

use super::core::{Core, waiting};
use super::{Replica, ReplicaError, owed};
use crate::mailbox::{AccountId, EntryId, MailboxId, MailboxName, ReplicaId, Uid};
use crate::member::Role;
use crate::uid::{Mailbox, Shown};

pub(super) use super::snapshot::Snapshot;

/// How a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The account.
    pub account: AccountId,
    /// The replica.
    pub replica: ReplicaId,
    /// What it does.
    pub role: Role,
    /// Whether it can show UIDs: a new server cannot before its first sync.
    pub ready: bool,
    /// Mailboxes that are shown.
    pub mailboxes: u64,
    /// Messages in them, those too that wait for their UIDs.
    pub messages: u64,
    /// Changes in the account.
    pub changes: u64,
    /// Bodies that have not arrived yet.
    pub owed_bodies: u64,
    /// Their size in bytes.
    pub owed_bytes: u64,
    /// Changes that are here and not shown: they follow ones that were lost to damage and that a peer has.
    pub waiting_changes: u64,
}

impl Replica {
    /// What this replica does.
    pub fn role(&self) -> Result<Role, ReplicaError> {
        self.with(|core| Ok(core.role()))
    }

    /// The mailboxes by name, each ready to be shown.
    pub fn mailboxes(&self) -> Result<Vec<Mailbox>, ReplicaError> {
        self.snapshot()?.mailboxes()
    }

    /// One mailbox by its name.
    pub fn mailbox(&self, name: &MailboxName) -> Result<Mailbox, ReplicaError> {
        Ok(self.open_mailbox(name)?.1)
    }

    /// Messages of a mailbox from UID `from` on, ascending, `limit` at most. Costs about 10 µs each. Who reads more than
    /// once, or acts on what was read, takes a [`Snapshot`].
    pub fn messages(&self, name: &MailboxName, from: Uid, limit: usize) -> Result<Vec<Shown>, ReplicaError> {
        let (snapshot, mailbox) = self.open_mailbox(name)?;
        snapshot.messages(mailbox.id, from, limit)
    }

    /// Every message of every mailbox, claimed or not, in no particular order.
    pub(super) fn entries_of(&self, mailbox: MailboxId) -> Result<Vec<EntryId>, ReplicaError> {
        Ok(self.view()?.view().entries_of(mailbox)?)
    }

    /// How the replica is. Does not load the document.
    pub fn status(&self) -> Result<Status, ReplicaError> {
        let (replica, role, ready) =
            self.with(|core| Ok((core.identity.replica, core.role(), core.is_ready()?)))?;
        let snapshot = self.view()?;
        let (mut owed_bodies, mut owed_bytes) = (0, 0);
        for body in self.owed(&snapshot, usize::MAX)? {
            // It came in some other way, and the next session will note that.
            if self.has_body(body.blob)? {
                continue;
            }
            owed_bodies += 1;
            owed_bytes += body.size;
        }
        let shown = snapshot.view().mailboxes()?;
        let messages = shown.iter().map(|mailbox| mailbox.messages).sum();
        let mailboxes = shown.len() as u64;
        let changes = snapshot.tables().vector()?.values().sum();
        let waiting_changes = waiting(snapshot.tables())?.len() as u64;
        let account = self.account();
        Ok(Status {
            account,
            replica,
            role,
            ready,
            mailboxes,
            messages,
            changes,
            owed_bodies,
            owed_bytes,
            waiting_changes,
        })
    }

    /// The first `limit` bodies that are owed and needed.
    pub(super) fn owed(&self, snapshot: &Snapshot, limit: usize) -> Result<Vec<owed::Owed>, ReplicaError> {
        let (mut found, mut last) = (Vec::new(), None);
        while found.len() < limit {
            let part = owed::list(snapshot.tables(), last.as_ref(), 1000)?;
            let Some(end) = part.last().cloned() else { break };
            for body in part {
                if found.len() < limit && owed::is_needed(&snapshot.view(), &body)? {
                    found.push(body);
                }
            }
            last = Some(end);
        }
        Ok(found)
    }

    /// After a repair: finds messages whose bodies are gone and notes them as owed, so that a peer is asked for them. Gives
    /// how many. Costs O(messages).
    pub fn note_lost_bodies(&self) -> Result<u64, ReplicaError> {
        let mut lost = 0;
        for mailbox in self.view()?.view().mailboxes()? {
            let entries = self.entries_of(mailbox.id)?;
            lost += self.with(|core| {
                let bodies = core.store.bodies().clone();
                let mut txn = core.store.begin()?;
                let count = owed::note_entries(&mut txn, &bodies, self.account(), mailbox.id, &entries)?;
                txn.commit()?;
                Ok(count)
            })?;
        }
        Ok(lost)
    }

    /// Names what this replica has: equal on two replicas exactly if they have the same changes and members.
    pub fn digest(&self) -> Result<[u8; 16], ReplicaError> {
        self.with(|core| digest(core))
    }
}

pub(super) fn digest(core: &Core) -> Result<[u8; 16], ReplicaError> {
    Ok(digest_of(&core.members.digest(), &Core::heads(&core.store.reader()?)?))
}

pub(super) fn digest_of(members: &[u8; 16], heads: &[[u8; 32]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("postmerge 1 state digest");
    hasher.update(members);
    hasher.update(&heads.concat());
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}
