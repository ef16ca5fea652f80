//! Packs: immutable batches of entries, one operation of the document each.

use std::collections::BTreeSet;

use super::{EntryId, Keyword, MailboxId, PackId};
use crate::blob::{BlobId, MAX_BLOB};
use crate::bytes::{Reader, put_number, put_signed};

/// What a pack says of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The body.
    pub blob: BlobId,
    /// The internal date (RFC 9051, section 2.3.3), in seconds since 1970.
    pub internal_date: i64,
    /// The body's size in bytes (RFC822.SIZE).
    pub size: u64,
    /// The keywords it came with.
    pub keywords: BTreeSet<Keyword>,
}

/// How the entries of a pack get their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Delivered, appended or copied: ids that nobody else can have. The salt is the author and the number of its
    /// change, which no other change shares.
    Arrived {
        /// What tells this pack from every other.
        salt: [u8; 24],
    },
    /// Imported from a folder: ids that follow from mailbox, body and occurrence, so that two replicas that import
    /// the same folder hold each message once. One occurrence a message.
    Imported {
        /// For each message, how many equal bodies stand before it in its folder.
        occurrences: Vec<u32>,
    },
}

/// An immutable batch of messages that arrived in one mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Where its entries start out.
    pub mailbox: MailboxId,
    /// How its entries get their ids.
    pub origin: Origin,
    /// Its messages; the order is the entries' numbers in the pack.
    pub messages: Vec<Message>,
}

const VERSION: u8 = 1;

/// Why bytes are no pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no pack of a known version within its limits")]
pub struct PackError;

impl Pack {
    /// Most messages of a pack: 1,000 make 41 kB, small against a frame, and one change's fixed cost is spread well.
    pub const MAX_MESSAGES: usize = 1000;
    /// Most keywords of one message when it arrives.
    pub const MAX_KEYWORDS: usize = 64;

    /// The pack's id: the hash of its bytes, so that it cannot be replaced.
    pub fn id_of(bytes: &[u8]) -> PackId {
        PackId::from_bytes(short_hash(&[b"pack", bytes]))
    }

    /// The id of the entry at `index`; `pack` is this pack's id.
    pub fn entry_id(&self, pack: PackId, index: usize) -> EntryId {
        match &self.origin {
            Origin::Arrived { .. } => {
                EntryId::from_bytes(short_hash(&[b"entry", pack.as_bytes(), &(index as u32).to_le_bytes()]))
            }
            Origin::Imported { occurrences } => {
                Pack::imported_id(self.mailbox, &self.messages[index].blob, occurrences[index])
            }
        }
    }

    /// The id of an imported entry.
    pub fn imported_id(mailbox: MailboxId, blob: &BlobId, occurrence: u32) -> EntryId {
        EntryId::from_bytes(short_hash(&[
            b"import",
            mailbox.as_bytes(),
            blob.as_bytes(),
            &occurrence.to_le_bytes(),
        ]))
    }

