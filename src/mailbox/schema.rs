//! The document's layout: the genesis change and the keys of its flat maps.
//!
//! Nothing is ever nested per message or per mailbox: a map that one replica removes while another writes into it
//! would lose what was written. Large maps are split into a fixed number of buckets, because applying a remote
//! change costs time in proportion to the keys of the maps it touches.

use automerge::{ActorId, ChangeHash, ObjId, ObjType, ROOT, transaction::Transactable};
use data_encoding::BASE64URL_NOPAD;

use super::{EntryId, Keyword, MailboxId};

/// The actor of the genesis change; no replica can have it.
const GENESIS_ACTOR: [u8; 16] = *b"postmerge-start\0";
/// The version of this layout, a scalar under `format` in the root map.
pub(super) const FORMAT: i64 = 1;

/// The maps of the document and how many buckets each has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Map {
    /// pack id → bytes
    Packs,
    /// entry → (mailbox, nonce, renewal), or null once expunged
    Places,
    /// keyword + entry → bool
    Keywords,
    /// mailbox + field → scalar
    Mailboxes,
    /// hash of the record → claim run or burned UIDs
    Uids,
}

impl Map {
    const ALL: [Map; 5] = [Map::Packs, Map::Places, Map::Keywords, Map::Mailboxes, Map::Uids];

    const fn buckets(self) -> usize {
        match self {
            Map::Packs | Map::Uids => 128,
            Map::Places => 256,
            Map::Keywords => 512,
            Map::Mailboxes => 1,
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Map::Packs => "packs",
            Map::Places => "places",
            Map::Keywords => "keywords",
            Map::Mailboxes => "mailboxes",
            Map::Uids => "uids",
        }
    }

    /// The operation counter of the first bucket; the genesis makes the maps in order, after one scalar.
    const fn first(self) -> u64 {
        match self {
            Map::Packs => 2,
            Map::Places => Map::Packs.first() + Map::Packs.buckets() as u64,
            Map::Keywords => Map::Places.first() + Map::Places.buckets() as u64,
            Map::Mailboxes => Map::Keywords.first() + Map::Keywords.buckets() as u64,
            Map::Uids => Map::Mailboxes.first() + Map::Mailboxes.buckets() as u64,
        }
    }

    /// The map and bucket that an operation of the genesis made.
    pub(super) fn made_by(counter: u64, actor: &ActorId) -> Option<(Map, usize)> {
        if actor.to_bytes() != GENESIS_ACTOR {
            return None;
        }
        Map::ALL.into_iter().find_map(|map| {
            let bucket = counter.checked_sub(map.first())? as usize;
            (bucket < map.buckets()).then_some((map, bucket))
        })
    }

    /// The bucket that holds keys of `id`. Ids are hashes, so two bytes of one spread evenly.
    pub(super) fn bucket(self, id: &[u8; 16]) -> usize {
        usize::from(u16::from_le_bytes([id[0], id[1]])) % self.buckets()
    }

    /// The object that holds keys of `id`.
    pub(super) fn object(self, id: &[u8; 16]) -> ObjId {
        object(self.made(id))
    }

    /// The operation of the genesis that made the object that holds keys of `id`.
    pub(super) fn made(self, id: &[u8; 16]) -> u64 {
        self.first() + self.bucket(id) as u64
    }

    /// The objects of all buckets.
    pub(super) fn objects(self) -> impl Iterator<Item = ObjId> {
        (self.first()..).take(self.buckets()).map(object)
    }
}

/// The object that an operation of the genesis made.
pub(super) fn object(made: u64) -> ObjId {
    ObjId::Id(made, ActorId::from(&GENESIS_ACTOR[..]), 0)
}

/// The hash of the genesis change, the one dependency that every first change has. Known beforehand: to make the genesis
/// costs 10 ms, which who opens a document that is there need not spend. A new value would split every account from its past.
pub(super) const GENESIS: [u8; 32] = [
    0xc4, 0xbd, 0x69, 0x92, 0x66, 0xbd, 0x0a, 0x3a, 0x06, 0xd1, 0xb8, 0x49, 0x52, 0x70, 0xb0, 0xbc, //
    0xcd, 0x08, 0xfc, 0xa5, 0x32, 0x90, 0x62, 0xa0, 0x33, 0x84, 0xda, 0x69, 0x77, 0xf5, 0xf7, 0x6c,
];

/// The document that every replica starts from: byte for byte the same everywhere, so that all share its maps. Made once
/// a process, and only for who starts one.
pub(super) fn genesis() -> &'static automerge::Automerge {
    static GENESIS: std::sync::OnceLock<automerge::Automerge> = std::sync::OnceLock::new();
    GENESIS.get_or_init(make_genesis)
}

fn make_genesis() -> automerge::Automerge {
    let mut doc = automerge::Automerge::new().with_actor(ActorId::from(&GENESIS_ACTOR[..]));
    let mut tx = doc.transaction();
    tx.put(ROOT, "format", FORMAT).expect("an empty root takes a scalar");
    for map in Map::ALL {
        for bucket in 0..map.buckets() {
            let key = format!("{}/{bucket:03}", map.prefix());
            tx.put_object(ROOT, key, ObjType::Map).expect("an empty root takes a map");
        }
    }
    tx.commit_with(automerge::transaction::CommitOptions::default().with_time(0));
    doc
}

/// Whether a document starts with the genesis of this layout.
pub(super) fn has_genesis(doc: &automerge::Automerge) -> bool {
    doc.get_change_meta_by_hash(&ChangeHash(GENESIS)).is_some()
}

