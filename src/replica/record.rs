//! What this replica logs beside changes: truth that it does not share, or that is not part of the document.

use std::collections::BTreeMap;

use crate::bytes::{Reader, put_number};
use crate::mailbox::{ReplicaId, UidValidity};
use crate::member::Signature;
use crate::uid::PrivateUids;

/// A local record of the log. The number of a kind is never reused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LocalRecord {
    /// The changes before it were taken into the index at once.
    BatchEnd,
    /// Private UIDs of an observer.
    Private(PrivateUids),
    /// The store was copied back.
    Restored { floor: UidValidity, time: i64, era: u16 },
    /// A peer's mod-sequence counter, from which this replica goes on.
    Counter(u64),
    /// What the inviter knew when this server heard of it first: with that known, its lane may be used.
    Granted(BTreeMap<ReplicaId, u64>),
    /// A change that this replica wrote under an earlier name, whose key is gone.
    Signed { replica: ReplicaId, seq: u64, signature: Signature },
}

impl LocalRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            LocalRecord::BatchEnd => out.push(1),
            LocalRecord::Private(uids) => {
                out.push(2);
                out.extend(uids.encode());
            }
            LocalRecord::Restored { floor, time, era } => {
                out.push(3);
                put_number(&mut out, floor.value().into());
                out.extend(time.to_le_bytes());
                out.extend(era.to_le_bytes());
            }
            LocalRecord::Counter(counter) => {
                out.push(4);
                put_number(&mut out, *counter);
            }
            LocalRecord::Granted(after) => {
                out.push(5);
                out.extend(encode_version(after));
            }
            LocalRecord::Signed { replica, seq, signature } => {
                out.push(6);
                out.extend(replica.as_bytes());
                out.extend(seq.to_be_bytes());
                out.extend(signature.as_bytes());
            }
        }
        out
    }

    /// Nothing for a record of a later version or a damaged one.
    pub(super) fn decode(bytes: &[u8]) -> Option<LocalRecord> {
        let (kind, rest) = bytes.split_first()?;
        let mut reader = Reader(rest);
        Some(match kind {
            1 => LocalRecord::BatchEnd,
            2 => LocalRecord::Private(PrivateUids::decode(rest)?),
            3 => LocalRecord::Restored {
                floor: UidValidity::new(reader.number32()?)?,
                time: i64::from_le_bytes(reader.array()?),
                era: u16::from_le_bytes(reader.array()?),
            },
            4 => LocalRecord::Counter(reader.number()?),
            5 => LocalRecord::Granted(decode_version(rest)?),
            6 => LocalRecord::Signed {
                replica: ReplicaId::from_bytes(reader.array()?),
                seq: u64::from_be_bytes(reader.array()?),
                signature: Signature::from_bytes(reader.array()?),
            },
            _ => return None,
        })
    }
}

/// A version vector as a row.
pub(super) fn encode_version(version: &BTreeMap<ReplicaId, u64>) -> Vec<u8> {
    let mut out = Vec::with_capacity(version.len() * 20);
    for (replica, seq) in version {
        out.extend(replica.as_bytes());
        put_number(&mut out, *seq);
    }
    out
}

pub(super) fn decode_version(bytes: &[u8]) -> Option<BTreeMap<ReplicaId, u64>> {
    let mut reader = Reader(bytes);
    let mut version = BTreeMap::new();
    while !reader.is_empty() {
        version.insert(ReplicaId::from_bytes(reader.array()?), reader.number()?);
    }
    Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        for record in [
            LocalRecord::BatchEnd,
            LocalRecord::Restored { floor: UidValidity::new(77).unwrap(), time: -5, era: 9 },
            LocalRecord::Counter(1 << 40),
            LocalRecord::Granted([(ReplicaId::from_bytes([7; 16]), 900)].into()),
            LocalRecord::Signed {
                replica: ReplicaId::from_bytes([7; 16]),
                seq: 1 << 33,
                signature: Signature::from_bytes([8; 64]),
            },
        ] {
            assert_eq!(LocalRecord::decode(&record.encode()), Some(record));
        }
        assert_eq!(LocalRecord::decode(&[99]), None);
    }
}
