//! The account's document: Automerge behind the few questions and writes that a mailbox needs.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;

use automerge::iter::MapRangeItem;
use automerge::{
    ActorId, Automerge, ChangeHash, ObjId, ReadDoc, ScalarValue, ScalarValueRef, Value, ValueRef,
};

use super::change::{Change, ChangeFault, write_under};
use super::intake;
use super::neighbours::{Found, Neighbours};
use super::pack::{Pack, short_hash};
use super::puts::{self, Frame};
use super::run::UidRecord;
use super::schema::{self, Field, Map};
use super::writer::Writer;
use super::{EntryId, Keyword, MailboxId, MailboxName, Nonce, PackId, ReplicaId, SpecialUse, UidValidity};

/// Where an entry is: a stay in a mailbox. The renewal tells writes of one stay apart, so that taking `\Deleted` off
/// is a write that a concurrent expunge does not undo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// Which stay.
    pub nonce: Nonce,
    /// How often the stay was renewed.
    pub renewal: u32,
}

impl Place {
    /// Which of concurrent places holds, where the one that Automerge prefers comes last: moves beat renewals. An expunge
    /// holds only where there is no place.
    pub fn winner(places: &[Place]) -> Option<Place> {
        let best = places.iter().enumerate().max_by_key(|(index, place)| (place.renewal == 0, *index));
        best.map(|(_, place)| *place)
    }
}

/// What the document says about where an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Places {
    /// Never written: the entry is where its pack placed it.
    Initial,
    /// The place that holds, nothing if the entry is expunged, and the places that lost against it.
    Written {
        /// Where it is.
        now: Option<Place>,
        /// Concurrent moves that lost.
        hidden: Vec<Place>,
    },
}

/// A mailbox as the document has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MailboxFields {
    /// How many mailboxes of its first name were there before.
    pub incarnation: u32,
    /// Its name; nothing for a mailbox that nobody made.
    pub name: Option<MailboxName>,
    /// Whether it is subscribed.
    pub subscribed: bool,
    /// Its special use.
    pub special_use: Option<SpecialUse>,
    /// Its UID epoch.
    pub epoch: u32,
    /// The UIDVALIDITYs it was adopted with: more than one if two replicas adopted it apart.
    pub adopted: BTreeSet<UidValidity>,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// Why the document did not take changes or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The bytes of a snapshot are no document of this layout.
    #[error("the snapshot is no postmerge document: {0}")]
    Snapshot(String),
    /// A change is not what it should be.
    #[error(transparent)]
    Change(#[from] ChangeFault),
    /// A change depends on one that is not known.
    #[error("change {seq} of replica {replica} depends on a change that is not known here")]
    MissingDependency {
        /// Its author.
        replica: ReplicaId,
        /// Its number.
        seq: u64,
    },
    /// Two different changes with one author and number: a replica was copied back or runs twice.
    #[error(
        "replica {replica} made two different changes with number {seq}: it was copied back, or runs twice"
    )]
    Forked {
        /// Their author.
        replica: ReplicaId,
        /// Their number.
        seq: u64,
    },
    /// Automerge did not take a vetted change as it is. The document must be loaded again.
    #[error("change {seq} of replica {replica} would damage the document")]
    Poison {
        /// Its author.
        replica: ReplicaId,
        /// Its number.
        seq: u64,
    },
}

/// The account's document in memory. It is disposable: on any doubt it is dropped and loaded again.
pub struct Document {
    doc: Automerge,
    replica: ReplicaId,
    /// The membership record that changes of this replica name.
    under: Option<[u8; 8]>,
    /// The last change of each author.
    last: BTreeMap<ReplicaId, u64>,
    /// This replica's last change.
    own: Option<ChangeHash>,
    /// The highest number of an operation.
    max_op: u64,
    /// The bytes of the snapshot and of all changes since.
    size: usize,
}

impl Document {
    /// The document that every account starts from.
    pub fn new(replica: ReplicaId) -> Document {
        Document::wrap(schema::genesis().clone(), replica)
    }

