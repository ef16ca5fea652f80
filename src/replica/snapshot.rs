//! What clients are shown, as one commit left it.

use super::core::{Core, ERA, Standing};
use super::record::LocalRecord;
use super::{Replica, ReplicaError, lock, now};
use crate::mailbox::{AccountId, MailboxId, MailboxName, ModSeq, Uid};
use crate::member::Role;
use crate::mutation::{Mutation, instead};
use crate::store::Reader;
use crate::uid::{
    AccountError, ChangedUids, Changes, Event, Mailbox, Seen, Shown, Table, Tables, View, Written,
};

/// The account as one commit left it, whatever is written later. A mailbox is read from it only if, at that very commit,
/// every message of it had the UID it is shown under; else the read fails with [`ReplicaError::Unsettled`].
///
/// [`Replica::snapshot`] prepares all mailboxes, [`Replica::open_mailbox`] and [`Replica::snapshot_of`] prepare one. While it
/// lives the database keeps what it sees, so a session takes a new one for each command instead of keeping it for hours.
pub struct Snapshot {
    reader: Reader,
    account: AccountId,
    observer: bool,
    prepared: Prepared,
}

/// Which mailboxes are known to be settled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prepared {
    Unknown,
    One(MailboxId),
    All,
}

/// Which mailboxes somebody wants to see.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    One(MailboxId),
    Named(&'a MailboxName),
    All,
}

