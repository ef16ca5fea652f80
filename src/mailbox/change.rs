//! Changes: what one replica did, as others receive it. A change is vetted before Automerge may apply it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::ScalarValue;
use automerge::legacy::{Key, ObjectId, Op, OpType};
use data_encoding::BASE64URL_NOPAD;

use super::document::Place;
use super::pack::Pack;
use super::run::UidRecord;
use super::scan;
use super::schema::{self, Field, Map};
use super::{EntryId, Keyword, MailboxId, MailboxName, PackId, Placement, ReplicaId};

/// What a change wrote to, so that the pass costs as much as the change and not as much as the account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Packs that were added, and when: the earliest time, where two replicas imported one folder.
    pub packs: BTreeMap<PackId, i64>,
    /// Entries that moved, were expunged or were kept.
    pub places: BTreeSet<EntryId>,
    /// Stays that began with a move, and when. A renewal begins none.
    pub stays: BTreeMap<Placement, i64>,
    /// Keywords that were set or cleared.
    pub keywords: BTreeSet<(EntryId, Keyword)>,
    /// Mailboxes with a changed field.
    pub mailboxes: BTreeSet<MailboxId>,
    /// Keys of claim runs and burns.
    pub uids: BTreeSet<[u8; 16]>,
}

impl Touched {
    /// Adds what another change wrote to.
    pub fn extend(&mut self, other: &Touched) {
        for (pack, time) in &other.packs {
            earliest(&mut self.packs, *pack, *time);
        }
        self.places.extend(&other.places);
        for (stay, time) in &other.stays {
            earliest(&mut self.stays, *stay, *time);
        }
        self.keywords.extend(other.keywords.iter().cloned());
        self.mailboxes.extend(&other.mailboxes);
        self.uids.extend(&other.uids);
    }
}

/// Keeps the earlier of two times, so that the order in which changes come is no matter.
fn earliest<K: Ord>(times: &mut BTreeMap<K, i64>, key: K, time: i64) {
    times.entry(key).and_modify(|known| *known = time.min(*known)).or_insert(time);
}

/// A change whose every operation is one that postmerge makes. Applying it cannot lose anybody's message: it only
/// sets scalars in the maps of the genesis, and packs and claims are named by their content.
#[derive(Clone, Debug)]
pub struct Change {
    pub(super) inner: automerge::Change,
    replica: ReplicaId,
    touched: Touched,
    under: Option<[u8; 8]>,
    signature: Option<[u8; 64]>,
    /// How many of its operations replace the value of a key.
    pub(super) replaced: usize,
}

/// Why a change is refused. Its author, or whoever sent it, is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeFault {
    /// It is larger than [`Change::MAX_SIZE`].
    #[error("a change of {size} bytes is larger than {max}", max = Change::MAX_SIZE)]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// It is no single, uncompressed Automerge change, or its checksum does not match.
    #[error("the bytes are no Automerge change, or were damaged on the way")]
    Unreadable,
    /// It writes what no replica of this version writes.
    #[error("change {hash} {what}")]
    Foreign {
        /// The change's hash in hexadecimal.
        hash: String,
        /// What it does.
        what: &'static str,
    },
}

impl Change {
    /// Largest change in bytes. Larger work is split into several changes; so nothing on the wire needs more.
    pub const MAX_SIZE: usize = 1 << 20;
    /// Most operations of one change: 10,000 flags fit, and with it the time to vet one change is bounded.
    pub const MAX_OPS: usize = 16_384;
    /// Most heads a change may depend on: more than the replicas an account has.
    const MAX_DEPS: usize = 256;

    /// Reads and vets a change that came from anywhere. Costs about 0.5 µs for each operation.
    pub fn vet(bytes: &[u8]) -> Result<Change, ChangeFault> {
        if bytes.len() > Change::MAX_SIZE {
            return Err(ChangeFault::TooLarge { size: bytes.len() });
        }
        // The byte after magic and checksum is the kind of chunk. Only a plain change is taken: a document, a bundle
        // or a deflated change could grow without bound.
        if bytes.get(8) != Some(&1) {
            return Err(ChangeFault::Unreadable);
        }
        if !scan::is_bounded(bytes) {
            return Err(ChangeFault::Unreadable);
        }
        let inner = catch_unwind(|| automerge::Change::from_bytes(bytes.to_vec()).ok())
            .ok()
            .flatten()
            .filter(|change| change.raw_bytes() == bytes)
            .ok_or(ChangeFault::Unreadable)?;
        Change::from_inner(inner)
    }

    pub(super) fn from_inner(inner: automerge::Change) -> Result<Change, ChangeFault> {
        let foreign = |what| ChangeFault::Foreign { hash: inner.hash().to_string(), what };
        let replica = ReplicaId::from_slice(inner.actor_id().to_bytes())
            .filter(|_| !schema::is_genesis_actor(inner.actor_id()))
            .ok_or_else(|| foreign("has an author that is no replica"))?;
        if inner.deps().is_empty() || inner.deps().len() > Change::MAX_DEPS {
            return Err(foreign("depends on nothing or on too much"));
        }
        let under = inner.message().map(read_under);
        if under == Some(None) || !inner.extra_bytes().is_empty() {
            return Err(foreign("carries text beside its operations"));
        }
        if inner.raw_bytes().len() > Change::MAX_SIZE {
            return Err(ChangeFault::TooLarge { size: inner.raw_bytes().len() });
        }
        if inner.is_empty() || inner.len() > Change::MAX_OPS {
            return Err(foreign("has no operations or too many"));
        }
        let decoded =
            catch_unwind(AssertUnwindSafe(|| inner.decode())).map_err(|_| ChangeFault::Unreadable)?;
        let mut touched = Touched::default();
        for op in &decoded.operations {
            vet_op(op, inner.timestamp(), &mut touched).map_err(foreign)?;
        }
        let replaced = decoded.operations.iter().filter(|op| !op.pred.is_empty()).count();
        Ok(Change { inner, replica, touched, under: under.flatten(), signature: None, replaced })
    }

