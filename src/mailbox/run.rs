//! Claim runs and burned UIDs, as they stand in the document (design: UIDs are claims).

use super::pack::short_hash;
use super::{EntryId, MailboxId, Nonce, PackId, Placement, Uid};
use crate::bytes::{Reader, put_number};

/// The placements of a segment, in order of their UIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The initial placements of the entries `first..` of a pack.
    Pack {
        /// The pack.
        pack: PackId,
        /// The number of the first entry in it.
        first: u32,
    },
    /// One placement; its segment counts one UID.
    Placement(Placement),
}

/// Consecutive UIDs for consecutive placements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The UID of the first placement.
    pub first: Uid,
    /// How many.
    pub count: u32,
    /// Whose.
    pub source: Source,
}

/// One author's claims in one mailbox: UIDs for placements, with the highest UID it knew to be claimed before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// Its epoch when the run was made; a run of another epoch means nothing.
    pub epoch: u32,
    /// The highest UID claimed, or floor set, in the mailbox as far as the author knew.
    pub base: u32,
    /// UIDs up to here were shown once and belong to nobody now; 0 if there are none such.
    pub floor: u32,
    /// The claims, UIDs ascending.
    pub segments: Vec<Segment>,
}

/// A record of the `uids` map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UidRecord {
    /// UIDs claimed for placements.
    Run(Run),
    /// UIDs that nobody may be shown again (rule 3c).
    Burn {
        /// The mailbox.
        mailbox: MailboxId,
        /// Its epoch.
        epoch: u32,
        /// The UIDs, ascending.
        uids: Vec<Uid>,
    },
}

/// Why bytes are no record of the `uids` map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no UID record of a known kind within its limits")]
pub struct UidRecordError;

const KIND_RUN: u8 = 1;
const KIND_BURN: u8 = 2;

impl Run {
    /// Most UIDs of a run: with 26 bytes each at worst it stays well below the largest change.
    pub const MAX_UIDS: u32 = 16_384;
    /// A run that starts further above its base than this is void: nobody can use the UIDs up.
    pub const MAX_LEAP: u32 = 1 << 24;
    /// Largest epoch that a mailbox can reach; with the incarnation it must fit the high half of a UIDVALIDITY.
    pub const MAX_EPOCH: u32 = 0xffff;

    /// The highest UID of the run, or its floor above that. UIDNEXT lies above it.
    pub fn high(&self) -> u32 {
        let last = self.segments.last().map_or(0, |s| s.first.value() + (s.count - 1));
        last.max(self.floor)
    }

    /// Where the UIDs end, exclusively, that the run passes over: its last UID, which it holds itself, or all up to the
    /// floor, which nobody holds.
    pub fn span_end(&self) -> u32 {
        let last = self.segments.last().map_or(0, |s| s.first.value() + (s.count - 1));
        if self.floor > last { self.floor.saturating_add(1) } else { last }
    }

    /// Whether the run leaps too far to be believed (rule 6). So it is for everybody.
    pub fn is_void(&self) -> bool {
        let last = self.segments.last().map_or(self.base, |s| s.first.value() + (s.count - 1));
        let first = self.segments.first().map_or(self.base, |s| s.first.value());
        first - self.base > Run::MAX_LEAP || self.floor.saturating_sub(last) > Run::MAX_LEAP
    }
}

impl UidRecord {
    /// The record's key in the document: the hash of its bytes, so that it cannot be replaced.
    pub fn key_of(bytes: &[u8]) -> [u8; 16] {
        short_hash(&[b"uids", bytes])
    }

    /// Kind, mailbox, epoch, then the run's base, floor and segments or the burned UIDs.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            UidRecord::Run(run) => {
                out.push(KIND_RUN);
                out.extend(run.mailbox.as_bytes());
                put_number(&mut out, run.epoch.into());
                put_number(&mut out, run.base.into());
                put_number(&mut out, run.floor.into());
                put_number(&mut out, run.segments.len() as u64);
                let mut last = run.base;
                for segment in &run.segments {
                    put_number(&mut out, (segment.first.value() - last).into());
                    last = segment.first.value() + (segment.count - 1);
                    match segment.source {
                        Source::Placement(Placement { entry, nonce }) => {
                            put_number(&mut out, 0);
                            out.extend(entry.as_bytes());
                            put_number(&mut out, nonce.0);
                        }
                        Source::Pack { pack, first } => {
                            put_number(&mut out, segment.count.into());
                            out.extend(pack.as_bytes());
                            put_number(&mut out, first.into());
                        }
                    }
                }
            }
            UidRecord::Burn { mailbox, epoch, uids } => {
                out.push(KIND_BURN);
                out.extend(mailbox.as_bytes());
                put_number(&mut out, (*epoch).into());
                put_number(&mut out, uids.len() as u64);
                let mut last = 0;
                for uid in uids {
                    put_number(&mut out, (uid.value() - last).into());
                    last = uid.value();
                }
            }
        }
        out
    }

    /// Reads a record. Accepts only what [`UidRecord::encode`] writes: UIDs ascend above the base and stay below 2^32.
    pub fn decode(bytes: &[u8]) -> Result<UidRecord, UidRecordError> {
        let mut reader = Reader(bytes);
        let record = read(&mut reader).ok_or(UidRecordError)?;
        (reader.is_empty() && record.encode() == bytes).then_some(record).ok_or(UidRecordError)
    }
}

