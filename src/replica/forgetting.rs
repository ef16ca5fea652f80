//! Forgetting: the bodies of expunged messages go once they are old enough, and once every member knows of the expunge.
//!
//! What keeps a body: a message in a mailbox that has it, whichever copy that is; an expunged one whose expunge is younger than
//! the retention or is not acknowledged by every member that is not forgotten. A member that says it has changes which are not
//! here keeps all of them too, as one of those may bring a message back. What is left, nobody can want but by an undo, which then
//! says that the body is gone.
//!
//! All messages are looked through for that, and not more often than once a day without need; no commit pays for it. Bodies are
//! found in a snapshot, beside whatever goes on, and go in small parts under the writer's lock, after a look at what was
//! committed meanwhile.

mod note;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use super::core::{Core, ERA};
use super::snapshot::Snapshot;
use super::{Replica, ReplicaError, lock, now, owed};
use crate::blob::BlobId;
use crate::mailbox::{Change, DocumentError, ReplicaId};
use crate::store::Position;
use crate::sync::VersionVector;
use crate::uid::{Account, Tables, View};

use note::{Kept, Note};

/// What a replica remembers for it.
pub(super) struct Forgetting {
    note: Mutex<Note>,
    /// One at a time.
    turn: Mutex<()>,
}

impl Forgetting {
    pub(super) fn read(dir: &Path) -> Forgetting {
        Forgetting { note: Mutex::new(Note::read(dir)), turn: Mutex::default() }
    }
}

/// For how long the bodies of expunged messages are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention(u64);

impl Retention {
    /// They are never forgotten.
    pub const FOREVER: Retention = Retention(u64::MAX);
    /// Nobody is away for longer without having looked for a message that is missing; other programs empty their trash after
    /// as long.
    pub const USUAL: Retention = Retention::days(30);

    /// So many days; with none they go once every member knows of the expunge.
    pub const fn days(days: u32) -> Retention {
        Retention(days as u64 * 86_400)
    }

    fn seconds(self) -> u64 {
        self.0
    }
}

/// A member for which bodies wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The member.
    pub replica: ReplicaId,
    /// When it was met last, in seconds since 1970; nothing if it never was, and then it has to be met or forgotten.
    pub since: Option<i64>,
}

/// Bodies of expunged messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many went, or would.
    pub bodies: u64,
    /// Their size in bytes, without compression.
    pub bytes: u64,
    /// How many stay for now.
    pub kept_bodies: u64,
    /// Their size.
    pub kept_bytes: u64,
    /// Who has not acknowledged expunges that are old enough.
    pub blockers: Vec<Blocker>,
}

/// Messages that are looked at between two looks at anything else.
const PAGE: usize = 1000;
/// Bodies that go while the writer waits: some milliseconds.
const PART: usize = 256;

impl Replica {
    /// Lets the bodies of expunged messages go for which it is time. Costs O(messages) once a day at most, and otherwise next to
    /// nothing, so it may be called often: hours that pass between calls are counted, whole days are not.
    pub fn forget_bodies(&self, retention: Retention) -> Result<Forgotten, ReplicaError> {
        self.forget_bodies_at(now(), retention, false)
    }

    /// The same, and looks at all messages in any case.
    pub fn forget_bodies_now(&self, retention: Retention) -> Result<Forgotten, ReplicaError> {
        self.forget_bodies_at(now(), retention, true)
    }

    /// What [`Replica::forget_bodies_now`] would do; changes nothing.
    pub fn plan_forgetting(&self, retention: Retention) -> Result<Forgotten, ReplicaError> {
        let snapshot = self.view()?;
        let mut note = lock(&self.0.forgetting.note).clone();
        self.look_at_clock(&mut note, &snapshot, now(), retention)?;
        let (candidates, kept) = candidates(&snapshot, note.due, |blob| self.has_body(blob))?;
        let (bodies, bytes) = (candidates.len() as u64, candidates.values().sum());
        let blockers = self.blockers(&note, retention)?;
        Ok(Forgotten { bodies, bytes, kept_bodies: kept.bodies, kept_bytes: kept.bytes, blockers })
    }

    /// How it stood when all messages were looked through last, and who is waited for now. Costs nothing.
    pub fn forgetting(&self, retention: Retention) -> Result<Forgotten, ReplicaError> {
        let note = lock(&self.0.forgetting.note).clone();
        let (kept, blockers) = (note.kept, self.blockers(&note, retention)?);
        let (kept_bodies, kept_bytes) = (kept.bodies, kept.bytes);
        Ok(Forgotten { kept_bodies, kept_bytes, blockers, ..Forgotten::default() })
    }