impl Snapshot {
    /// Without looking whether anything is settled.
    pub(super) fn view(&self) -> View<'_, Reader> {
        View::new(&self.reader, self.account, self.observer)
    }

    pub(super) fn tables(&self) -> &Reader {
        &self.reader
    }

    /// The mailboxes by name. Costs O(mailboxes), two look-ups each.
    pub fn mailboxes(&self) -> Result<Vec<Mailbox>, ReplicaError> {
        if self.prepared != Prepared::All
            && let Some(mailbox) = self.view().unsettled()?.first()
        {
            return Err(ReplicaError::Unsettled { mailbox: *mailbox });
        }
        let era = self.era()?;
        let own = |mailbox: Mailbox| Mailbox { highest_modseq: own(mailbox.highest_modseq, era), ..mailbox };
        Ok(self.view().mailboxes()?.into_iter().map(own).collect())
    }

    /// The mailbox that bears a name. One look-up.
    pub fn find(&self, name: &MailboxName) -> Result<Option<MailboxId>, ReplicaError> {
        Ok(self.view().find(name)?)
    }

    /// One mailbox; nothing if it is not shown.
    pub fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, ReplicaError> {
        self.is_settled(id)?;
        let Some(mailbox) = self.view().mailbox(id)? else { return Ok(None) };
        Ok(Some(Mailbox { highest_modseq: own(mailbox.highest_modseq, self.era()?), ..mailbox }))
    }

    /// Messages of a mailbox from UID `from` on, ascending, `limit` at most. Costs about 10 µs each.
    pub fn messages(&self, id: MailboxId, from: Uid, limit: usize) -> Result<Vec<Shown>, ReplicaError> {
        self.is_settled(id)?;
        self.owned(self.view().messages(id, from, limit)?)
    }

    /// One message. Costs four look-ups.
    pub fn message(&self, id: MailboxId, uid: Uid) -> Result<Option<Shown>, ReplicaError> {
        self.is_settled(id)?;
        Ok(self.owned(self.view().message(id, uid)?.into_iter().collect())?.pop())
    }

    /// The UIDs of all messages of a mailbox, ascending: what message sequence numbers are counted from. Reads no message,
    /// but one row of some 30 bytes, in order, for each UID that was ever given out; takes 4 bytes of memory for each that
    /// is shown.
    pub fn uids(&self, id: MailboxId) -> Result<Vec<Uid>, ReplicaError> {
        self.is_settled(id)?;
        Ok(self.view().uids(id)?)
    }

    /// What changed in a mailbox after a mod-sequence (RFC 7162): nothing at all if the value was given by another history
    /// and means nothing here, and then all messages and [`Snapshot::hidden`] are the answer. Costs O(changes since then),
    /// about 10 µs each.
    pub fn changed_since(&self, id: MailboxId, since: ModSeq) -> Result<Option<Changes>, ReplicaError> {
        self.is_settled(id)?;
        if !self.is_own(since)? {
            return Ok(None);
        }
        let Changes { changed, vanished } = self.view().changed_since(id, since.counter())?;
        Ok(Some(Changes { changed: self.owned(changed)?, vanished }))
    }

    /// The UIDs of what [`Snapshot::changed_since`] gives, for who reads the messages later or not at all. Costs one look-up
    /// and 4 bytes of memory each.
    pub fn uids_changed_since(
        &self,
        id: MailboxId,
        since: ModSeq,
    ) -> Result<Option<ChangedUids>, ReplicaError> {
        self.is_settled(id)?;
        let own = self.is_own(since)?;
        Ok(own.then(|| self.view().uids_changed_since(id, since.counter())).transpose()?)
    }

    /// The UIDs up to `up_to` that are not shown, as first and last of each run, ascending: what has vanished for a client
    /// whose mod-sequence is of another history. A client may know UIDs above UIDNEXT from another server; `up_to` is the
    /// highest that it can know. Costs as much as [`Snapshot::uids`].
    pub fn hidden(&self, id: MailboxId, up_to: Uid) -> Result<Vec<(Uid, Uid)>, ReplicaError> {
        let (mut hidden, mut next) = (Vec::new(), Some(Uid::FIRST));
        for shown in self.uids(id)? {
            let Some(first) = next.filter(|_| shown <= up_to) else { break };
            if let Some(last) = Uid::new(shown.value() - 1).filter(|last| *last >= first) {
                hidden.push((first, last));
            }
            next = shown.value().checked_add(1).and_then(Uid::new);
        }
        hidden.extend(next.filter(|first| *first <= up_to).map(|first| (first, up_to)));
        Ok(hidden)
    }

    /// The era of the mod-sequences that this replica gives.
    pub fn era(&self) -> Result<u16, ReplicaError> {
        let era = self.reader.get(Table::Meta, ERA)?;
        Ok(era.and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes))
    }

    /// Whether a mod-sequence that a client brings was given by this replica's present history. Another one says nothing of
    /// what the client knows.
    pub fn is_own(&self, modseq: ModSeq) -> Result<bool, ReplicaError> {
        Ok(modseq.era() == self.era()?)
    }

    fn is_settled(&self, id: MailboxId) -> Result<(), ReplicaError> {
        let known = self.prepared == Prepared::All || self.prepared == Prepared::One(id);
        if known || self.view().is_settled(id)? {
            return Ok(());
        }
        Err(ReplicaError::Unsettled { mailbox: id })
    }

    fn owned(&self, mut messages: Vec<Shown>) -> Result<Vec<Shown>, ReplicaError> {
        let era = self.era()?;
        messages.iter_mut().for_each(|message| message.modseq = own(message.modseq, era));
        Ok(messages)
    }

    /// Which of the wanted mailboxes are not settled, and the snapshot that knows of it.
    fn prepare(mut self, wanted: Wanted<'_>) -> Result<(Snapshot, Vec<MailboxId>), ReplicaError> {
        let (prepared, waiting) = match wanted {
            Wanted::All => (Prepared::All, self.view().unsettled()?),
            Wanted::One(id) => (Prepared::One(id), self.waits(id)?),
            Wanted::Named(name) => {
                let id = self.find(name)?.ok_or_else(|| AccountError::NoMailbox { name: name.clone() })?;
                (Prepared::One(id), self.waits(id)?)
            }
        };
        if waiting.is_empty() {
            self.prepared = prepared;
        }
        Ok((self, waiting))
    }

    fn waits(&self, id: MailboxId) -> Result<Vec<MailboxId>, ReplicaError> {
        Ok(if self.view().is_settled(id)? { Vec::new() } else { vec![id] })
    }
}

/// Rows that were written before the era changed keep the old one. A counter never falls, so it stays true in the new era,
/// and a client that is told so is not answered in full for ever.
fn own(modseq: ModSeq, era: u16) -> ModSeq {
    ModSeq::new(modseq.counter(), era)
}

impl Replica {
    /// The last commit, with every mailbox ready to be read. Costs O(mailboxes), three look-ups each; what waits for UIDs is
    /// given some first, durably.
    pub fn snapshot(&self) -> Result<Snapshot, ReplicaError> {
        self.settled(Wanted::All)
    }

    /// The last commit, with one mailbox ready to be read; a mailbox that is not shown has nothing to be read. Costs four
    /// look-ups and waits for no writer, unless UIDs must be given first.
    pub fn snapshot_of(&self, mailbox: MailboxId) -> Result<Snapshot, ReplicaError> {
        self.settled(Wanted::One(mailbox))
    }

    /// The last commit, with the mailbox of a name ready to be read, and that mailbox.
    pub fn open_mailbox(&self, name: &MailboxName) -> Result<(Snapshot, Mailbox), ReplicaError> {
        let snapshot = self.settled(Wanted::Named(name))?;
        let mailbox = snapshot.find(name)?.map(|id| snapshot.mailbox(id)).transpose()?.flatten();
        let mailbox = mailbox.ok_or_else(|| AccountError::NoMailbox { name: name.clone() })?;
        Ok((snapshot, mailbox))
    }

