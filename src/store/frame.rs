//! The frames of the log, byte by byte. The layout is in `docs/store.md`.
//!
//! A frame's header carries its group's position and a checksum of its own, so that a reader can tell the
//! torn end of the log from damage in its middle, and can find the next good frame behind damage.

use crate::mailbox::ReplicaId;

use super::Position;
use super::disk::{DiskFile, checksum};
use super::error::StoreError;

/// Longest body of one frame: a change of 16 MiB is far above what one user action makes.
pub(crate) const MAX_FRAME: usize = 16 << 20;
/// Longest group, because a group is in memory as a whole while it is written and read.
pub(crate) const MAX_GROUP_BYTES: usize = 64 << 20;

pub(crate) const HEADER: usize = 20;
const CHECK: usize = 8;
const MAGIC: [u8; 2] = [0xf7, b'L'];
const CHANGE: u8 = 1;
const LOCAL: u8 = 2;
const LOST: u8 = 3;
const SIGNED: u8 = 4;
const COMMIT: u8 = 0xc0;
const CHANGE_FIXED: usize = 16 + 8 + 32;
const SIGNED_FIXED: usize = CHANGE_FIXED + 64;

/// One change of the document, verbatim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who made it.
    pub actor: ReplicaId,
    /// Its number among the actor's changes, from 1.
    pub seq: u64,
    /// Its Automerge hash.
    pub hash: [u8; 32],
    /// Its bytes, as they were made or received.
    pub bytes: Vec<u8>,
    /// Its author's signature, which covers all that the author wrote up to here. Not all changes of others have one, and
    /// none of this replica's: it signs what it sends.
    pub signature: Option<[u8; 64]>,
}

/// What a group of the log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A change of the document.
    Change(Change),
    /// Truth that is not shared; its meaning belongs to the caller.
    Local(Vec<u8>),
    /// A repair found frames of this group damaged and cut them out.
    Lost,
}

/// What one commit wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number, from 1, without gaps.
    pub position: Position,
    /// In the order they were logged.
    pub records: Vec<Record>,
}

/// A frame that is not as it was written.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) offset: u64,
    pub(crate) what: &'static str,
}

/// Where in a file a record's frame begins, and how long it is with header and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// A group as it was read, with the place of each record.
#[derive(Debug)]
pub(crate) struct ReadGroup {
    pub(crate) group: Group,
    pub(crate) spans: Vec<Span>,
    pub(crate) end: u64,
}

/// Encodes the frames of one group.
#[derive(Debug)]
pub(crate) struct GroupWriter {
    position: Position,
    bytes: Vec<u8>,
    checks: blake3::Hasher,
    count: u32,
}

impl GroupWriter {
    pub(crate) fn new(position: Position) -> GroupWriter {
        GroupWriter { position, bytes: Vec::new(), checks: blake3::Hasher::new(), count: 0 }
    }

    pub(crate) fn position(&self) -> Position {
        self.position
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a change; gives its place relative to the group.
    pub(crate) fn change(
        &mut self,
        actor: ReplicaId,
        seq: u64,
        hash: &[u8; 32],
        bytes: &[u8],
        signature: Option<&[u8; 64]>,
    ) -> Result<Span, StoreError> {
        let seq = seq.to_le_bytes();
        match signature {
            None => self.frame(CHANGE, &[actor.as_bytes(), &seq, hash, bytes]),
            Some(signature) => self.frame(SIGNED, &[actor.as_bytes(), &seq, hash, signature, bytes]),
        }
    }

    pub(crate) fn local(&mut self, bytes: &[u8]) -> Result<Span, StoreError> {
        self.frame(LOCAL, &[bytes])
    }

    pub(crate) fn lost(&mut self) -> Result<Span, StoreError> {
        self.frame(LOST, &[])
    }

    /// The whole group, ended by its commit frame.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let mut checks = [0; CHECK];
        self.checks.finalize_xof().fill(&mut checks);
        let count = self.count.to_le_bytes();
        self.frame(COMMIT, &[&count, &checks]).expect("limits leave room for the commit frame");
        self.bytes
    }