    fn forget_bodies_at(
        &self,
        now: i64,
        retention: Retention,
        in_any_case: bool,
    ) -> Result<Forgotten, ReplicaError> {
        let _turn = lock(&self.0.forgetting.turn);
        let snapshot = self.view()?;
        let dir = self.with(|core| core.writable().map(|()| core.store.dir().to_owned()))?;
        let before = lock(&self.0.forgetting.note).clone();
        let mut note = before.clone();
        self.look_at_clock(&mut note, &snapshot, now, retention)?;
        let mut done = Forgotten::default();
        if in_any_case || note.is_time() {
            self.0.handle.bodies().turn_pins();
            let (mut candidates, kept) = candidates(&snapshot, note.due, |blob| self.has_body(blob))?;
            let all: u64 = candidates.values().sum();
            let count = candidates.len() as u64;
            (done.bodies, done.bytes) = self.let_go(&snapshot, &mut candidates)?;
            self.strike_debts(&snapshot)?;
            let stayed = Kept {
                bodies: kept.bodies + (count - done.bodies),
                bytes: kept.bytes + all.saturating_sub(done.bytes),
            };
            note.looked(stayed);
        }
        (done.kept_bodies, done.kept_bytes) = (note.kept.bodies, note.kept.bytes);
        done.blockers = self.blockers(&note, retention)?;
        lock(&self.0.forgetting.note).clone_from(&note);
        if note != before
            && let Err(error) = note.write(&dir)
        {
            tracing::warn!(dir = %dir.display(), %error, "how old expunges are cannot be noted; bodies stay longer");
        }
        Ok(done)
    }

    fn look_at_clock(
        &self,
        note: &mut Note,
        snapshot: &Snapshot,
        now: i64,
        retention: Retention,
    ) -> Result<(), ReplicaError> {
        let tables = snapshot.tables();
        let era = tables.get(crate::uid::Table::Meta, ERA)?.and_then(|bytes| bytes.try_into().ok());
        note.see(now, u16::from_be_bytes(era.unwrap_or_default()));
        let here = tables.vector()?;
        note.mark(Account::counter(tables)?, &here, retention);
        let others = self.others()?;
        note.settle(retention, |mark| others.iter().all(|(_, has)| knows(has.as_ref(), mark, &here)));
        Ok(())
    }

    /// The other active members, and what each said that it durably has.
    fn others(&self) -> Result<Vec<(ReplicaId, Option<VersionVector>)>, ReplicaError> {
        let members: Vec<ReplicaId> = self.with(|core| {
            let others = core.members.iter().map(|member| member.replica);
            Ok(others.filter(|one| *one != core.identity.replica && core.members.is_active(*one)).collect())
        })?;
        let contacts = lock(&self.0.contacts);
        Ok(members.into_iter().map(|member| (member, contacts.said(member).cloned())).collect())
    }

    fn blockers(&self, note: &Note, retention: Retention) -> Result<Vec<Blocker>, ReplicaError> {
        let Some(mark) = note.waiting(retention) else { return Ok(Vec::new()) };
        let here = self.view()?.tables().vector()?;
        let others = self.others()?.into_iter();
        let blocking = others.filter(|(_, has)| !knows(has.as_ref(), &mark.version, &here));
        let contacts = lock(&self.0.contacts);
        let blocker = |(replica, _)| Blocker { replica, since: contacts.met(replica) };
        Ok(blocking.map(blocker).collect())
    }

    /// Forgets bodies that nothing in the snapshot needs, and nothing that was committed since.
    fn let_go(
        &self,
        snapshot: &Snapshot,
        candidates: &mut BTreeMap<BlobId, u64>,
    ) -> Result<(u64, u64), ReplicaError> {
        let (mut position, mut gone) = (snapshot.tables().position(), (0, 0));
        while !candidates.is_empty() {
            self.with(|core| {
                position = keep_needed(core, position, candidates)?;
                let part: Vec<BlobId> = candidates.keys().copied().take(PART).collect();
                for blob in &part {
                    candidates.remove(blob);
                }
                for (_, bytes) in core.store.forget_bodies(&part)? {
                    gone = (gone.0 + 1, gone.1 + bytes);
                }
                Ok(())
            })?;
        }
        Ok(gone)
    }

