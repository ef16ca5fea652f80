//! Changes on the wire: without what the other side can work out, and compressed.
//!
//! A change's header is a magic number, a checksum of the rest and its length; and most changes depend on one that was sent
//! just before, whose 32-byte hash the receiver knows. Both are left out and put back, so that the receiver has the change
//! byte for byte. A flag change made by hand then costs about 30 bytes instead of 130.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use super::{BATCH, MAX_CHANGE};

/// How many of the last changes can be referred to: a few replicas writing at once are far fewer.
const REMEMBERED: usize = 256;
/// Longest list of changes before compression: one change of the largest size, or a batch of small ones.
const MAX_PLAIN: usize = MAX_CHANGE + BATCH;
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHANGE: u8 = 1;

const STORED: u8 = 0;
const ZSTD: u8 = 1;

const VERBATIM: u8 = 0;
const COMPACT: u8 = 1;

/// The hashes of the changes that went in one direction of a session, latest last.
#[derive(Default)]
pub(super) struct Compactor {
    hashes: VecDeque<[u8; 32]>,
}

/// The bytes are no list of changes, or say more than they may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoChanges;

impl Compactor {
    fn remember(&mut self, hash: [u8; 32]) {
        if self.hashes.len() == REMEMBERED {
            self.hashes.pop_front();
        }
        self.hashes.push_back(hash);
    }

    /// How far back a hash stands, from 1.
    fn back(&self, hash: &[u8]) -> Option<usize> {
        let at = self.hashes.iter().rposition(|known| known == hash)?;
        Some(self.hashes.len() - at)
    }

    /// Packs changes, in the order in which they will be received.
    pub(super) fn pack(&mut self, changes: &[Vec<u8>]) -> Vec<u8> {
        let mut plain = Vec::new();
        for change in changes {
            match Parts::of(change) {
                Some(parts) => {
                    plain.push(COMPACT);
                    put_number(&mut plain, parts.deps.len());
                    for dep in &parts.deps {
                        let back = self.back(dep).unwrap_or(0);
                        put_number(&mut plain, back);
                        if back == 0 {
                            plain.extend_from_slice(dep);
                        }
                    }
                    put_number(&mut plain, parts.rest.len());
                    plain.extend_from_slice(parts.rest);
                    self.remember(parts.hash);
                }
                // Not for the session to judge; the receiver's host will.
                None => {
                    plain.push(VERBATIM);
                    put_number(&mut plain, change.len());
                    plain.extend_from_slice(change);
                }
            }
        }
        let packed = zstd::bulk::compress(&plain, zstd::DEFAULT_COMPRESSION_LEVEL).unwrap_or_default();
        let mut out = Vec::with_capacity(plain.len() + 4);
        if !packed.is_empty() && packed.len() + 3 < plain.len() {
            out.push(ZSTD);
            put_number(&mut out, plain.len());
            out.extend(packed);
        } else {
            out.push(STORED);
            out.extend(plain);
        }
        out
    }

    /// Unpacks what the other side's compactor packed, in the same order. Memory stays below a few times the largest change.
    pub(super) fn unpack(&mut self, packed: &[u8], most: usize) -> Result<Vec<Vec<u8>>, NoChanges> {
        let (codec, mut rest) = packed.split_first().ok_or(NoChanges)?;
        let inflated;
        let mut plain = match *codec {
            STORED => rest,
            ZSTD => {
                let len = number(&mut rest).filter(|len| *len <= MAX_PLAIN).ok_or(NoChanges)?;
                inflated = zstd::bulk::decompress(rest, len).map_err(|_| NoChanges)?;
                if inflated.len() != len {
                    return Err(NoChanges);
                }
                &inflated
            }
            _ => return Err(NoChanges),
        };
        let (mut changes, mut total) = (Vec::new(), 0);
        while !plain.is_empty() {
            let change = self.unpack_one(&mut plain).ok_or(NoChanges)?;
            total += change.len();
            if changes.len() == most || total > 2 * MAX_PLAIN {
                return Err(NoChanges);
            }
            changes.push(change);
        }
        Ok(changes)
    }