fn read(reader: &mut Reader<'_>) -> Option<UidRecord> {
    let kind = reader.byte()?;
    let mailbox = MailboxId::from_bytes(reader.array()?);
    let epoch = reader.number32().filter(|epoch| *epoch <= Run::MAX_EPOCH)?;
    match kind {
        KIND_RUN => {
            let base = reader.number32()?;
            let floor = reader.number32()?;
            let count = reader.number32().filter(|count| *count <= Run::MAX_UIDS)?;
            let mut last = base;
            let mut total = 0u32;
            let mut segments = Vec::new();
            for _ in 0..count {
                let segment = read_segment(reader, last)?;
                last = segment.first.value().checked_add(segment.count - 1)?;
                total = total.checked_add(segment.count).filter(|total| *total <= Run::MAX_UIDS)?;
                segments.push(segment);
            }
            (total > 0 || floor > base).then_some(UidRecord::Run(Run {
                mailbox,
                epoch,
                base,
                floor,
                segments,
            }))
        }
        KIND_BURN => {
            let count = reader.number32().filter(|count| (1..=Run::MAX_UIDS).contains(count))?;
            let mut last = 0u32;
            let mut uids = Vec::new();
            for _ in 0..count {
                let step = reader.number32().filter(|step| *step > 0)?;
                last = last.checked_add(step)?;
                uids.push(Uid::new(last)?);
            }
            Some(UidRecord::Burn { mailbox, epoch, uids })
        }
        _ => None,
    }
}

fn read_segment(reader: &mut Reader<'_>, last: u32) -> Option<Segment> {
    let step = reader.number32().filter(|step| *step > 0)?;
    let first = Uid::new(last.checked_add(step)?)?;
    Some(match reader.number32()? {
        0 => Segment {
            first,
            count: 1,
            source: Source::Placement(Placement {
                entry: EntryId::from_bytes(reader.array()?),
                nonce: Nonce(reader.number()?),
            }),
        },
        count => {
            let pack = PackId::from_bytes(reader.array()?);
            let start = reader.number32()?;
            start.checked_add(count)?;
            Segment { first, count, source: Source::Pack { pack, first: start } }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(base: u32, first: u32, floor: u32) -> Run {
        let source = Source::Pack { pack: PackId::from_bytes([3; 16]), first: 0 };
        Run {
            mailbox: MailboxId::from_bytes([1; 16]),
            epoch: 2,
            base,
            floor,
            segments: vec![Segment { first: Uid::new(first).unwrap(), count: 10, source }],
        }
    }

    #[test]
    fn records_come_back() {
        let entry = Placement { entry: EntryId::from_bytes([9; 16]), nonce: Nonce(u64::MAX) };
        let mut one = run(5, 64, 90);
        one.segments.push(Segment {
            first: Uid::new(80).unwrap(),
            count: 1,
            source: Source::Placement(entry),
        });
        let burn = UidRecord::Burn {
            mailbox: one.mailbox,
            epoch: 0,
            uids: [3, 4, 900].into_iter().filter_map(Uid::new).collect(),
        };
        for record in [UidRecord::Run(one), burn] {
            assert_eq!(UidRecord::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn a_leap_of_more_than_2_to_the_24_is_void() {
        assert!(!run(100, 100 + Run::MAX_LEAP, 0).is_void());
        assert!(run(100, 101 + Run::MAX_LEAP, 0).is_void());
        assert!(run(100, 101, 111 + Run::MAX_LEAP).is_void());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_or_mean_what_they_say(bytes: Vec<u8>) {
            if let Ok(record) = UidRecord::decode(&bytes) {
                assert_eq!(record.encode(), bytes);
            }
        }
    }
}
