//! The one writer of a replica: the store, and the document while it is needed.
//!
//! Order of a commit: bodies, the log, the index; only then is anybody told. On any failure the document in memory is
//! dropped, and the next use loads what is on disk.

use std::collections::BTreeMap;

use super::identity::{Identity, Outside, Watch};
use super::record::{LocalRecord, decode_version, encode_version};
use super::{ReplicaError, owed, signatures};
use crate::mailbox::{Change, Document, DocumentError, ReplicaId, UidValidity};
use crate::member::{Members, Role};
use crate::mutation::{Mutation, planted};
use crate::store::{BodyStore, Group, Position, Record, Store, StoreError, Txn};
use crate::uid::{
    Account, AccountError, Block, Event, Grant, Lane, Table, TableError, Tables, TablesMut, Written,
};

/// Names of rows in [`Table::Meta`].
const HEADS: &[u8] = b"heads";
pub(super) const ERA: &[u8] = b"era";
const GRANTED: &[u8] = b"granted";
/// Followed by the hash of a change, in a row for each that waits for a lost one.
const WAITING: &[u8] = b"waiting:";
const WAITING_END: &[u8] = b"waiting;";

/// Logged bytes after which a snapshot is written, unless half of the last one is more: loading then never costs much
/// more than the snapshot itself.
const SNAPSHOT_BYTES: usize = 4 << 20;
/// This replica's changes after which the note outside of the store is renewed.
const WATCH_CHANGES: u64 = 64;

/// What a replica may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was not let into the account yet: nobody would take what it writes.
    Outsider,
    /// It shows private UIDs.
    Observer,
    /// A server that has not heard from its inviter: it may write, and show no UIDs.
    Waiting,
    /// It claims UIDs.
    Server,
}

pub(super) struct Core {
    pub(super) store: Store,
    pub(super) identity: Identity,
    pub(super) members: Members,
    watch: Watch,
    outside: Option<Outside>,
    /// Nothing while the document is not needed.
    account: Option<Account>,
    /// Whether changes of the log wait for ones that are lost.
    waits: bool,
    since_snapshot: usize,
    /// How often something was committed since this was opened.
    pub(super) commits: u64,
    snapshot_len: usize,
}

impl Core {
    /// Takes a store whose index may lag behind its log, and brings it up to date.
    pub(super) fn open(
        store: Store,
        identity: Identity,
        members: Members,
        watch: Watch,
    ) -> Result<Core, ReplicaError> {
        let outside = watch.read();
        let mut core = Core {
            store,
            identity,
            members,
            watch,
            outside,
            account: None,
            waits: false,
            since_snapshot: 0,
            commits: 0,
            snapshot_len: 0,
        };
        core.catch_up()?;
        core.waits = !waiting(&core.store.reader()?)?.is_empty();
        Ok(core)
    }

    /// Refuses where the store was opened for reading only.
    pub(super) fn writable(&self) -> Result<(), ReplicaError> {
        match self.store.is_read_only() {
            true => Err(StoreError::ReadOnly { path: self.store.dir().to_owned() }.into()),
            false => Ok(()),
        }
    }

    /// The role of this replica, by the membership log.
    pub(super) fn role(&self) -> Role {
        self.members.get(self.identity.replica).map_or(Role::Observer, |member| member.role)
    }

    /// What the replica may do. Once it is a server or an observer it stays that.
    pub(super) fn standing(&self) -> Result<Standing, ReplicaError> {
        Ok(match self.members.get(self.identity.replica).map(|member| member.role) {
            None => Standing::Outsider,
            Some(Role::Observer | Role::Reader | Role::Deliver) => Standing::Observer,
            Some(Role::Server) if self.is_ready()? => Standing::Server,
            Some(Role::Server) => Standing::Waiting,
        })
    }

    pub(super) fn lane(&self) -> Option<Lane> {
        self.members.lane_of(self.identity.replica).filter(|_| self.role() == Role::Server)
    }