    /// Who made it.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Its number among its author's changes, from 1.
    pub fn seq(&self) -> u64 {
        self.inner.seq()
    }

    /// Its hash.
    pub fn hash(&self) -> [u8; 32] {
        self.inner.hash().0
    }

    /// The hashes of the changes that its author knew last.
    pub fn deps(&self) -> impl Iterator<Item = [u8; 32]> {
        self.inner.deps().iter().map(|dep| dep.0)
    }

    /// When its author says it was made, in seconds since 1970.
    pub fn time(&self) -> i64 {
        self.inner.timestamp()
    }

    /// Its bytes, as they are stored and sent.
    pub fn bytes(&self) -> &[u8] {
        self.inner.raw_bytes()
    }

    /// The membership record that gave its author the role it acts in; nothing for the one that it came with.
    pub fn under(&self) -> Option<[u8; 8]> {
        self.under
    }

    /// With its author's signature, which travels and is stored with it. Nothing here looks into that.
    pub fn signed(self, signature: Option<[u8; 64]>) -> Change {
        Change { signature, ..self }
    }

    /// The signature that came with it.
    pub fn signature(&self) -> Option<&[u8; 64]> {
        self.signature.as_ref()
    }

    /// What it wrote to.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }
}

/// A membership record's name as the message of a change, in the one form there is.
pub(super) fn write_under(record: &[u8; 8]) -> String {
    BASE64URL_NOPAD.encode(record)
}

fn read_under(message: &str) -> Option<[u8; 8]> {
    let record = BASE64URL_NOPAD.decode(message.as_bytes()).ok()?.try_into().ok()?;
    (write_under(&record) == message).then_some(record)
}

fn vet_op(op: &Op, time: i64, touched: &mut Touched) -> Result<(), &'static str> {
    let ObjectId::Id(object) = &op.obj else { return Err("writes to the root map") };
    let (map, bucket) = Map::made_by(object.counter(), object.actor()).ok_or("writes to an unknown map")?;
    let OpType::Put(value) = &op.action else { return Err("does something other than setting a value") };
    let Key::Map(key) = &op.key else { return Err("writes to a list") };
    let (id, _) = schema::split_key(map, key).ok_or("has a key without an id")?;
    if op.insert || map.bucket(&id) != bucket {
        return Err("writes to the wrong bucket");
    }
    match map {
        Map::Packs => match value {
            ScalarValue::Bytes(bytes) if schema::id_key(&id) == key.as_str() => {
                if Pack::id_of(bytes) != PackId::from_bytes(id) || Pack::decode(bytes).is_err() {
                    return Err("has a pack that is none, or is not named by its content");
                }
                earliest(&mut touched.packs, PackId::from_bytes(id), time);
            }
            _ => return Err("has a pack that is none"),
        },
        Map::Places => {
            let place = super::document::read_place(value).filter(|_| schema::id_key(&id) == key.as_str());
            let (place, entry) = (place.ok_or("has a place that is none")?, EntryId::from_bytes(id));
            touched.places.insert(entry);
            if let Some(Place { nonce, renewal: 0, .. }) = place {
                earliest(&mut touched.stays, Placement { entry, nonce }, time);
            }
        }
        Map::Keywords => {
            let known = schema::split_keyword_key(key).ok_or("has a keyword that is none")?;
            if !matches!(value, ScalarValue::Boolean(_)) {
                return Err("has a keyword that is neither set nor cleared");
            }
            touched.keywords.insert(known);
        }
        Map::Mailboxes => {
            let (mailbox, field) =
                schema::split_mailbox_key(key).ok_or("has a mailbox field that is none")?;
            if !field_takes(field, value) {
                return Err("has a mailbox field with a value it cannot have");
            }
            touched.mailboxes.insert(mailbox);
        }
        Map::Uids => match value {
            ScalarValue::Bytes(bytes) if schema::id_key(&id) == key.as_str() => {
                if UidRecord::key_of(bytes) != id || UidRecord::decode(bytes).is_err() {
                    return Err("has a UID record that is none, or is not named by its content");
                }
                touched.uids.insert(id);
            }
            _ => return Err("has a UID record that is none"),
        },
    }
    Ok(())
}

fn field_takes(field: Field, value: &ScalarValue) -> bool {
    match (field, value) {
        (Field::Incarnation | Field::Epoch, ScalarValue::Uint(n)) => *n <= u64::from(super::Run::MAX_EPOCH),
        (Field::Adopted, ScalarValue::Uint(n)) => (1..=u64::from(u32::MAX)).contains(n),
        (Field::Name, ScalarValue::Str(name)) => {
            name.parse::<MailboxName>().is_ok_and(|parsed| parsed.as_str() == name.as_str())
        }
        (Field::SpecialUse, ScalarValue::Str(text)) => {
            text.is_empty() || super::SpecialUse::from_name(text).is_some()
        }
        (Field::Subscribed, ScalarValue::Boolean(_)) => true,
        (Field::Deleted, ScalarValue::Boolean(deleted)) => *deleted,
        _ => false,
    }
}