    fn unpack_one(&mut self, plain: &mut &[u8]) -> Option<Vec<u8>> {
        match take(plain, 1)?[0] {
            VERBATIM => {
                let len = number(plain).filter(|len| (1..=MAX_CHANGE).contains(len))?;
                Some(take(plain, len)?.to_vec())
            }
            COMPACT => {
                let mut body = Vec::new();
                let deps = number(plain).filter(|deps| *deps <= REMEMBERED)?;
                put_number(&mut body, deps);
                for _ in 0..deps {
                    match number(plain)? {
                        0 => body.extend_from_slice(take(plain, 32)?),
                        back => {
                            let at = self.hashes.len().checked_sub(back)?;
                            body.extend_from_slice(self.hashes.get(at)?);
                        }
                    }
                }
                let len = number(plain)?;
                body.extend_from_slice(take(plain, len)?);
                let (change, hash) = whole(&body);
                self.remember(hash);
                (change.len() <= MAX_CHANGE).then_some(change)
            }
            _ => None,
        }
    }
}

/// A change taken apart.
struct Parts<'a> {
    deps: Vec<&'a [u8]>,
    rest: &'a [u8],
    hash: [u8; 32],
}

impl Parts<'_> {
    /// Nothing if the change would not come back byte for byte.
    fn of(change: &[u8]) -> Option<Parts<'_>> {
        let mut body = change.get(9..)?;
        number(&mut body)?;
        let (rebuilt, hash) = whole(body);
        if rebuilt != change {
            return None;
        }
        let count = number(&mut body).filter(|count| *count <= REMEMBERED)?;
        let deps = (0..count).map(|_| take(&mut body, 32)).collect::<Option<Vec<_>>>()?;
        let mut again = Vec::new();
        put_number(&mut again, count);
        // The count must have its one shortest form.
        let prefix = change.len() - body.len() - 32 * count - again.len();
        (change[prefix..].starts_with(&again)).then_some(Parts { deps, rest: body, hash })
    }
}

/// A change with its header, and its hash.
fn whole(body: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let mut hashed = vec![CHANGE];
    put_number(&mut hashed, body.len());
    hashed.extend_from_slice(body);
    let hash: [u8; 32] = Sha256::digest(&hashed).into();
    let mut change = Vec::with_capacity(hashed.len() + 8);
    change.extend(MAGIC);
    change.extend(&hash[..4]);
    change.extend(hashed);
    (change, hash)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

/// LEB128, as Automerge writes lengths.
fn put_number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0usize;
    for shift in (0..28).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Document, EntryId, Keyword, ReplicaId};

    fn flags(count: u8) -> Vec<Vec<u8>> {
        let mut doc = Document::new(ReplicaId::from_bytes([1; 16]));
        let write = |n: u8| {
            let entry = EntryId::from_bytes(*blake3::hash(&[n]).as_bytes().first_chunk().unwrap());
            doc.write(1_700_000_000 + i64::from(n), |writer| writer.keyword(entry, &Keyword::seen(), true))
        };
        (0..count).map(write).map(|change| change.unwrap().unwrap().bytes().to_vec()).collect()
    }

    #[test]
    fn changes_come_back_byte_for_byte_and_cost_little() {
        let changes = flags(200);
        let (mut out, mut back) = (Compactor::default(), Compactor::default());
        let packed = out.pack(&changes);
        assert_eq!(back.unpack(&packed, 4096).unwrap(), changes);
        assert!(packed.len() < 200 * 36, "{} bytes", packed.len());
    }

    #[test]
    fn a_change_refers_to_one_of_an_earlier_frame() {
        let changes = flags(3);
        let (mut out, mut back) = (Compactor::default(), Compactor::default());
        for change in &changes {
            let packed = out.pack(std::slice::from_ref(change));
            assert_eq!(back.unpack(&packed, 1).unwrap(), std::slice::from_ref(change));
        }
        assert!(out.pack(&changes[2..]).len() + 30 < changes[2].len());
    }

    #[test]
    fn what_is_no_change_is_carried_as_it_is() {
        let odd = vec![vec![1, 2, 3], flags(1)[0][..50].to_vec()];
        let packed = Compactor::default().pack(&odd);
        assert_eq!(Compactor::default().unpack(&packed, 9).unwrap(), odd);
        assert_eq!(Compactor::default().unpack(&packed, 1), Err(NoChanges));
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_refused_or_bounded(bytes: Vec<u8>, codec in 0u8..3) {
            let packed = [&[codec], &bytes[..]].concat();
            if let Ok(changes) = Compactor::default().unpack(&packed, 100) {
                let total: usize = changes.iter().map(Vec::len).sum();
                assert!(changes.len() <= 100 && total <= 2 * MAX_PLAIN);
            }
        }
    }
}
