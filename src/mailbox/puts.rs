//! How the writes of one change come into the document.
//!
//! Automerge's transaction puts each key into its columns on its own; a change that is there already it takes in with one
//! walk over the maps that are touched. So a large change is made here, with what a transaction would have made of it, and
//! then applied as if a peer had sent it.

use std::num::NonZeroU64;

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType};
use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Automerge, ChangeHash, ExpandedChange, ObjId, ReadDoc, ScalarValue, ValueRef};

use super::document::scalars;
use super::neighbours::{Found, Neighbours};
use super::schema;

/// Fewer writes than these are put one by one: setting up for an apply costs as much.
const FEW: usize = 64;

/// A single put costs as much as walking past so many operations of the document.
const WALKED: usize = 200;

/// One write: a key of one of the genesis's maps and its new value.
pub(super) struct Put {
    /// The operation of the genesis that made the map.
    pub(super) map: u64,
    pub(super) key: String,
    pub(super) value: ScalarValue,
}

/// Who makes a change, and behind what.
pub(super) struct Frame {
    pub(super) actor: ActorId,
    pub(super) seq: u64,
    pub(super) time: i64,
    pub(super) message: Option<String>,
    pub(super) deps: Vec<ChangeHash>,
    /// The highest number of an operation so far.
    pub(super) max_op: u64,
}

/// The order of the keys, if there are so many that a change is better made at once. A key that is written twice must be
/// put twice, one after the other.
pub(super) fn order_of_many(doc: &Automerge, puts: &[Put]) -> Option<Vec<usize>> {
    let walked = usize::try_from(doc.stats().num_ops).unwrap_or(usize::MAX);
    if puts.len() < FEW || puts.len().saturating_mul(WALKED) < walked {
        return None;
    }
    let place = |at: &usize| (puts[*at].map, puts[*at].key.as_str());
    let mut order: Vec<usize> = (0..puts.len()).collect();
    order.sort_unstable_by_key(place);
    order.is_sorted_by(|a, b| place(a) < place(b)).then_some(order)
}

/// Puts one key after the other. The hash of the change; nothing if no value changed.
pub(super) fn one_by_one(
    doc: &mut Automerge,
    puts: Vec<Put>,
    time: i64,
    message: Option<String>,
) -> Option<ChangeHash> {
    let mut tx = doc.transaction();
    puts.into_iter().for_each(|put| put_one(&mut tx, put));
    let mut options = CommitOptions::default().with_time(time);
    if let Some(message) = message {
        options.set_message(message);
    }
    tx.commit_with(options).0
}

fn put_one(tx: &mut Transaction<'_>, Put { map, key, value }: Put) {
    let object = schema::object(map);
    let present = scalars(tx, &object, &key);
    if present.len() > 1 && present.last() == Some(&value) {
        // Where concurrent values stand, Automerge turns writing the one it prefers into removals of the others, and
        // removals are what no change may have. Writing another one first makes it two plain writes.
        match present.into_iter().find(|other| *other != value) {
            Some(other) => tx.put(&object, key.as_str(), other).expect("it was there before"),
            None => return,
        }
    }
    tx.put(object, key, value).expect("the maps of the genesis take scalars");
}

/// The change that all the writes make; nothing if no value changes. It is not applied yet.
pub(super) fn at_once(
    doc: &Automerge,
    puts: Vec<Put>,
    order: &[usize],
    frame: Frame,
) -> Option<automerge::Change> {
    let mut replaced = replaced(doc, &puts, order);
    let operations: Vec<Op> = puts
        .into_iter()
        .zip(&mut replaced)
        .filter_map(|(put, replaced)| {
            Some(Op {
                action: OpType::Put(put.value),
                obj: legacy_object(put.map),
                key: Key::Map(put.key.into()),
                pred: replaced.take()?.into(),
                insert: false,
            })
        })
        .collect();
    let change = ExpandedChange {
        actor_id: frame.actor,
        hash: None,
        seq: frame.seq,
        start_op: NonZeroU64::MIN.saturating_add(frame.max_op),
        time: frame.time,
        message: frame.message,
        deps: frame.deps,
        extra_bytes: Vec::new(),
        author: None,
        operations,
    };
    (!change.operations.is_empty()).then(|| change.into())
}

/// The operations that each write replaces; nothing for one that changes nothing.
fn replaced(doc: &Automerge, puts: &[Put], order: &[usize]) -> Vec<Option<Vec<OpId>>> {
    let mut replaced = vec![None; puts.len()];
    let side_by_side = |a: &usize, b: &usize| {
        let (a, b) = (&puts[*a], &puts[*b]);
        a.map == b.map && schema::neighbourhood(&a.key) == schema::neighbourhood(&b.key)
    };
    for neighbours in order.chunk_by(side_by_side) {
        let object = schema::object(puts[neighbours[0]].map);
        let keys: Vec<&str> = neighbours.iter().map(|at| puts[*at].key.as_str()).collect();
        let mut walk = Neighbours::of(doc, &object, &keys);
        for at in neighbours {
            let put = &puts[*at];
            replaced[*at] = match walk.at(&put.key) {
                Found::Nothing => Some(Vec::new()),
                Found::One(item) => match item.value {
                    ValueRef::Scalar(value) if value == put.value => None,
                    _ => Some(vec![op_id(item.id())]),
                },
                Found::Ask => {
                    let present = doc.get_all(&object, put.key.as_str()).unwrap_or_default();
                    let news = present.is_empty()
                        || present.iter().any(|(value, _)| value.as_scalar() != Some(&put.value));
                    news.then(|| present.into_iter().map(|(_, id)| op_id(id)).collect())
                }
            };
        }
    }
    replaced
}