    /// Makes sure that every message of a mailbox, or of all, has the UID it is shown under. On a server it claims; an
    /// observer gives private UIDs.
    pub fn settle(&self, mailbox: Option<MailboxId>) -> Result<(), ReplicaError> {
        match self.settled(mailbox.map_or(Wanted::All, Wanted::One)) {
            Ok(_) | Err(ReplicaError::Unsettled { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The last commit, of which nothing is known yet.
    pub(super) fn view(&self) -> Result<Snapshot, ReplicaError> {
        Ok(self.view_of(self.0.handle.reader()?))
    }

    fn view_of(&self, reader: Reader) -> Snapshot {
        let observer = matches!(self.standing(), Standing::Observer | Standing::Outsider);
        Snapshot { reader, account: self.account(), observer, prepared: Prepared::Unknown }
    }

    /// What this replica may do, without waiting for the writer.
    pub(super) fn standing(&self) -> Standing {
        *lock(&self.0.standing)
    }

    fn settled(&self, wanted: Wanted<'_>) -> Result<Snapshot, ReplicaError> {
        match self.standing() {
            Standing::Outsider => return Err(ReplicaError::NotJoined),
            Standing::Waiting => return Err(ReplicaError::NotReady),
            Standing::Observer | Standing::Server => {}
        }
        let (snapshot, waiting) = self.view()?.prepare(wanted)?;
        if waiting.is_empty() {
            return Ok(snapshot);
        }
        drop(snapshot);
        if self.standing() == Standing::Server && self.0.elders.any() {
            let look = || {
                let (snapshot, waiting) = self.view()?.prepare(wanted)?;
                Ok(waiting.is_empty().then_some(snapshot))
            };
            if let Some(snapshot) = self.await_elders(look)? {
                return Ok(snapshot);
            }
        }
        // While the writer is held, nothing can come between the last claim and the look at it.
        let (events, snapshot, waiting) = self.with(|core| {
            let (_, waiting) = self.view_of(core.store.reader()?).prepare(wanted)?;
            let claim = || give_uids(core, wanted, &waiting);
            let events = instead(Mutation::UnsyncedClaims, Mutation::UnsyncedLog, claim)?;
            let (snapshot, waiting) = self.view_of(core.store.reader()?).prepare(wanted)?;
            Ok((events, snapshot, waiting))
        })?;
        if !events.is_empty() {
            self.tell(&events);
        }
        match waiting.first() {
            Some(mailbox) => Err(ReplicaError::Unsettled { mailbox: *mailbox }),
            None => Ok(snapshot),
        }
    }

    /// What operations on a mailbox take, and the UIDs of some of its entries.
    pub(super) fn arrivals(
        &self,
        mailbox: MailboxId,
        entries: impl Iterator<Item = crate::mailbox::EntryId> + Clone,
    ) -> (Option<Seen>, Vec<Option<Uid>>) {
        let nothing = || (None, vec![None; entries.clone().count()]);
        let look = || -> Result<(Option<Seen>, Vec<Option<Uid>>), ReplicaError> {
            let snapshot = self.snapshot_of(mailbox)?;
            let Some(row) = snapshot.mailbox(mailbox)? else { return Ok(nothing()) };
            let uids = entries.clone().map(|entry| snapshot.view().uid_in(mailbox, entry));
            Ok((Some(row.seen()), uids.collect::<Result<_, _>>()?))
        };
        // The messages are there durably; an error now must not look as if they were not.
        look().unwrap_or_else(|error| {
            if !matches!(error, ReplicaError::NotReady) {
                tracing::warn!(%error, "the UIDs of new messages could not be read");
            }
            nothing()
        })
    }
}

fn give_uids(core: &mut Core, wanted: Wanted<'_>, waiting: &[MailboxId]) -> Result<Vec<Event>, ReplicaError> {
    let mut events = Vec::new();
    if waiting.is_empty() {
        return Ok(events);
    }
    if core.role() == Role::Server {
        let one = waiting.first().copied().filter(|_| !matches!(wanted, Wanted::All));
        let ((), told) = core.show(&[], |account, txn| Ok(((), account.settle(txn, now(), one)?)))?;
        return Ok(told);
    }
    for mailbox in waiting {
        loop {
            let reader = core.store.reader()?;
            let Some(planned) = core.account()?.plan_private(&reader, now(), *mailbox)? else { break };
            drop(reader);
            let records = [LocalRecord::Private(planned)];
            let ((), told) = core.show(&records, |_, _| Ok(((), Written::default())))?;
            events.extend(told);
        }
    }
    Ok(events)
}