    /// Loads a snapshot. It must come from this replica's own store: Automerge's format for whole documents is not
    /// safe against hostile bytes. Costs 0.2 s for 1,000,000 imported messages and 3 µs for each later change.
    pub fn load(snapshot: &[u8], replica: ReplicaId) -> Result<Document, DocumentError> {
        let doc = catch_unwind(|| Automerge::load(snapshot))
            .map_err(|_| DocumentError::Snapshot("loading it failed".into()))?
            .map_err(|error| DocumentError::Snapshot(error.to_string()))?;
        if !schema::has_genesis(&doc) {
            return Err(DocumentError::Snapshot("it does not start as every account does".into()));
        }
        Ok(Document { size: snapshot.len(), ..Document::wrap(doc, replica) })
    }

    fn wrap(mut doc: Automerge, replica: ReplicaId) -> Document {
        doc.set_actor(ActorId::from(&replica.as_bytes()[..]));
        let mut document =
            Document { doc, replica, under: None, last: BTreeMap::new(), own: None, max_op: 0, size: 0 };
        for meta in document.doc.get_changes_meta(&[]) {
            document.max_op = document.max_op.max(meta.max_op);
            let author = ReplicaId::from_slice(meta.actor.to_bytes());
            if let Some(author) = author.filter(|_| !schema::is_genesis_actor(&meta.actor)) {
                let seq = document.last.entry(author).or_insert(0);
                if meta.seq > *seq {
                    *seq = meta.seq;
                    document.own = if author == replica { Some(meta.hash) } else { document.own };
                }
            }
        }
        document
    }

    /// Keeps account of a change that is in the document now.
    fn took(&mut self, change: &automerge::Change, author: ReplicaId) {
        self.last.insert(author, change.seq());
        self.max_op = self.max_op.max(change.max_op());
        self.size += change.raw_bytes().len();
        if author == self.replica {
            self.own = Some(change.hash());
        }
    }

    pub(super) fn automerge(&self) -> &Automerge {
        &self.doc
    }

    /// The whole document for a snapshot, about 40 bytes a message.
    pub fn save(&self) -> Vec<u8> {
        self.doc.save()
    }

    /// The hashes of the changes that no other change here depends on, ascending.
    pub fn heads(&self) -> Vec<[u8; 32]> {
        let mut heads: Vec<_> = self.doc.get_heads().iter().map(|hash| hash.0).collect();
        heads.sort_unstable();
        heads
    }

    /// The heads of a document that nothing was written to.
    pub fn genesis_heads() -> Vec<[u8; 32]> {
        vec![schema::GENESIS]
    }

    /// For each author the number of its last change known here. A replica's changes are a chain, so this tells
    /// exactly which changes the document holds.
    pub fn version(&self) -> &BTreeMap<ReplicaId, u64> {
        &self.last
    }

    /// The change with a hash, to fill a hole in a damaged log.
    pub fn change(&self, hash: &[u8; 32]) -> Option<Change> {
        Change::from_inner(self.doc.get_change_by_hash(&automerge::ChangeHash(*hash))?).ok()
    }

    /// Which of a change's dependencies are not here.
    pub fn missing(&self, change: &Change) -> Vec<[u8; 32]> {
        change.deps().filter(|hash| !self.has(hash)).collect()
    }

    /// Whether a change is here.
    pub fn has(&self, hash: &[u8; 32]) -> bool {
        self.doc.get_change_meta_by_hash(&automerge::ChangeHash(*hash)).is_some()
    }

    /// Whether the change `earlier` is one of `from` or in their past. Costs O(what is not in that past).
    pub fn leads_to(&self, from: &[[u8; 32]], earlier: &[u8; 32]) -> bool {
        let from: Vec<_> = from.iter().map(|hash| automerge::ChangeHash(*hash)).collect();
        let outside = self.doc.get_changes_meta(&from);
        self.has(earlier) && !outside.iter().any(|change| change.hash.0 == *earlier)
    }

    /// The replica that local changes are written as.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// From now on changes of this replica name another membership record.
    pub fn set_under(&mut self, record: Option<[u8; 8]>) {
        self.under = record;
    }