    /// Version, mailbox, count, origin, then a column each: keyword sets, which set, dates, sizes, bodies.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.mailbox.as_bytes());
        put_number(&mut out, self.messages.len() as u64);
        match &self.origin {
            Origin::Arrived { salt } => {
                out.push(0);
                out.extend(salt);
            }
            Origin::Imported { occurrences } => {
                out.push(1);
                put_repeats(&mut out, occurrences.iter().map(|n| u64::from(*n)));
            }
        }
        let sets: Vec<&BTreeSet<Keyword>> =
            self.messages.iter().map(|m| &m.keywords).collect::<BTreeSet<_>>().into_iter().collect();
        put_number(&mut out, sets.len() as u64);
        for set in &sets {
            put_number(&mut out, set.len() as u64);
            for keyword in *set {
                put_number(&mut out, keyword.as_str().len() as u64);
                out.extend(keyword.as_str().as_bytes());
            }
        }
        put_repeats(
            &mut out,
            self.messages
                .iter()
                .map(|m| sets.binary_search(&&m.keywords).expect("every set is listed") as u64),
        );
        let mut last = 0i64;
        for message in &self.messages {
            put_signed(&mut out, message.internal_date.wrapping_sub(last));
            last = message.internal_date;
        }
        for message in &self.messages {
            put_number(&mut out, message.size);
        }
        for message in &self.messages {
            out.extend(message.blob.as_bytes());
        }
        out
    }

    /// Reads a pack. Accepts only what [`Pack::encode`] writes, within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Pack, PackError> {
        let pack = Pack::read(&mut Reader(bytes)).ok_or(PackError)?;
        // One content has one encoding, hence one id.
        (pack.encode() == bytes).then_some(pack).ok_or(PackError)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Pack> {
        if reader.byte()? != VERSION {
            return None;
        }
        let mailbox = MailboxId::from_bytes(reader.array()?);
        let count = usize::try_from(reader.number()?).ok()?;
        if count == 0 || count > Pack::MAX_MESSAGES {
            return None;
        }
        let origin = match reader.byte()? {
            0 => Origin::Arrived { salt: reader.array()? },
            1 => Origin::Imported {
                occurrences: read_repeats(reader, count, u64::from(u32::MAX))?
                    .iter()
                    .map(|n| *n as u32)
                    .collect(),
            },
            _ => return None,
        };
        let sets = read_keyword_sets(reader, count)?;
        let which = read_repeats(reader, count, sets.len() as u64 - 1)?;
        let mut dates = Vec::with_capacity(count);
        let mut last = 0i64;
        for _ in 0..count {
            last = last.wrapping_add(reader.signed()?);
            dates.push(last);
        }
        let mut sizes = Vec::with_capacity(count);
        for _ in 0..count {
            sizes.push(reader.number().filter(|size| *size <= MAX_BLOB)?);
        }
        let mut messages = Vec::with_capacity(count);
        for index in 0..count {
            messages.push(Message {
                blob: BlobId::from_bytes(reader.array()?),
                internal_date: dates[index],
                size: sizes[index],
                keywords: sets[which[index] as usize].clone(),
            });
        }
        reader.is_empty().then_some(Pack { mailbox, origin, messages })
    }
}

fn read_keyword_sets(reader: &mut Reader<'_>, messages: usize) -> Option<Vec<BTreeSet<Keyword>>> {
    let count = usize::try_from(reader.number()?).ok().filter(|n| (1..=messages).contains(n))?;
    let mut sets = Vec::with_capacity(count);
    for _ in 0..count {
        let len = usize::try_from(reader.number()?).ok().filter(|n| *n <= Pack::MAX_KEYWORDS)?;
        let mut set = BTreeSet::new();
        for _ in 0..len {
            let len = usize::try_from(reader.number()?).ok().filter(|n| *n <= Keyword::MAX_LEN)?;
            set.insert(std::str::from_utf8(reader.take(len)?).ok()?.parse().ok()?);
        }
        sets.push(set);
    }
    Some(sets)
}

/// Pairs of value and how often it stands in a row.
fn put_repeats(out: &mut Vec<u8>, values: impl Iterator<Item = u64>) {
    let mut values = values.peekable();
    while let Some(value) = values.next() {
        let mut times = 1;
        while values.next_if_eq(&value).is_some() {
            times += 1;
        }
        put_number(out, value);
        put_number(out, times);
    }
}

fn read_repeats(reader: &mut Reader<'_>, count: usize, max: u64) -> Option<Vec<u64>> {
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let value = reader.number().filter(|value| *value <= max)?;
        let times = usize::try_from(reader.number()?).ok()?;
        if times == 0 || times > count - values.len() {
            return None;
        }
        values.resize(values.len() + times, value);
    }
    Some(values)
}

/// The first 16 bytes of a BLAKE3 over parts; the first part names the purpose.
pub(crate) fn short_hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(count: usize) -> Pack {
        Pack {
            mailbox: MailboxId::from_bytes([7; 16]),
            origin: Origin::Imported { occurrences: (0..count as u32).map(|i| i % 2).collect() },
            messages: (0..count)
                .map(|i| Message {
                    blob: BlobId::of(&i.to_le_bytes()),
                    internal_date: 1_000_000_000 + 61 * i as i64,
                    size: 3000 + i as u64,
                    keywords: (i % 3 == 0).then(Keyword::seen).into_iter().collect(),
                })
                .collect(),
        }
    }

    #[test]
    fn a_pack_comes_back_and_a_message_costs_little_beyond_its_hash() {
        let bytes = sample(1000).encode();
        assert_eq!(Pack::decode(&bytes).unwrap(), sample(1000));
        assert!(bytes.len() < 1000 * 41, "{} bytes", bytes.len());
    }

    proptest::proptest! {
        #[test]
        fn damaged_packs_are_refused_or_mean_what_they_say(at in 0usize..400, byte: u8) {
            let mut bytes = sample(5).encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(pack) = Pack::decode(&bytes) {
                assert_eq!(pack.encode(), bytes);
            }
        }
    }
}
