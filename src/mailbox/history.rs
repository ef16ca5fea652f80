//! Who wrote what and when: the past of single keys of the document.
//!
//! A write names the writes that it replaced, so the past of a key is a graph that needs no other key: of two writes neither
//! of which came after the other, neither author knew of the other. Nothing here is decided by a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use automerge::legacy::{Key as LegacyKey, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, ObjId, ReadDoc, ScalarValue};
use data_encoding::HEXLOWER;

use super::change::Change;
use super::document::{Document, Place, read_place};
use super::schema::{self, Map};
use super::{EntryId, Keyword, MailboxField, MailboxId, PackId, ReplicaId};

/// Names a change: its hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChangeId(pub [u8; 32]);

impl ChangeId {
    /// The first ten hexadecimal digits: among a million changes seldom two have the same.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..5])
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// Which change wrote something. In order, a change comes after those that its author knew, the same everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stamp {
    /// Above that of every change that its author knew.
    pub order: u64,
    /// The change.
    pub change: ChangeId,
    /// Its author.
    pub replica: ReplicaId,
    /// Its number among its author's changes.
    pub seq: u64,
    /// When its author says it was made, in seconds since 1970. Only for people: clocks may be wrong.
    pub time: i64,
}

/// What a write is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// A batch of messages that arrived.
    Pack(PackId),
    /// Where a message is.
    Place(EntryId),
    /// Whether a message has a keyword.
    Keyword(EntryId, Keyword),
    /// A field of a mailbox.
    Mailbox(MailboxId, MailboxField),
    /// A claim run or a burn.
    Uids([u8; 16]),
}

/// What was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A pack or UID record; its key is the hash of its bytes, and [`Document::pack`] and [`Document::uid_record`] have them.
    Record,
    /// Where a message is from then on; nothing expunged it.
    Place(Option<Place>),
    /// A keyword was set or cleared; a mailbox was subscribed to or not, or deleted.
    Set(bool),
    /// A mailbox's incarnation, epoch or adopted UIDVALIDITY.
    Number(u64),
    /// A mailbox's name or special use.
    Text(String),
}

/// One write to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The change that it is part of.
    pub stamp: Stamp,
    /// What it wrote.
    pub value: Value,
}

impl Change {
    /// What names it.
    pub fn id(&self) -> ChangeId {
        ChangeId(self.hash())
    }

    /// Who made it and when.
    pub fn stamp(&self) -> Stamp {
        let order = self.inner.start_op().get();
        Stamp { order, change: self.id(), replica: self.replica(), seq: self.seq(), time: self.time() }
    }

    /// What it wrote, in its order. Costs about 0.5 µs for each operation.
    pub fn writes(&self) -> Vec<(Key, Value)> {
        // A vetted change was decoded once already.
        self.inner.decode().operations.iter().filter_map(read_op).collect()
    }
}

fn read_op(op: &Op) -> Option<(Key, Value)> {
    let (ObjectId::Id(object), LegacyKey::Map(text), OpType::Put(value)) = (&op.obj, &op.key, &op.action)
    else {
        return None;
    };
    let (map, _) = Map::made_by(object.counter(), object.actor())?;
    let (id, _) = schema::split_key(map, text)?;
    Some(match map {
        Map::Packs => (Key::Pack(PackId::from_bytes(id)), Value::Record),
        Map::Uids => (Key::Uids(id), Value::Record),
        Map::Places => (Key::Place(EntryId::from_bytes(id)), Value::Place(read_place(value)?)),
        Map::Keywords => {
            let (entry, keyword) = schema::split_keyword_key(text)?;
            (Key::Keyword(entry, keyword), Value::Set(value.as_bool()?))
        }
        Map::Mailboxes => {
            let (mailbox, field) = schema::split_mailbox_key(text)?;
            let value = match value {
                ScalarValue::Boolean(set) => Value::Set(*set),
                ScalarValue::Uint(number) => Value::Number(*number),
                ScalarValue::Str(text) => Value::Text(text.to_string()),
                _ => return None,
            };
            (Key::Mailbox(mailbox, field), value)
        }
    })
}

impl Key {
    fn at(&self) -> (ObjId, String) {
        let id_key = |map: Map, id: &[u8; 16]| (map.object(id), schema::id_key(id));
        match self {
            Key::Pack(id) => id_key(Map::Packs, id.as_bytes()),
            Key::Place(id) => id_key(Map::Places, id.as_bytes()),
            Key::Uids(id) => id_key(Map::Uids, id),
            Key::Keyword(entry, keyword) => {
                (Map::Keywords.object(entry.as_bytes()), schema::keyword_key(entry, keyword))
            }
            Key::Mailbox(id, field) => {
                (Map::Mailboxes.object(id.as_bytes()), schema::mailbox_key(id, *field))
            }
        }
    }
}