    /// Applies a change; its dependencies must be here. False if it was known already. After an error that is
    /// [`DocumentError::Poison`] the document must be dropped.
    pub fn apply(&mut self, change: &Change) -> Result<bool, DocumentError> {
        let (replica, seq) = (change.replica(), change.seq());
        let known = self.last.get(&replica).copied().unwrap_or(0);
        if self.doc.get_change_meta_by_hash(&change.inner.hash()).is_some() {
            return Ok(false);
        }
        if seq <= known {
            return Err(DocumentError::Forked { replica, seq });
        }
        let ready = change.inner.deps().iter().all(|dep| self.doc.get_change_meta_by_hash(dep).is_some());
        if seq != known + 1 || !ready {
            return Err(DocumentError::MissingDependency { replica, seq });
        }
        if !intake::take(&mut self.doc, &change.inner, change.replaced, self.size) {
            return Err(DocumentError::Poison { replica, seq });
        }
        self.took(&change.inner, replica);
        Ok(true)
    }

    /// Applies what can be applied, in any order, and tells `applied` of each. Gives back those whose
    /// dependencies are missing: where a log was damaged they wait for what is lost.
    pub fn apply_ready(
        &mut self,
        mut changes: Vec<Change>,
        mut applied: impl FnMut(&Change),
    ) -> Result<Vec<Change>, DocumentError> {
        loop {
            let (before, mut waiting) = (changes.len(), Vec::new());
            for change in changes {
                match self.apply(&change) {
                    Ok(_) => applied(&change),
                    Err(DocumentError::MissingDependency { .. }) => waiting.push(change),
                    Err(error) => return Err(error),
                }
            }
            // One that was applied may be what another waits for.
            if waiting.is_empty() || waiting.len() == before {
                return Ok(waiting);
            }
            changes = waiting;
        }
    }

    /// Writes one change of this replica. Nothing if `write` changed no value. `time` is in seconds since 1970. After an
    /// error the document must be dropped.
    pub fn write(
        &mut self,
        time: i64,
        write: impl FnOnce(&mut Writer),
    ) -> Result<Option<Change>, DocumentError> {
        let seq = self.last.get(&self.replica).copied().unwrap_or(0) + 1;
        let mut writer = Writer::new(self.replica, seq);
        write(&mut writer);
        let puts = writer.into_puts();
        let vetted = |inner| Change::from_inner(inner).expect("our own changes pass our own check");
        if let Some(order) = puts::order_of_many(&self.doc, &puts) {
            let change = puts::at_once(&self.doc, puts, &order, self.frame(seq, time)).map(vetted);
            if let Some(change) = &change {
                self.apply(change)?;
            }
            return Ok(change);
        }
        let message = self.message();
        let hash = puts::one_by_one(&mut self.doc, puts, time, message);
        let inner = hash.and_then(|hash| self.doc.get_change_by_hash(&hash));
        if let Some(inner) = &inner {
            self.took(inner, self.replica);
        }
        Ok(inner.map(vetted))
    }

    /// What a transaction would put around the operations of this replica's next change.
    fn frame(&self, seq: u64, time: i64) -> Frame {
        let mut deps = self.doc.get_heads();
        deps.extend(self.own.filter(|own| !deps.contains(own)));
        deps.sort_unstable();
        Frame {
            actor: self.doc.get_actor().clone(),
            seq,
            time,
            message: self.message(),
            deps,
            max_op: self.max_op,
        }
    }

    fn message(&self) -> Option<String> {
        self.under.as_ref().map(write_under)
    }

    /// A pack by its id.
    pub fn pack(&self, id: PackId) -> Option<Pack> {
        let values = self.all(Map::Packs, id.as_bytes(), &schema::id_key(id.as_bytes()));
        let bytes = values.first()?.as_bytes()?;
        Pack::decode(bytes).ok()
    }

    /// A claim run or burn by its key.
    pub fn uid_record(&self, key: &[u8; 16]) -> Option<UidRecord> {
        let values = self.all(Map::Uids, key, &schema::id_key(key));
        UidRecord::decode(values.first()?.as_bytes()?).ok()
    }