    fn frame(&mut self, kind: u8, body: &[&[u8]]) -> Result<Span, StoreError> {
        let length: usize = body.iter().map(|part| part.len()).sum();
        let total = self.bytes.len() + HEADER + length + CHECK;
        let too_large = |what, size: usize, limit: usize| {
            Err(StoreError::TooLarge { what, size: size as u64, limit: limit as u64 })
        };
        if length > MAX_FRAME {
            return too_large("a log frame", length, MAX_FRAME);
        }
        if kind != COMMIT && total > MAX_GROUP_BYTES - 64 {
            return too_large("a log group", total, MAX_GROUP_BYTES - 64);
        }
        let offset = self.bytes.len() as u64;
        let header = encode_header(kind, length as u32, self.position);
        let mut parts: Vec<&[u8]> = vec![&header];
        parts.extend_from_slice(body);
        let check: [u8; CHECK] = checksum(&parts);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.extend_from_slice(&check);
        self.checks.update(&check);
        self.count += 1;
        Ok(Span { offset, length: (HEADER + length + CHECK) as u32 })
    }
}

/// Reads the group that begins at `offset` and must be `position`.
pub(crate) fn read_group(
    file: &DiskFile,
    offset: u64,
    file_end: u64,
    position: Position,
) -> Result<Result<ReadGroup, Fault>, StoreError> {
    let mut read =
        ReadGroup { group: Group { position, records: Vec::new() }, spans: Vec::new(), end: offset };
    let mut checks = blake3::Hasher::new();
    loop {
        let frame = match read_frame(file, read.end, file_end)? {
            Ok(frame) => frame,
            Err(what) => return Ok(Err(Fault { offset: read.end, what })),
        };
        let fault = |what| Ok(Err(Fault { offset: read.end, what }));
        if frame.header.position != position {
            return fault("a frame of another group");
        }
        if read.end - offset > MAX_GROUP_BYTES as u64 {
            return fault("a group above the limit");
        }
        let span = Span { offset: read.end, length: frame.header.total() };
        if frame.header.kind == COMMIT {
            let mut expected = (read.spans.len() as u32).to_le_bytes().to_vec();
            let mut sum = [0; CHECK];
            checks.finalize_xof().fill(&mut sum);
            expected.extend_from_slice(&sum);
            if frame.body != expected {
                return fault("a commit frame that is not of this group");
            }
            read.end += u64::from(span.length);
            return Ok(Ok(read));
        }
        checks.update(&frame.check);
        let Some(record) = decode(frame.header.kind, &frame.body) else { return fault("an unknown frame") };
        read.group.records.push(record);
        read.spans.push(span);
        read.end += u64::from(span.length);
    }
}

/// Reads one change at a place that the index gave.
pub(crate) fn read_change(file: &DiskFile, span: Span) -> Result<Change, StoreError> {
    let end = span.offset + u64::from(span.length);
    let damaged = |what| StoreError::damaged(&file.path, span.offset, what);
    let frame = read_frame(file, span.offset, end)?.map_err(damaged)?;
    match decode(frame.header.kind, &frame.body) {
        Some(Record::Change(change)) => Ok(change),
        _ => Err(damaged("this is not a change")),
    }
}

/// The frames that are still good in a damaged stretch, and the positions they belong to.
pub(crate) fn salvage(file: &DiskFile, from: u64, to: u64) -> Result<Vec<(Position, Record)>, StoreError> {
    let mut good = Vec::new();
    let mut offset = from;
    while let Some((at, header)) = next_header(file, offset, to)? {
        offset = at + 1;
        if let Ok(frame) = read_frame(file, at, to)? {
            offset = at + u64::from(header.total());
            good.extend(decode(header.kind, &frame.body).map(|record| (header.position, record)));
        }
    }
    Ok(good)
}