fn op_id(id: ObjId) -> OpId {
    match id {
        ObjId::Id(counter, actor, _) => OpId(counter, actor),
        ObjId::Root => unreachable!("no operation makes the root map"),
    }
}

fn legacy_object(map: u64) -> ObjectId {
    ObjectId::Id(op_id(schema::object(map)))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::mailbox::change::Change;
    use crate::mailbox::schema::Map;
    use crate::mailbox::writer::Writer;
    use crate::mailbox::{Document, EntryId, Keyword, MailboxId, Nonce, Place, ReplicaId};

    fn entry(n: u8) -> EntryId {
        // Few buckets, so that keys are neighbours of each other.
        EntryId::from_bytes(std::array::from_fn(|at| if at == 0 { n % 3 } else { n }))
    }

    /// Entries and what is written of them: a keyword that is set or cleared, another one, a place.
    type Writes = BTreeMap<(u8, u8), bool>;

    fn write_all(writes: &Writes) -> impl FnOnce(&mut Writer) {
        let keywords = ["\\Flagged", "a"].map(|text| text.parse::<Keyword>().unwrap());
        move |writer| {
            for ((n, what), set) in writes {
                let place = Place { mailbox: MailboxId::inbox(), nonce: Nonce(1), renewal: 0 };
                match keywords.get(usize::from(*what)) {
                    Some(keyword) => writer.keyword(entry(*n), keyword, *set),
                    None => writer.place(entry(*n), set.then_some(place)),
                }
            }
        }
    }

    fn writes(len: std::ops::Range<usize>) -> impl Strategy<Value = Writes> {
        prop::collection::btree_map((any::<u8>(), 0..3u8), any::<bool>(), len)
    }

    /// All that the maps hold: their keys with all values, in Automerge's order.
    fn content(doc: &Automerge) -> BTreeMap<(ObjId, String), Vec<ScalarValue>> {
        let maps = [Map::Keywords, Map::Places].into_iter().flat_map(Map::objects);
        maps.flat_map(|map| doc.keys(&map).map(move |key| (map.clone(), key)).collect::<Vec<_>>())
            .map(|(map, key)| {
                let values = scalars(doc, &map, &key);
                ((map, key), values)
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_change_made_at_once_is_the_one_of_single_puts(
            history in prop::collection::vec((any::<bool>(), any::<bool>(), writes(1..40)), 0..12),
            last in writes(FEW..200),
        ) {
            let mut docs = [1, 2].map(|n| Document::new(ReplicaId::from_bytes([n; 16])));
            let mut apart: [Vec<Change>; 2] = Default::default();
            for (time, (meet, who, writes)) in history.iter().enumerate() {
                if *meet {
                    let [a, b] = std::mem::take(&mut apart);
                    a.iter().for_each(|change| assert!(docs[1].apply(change).unwrap()));
                    b.iter().for_each(|change| assert!(docs[0].apply(change).unwrap()));
                }
                let who = usize::from(*who);
                apart[who].extend(docs[who].write(time as i64, write_all(writes)).unwrap());
            }
            let [_, theirs] = apart;
            let [mut doc, _] = docs;
            theirs.iter().for_each(|change| assert!(doc.apply(change).unwrap()));

            let puts = || {
                let mut writer = Writer::new(doc.replica(), 99);
                write_all(&last)(&mut writer);
                writer.into_puts()
            };
            let written: BTreeSet<_> = puts().into_iter().map(|put| (schema::object(put.map), put.key)).collect();
            let before = content(doc.automerge());
            let contested = before.iter().any(|(key, values)| values.len() > 1 && written.contains(key));
            let mut singly = doc.automerge().clone();
            let expected = one_by_one(&mut singly, puts(), 77, Some(crate::mailbox::change::write_under(&[7; 8])))
                .map(|hash| singly.get_change_by_hash(&hash).unwrap());

            doc.set_under(Some([7; 8]));
            let made = doc.write(77, write_all(&last)).unwrap();
            prop_assert_eq!(content(doc.automerge()), content(&singly));
            if !contested {
                // Where concurrent values stand, single puts may need two operations for what is one here.
                prop_assert_eq!(made.map(|change| change.hash()), expected.map(|change| change.hash().0));
            }
        }
    }

    #[test]
    fn a_document_made_anew_is_the_same_and_goes_on() {
        let many = |set| {
            move |writer: &mut Writer| {
                (0..u8::MAX).for_each(|n| writer.keyword(entry(n), &Keyword::seen(), set));
            }
        };
        let mut docs = [1, 2].map(|n| Document::new(ReplicaId::from_bytes([n; 16])));
        for step in 0..6 {
            let (writer, set) = (step % 2, step % 2 == 0);
            let change = docs[writer].write(step as i64, many(set)).unwrap().unwrap();
            docs[1 - writer].apply(&change).unwrap();
            let keywords = content(docs[writer].automerge());
            assert!(keywords.values().all(|values| values == &[ScalarValue::Boolean(set)]));
            assert_all_are(&docs, docs[writer].automerge());
        }
    }

    fn assert_all_are(docs: &[Document], expected: &Automerge) {
        for doc in docs {
            assert_eq!(content(doc.automerge()), content(expected));
            let loaded = Automerge::load(&doc.save()).unwrap();
            assert_eq!((loaded.get_heads(), content(&loaded)), (expected.get_heads(), content(expected)));
        }
    }
}