    /// Where an entry is. Of concurrent writes a move beats a renewal and an expunge, a renewal beats an expunge, and
    /// of two moves the one with the later operation wins.
    pub fn places(&self, entry: EntryId) -> Places {
        let values = self.all(Map::Places, entry.as_bytes(), &schema::id_key(entry.as_bytes()));
        if values.is_empty() {
            return Places::Initial;
        }
        let mut places: Vec<Place> = values.iter().filter_map(|value| read_place(value)?).collect();
        let now = Place::winner(&places);
        places
            .retain(|place| now.is_some_and(|now| (now.mailbox, now.nonce) != (place.mailbox, place.nonce)));
        Places::Written { now, hidden: places }
    }

    /// Whether a keyword was set or cleared; nothing if it is as its pack has it. Of concurrent values true wins,
    /// except that `\Deleted` is kept off by whoever took it off.
    pub fn keyword(&self, entry: EntryId, keyword: &Keyword) -> Option<bool> {
        let values = self.all(Map::Keywords, entry.as_bytes(), &schema::keyword_key(&entry, keyword));
        keyword.winner(values.iter().filter_map(|value| value.as_bool()))
    }

    /// [`Document::keyword`] of many, in no special order; those that are as their packs have them are left out. Where
    /// many lie side by side they are read in one go, at a tenth of the cost.
    pub fn keywords<'a>(
        &self,
        wanted: impl IntoIterator<Item = (EntryId, &'a Keyword)>,
    ) -> Vec<(EntryId, &'a Keyword, bool)> {
        let mut keys: Vec<_> = wanted
            .into_iter()
            .map(|(entry, keyword)| (Map::Keywords.bucket(entry.as_bytes()), keyword, entry))
            .map(|(bucket, keyword, entry)| (bucket, schema::keyword_key(&entry, keyword), entry, keyword))
            .collect();
        keys.sort_unstable();
        let mut read = Vec::with_capacity(keys.len());
        for neighbours in keys.chunk_by(|a, b| (a.0, a.3) == (b.0, b.3)) {
            let object = Map::Keywords.object(neighbours[0].2.as_bytes());
            let keys: Vec<&str> = neighbours.iter().map(|(_, key, ..)| key.as_str()).collect();
            let mut walk = Neighbours::of(&self.doc, &object, &keys);
            for (_, key, entry, keyword) in neighbours {
                let value = match walk.at(key) {
                    Found::Nothing => None,
                    Found::One(MapRangeItem {
                        value: ValueRef::Scalar(ScalarValueRef::Boolean(set)),
                        ..
                    }) => Some(set),
                    Found::One(_) | Found::Ask => self.keyword(*entry, keyword),
                };
                read.extend(value.map(|set| (*entry, *keyword, set)));
            }
        }
        read
    }

    /// The fields of a mailbox.
    pub fn mailbox(&self, id: MailboxId) -> MailboxFields {
        let field = |field| self.all(Map::Mailboxes, id.as_bytes(), &schema::mailbox_key(&id, field));
        let highest = |name| field(name).iter().filter_map(|value| value.as_u64()).max().unwrap_or(0) as u32;
        let last_text = |name| field(name).last().and_then(|value| value.as_str().map(str::to_owned));
        let any = |name| field(name).iter().any(|value| value.as_bool() == Some(true));
        MailboxFields {
            incarnation: highest(Field::Incarnation),
            name: last_text(Field::Name).and_then(|name| name.parse().ok()),
            subscribed: any(Field::Subscribed),
            special_use: last_text(Field::SpecialUse).and_then(|text| SpecialUse::from_name(&text)),
            epoch: highest(Field::Epoch),
            adopted: field(Field::Adopted)
                .iter()
                .filter_map(|value| UidValidity::new(value.as_u64()? as u32))
                .collect(),
            deleted: any(Field::Deleted),
        }
    }

    /// Every mailbox that a field was ever written for, ascending.
    pub fn mailboxes(&self) -> BTreeSet<MailboxId> {
        let keys = Map::Mailboxes.objects().flat_map(|object| self.doc.keys(object).collect::<Vec<_>>());
        keys.filter_map(|key| Some(schema::split_mailbox_key(&key)?.0)).collect()
    }