/// Whether a change is the genesis's author's; nobody may speak for it.
pub(super) fn is_genesis_actor(actor: &ActorId) -> bool {
    actor.to_bytes() == GENESIS_ACTOR
}

/// A field of a mailbox, the last character of its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Field {
    /// How many mailboxes of its first name were there before.
    Incarnation,
    /// Its name.
    Name,
    /// Whether it is subscribed.
    Subscribed,
    /// Its special use (RFC 6154), or an empty text.
    SpecialUse,
    /// Its UID epoch.
    Epoch,
    /// The UIDVALIDITY it was adopted with.
    Adopted,
    /// Whether it was deleted.
    Deleted,
}

impl Field {
    pub(super) const ALL: [Field; 7] = [
        Field::Incarnation,
        Field::Name,
        Field::Subscribed,
        Field::SpecialUse,
        Field::Epoch,
        Field::Adopted,
        Field::Deleted,
    ];

    const fn letter(self) -> char {
        match self {
            Field::Incarnation => 'i',
            Field::Name => 'n',
            Field::Subscribed => 's',
            Field::SpecialUse => 'u',
            Field::Epoch => 'e',
            Field::Adopted => 'a',
            Field::Deleted => 'd',
        }
    }

    fn from_letter(letter: &str) -> Option<Field> {
        Field::ALL.into_iter().find(|field| letter.len() == 1 && letter.starts_with(field.letter()))
    }
}

/// The length of an id as text.
const ID_LEN: usize = 22;

pub(super) fn id_key(id: &[u8; 16]) -> String {
    BASE64URL_NOPAD.encode(id)
}

/// The keyword comes first, so that one flag on many messages is a neighbourhood in each bucket: Automerge takes such a
/// change in with one insertion a bucket instead of one a message.
pub(super) fn keyword_key(entry: &EntryId, keyword: &Keyword) -> String {
    let mut key = String::with_capacity(keyword.as_str().len() + ID_LEN);
    key.push_str(keyword.as_str());
    BASE64URL_NOPAD.encode_append(entry.as_bytes(), &mut key);
    key
}

/// What the keys of a map share that are likely to be written together: of keywords the keyword.
pub(super) fn neighbourhood(key: &str) -> &str {
    key.len().checked_sub(ID_LEN).and_then(|end| key.get(..end)).unwrap_or("")
}

pub(super) fn mailbox_key(mailbox: &MailboxId, field: Field) -> String {
    let mut key = id_key(mailbox.as_bytes());
    key.push(field.letter());
    key
}

/// The id in a key of a map, and the rest. Only the one spelling of an id is taken.
pub(super) fn split_key(map: Map, key: &str) -> Option<([u8; 16], &str)> {
    let (id, rest) = match map {
        Map::Keywords => {
            let (rest, id) = key.split_at_checked(key.len().checked_sub(ID_LEN)?)?;
            (id, rest)
        }
        _ => key.split_at_checked(ID_LEN)?,
    };
    let mut bytes = [0; 16];
    let written = BASE64URL_NOPAD.decode_mut(id.as_bytes(), &mut bytes).ok()?;
    (written == bytes.len()).then_some((bytes, rest))
}

pub(super) fn split_keyword_key(key: &str) -> Option<(EntryId, Keyword)> {
    let (id, rest) = split_key(Map::Keywords, key)?;
    let keyword: Keyword = rest.parse().ok()?;
    (keyword.as_str() == rest).then_some((EntryId::from_bytes(id), keyword))
}

pub(super) fn split_mailbox_key(key: &str) -> Option<(MailboxId, Field)> {
    let (id, rest) = split_key(Map::Mailboxes, key)?;
    Some((MailboxId::from_bytes(id), Field::from_letter(rest)?))
}

#[cfg(test)]
mod tests {
    use automerge::ReadDoc;

    use super::*;

    #[test]
    fn the_genesis_is_the_same_everywhere_and_for_ever() {
        assert_eq!(make_genesis().save(), make_genesis().save());
        assert_eq!(make_genesis().get_heads(), [ChangeHash(GENESIS)]);
        assert_eq!(
            data_encoding::HEXLOWER.encode(&GENESIS),
            "c4bd699266bd0a3a06d1b8495270b0bccd08fca5329062a03384da6977f5f76c"
        );
        assert!(has_genesis(genesis()));
    }

    #[test]
    fn objects_are_where_the_genesis_made_them() {
        let doc = genesis();
        for map in Map::ALL {
            for (bucket, object) in map.objects().enumerate() {
                let (_, made) = doc.get(ROOT, format!("{}/{bucket:03}", map.prefix())).unwrap().unwrap();
                assert_eq!(made, object);
                let ObjId::Id(counter, actor, _) = object else { panic!("a bucket is no root") };
                assert_eq!(Map::made_by(counter, &actor), Some((map, bucket)));
            }
        }
        assert_eq!(Map::made_by(1, &ActorId::from(&GENESIS_ACTOR[..])), None);
    }

    #[test]
    fn keys_come_back_in_one_spelling() {
        let entry = EntryId::from_bytes([0xfe; 16]);
        let key = keyword_key(&entry, &Keyword::seen());
        assert_eq!(split_keyword_key(&key), Some((entry, Keyword::seen())));
        assert_eq!(split_keyword_key(&key.replace("\\Seen", "\\seen")), None);
        let mailbox = MailboxId::from_bytes([1; 16]);
        for field in Field::ALL {
            assert_eq!(split_mailbox_key(&mailbox_key(&mailbox, field)), Some((mailbox, field)));
        }
    }
}