/// Where an operation stands in the order of all operations: those it knew come before it.
type Order = (u64, Vec<u8>);

/// A change, taken apart.
struct Opened {
    stamp: Stamp,
    first: u64,
    operations: Vec<Op>,
}

/// Reads the past of keys. Changes that it needs it takes from `fetch`, by their hash: Automerge would walk the whole
/// document for each, the log has them by their place.
pub struct Past<'a, F> {
    doc: &'a Document,
    fetch: F,
    opened: BTreeMap<[u8; 32], Rc<Opened>>,
    operations: usize,
}

impl<'a, F: FnMut(&ChangeId) -> Option<Change>> Past<'a, F> {
    /// Most writes of one key that are looked at, the latest first: a key that is written more often is a program's
    /// doing, and writes are compared each with each.
    const MAX_WRITES: usize = 256;
    /// Operations of changes that are kept taken apart, some 300 bytes each.
    const MAX_KEPT: usize = 65_536;

    /// Reads the past of keys of `doc`.
    pub fn new(doc: &'a Document, fetch: F) -> Past<'a, F> {
        Past { doc, fetch, opened: BTreeMap::new(), operations: 0 }
    }

    /// The document whose past it is.
    pub fn document(&self) -> &'a Document {
        self.doc
    }

    /// The change that one key's only write is part of: a pack's or a UID record's. Reads no change, if it is in `known`.
    pub fn author(&mut self, key: &Key) -> Option<Stamp> {
        self.writes(key).writes.first().map(|write| write.stamp)
    }

    /// All writes to a key. Costs as much as the changes that they are part of, about 0.5 µs for each operation of those;
    /// no other change is read.
    pub fn writes(&mut self, key: &Key) -> Writes {
        let (object, text) = key.at();
        let visible = self.doc.automerge().get_all(&object, text.as_str()).unwrap_or_default();
        let mut next: BTreeSet<Order> = visible.iter().filter_map(|(_, id)| place_of(id)).collect();
        let (mut found, mut links): (BTreeMap<Order, Write>, Vec<(Order, Order)>) = Default::default();
        while let Some(at) = next.pop_last() {
            if found.len() == Self::MAX_WRITES {
                break;
            }
            let Some((write, before)) = self.write_at(&at, &text) else { continue };
            for earlier in before {
                links.push((at.clone(), earlier.clone()));
                next.insert(earlier);
            }
            found.insert(at, write);
        }
        let places: Vec<Order> = found.keys().cloned().collect();
        let index = |at: &Order| places.binary_search(at).ok();
        let mut after = vec![BTreeSet::new(); places.len()];
        for (later, earlier) in &links {
            if let (Some(later), Some(earlier)) = (index(later), index(earlier)) {
                after[later].insert(earlier);
            }
        }
        // Earlier ones come first, so theirs are complete.
        for at in 0..after.len() {
            let inherited: BTreeSet<usize> =
                after[at].iter().flat_map(|earlier: &usize| after[*earlier].iter().copied()).collect();
            after[at].extend(inherited);
        }
        Writes { writes: found.into_values().collect(), knew: after }
    }

    /// Whether the one value that a key has was written by this change, so that no other author's write stands beside it.
    pub fn is_plain(&self, key: &Key, change: &ChangeId) -> bool {
        let (object, text) = key.at();
        let doc = self.doc.automerge();
        match doc.get_all(&object, text.as_str()).unwrap_or_default().as_slice() {
            [(_, id)] => doc.hash_for_opid(id).is_some_and(|hash| hash.0 == change.0),
            _ => false,
        }
    }

    /// The keywords of an entry that somebody ever set or cleared. Costs O(keys of its bucket), a 512th of all.
    pub fn keywords(&self, entry: EntryId) -> BTreeSet<Keyword> {
        let keys = self.doc.automerge().keys(Map::Keywords.object(entry.as_bytes()));
        keys.filter_map(|key| schema::split_keyword_key(&key))
            .filter_map(|(of, keyword)| (of == entry).then_some(keyword))
            .collect()
    }