    fn grant(&self, tables: &impl Tables) -> Result<Option<Grant>, ReplicaError> {
        let Some(lane) = self.lane() else { return Ok(None) };
        let inviter = self.members.get(self.identity.replica).and_then(|member| member.inviter);
        let after = match (inviter, tables.get(Table::Meta, GRANTED)?) {
            (_, Some(bytes)) => decode_version(&bytes).unwrap_or_default(),
            // Until the inviter was heard once, it is not known what it had claimed.
            (Some(inviter), None) => BTreeMap::from([(inviter, u64::MAX)]),
            (None, None) => BTreeMap::new(),
        };
        Ok(Some(Grant { lane, after }))
    }

    fn new_account(&self, doc: Document, era: u16) -> Result<Account, ReplicaError> {
        let block = self.members.block().unwrap_or(Block::STANDARD);
        let grant = self.grant(&self.store.reader()?)?;
        let mut account = Account::new(self.identity.account, doc, grant, block, era);
        account.set_under(self.members.under(self.identity.replica));
        Ok(account)
    }

    /// The era of the index; nothing for a new one.
    fn era(&self) -> Result<Option<u16>, ReplicaError> {
        let era = self.store.reader()?.get(Table::Meta, ERA)?;
        Ok(era.and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes))
    }

    /// Replays what the log has and the index has not: after a crash a little, for a new index everything. A new index
    /// also gets an era of its own, since its mod-sequences may not be those that clients know.
    fn catch_up(&mut self) -> Result<(), ReplicaError> {
        let at = self.store.reader()?.position();
        let known = self.era()?;
        let era = match known {
            Some(era) => era,
            None => u16::from_be_bytes(super::random()?),
        };
        if at == self.store.position() {
            if known.is_none() {
                let account = self.new_account(Document::new(self.identity.replica), era)?;
                let mut txn = self.store.begin()?;
                prepare(&account, &mut txn, era)?;
                txn.commit()?;
            }
            return Ok(());
        }
        tracing::info!(from = %at, to = %self.store.position(), "replaying the log into the index");
        let doc = self.load_document(at)?;
        let mut account = self.new_account(doc, era)?;
        let bodies = self.store.bodies().clone();
        let (mut fresh, mut waiting) = (known.is_none(), self.waiting_changes()?);
        while let Some((groups, mut txn)) = self.store.replay()? {
            if std::mem::take(&mut fresh) {
                prepare(&account, &mut txn, era)?;
            }
            for group in groups {
                replay_group(&mut account, &mut txn, &bodies, group, &mut waiting)?;
            }
            put_heads(&mut txn, &account)?;
            note_waiting(&mut txn, &waiting)?;
            txn.commit()?;
        }
        self.account = Some(account);
        self.refresh_grant()?;
        if waiting.is_empty() || self.store.is_read_only() { Ok(()) } else { self.mend(waiting) }
    }

    /// The changes of the log that wait for ones that are lost.
    fn waiting_changes(&self) -> Result<Vec<Change>, ReplicaError> {
        let reader = self.store.reader()?;
        let mut changes = Vec::new();
        for hash in waiting(&reader)? {
            if let Some((actor, seq)) = reader.change_of(&hash)?
                && let Some(change) = reader.change(actor, seq)?
            {
                changes.push(Change::vet(&change.bytes).map_err(DocumentError::from)?);
            }
        }
        Ok(changes)
    }

    /// Takes changes of others. What waited for one of them in the log comes in with it.
    pub(super) fn receive(
        &mut self,
        records: &[LocalRecord],
        changes: Vec<Change>,
    ) -> Result<Vec<Event>, ReplicaError> {
        if !self.waits {
            let receive = |account: &mut Account, txn: &mut Txn<'_>| Ok(((), account.receive(txn, changes)?));
            return Ok(self.change(records, receive)?.1);
        }
        let (before, bodies, own) =
            (self.waiting_changes()?, self.store.bodies().clone(), self.identity.replica);
        let (left, events) = self.change(records, |account, txn| {
            let here = |change: &Change| account.document().change(&change.hash()).is_some();
            let waits = |change: &Change| before.iter().any(|one| one.hash() == change.hash());
            let fresh: Vec<Change> = changes.into_iter().filter(|one| !here(one) && !waits(one)).collect();
            let rest = account.replay(txn, before.iter().chain(&fresh).cloned().collect())?;
            if let Some(change) = rest.iter().find(|change| !waits(change)) {
                // It follows something that is neither here nor came: the peer should not have sent it.
                let (replica, seq) = (change.replica(), change.seq());
                return Err(DocumentError::MissingDependency { replica, seq }.into());
            }
            let healed = |change: &&Change| rest.iter().all(|one| one.hash() != change.hash());
            let healed: Vec<Change> = before.iter().filter(healed).cloned().collect();
            owed::note(account, txn, &bodies, own, &healed).map_err(|error| TableError(error.to_string()))?;
            note_waiting(txn, &rest)?;
            Ok((rest.len(), Written { batches: vec![fresh], events: Vec::new() }))
        })?;
        if left < before.len() {
            tracing::info!(healed = before.len() - left, left, "lost changes came from a peer");
            self.waits = left > 0;
            // They are in an order now that the log does not have.
            self.snapshot()?;
        }
        Ok(events)
    }

    /// After a repair cut damage out of the log: takes what is missing from the snapshot, which holds all of its past. What
    /// that does not have, a peer has: with the next sync it comes, and what waited comes in with it.
    fn mend(&mut self, mut waiting: Vec<Change>) -> Result<(), ReplicaError> {
        let donor = match self.store.latest_snapshot()? {
            Some((_, bytes)) => Document::load(&bytes, self.identity.replica).ok(),
            None => None,
        };
        while let Some(donor) = &donor {
            let document = self.account()?.document();
            let mut found: Vec<Change> = Vec::new();
            for change in &waiting {
                // Parents come last, and may be found again from another child.
                for lost in lost_past(document, donor, change).into_iter().rev() {
                    if found.iter().all(|known| known.hash() != lost.hash()) {
                        found.push(lost);
                    }
                }
            }
            if found.is_empty() {
                break;
            }
            tracing::warn!(changes = found.len(), "took lost changes from the snapshot");
            let batch: Vec<Change> = found.iter().chain(&waiting).cloned().collect();
            let before = waiting.len();
            self.change(&[], |account, txn| {
                waiting = account.replay(txn, batch)?;
                note_waiting(txn, &waiting)?;
                let mended =
                    found.into_iter().filter(|change| account.document().change(&change.hash()).is_some());
                Ok(((), Written { batches: vec![mended.collect()], events: Vec::new() }))
            })?;
            if waiting.is_empty() {
                return Ok(());
            }
            if waiting.len() >= before {
                break;
            }
        }
        tracing::error!(
            changes = waiting.len(),
            "changes wait for lost ones; the next sync with a peer brings those"
        );
        Ok(())
    }

    /// The document as of a position of the log: the newest snapshot before it, and the changes since.
    fn load_document(&mut self, until: Position) -> Result<Document, ReplicaError> {
        let replica = self.identity.replica;
        let (mut position, mut doc) = (Position(0), None);
        if let Some((at, bytes)) = self.store.snapshot_until(until)? {
            self.snapshot_len = bytes.len();
            match Document::load(&bytes, replica) {
                Ok(loaded) => (position, doc) = (at, Some(loaded)),
                Err(error) => tracing::warn!(%error, "the snapshot does not load; reading the whole log"),
            }
        }
        let mut doc = doc.unwrap_or_else(|| Document::new(replica));
        self.since_snapshot = 0;
        let mut waiting: Vec<Change> = Vec::new();
        for group in self.store.reader()?.groups_after(position)? {
            let group = group?;
            if group.position > until {
                break;
            }
            for record in group.records {
                if let Record::Change(change) = record {
                    self.since_snapshot += change.bytes.len();
                    waiting.push(Change::vet(&change.bytes).map_err(DocumentError::from)?);
                }
            }
            waiting = doc.apply_ready(waiting, |_| {})?;
        }
        Ok(doc)
    }

    /// The account with its document, loaded if need be.
    pub(super) fn account(&mut self) -> Result<&mut Account, ReplicaError> {
        if self.account.is_none() {
            let doc = self.load_document(self.store.position())?;
            let era = self.era()?.unwrap_or_default();
            self.account = Some(self.new_account(doc, era)?);
        }
        Ok(self.account.as_mut().expect("it was just loaded"))
    }

    /// Drops the document; the next use loads it again.
    pub(super) fn unload(&mut self) {
        self.account = None;
    }

    /// After membership or what the inviter knew changed: takes the lane that holds now.
    pub(super) fn refresh_grant(&mut self) -> Result<(), ReplicaError> {
        let grant = self.grant(&self.store.reader()?)?;
        if let Some(account) = &mut self.account {
            account.set_grant(grant);
            account.set_under(self.members.under(self.identity.replica));
        }
        Ok(())
    }

    /// Whether clients can be served, without loading the document.
    pub(super) fn is_ready(&self) -> Result<bool, ReplicaError> {
        let reader = self.store.reader()?;
        let version = reader.vector()?;
        Ok(self.grant(&reader)?.is_none_or(|grant| grant.is_ready(&version)))
    }

    /// Does something to the account and commits what it wrote, with local records before it.
    pub(super) fn change<R>(
        &mut self,
        records: &[LocalRecord],
        act: impl FnOnce(&mut Account, &mut Txn<'_>) -> Result<(R, Written), AccountError>,
    ) -> Result<(R, Vec<Event>), ReplicaError> {
        self.writable()?;
        self.show(records, act)
    }

    /// The same for what must be decided before it can be shown. In a store that is only read, it is decided in memory.
    pub(super) fn show<R>(
        &mut self,
        records: &[LocalRecord],
        act: impl FnOnce(&mut Account, &mut Txn<'_>) -> Result<(R, Written), AccountError>,
    ) -> Result<(R, Vec<Event>), ReplicaError> {
        let logs = !self.store.is_read_only();
        self.account()?;
        // While it is taken out, any early return drops it: it may be ahead of the disk.
        let mut account = self.account.take().expect("it was just loaded");
        let own = |account: &Account| account.document().version().get(&self.identity.replica).copied();
        let before = own(&account);
        let version = account.document().version().clone();
        let bodies = self.store.bodies().clone();
        let role = self.role();
        let mut txn = self.store.begin()?;
        for record in records {
            if logs {
                txn.log_local(&record.encode())?;
            }
            apply_local(&mut account, &mut txn, record)?;
        }
        let (result, written) = match act(&mut account, &mut txn) {
            Ok(done) => done,
            Err(error) => {
                drop(txn);
                if *account.document().version() == version && !matches!(error, AccountError::Document(_)) {
                    self.account = Some(account);
                }
                return Err(error.into());
            }
        };
        let own = |change: &&Change| change.replica() == self.identity.replica;
        let overstep = written.changes().filter(own).find_map(|change| role.permits(change.touched()).err());
        if let Some(overstep) = overstep {
            // The account is ahead of the disk, and is dropped.
            return Err(ReplicaError::Role { role, overstep });
        }
        if written.is_empty() && records.is_empty() {
            drop(txn);
            self.account = Some(account);
            return Ok((result, Vec::new()));
        }
        let mut logged = 0;
        for batch in written.batches.iter().filter(|_| logs) {
            for change in batch {
                let (author, seq, signature) = (change.replica(), change.seq(), change.signature());
                txn.log_change(author, seq, change.hash(), change.bytes(), signature)?;
                logged += change.bytes().len();
            }
            txn.log_local(&LocalRecord::BatchEnd.encode())?;
            owed::note(&account, &mut txn, &bodies, self.identity.replica, batch)?;
        }
        put_heads(&mut txn, &account)?;
        let outside = Outside { seq: before.unwrap_or(0), validity: account.highest_uid_validity(&txn)? };
        if logs && outgrown(self.outside, outside) {
            // Before the commit: a UIDVALIDITY that was shown must never be forgotten.
            self.watch.write(outside)?;
            self.outside = Some(outside);
        }
        txn.commit()?;
        self.commits += 1;
        self.since_snapshot += logged;
        self.account = Some(account);
        self.refresh_grant()?;
        if logs && self.since_snapshot > SNAPSHOT_BYTES.max(self.snapshot_len / 2) {
            self.snapshot()?;
        }
        Ok((result, written.events))
    }

    /// Writes a snapshot of the document, after making sure that it loads.
    pub(super) fn snapshot(&mut self) -> Result<(), ReplicaError> {
        let position = self.store.position();
        let replica = self.identity.replica;
        let account = self.account()?;
        let bytes = account.document().save();
        if Document::load(&bytes, replica)?.heads() != account.document().heads() {
            tracing::error!("a snapshot would not load as it was saved; the log is kept in its place");
            return Ok(());
        }
        self.store.write_snapshot(position, &bytes)?;
        self.since_snapshot = 0;
        self.snapshot_len = bytes.len();
        Ok(())
    }

    /// Notes outside of the store who will go on in the place of this replica, and above which UIDVALIDITY.
    pub(super) fn hand_over(
        &mut self,
        successor: ReplicaId,
        floor: Option<UidValidity>,
    ) -> Result<(), ReplicaError> {
        let reader = self.store.reader()?;
        let inside = self.account()?.highest_uid_validity(&reader)?;
        let validity = [floor, self.outside.map(|outside| outside.validity)].into_iter().flatten();
        let seq = match self.outside {
            Some(outside) => outside.seq,
            None => reader.last_seq(self.identity.replica)?,
        };
        self.watch.hand_over(successor, Outside { seq, validity: validity.fold(inside, UidValidity::max) })
    }

    /// Goes on as another replica, whose note outside is another one too.
    pub(super) fn become_successor(&mut self, identity: Identity) {
        self.watch = self.watch.of_successor(&identity);
        self.outside = None;
        self.identity = identity;
        self.unload();
    }

    /// What the note outside of the store says.
    pub(super) fn outside(&self) -> Option<Outside> {
        self.outside
    }

    /// Renews the note outside and closes the store.
    pub(super) fn close(mut self) -> Result<(), ReplicaError> {
        if self.store.is_read_only() {
            return Ok(self.store.close()?);
        }
        let reader = self.store.reader()?;
        let seq = reader.last_seq(self.identity.replica)?;
        if let Some(outside) = self.outside.filter(|outside| outside.seq != seq) {
            self.watch.write(Outside { seq, ..outside })?;
        }
        drop(reader);
        // For a small document a snapshot costs little, and it is what a damaged log is mended from.
        let worth = self.since_snapshot * 8 > self.snapshot_len || self.since_snapshot > SNAPSHOT_BYTES / 16;
        if self.account.is_some() && self.since_snapshot > 0 && worth {
            self.snapshot()?;
        }
        Ok(self.store.close()?)
    }

    /// The heads of the document, ascending, without loading it.
    pub(super) fn heads(tables: &impl Tables) -> Result<Vec<[u8; 32]>, ReplicaError> {
        let bytes = tables.get(Table::Meta, HEADS)?;
        let heads = bytes.map(|b| b.chunks_exact(32).filter_map(|hash| hash.try_into().ok()).collect());
        Ok(heads.unwrap_or_else(Document::genesis_heads))
    }
}

/// The hashes of the changes that wait for ones that are lost.
pub(super) fn waiting(tables: &impl Tables) -> Result<Vec<[u8; 32]>, TableError> {
    let rows = tables.range(Table::Meta, WAITING, WAITING_END, usize::MAX)?;
    Ok(rows.iter().filter_map(|(key, _)| key.strip_prefix(WAITING)?.try_into().ok()).collect())
}

fn note_waiting(txn: &mut Txn<'_>, changes: &[Change]) -> Result<(), TableError> {
    for hash in waiting(txn)? {
        txn.remove(Table::Meta, &[WAITING, &hash].concat())?;
    }
    for change in changes {
        txn.put(Table::Meta, &[WAITING, &change.hash()].concat(), &[])?;
    }
    Ok(())
}

fn outgrown(old: Option<Outside>, new: Outside) -> bool {
    old.is_none_or(|old| new.validity > old.validity || new.seq >= old.seq + WATCH_CHANGES)
}

fn prepare(account: &Account, txn: &mut Txn<'_>, era: u16) -> Result<(), ReplicaError> {
    txn.put(Table::Meta, ERA, &era.to_be_bytes())?;
    account.prepare(txn)?;
    Ok(())
}

fn put_heads(txn: &mut Txn<'_>, account: &Account) -> Result<(), ReplicaError> {
    Ok(txn.put(Table::Meta, HEADS, &account.document().heads().concat())?)
}

/// The changes that `change` depends on and that `document` lacks, as far as `donor` has them.
fn lost_past(document: &Document, donor: &Document, change: &Change) -> Vec<Change> {
    let (mut past, mut next) = (Vec::new(), document.missing(change));
    while let Some(hash) = next.pop() {
        if let Some(lost) = donor.change(&hash) {
            next.extend(document.missing(&lost));
            past.push(lost);
        }
    }
    past
}

fn replay_group(
    account: &mut Account,
    txn: &mut Txn<'_>,
    bodies: &BodyStore,
    group: Group,
    waiting: &mut Vec<Change>,
) -> Result<(), ReplicaError> {
    let own = account.document().replica();
    // What waited for a lost change may follow one that was fetched again.
    let mut batch = std::mem::take(waiting);
    for record in group.records {
        match record {
            Record::Change(change) => {
                batch.push(Change::vet(&change.bytes).map_err(DocumentError::from)?);
            }
            Record::Local(bytes) => match LocalRecord::decode(&bytes) {
                Some(LocalRecord::BatchEnd) => {
                    let whole = std::mem::take(&mut batch);
                    waiting.extend(account.replay(txn, whole.clone())?);
                    owed::note(account, txn, bodies, own, &whole)?;
                }
                Some(record) => apply_local(account, txn, &record)?,
                None => tracing::warn!(position = %group.position, "passed over a record of an unknown kind"),
            },
            Record::Lost => {}
        }
    }
    if !batch.is_empty() {
        waiting.extend(account.replay(txn, batch.clone())?);
        owed::note(account, txn, bodies, own, &batch)?;
    }
    Ok(())
}

fn apply_local(account: &mut Account, txn: &mut Txn<'_>, record: &LocalRecord) -> Result<(), ReplicaError> {
    match record {
        LocalRecord::BatchEnd => {}
        LocalRecord::Private(uids) => account.take_private(txn, uids)?,
        LocalRecord::Restored { floor, time, era } => {
            // Mod-sequences since the backup are unknown too.
            let era = &if planted(Mutation::Era) { account.era() } else { *era };
            txn.put(Table::Meta, ERA, &era.to_be_bytes())?;
            account.set_era(*era);
            account.restored(txn, *floor, *time)?;
        }
        LocalRecord::Counter(counter) => Account::go_on_from(txn, *counter)?,
        LocalRecord::Granted(after) => txn.put(Table::Meta, GRANTED, &encode_version(after))?,
        LocalRecord::Signed { replica, seq, signature } => {
            signatures::keep(txn, *replica, *seq, signature)?;
        }
    }
    Ok(())
}

/// For a restore: above every UIDVALIDITY that was ever shown, as far as anybody remembers.
pub(super) fn restore_floor(inside: UidValidity, outside: Option<Outside>) -> UidValidity {
    // Without a note the store may have shown a few more generations than it remembers.
    const UNKNOWN: u32 = 16 << 16;
    match outside {
        Some(outside) => outside.validity.max(inside),
        None => UidValidity::new(inside.value().saturating_add(UNKNOWN)).unwrap_or(inside),
    }
}

#[cfg(test)]
mod tests;