/// The next offset at or after `from` where a frame's header is whole, and the position it names.
pub(crate) fn next_good(file: &DiskFile, from: u64, to: u64) -> Result<Option<(u64, Position)>, StoreError> {
    Ok(next_header(file, from, to)?.map(|(at, header)| (at, header.position)))
}

fn next_header(file: &DiskFile, from: u64, to: u64) -> Result<Option<(u64, Header)>, StoreError> {
    const WINDOW: u64 = 1 << 16;
    let mut start = from;
    while start + HEADER as u64 <= to {
        let mut window = vec![0; WINDOW.min(to - start) as usize];
        file.read_at(start, &mut window)?;
        for at in 0..=window.len() - HEADER {
            if window[at..].starts_with(&MAGIC)
                && let Some(header) = Header::parse(&window[at..at + HEADER])
            {
                return Ok(Some((start + at as u64, header)));
            }
        }
        start += (window.len() - HEADER + 1) as u64;
    }
    Ok(None)
}

struct Frame {
    header: Header,
    body: Vec<u8>,
    check: [u8; CHECK],
}

fn read_frame(file: &DiskFile, offset: u64, end: u64) -> Result<Result<Frame, &'static str>, StoreError> {
    let mut head = [0; HEADER];
    if offset + HEADER as u64 > end {
        return Ok(Err("the log ends inside a frame"));
    }
    file.read_at(offset, &mut head)?;
    let Some(header) = Header::parse(&head) else { return Ok(Err("no frame begins here")) };
    if offset + u64::from(header.total()) > end {
        return Ok(Err("the log ends inside a frame"));
    }
    let mut body = vec![0; header.length as usize + CHECK];
    file.read_at(offset + HEADER as u64, &mut body)?;
    let check = body.split_off(header.length as usize);
    let check: [u8; CHECK] = check.try_into().expect("the checksum was read with the body");
    if checksum::<CHECK>(&[&head, &body]) != check {
        return Ok(Err("a frame has a wrong checksum"));
    }
    Ok(Ok(Frame { header, body, check }))
}

fn decode(kind: u8, body: &[u8]) -> Option<Record> {
    match kind {
        CHANGE => decode_change(body, CHANGE_FIXED),
        SIGNED => decode_change(body, SIGNED_FIXED),
        LOCAL => Some(Record::Local(body.to_vec())),
        LOST => Some(Record::Lost),
        _ => None,
    }
}

/// A change whose bytes begin at `fixed`, behind its signature if it has one.
fn decode_change(body: &[u8], fixed: usize) -> Option<Record> {
    let (head, bytes) = body.split_at_checked(fixed)?;
    Some(Record::Change(Change {
        actor: ReplicaId::from_slice(&head[..16])?,
        seq: u64::from_le_bytes(head[16..24].try_into().ok()?),
        hash: head[24..CHANGE_FIXED].try_into().ok()?,
        bytes: bytes.to_vec(),
        signature: head[CHANGE_FIXED..].try_into().ok(),
    }))
}

#[derive(Clone, Copy)]
struct Header {
    kind: u8,
    length: u32,
    position: Position,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Header> {
        let (fields, check) = bytes.split_at(HEADER - 4);
        if fields[..2] != MAGIC || checksum::<4>(&[fields]) != check {
            return None;
        }
        let length = u32::from_le_bytes(fields[4..8].try_into().ok()?);
        let position = Position(u64::from_le_bytes(fields[8..16].try_into().ok()?));
        (length as usize <= MAX_FRAME).then_some(Header { kind: fields[2], length, position })
    }

    fn total(&self) -> u32 {
        self.length + (HEADER + CHECK) as u32
    }
}

fn encode_header(kind: u8, length: u32, position: Position) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..2].copy_from_slice(&MAGIC);
    out[2] = kind;
    out[4..8].copy_from_slice(&length.to_le_bytes());
    out[8..16].copy_from_slice(&position.0.to_le_bytes());
    let check: [u8; 4] = checksum(&[&out[..16]]);
    out[16..].copy_from_slice(&check);
    out
}