    fn all(&self, map: Map, id: &[u8; 16], key: &str) -> Vec<ScalarValue> {
        scalars(&self.doc, &map.object(id), key)
    }
}

/// The concurrent values of a key, the one that Automerge prefers last.
pub(super) fn scalars(doc: &impl ReadDoc, object: &ObjId, key: &str) -> Vec<ScalarValue> {
    let values = doc.get_all(object, key).unwrap_or_default();
    let scalar = |(value, _)| match value {
        Value::Scalar(scalar) => Some(scalar.into_owned()),
        Value::Object(_) => None,
    };
    values.into_iter().filter_map(scalar).collect()
}

/// Null is expunged; otherwise mailbox, nonce and renewal. The outer nothing is for what is no place.
pub(super) fn read_place(value: &ScalarValue) -> Option<Option<Place>> {
    match value {
        ScalarValue::Null => Some(None),
        ScalarValue::Bytes(bytes) if bytes.len() == 28 => Some(Some(Place {
            mailbox: MailboxId::from_slice(&bytes[..16])?,
            nonce: Nonce(u64::from_le_bytes(bytes[16..24].try_into().ok()?)),
            renewal: u32::from_le_bytes(bytes[24..].try_into().ok()?),
        })),
        _ => None,
    }
}

impl MailboxId {
    /// The id of the mailbox that was the `incarnation`-th of a name: two replicas that create it apart create one.
    pub fn derive(name: &MailboxName, incarnation: u32) -> MailboxId {
        MailboxId::from_bytes(short_hash(&[b"mailbox", name.as_str().as_bytes(), &incarnation.to_le_bytes()]))
    }

    /// INBOX: it is there without anybody making it.
    pub fn inbox() -> MailboxId {
        MailboxId::derive(&MailboxName::inbox(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u16) -> EntryId {
        // One bucket: the first two bytes choose it.
        let mut id = [7; 16];
        id[14..].copy_from_slice(&n.to_le_bytes());
        EntryId::from_bytes(id)
    }

    #[test]
    fn keywords_read_together_are_those_read_alone() {
        let keywords = ["\\Flagged", "\\Deleted", "a", "ab"].map(|text| text.parse::<Keyword>().unwrap());
        let (mut here, mut there) =
            (Document::new(ReplicaId::from_bytes([1; 16])), Document::new(ReplicaId::from_bytes([2; 16])));
        let wrote_here = here.write(0, |writer| {
            for n in 0..300u16 {
                for (k, keyword) in keywords.iter().enumerate() {
                    writer.keyword(entry(n), keyword, (usize::from(n) + k) % 3 > 0);
                }
            }
        });
        let wrote_there = there.write(0, |writer| {
            for n in (0..400).step_by(5) {
                keywords.iter().for_each(|keyword| writer.keyword(entry(n), keyword, n % 2 == 0));
            }
        });
        here.apply(&wrote_there.unwrap().unwrap()).unwrap();
        there.apply(&wrote_here.unwrap().unwrap()).unwrap();
        for step in [1, 3, 40, 150] {
            let wanted = || (0..450).step_by(step).flat_map(|n| keywords.iter().map(move |k| (entry(n), k)));
            for document in [&here, &there] {
                let mut together = document.keywords(wanted());
                let alone = wanted().filter_map(|(e, k)| Some((e, k, document.keyword(e, k)?)));
                let mut alone: Vec<_> = alone.collect();
                together.sort_unstable();
                alone.sort_unstable();
                assert_eq!(together, alone, "every {step}. entry");
            }
        }
        // Where the two said different things too.
        for step in [150, 1] {
            for set in [true, false] {
                let wanted =
                    || (0..450).step_by(step).flat_map(|n| keywords.iter().map(move |k| (entry(n), k)));
                here.write(1, |writer| writer.keywords(wanted().map(|(entry, k)| (entry, k, set))))
                    .unwrap()
                    .unwrap();
                assert!(wanted().all(|(entry, k)| here.keyword(entry, k) == Some(set)));
            }
        }
    }
}
