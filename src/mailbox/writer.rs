//! What one change writes: each method is an operation or a few.

use automerge::ScalarValue;

use super::document::Place;
use super::pack::{Pack, short_hash};
use super::puts::Put;
use super::run::UidRecord;
use super::schema::{self, Field, Map};
use super::{EntryId, Keyword, MailboxId, MailboxName, Nonce, PackId, ReplicaId, SpecialUse, UidValidity};

/// Collects the writes of one change.
pub struct Writer {
    puts: Vec<Put>,
    replica: ReplicaId,
    seq: u64,
    drawn: u64,
}

impl Writer {
    /// Writes the `seq`-th change of `replica`.
    pub(super) fn new(replica: ReplicaId, seq: u64) -> Writer {
        Writer { puts: Vec::new(), replica, seq, drawn: 0 }
    }

    /// What was written, in order.
    pub(super) fn into_puts(self) -> Vec<Put> {
        self.puts
    }

    /// Bytes that no other pack of the account has: author, number of the change, count within it.
    pub fn salt(&mut self) -> [u8; 24] {
        let mut salt = [0; 24];
        salt[..16].copy_from_slice(self.replica.as_bytes());
        salt[16..].copy_from_slice(&(self.seq << 20 | self.drawn).to_le_bytes());
        self.drawn += 1;
        salt
    }

    /// A nonce that no other placement of an entry has.
    pub fn nonce(&mut self) -> Nonce {
        let hash = short_hash(&[b"nonce", &self.salt()]);
        Nonce(u64::from_le_bytes(hash[..8].try_into().expect("eight of sixteen bytes")).max(1))
    }

    /// Adds a pack.
    pub fn pack(&mut self, pack: &Pack) -> PackId {
        let bytes = pack.encode();
        let id = Pack::id_of(&bytes);
        self.put(Map::Packs, id.as_bytes(), schema::id_key(id.as_bytes()), ScalarValue::Bytes(bytes));
        id
    }

    /// Adds a claim run or a burn.
    pub fn uid_record(&mut self, record: &UidRecord) {
        let bytes = record.encode();
        let key = UidRecord::key_of(&bytes);
        self.put(Map::Uids, &key, schema::id_key(&key), ScalarValue::Bytes(bytes));
    }

    /// Says where an entry is from now on; nothing expunges it.
    pub fn place(&mut self, entry: EntryId, place: Option<Place>) {
        let value = place.map_or(ScalarValue::Null, |place| {
            let mut bytes = place.mailbox.as_bytes().to_vec();
            bytes.extend(place.nonce.0.to_le_bytes());
            bytes.extend(place.renewal.to_le_bytes());
            ScalarValue::Bytes(bytes)
        });
        self.put(Map::Places, entry.as_bytes(), schema::id_key(entry.as_bytes()), value);
    }

    /// Sets or clears a keyword.
    pub fn keyword(&mut self, entry: EntryId, keyword: &Keyword, set: bool) {
        let key = schema::keyword_key(&entry, keyword);
        self.put(Map::Keywords, entry.as_bytes(), key, ScalarValue::Boolean(set));
    }

    /// Sets and clears keywords of many entries, in the order of their keys: neighbours cost less one after the other, in
    /// the document and on the wire.
    pub fn keywords<'k>(&mut self, edits: impl IntoIterator<Item = (EntryId, &'k Keyword, bool)>) {
        let mut edits: Vec<_> = edits
            .into_iter()
            .map(|(entry, keyword, set)| {
                let map = Map::Keywords.made(entry.as_bytes());
                (map, keyword, schema::keyword_key(&entry, keyword), set)
            })
            .collect();
        edits.sort_unstable();
        self.puts.extend(edits.into_iter().map(|(map, _, key, set)| Put { map, key, value: set.into() }));
    }

    /// Makes a mailbox.
    pub fn make_mailbox(&mut self, id: MailboxId, name: &MailboxName, incarnation: u32) {
        self.field(id, Field::Incarnation, ScalarValue::Uint(incarnation.into()));
        self.rename_mailbox(id, name);
    }

    /// Gives a mailbox another name.
    pub fn rename_mailbox(&mut self, id: MailboxId, name: &MailboxName) {
        self.field(id, Field::Name, ScalarValue::Str(name.as_str().into()));
    }

    /// Subscribes to a mailbox, or not.
    pub fn subscribe(&mut self, id: MailboxId, subscribed: bool) {
        self.field(id, Field::Subscribed, ScalarValue::Boolean(subscribed));
    }

    /// Gives a mailbox a special use, or none.
    pub fn special_use(&mut self, id: MailboxId, special_use: Option<SpecialUse>) {
        let text = special_use.map_or("", SpecialUse::name);
        self.field(id, Field::SpecialUse, ScalarValue::Str(text.into()));
    }

    /// Raises a mailbox's epoch: all its UIDs are claimed anew, under a higher UIDVALIDITY.
    pub fn epoch(&mut self, id: MailboxId, epoch: u32) {
        self.field(id, Field::Epoch, ScalarValue::Uint(epoch.into()));
    }

    /// Takes the UIDVALIDITY that the mailbox had elsewhere.
    pub fn adopt_uid_validity(&mut self, id: MailboxId, validity: UidValidity) {
        self.field(id, Field::Adopted, ScalarValue::Uint(validity.value().into()));
    }

    /// Sets a mailbox's tombstone.
    pub fn delete_mailbox(&mut self, id: MailboxId) {
        self.field(id, Field::Deleted, ScalarValue::Boolean(true));
    }

    fn field(&mut self, id: MailboxId, field: Field, value: ScalarValue) {
        self.put(Map::Mailboxes, id.as_bytes(), schema::mailbox_key(&id, field), value);
    }

    fn put(&mut self, map: Map, id: &[u8; 16], key: String, value: ScalarValue) {
        self.puts.push(Put { map: map.made(id), key, value });
    }
}