    fn write_at(&mut self, at: &Order, key: &str) -> Option<(Write, Vec<Order>)> {
        let id = ObjId::Id(at.0, ActorId::from(at.1.as_slice()), 0);
        let hash = self.doc.automerge().hash_for_opid(&id)?;
        let opened = self.open(&ChangeId(hash.0))?;
        let index = usize::try_from(at.0.checked_sub(opened.first)?).ok()?;
        let op = opened.operations.get(index)?;
        if !matches!(&op.key, LegacyKey::Map(text) if text.as_str() == key) {
            return None;
        }
        let (_, value) = read_op(op)?;
        let before = op.pred.iter().map(|OpId(counter, actor)| (*counter, actor.to_bytes().to_vec()));
        Some((Write { stamp: opened.stamp, value }, before.collect()))
    }

    fn open(&mut self, id: &ChangeId) -> Option<Rc<Opened>> {
        if let Some(opened) = self.opened.get(&id.0) {
            return Some(Rc::clone(opened));
        }
        let change = (self.fetch)(id)?;
        let decoded = change.inner.decode();
        let first = change.inner.start_op().get();
        let opened = Rc::new(Opened { stamp: change.stamp(), first, operations: decoded.operations });
        self.operations += opened.operations.len();
        if self.operations > Self::MAX_KEPT {
            self.opened.clear();
            self.operations = opened.operations.len();
        }
        self.opened.insert(id.0, Rc::clone(&opened));
        Some(opened)
    }
}

fn place_of(id: &ObjId) -> Option<Order> {
    match id {
        ObjId::Id(counter, actor, _) => Some((*counter, actor.to_bytes().to_vec())),
        ObjId::Root => None,
    }
}

/// All writes to a key, each after those that its author knew. Of writes that are apart, the one that Automerge prefers
/// comes last.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    writes: Vec<Write>,
    /// For each write the earlier ones that its author knew.
    knew: Vec<BTreeSet<usize>>,
}

/// What a key would be without some of its writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Without {
    /// None of them holds: a later write, or a concurrent one that won, stands in their place.
    Overwritten,
    /// The values that would stand beside each other; nothing if none was ever written.
    Values(Vec<Value>),
}

impl Writes {
    /// The writes.
    pub fn all(&self) -> &[Write] {
        &self.writes
    }

    /// The writes that were made apart from this one: neither author knew the other's.
    pub fn rivals(&self, of: usize) -> Vec<usize> {
        let apart = |other: &usize| {
            *other != of && !self.knew[of].contains(other) && !self.knew[*other].contains(&of)
        };
        (0..self.writes.len()).filter(apart).collect()
    }

    /// The writes of `among` that no other one of them came after.
    pub fn latest(&self, among: &BTreeSet<usize>) -> Vec<usize> {
        let replaced = |one: usize| among.iter().any(|other| self.knew[*other].contains(&one));
        among.iter().copied().filter(|one| !replaced(*one)).collect()
    }

    /// The groups of writes that a merge had to decide between: each was made apart from another one of its group.
    pub fn contests(&self) -> Vec<BTreeSet<usize>> {
        let (mut contests, mut met) = (Vec::new(), BTreeSet::new());
        for start in 0..self.writes.len() {
            let (mut group, mut next) = (BTreeSet::new(), vec![start]);
            while let Some(one) = next.pop() {
                if met.insert(one) {
                    group.insert(one);
                    next.extend(self.rivals(one));
                }
            }
            if group.len() > 1 {
                contests.push(group);
            }
        }
        contests
    }

    /// The values that stood when one write was made, as its author knew them.
    pub fn before(&self, of: usize) -> Vec<&Value> {
        self.latest(&self.knew[of]).into_iter().map(|one| &self.writes[one].value).collect()
    }

    /// What the key would be, had `undone` not been written. Writes whose author knew one of these stand above them.
    pub fn without(&self, undone: impl Fn(&Stamp) -> bool) -> Without {
        let all: BTreeSet<usize> = (0..self.writes.len()).collect();
        let (gone, kept): (BTreeSet<usize>, BTreeSet<usize>) =
            all.iter().partition(|one| undone(&self.writes[**one].stamp));
        let standing = self.latest(&all);
        let later =
            |one: &usize| !gone.contains(one) && self.knew[*one].iter().any(|known| gone.contains(known));
        if standing.iter().any(later) || standing.iter().all(|one| !gone.contains(one)) {
            return Without::Overwritten;
        }
        Without::Values(self.latest(&kept).into_iter().map(|one| self.writes[one].value.clone()).collect())
    }
}
