//! Membership records: signed, named by the hash of what was signed, and naming the records they follow.

use std::fmt;

use serde::Serialize;

use super::body::Body;
use super::cbor::{Malformed, Reader, Writer};
use super::keys::{PublicKey, SecretKey, Signature};
use crate::mailbox::{AccountId, ReplicaId};

/// Largest encoded record, 1 KiB: the fullest one (8 predecessors, 8 long addresses) fits, and a full log stays
/// at 4 MiB.
pub const MAX_RECORD: usize = 1024;
/// Most records that one record follows: 8 replicas that invite at once without having heard of each other.
pub const MAX_AFTER: usize = 8;
/// Longest name of a member in bytes: a host name fits.
pub const MAX_NAME: usize = 64;
/// Most addresses of a member: two families, a few interfaces, a public name.
pub const MAX_ADDRESSES: usize = 8;
/// Longest `host:port` in bytes: full names of real hosts are shorter, and eight of them fit a record.
pub const MAX_ADDRESS: usize = 64;

/// The only version of the encoding so far.
const VERSION: u64 = 1;
/// Signed bytes begin with this, so that no other signature of a replica can be passed off as a record.
const DOMAIN: &[u8] = b"postmerge 1 membership record\0";

/// What people call a member: 1 to 64 bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct MemberName(String);