    /// Strikes debts of messages that are expunged: if one comes back, its body is owed anew.
    fn strike_debts(&self, snapshot: &Snapshot) -> Result<(), ReplicaError> {
        let mut last = None;
        loop {
            let mut part = owed::list(snapshot.tables(), last.as_ref(), PAGE)?;
            last = part.last().cloned();
            if last.is_none() {
                return Ok(());
            }
            let mut failed = None;
            part.retain(|debt| {
                !owed::is_needed(&snapshot.view(), debt).unwrap_or_else(|error| {
                    failed = Some(error);
                    true
                })
            });
            if let Some(error) = failed {
                return Err(error);
            }
            if part.is_empty() {
                continue;
            }
            self.with(|core| {
                let mut txn = core.store.begin()?;
                for debt in &part {
                    // It may have come back since.
                    let needed = owed::is_needed(&View::new(txn.base(), self.account(), false), debt)?;
                    if !needed {
                        owed::settle(&mut txn, debt)?;
                    }
                }
                txn.commit()?;
                Ok(())
            })?;
        }
    }
}

/// Whether a member that said it has `has` knows all of a mark, and nothing that is not `here`: it may have moved a message
/// before it heard of its expunge, and that move beats it.
fn knows(has: Option<&VersionVector>, mark: &VersionVector, here: &VersionVector) -> bool {
    let covers = |all: &VersionVector, some: &VersionVector| {
        some.iter().all(|(replica, seq)| all.get(replica).is_some_and(|known| known >= seq) || *seq == 0)
    };
    has.is_some_and(|has| covers(has, mark) && covers(here, has))
}

/// Bodies that are here and that only expunged messages have, whose expunges are all due; and what is kept of the others.
fn candidates(
    snapshot: &Snapshot,
    due: u64,
    is_here: impl Fn(BlobId) -> Result<bool, ReplicaError>,
) -> Result<(BTreeMap<BlobId, u64>, Kept), ReplicaError> {
    // Twice through all messages, so that memory is needed for bodies of expunged messages only.
    let mut expunged: BTreeMap<BlobId, (u64, bool)> = BTreeMap::new();
    each_reference(snapshot, |one| {
        if !one.visible && (expunged.contains_key(&one.blob) || is_here(one.blob)?) {
            let due = one.counter <= due;
            expunged.entry(one.blob).and_modify(|known| known.1 &= due).or_insert((one.size, due));
        }
        Ok(())
    })?;
    if !expunged.is_empty() {
        each_reference(snapshot, |one| {
            if one.visible {
                expunged.remove(&one.blob);
            }
            Ok(())
        })?;
    }
    let (mut candidates, mut kept) = (BTreeMap::new(), Kept::default());
    for (blob, (size, due)) in expunged {
        if due {
            candidates.insert(blob, size);
        } else {
            kept = Kept { bodies: kept.bodies + 1, bytes: kept.bytes + size };
        }
    }
    Ok((candidates, kept))
}

/// Takes every message there is and was, in no order that matters.
pub(super) fn each_reference(
    snapshot: &Snapshot,
    mut take: impl FnMut(crate::uid::Reference) -> Result<(), ReplicaError>,
) -> Result<(), ReplicaError> {
    let mut last = None;
    loop {
        let page = snapshot.view().references(last, PAGE)?;
        let Some(end) = page.last() else { return Ok(()) };
        last = Some(end.entry);
        page.into_iter().try_for_each(&mut take)?;
    }
}

/// Takes out what was referred to since `position`, and gives how far that looked.
fn keep_needed(
    core: &mut Core,
    position: Position,
    candidates: &mut BTreeMap<BlobId, u64>,
) -> Result<Position, ReplicaError> {
    let reader = core.store.reader()?;
    let mut packs = BTreeSet::new();
    for change in reader.changes_after(position)? {
        let change = Change::vet(&change?.bytes).map_err(DocumentError::from)?;
        packs.extend(change.touched().packs.keys().copied());
        for entry in &change.touched().places {
            let view = View::new(&reader, core.identity.account, false);
            if let Some(one) = view.reference(*entry)? {
                candidates.remove(&one.blob);
            }
        }
    }
    for pack in packs {
        let Some(pack) = core.account()?.document().pack(pack) else { continue };
        for message in &pack.messages {
            candidates.remove(&message.blob);
        }
    }
    Ok(reader.position())
}