impl MemberName {
    /// Takes a name as it is.
    pub fn new(name: &str) -> Result<MemberName, NameError> {
        let fits = !name.trim().is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
        if fits { Ok(MemberName(name.to_owned())) } else { Err(NameError) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is not a member's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a member's name has 1 to 64 bytes and no control characters")]
pub struct NameError;

/// Names an offer of membership; drawn at random by the inviter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OfferId(pub(super) [u8; 16]);

impl OfferId {
    /// Takes 16 bytes that the caller drew from the system's entropy.
    pub const fn from_bytes(bytes: [u8; 16]) -> OfferId {
        OfferId(bytes)
    }

    /// The 16 bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Names a record: the BLAKE3 of what its author signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId([u8; 32]);

/// How a change names the record that gave its author its role: the first bytes of the record's id. Its author cannot choose
/// them, and nobody else's record is meant.
pub type RoleName = [u8; 8];

impl RecordId {
    /// The name by which a change refers to the record.
    pub fn role_name(&self) -> RoleName {
        *self.0.first_chunk().expect("eight of thirty-two bytes")
    }

    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({})", data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}

/// A signed membership record whose signature was verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    id: RecordId,
    author: ReplicaId,
    key: PublicKey,
    after: Vec<RecordId>,
    body: Body,
    encoded: Vec<u8>,
}

impl Record {
    /// Writes and signs a record. `after` names what it follows; the log wants the heads that the author knows.
    pub fn sign(
        author: ReplicaId,
        key: &SecretKey,
        after: &[RecordId],
        body: &Body,
    ) -> Result<Record, RecordError> {
        if after.len() > MAX_AFTER {
            return Err(RecordError::TooManyPredecessors);
        }
        let mut content = Writer::new();
        content.map(5).uint(0).array(after.len());
        for id in after {
            content.bytes(&id.0);
        }
        content.uint(1).bytes(author.as_bytes());
        content.uint(2).bytes(key.public().as_bytes());
        content.uint(3).uint(body.kind());
        content.uint(4);
        body.write(&mut content)?;
        let content = content.finish();
        let signature = key.sign(&[DOMAIN, &content].concat());
        let mut whole = Writer::new();
        whole.array(3).uint(VERSION).bytes(&content).bytes(signature.as_bytes());
        let encoded = whole.finish();
        Record::decode(&encoded)
    }

    /// Reads a record and verifies its signature; costs about 60 µs.
    pub fn decode(encoded: &[u8]) -> Result<Record, RecordError> {
        if encoded.len() > MAX_RECORD {
            return Err(RecordError::TooLarge { len: encoded.len() });
        }
        let mut outer = Reader::new(encoded);
        if outer.array(3)? != 3 {
            return Err(RecordError::Malformed);
        }
        match outer.uint()? {
            VERSION => {}
            version => return Err(RecordError::Version { version }),
        }
        let content = outer.bytes()?;
        let signature = Signature::from_bytes(outer.exactly()?);
        outer.end()?;
        let mut fields = Fields::default();
        fields.read(content)?;
        let (Some(author), Some(key), Some(body)) = (fields.author, fields.key, fields.body) else {
            return Err(RecordError::Malformed);
        };
        if !key.verify(&[DOMAIN, content].concat(), &signature) {
            return Err(RecordError::Signature { author });
        }
        let id = RecordId(blake3::derive_key("postmerge 1 membership record", content));
        Ok(Record { id, author, key, after: fields.after, body, encoded: encoded.to_vec() })
    }

    /// The record's name.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Who says it.
    pub fn author(&self) -> ReplicaId {
        self.author
    }

    /// The key that signed it.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The records it follows.
    pub fn after(&self) -> &[RecordId] {
        &self.after
    }

    /// What it says.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The bytes to store and to send, as they were signed.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The account that this record founds: its id vouches for the record.
    pub fn account(&self) -> Option<AccountId> {
        let Body::Found { .. } = self.body else { return None };
        let hash = blake3::derive_key("postmerge 1 account", &self.id.0);
        AccountId::from_slice(&hash[..16])
    }
}

/// The content of a record while it is read.
#[derive(Default)]
struct Fields {
    after: Vec<RecordId>,
    author: Option<ReplicaId>,
    key: Option<PublicKey>,
    kind: Option<u64>,
    body: Option<Body>,
}

impl Fields {
    fn read(&mut self, content: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(content);
        for _ in 0..reader.map(16)? {
            match reader.uint()? {
                0 => {
                    for _ in 0..reader.array(MAX_AFTER)? {
                        self.after.push(RecordId(reader.exactly()?));
                    }
                }
                1 => self.author = Some(ReplicaId::from_bytes(reader.exactly()?)),
                2 => self.key = Some(PublicKey::from_bytes(reader.exactly()?)),
                3 => self.kind = Some(reader.uint()?),
                4 => self.body = Some(Body::read(self.kind.ok_or(Malformed)?, &mut reader)?),
                _ => reader.skip(1)?,
            }
        }
        reader.end()
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Theirs: the bytes are not what the format says, or a text or list in them is out of bounds.
    #[error("a membership record is malformed")]
    Malformed,
    /// Theirs: somebody else wrote or changed it.
    #[error("the signature of a membership record by replica {author} does not match")]
    Signature {
        /// Who the record says its author is.
        author: ReplicaId,
    },
    /// Nobody's: it was written by a later version.
    #[error("a membership record has format version {version}, this program knows 1")]
    Version {
        /// The version it has.
        version: u64,
    },
    /// A limit.
    #[error("a membership record of {len} bytes is larger than {MAX_RECORD}")]
    TooLarge {
        /// Bytes of the record.
        len: usize,
    },
    /// Ours: more than [`MAX_AFTER`] predecessors were to be named.
    #[error("a membership record follows at most {MAX_AFTER} others")]
    TooManyPredecessors,
    /// Ours: a kind that this version cannot write.
    #[error("membership records of kind {kind} cannot be written")]
    Kind {
        /// The number of the kind.
        kind: u64,
    },
}

impl From<Malformed> for RecordError {
    fn from(_: Malformed) -> RecordError {
        RecordError::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Role;
    use crate::uid::{Block, Lane};

    fn key() -> SecretKey {
        SecretKey::from_seed([3; 32])
    }

    fn every_body() -> Vec<Body> {
        let (replica, offer) = (ReplicaId::from_bytes([2; 16]), OfferId([4; 16]));
        let (endpoint, key) = (key().peer_id(), key().public());
        let name = MemberName::new(&"n".repeat(MAX_NAME)).unwrap();
        let addresses = vec!["a".repeat(MAX_ADDRESS - 4) + ":993"; MAX_ADDRESSES];
        vec![
            Body::Found {
                salt: [9; 16],
                block: Block::STANDARD,
                endpoint,
                name: name.clone(),
                role: Role::Server,
            },
            Body::Offer {
                offer,
                role: Role::Server,
                lane: Lane::WHOLE.split(),
                expires_at: u64::MAX,
                replaces: Some(offer),
            },
            Body::Offer { offer, role: Role::Observer, lane: None, expires_at: 0, replaces: None },
            Body::Admit { offer, replica, key, endpoint, name },
            Body::Revoke { replica, last: Some(u64::MAX) },
            Body::Revoke { replica, last: None },
            Body::Succeed { replica, key, endpoint },
            Body::Address { addresses },
            Body::Assign { replica, role: Role::Reader },
        ]
    }

    #[test]
    fn every_kind_comes_back_and_the_fullest_fits() {
        let after = [RecordId([1; 32]); MAX_AFTER];
        for body in every_body() {
            let record = Record::sign(ReplicaId::from_bytes([1; 16]), &key(), &after, &body).unwrap();
            assert_eq!(record.body(), &body);
            assert_eq!(Record::decode(record.encoded()), Ok(record.clone()));
            assert_eq!(record.account().is_some(), matches!(body, Body::Found { .. }));
        }
    }

    #[test]
    fn no_byte_can_be_changed() {
        let record = Record::sign(ReplicaId::from_bytes([1; 16]), &key(), &[], &every_body()[3]).unwrap();
        for at in 0..record.encoded().len() {
            let mut bytes = record.encoded().to_vec();
            bytes[at] ^= 1;
            assert!(Record::decode(&bytes).is_err(), "byte {at}");
            assert!(Record::decode(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn kinds_and_fields_of_later_versions_are_kept() {
        let key = key();
        let mut content = Writer::new();
        content.map(6).uint(0).array(0).uint(1).bytes(&[1; 16]).uint(2).bytes(key.public().as_bytes());
        content.uint(3).uint(77).uint(4).array(1).text("later").uint(9).bool(true);
        let content = content.finish();
        let mut whole = Writer::new();
        let signature = key.sign(&[DOMAIN, &content].concat());
        let bytes = whole.array(3).uint(1).bytes(&content).bytes(signature.as_bytes()).finish();
        let record = Record::decode(&bytes).unwrap();
        assert_eq!((record.body(), record.encoded()), (&Body::Unknown(77), &bytes[..]));
        let newer = Writer::new().array(3).uint(2).bytes(&[]).bytes(&[0; 64]).finish();
        assert_eq!(Record::decode(&newer), Err(RecordError::Version { version: 2 }));
    }
}
