//! Frames: a length (LEB128, 1 to 4 bytes), a type byte, a body. The length counts the body only.
//!
//! Types from 0x80 may be ignored by who does not know them; others may not.

use super::error::Misbehaved;
use super::handshake::{Digest, Join, PeerHello, RecordName, VersionVector};
use super::survey::SurveyFrame;
use super::{BATCH, MAX_REPLICAS, MAX_TEXT, MAX_WANTED, PIECE, PROTOCOL};
use crate::blob::BlobId;
use crate::mailbox::{AccountId, ReplicaId};
use crate::member::cbor::{Malformed, Reader, Writer};
use crate::member::{MAX_RECORD, MAX_RECORDS, OfferId, PeerId, PublicKey, Signature, body};

/// Most changes in one frame: a batch of the smallest that occur, and a bound on what a list of them costs.
pub(super) const MAX_CHANGES: usize = 4096;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HelloFrame {
    pub(super) hello: PeerHello,
    pub(super) proof: Signature,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct JoinFrame {
    pub(super) join: Join,
    pub(super) ticket_proof: [u8; 32],
    pub(super) signature: Signature,
}

/// What two sessions say to each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Frame {
    Hello(HelloFrame),
    /// A hello of another version, which is all that is known of it.
    OtherVersion(u64),
    Join(JoinFrame),
    /// Records for a guest; the last frame of them says so.
    Welcome {
        records: Vec<Vec<u8>>,
        last: bool,
    },
    Close {
        code: u64,
        text: String,
    },
    Bye,
    Members {
        records: Vec<Vec<u8>>,
    },
    Have {
        changes: VersionVector,
    },
    /// Changes as a [`Compactor`](super::compact::Compactor) packs them.
    Changes {
        packed: Vec<u8>,
        /// By the place of the change in the list.
        signatures: Vec<(usize, Signature)>,
    },
    ChangesEnd {
        digest: Digest,
        changes: VersionVector,
    },
    Known {
        changes: VersionVector,
    },
    Held {
        digest: Digest,
    },
    /// The membership records that the sender has.
    Records {
        names: Vec<RecordName>,
    },
    /// Requests are numbered from `first` on; each starts at an offset.
    Want {
        first: u64,
        bodies: Vec<(BlobId, u64)>,
    },
    /// A bundle that answers `numbers` follows in pieces, `len` bytes in all.
    Bundle {
        numbers: Vec<u64>,
        len: u64,
    },
    Piece {
        bytes: Vec<u8>,
    },
    Chunk {
        number: u64,
        offset: u64,
        last: bool,
        bytes: Vec<u8>,
    },
    Missing {
        number: u64,
    },
    /// Bodies that were missing and have arrived.
    Here {
        blobs: Vec<BlobId>,
    },
    /// A question or an answer of a survey.
    Survey(SurveyFrame),
    /// A frame that may be ignored.
    Ignored,
}

impl Frame {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Frame::Hello(_) | Frame::OtherVersion(_) => 0x01,
            Frame::Join(_) => 0x02,
            Frame::Welcome { .. } => 0x03,
            Frame::Close { .. } => 0x04,
            Frame::Bye => 0x05,
            Frame::Members { .. } => 0x10,
            Frame::Have { .. } => 0x11,
            Frame::Changes { .. } => 0x12,
            Frame::ChangesEnd { .. } => 0x13,
            Frame::Known { .. } => 0x14,
            Frame::Held { .. } => 0x15,
            Frame::Records { .. } => 0x16,
            Frame::Want { .. } => 0x20,
            Frame::Bundle { .. } => 0x21,
            Frame::Piece { .. } => 0x22,
            Frame::Chunk { .. } => 0x23,
            Frame::Missing { .. } => 0x24,
            Frame::Here { .. } => 0x25,
            Frame::Survey(frame) => frame.kind(),
            Frame::Ignored => 0x80,
        }
    }

    /// The whole frame, length and type included.
    pub(super) fn encode(&self) -> Vec<u8> {
        let body = self.body();
        let mut out = Vec::with_capacity(body.len() + 5);
        let mut len = body.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.push(self.kind());
        out.extend_from_slice(&body);
        out
    }

    fn body(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Frame::Hello(HelloFrame { hello, proof }) => {
                let introduced = !hello.introduction.is_empty();
                out.array(if introduced { 9 } else { 8 }).uint(PROTOCOL);
                out.bytes(hello.account.as_bytes()).bytes(hello.replica.as_bytes());
                out.bytes(proof.as_bytes()).bytes(&hello.digest).bytes(&hello.members).uint(hello.counter);
                out.bool(hello.owes);
                if introduced {
                    write_list(&mut out, &hello.introduction);
                }
            }
            Frame::OtherVersion(version) => {
                out.array(1).uint(*version);
            }
            Frame::Join(JoinFrame { join, ticket_proof, signature }) => {
                out.array(9).uint(PROTOCOL).bytes(join.account.as_bytes()).bytes(join.offer.as_bytes());
                out.bytes(join.replica.as_bytes()).bytes(join.key.as_bytes());
                out.bytes(join.endpoint.key().as_bytes()).text(join.name.as_str());
                out.bytes(ticket_proof).bytes(signature.as_bytes());
            }
            Frame::Welcome { records, last } => {
                out.array(2).bool(*last);
                write_list(&mut out, records);
            }
            Frame::Close { code, text } => {
                out.array(2).uint(*code).text(text);
            }
            Frame::Survey(frame) => frame.write(&mut out),
            Frame::Bye | Frame::Ignored => {}
            Frame::Members { records } => write_list(&mut out, records),
            Frame::Changes { packed, signatures } => {
                out.array(2).bytes(packed).array(2 * signatures.len());
                for (at, signature) in signatures {
                    out.uint(*at as u64).bytes(signature.as_bytes());
                }
            }
            Frame::Have { changes } | Frame::Known { changes } => write_vector(&mut out, changes),
            Frame::ChangesEnd { digest, changes } => {
                out.array(2).bytes(digest);
                write_vector(&mut out, changes);
            }
            Frame::Held { digest } => {
                out.array(1).bytes(digest);
            }
            Frame::Records { names } => {
                out.array(names.len());
                for name in names {
                    out.bytes(name);
                }
            }
            Frame::Want { first, bodies } => {
                out.array(2).uint(*first).array(bodies.len() * 2);
                for (blob, offset) in bodies {
                    out.bytes(blob.as_bytes()).uint(*offset);
                }
            }
            Frame::Bundle { numbers, len } => {
                out.array(2).uint(*len).array(numbers.len());
                for number in numbers {
                    out.uint(*number);
                }
            }
            Frame::Piece { bytes } => return bytes.clone(),
            Frame::Chunk { number, offset, last, bytes } => {
                out.array(4).uint(*number).uint(*offset).bool(*last).bytes(bytes);
            }
            Frame::Missing { number } => {
                out.array(1).uint(*number);
            }
            Frame::Here { blobs } => {
                out.array(blobs.len());
                for blob in blobs {
                    out.bytes(blob.as_bytes());
                }
            }
        }
        out.finish()
    }

    /// Reads a frame from its type and its body.
    pub(super) fn decode(kind: u8, body: &[u8]) -> Result<Frame, Misbehaved> {
        if kind >= 0x80 {
            return Ok(Frame::Ignored);
        }
        let mut reader = Reader::new(body);
        let frame = match kind {
            0x01..=0x05 => decode_opening(kind, &mut reader),
            0x10..=0x16 => decode_exchange(kind, &mut reader),
            0x22 => return Ok(Frame::Piece { bytes: body.to_vec() }),
            0x20..=0x25 => decode_bodies(kind, &mut reader),
            0x30..=0x34 => SurveyFrame::read(kind, &mut reader).map(Frame::Survey),
            kind => return Err(Misbehaved::UnknownFrame { kind }),
        };
        let whole = frame.and_then(|frame| match frame {
            // The rest of another version's hello is not ours to judge.
            Frame::OtherVersion(_) => Ok(frame),
            frame => reader.end().map(|()| frame),
        });
        whole.map_err(|_| Misbehaved::Malformed { kind })
    }
}

fn decode_opening(kind: u8, reader: &mut Reader<'_>) -> Result<Frame, Malformed> {
    let (later, frame) = match kind {
        0x01 | 0x02 => {
            let fields = reader.fields(1)?;
            match reader.uint()? {
                PROTOCOL if kind == 0x01 => {
                    let mut later = fields.checked_sub(7).ok_or(Malformed)?;
                    let hello = hello(reader, &mut later)?;
                    (later, hello)
                }
                PROTOCOL => (fields.checked_sub(8).ok_or(Malformed)?, join(reader)?),
                version => return Ok(Frame::OtherVersion(version)),
            }
        }
        0x03 => {
            let later = reader.fields(2)?;
            let last = reader.bool()?;
            (later, Frame::Welcome { last, records: read_list(reader, MAX_RECORDS, MAX_RECORD)? })
        }
        0x04 => {
            let later = reader.fields(2)?;
            let (code, text) = (reader.uint()?, reader.text(MAX_TEXT)?);
            // It is shown to people and written to logs: no control characters.
            (later, Frame::Close { code, text: text.chars().filter(|c| !c.is_control()).collect() })
        }
        _ => (0, Frame::Bye),
    };
    reader.skip(later)?;
    Ok(frame)
}

/// `later`: how many fields follow the eight that every hello has.
fn hello(reader: &mut Reader<'_>, later: &mut usize) -> Result<Frame, Malformed> {
    let account = AccountId::from_bytes(reader.exactly()?);
    let replica = ReplicaId::from_bytes(reader.exactly()?);
    let proof = Signature::from_bytes(reader.exactly()?);
    let (digest, members, counter) = (reader.exactly()?, reader.exactly()?, reader.uint()?);
    let owes = reader.bool()?;
    let mut introduction = Vec::new();
    if *later > 0 {
        introduction = read_list(reader, super::MAX_INTRODUCTION, MAX_RECORD)?;
        *later -= 1;
    }
    let hello = PeerHello { account, replica, digest, members, counter, owes, introduction };
    Ok(Frame::Hello(HelloFrame { hello, proof }))
}

fn join(reader: &mut Reader<'_>) -> Result<Frame, Malformed> {
    let join = Join {
        account: AccountId::from_bytes(reader.exactly()?),
        offer: OfferId::from_bytes(reader.exactly()?),
        replica: ReplicaId::from_bytes(reader.exactly()?),
        key: PublicKey::from_bytes(reader.exactly()?),
        endpoint: PeerId::new(PublicKey::from_bytes(reader.exactly()?)),
        name: body::read_name(reader)?,
    };
    let ticket_proof = reader.exactly()?;
    Ok(Frame::Join(JoinFrame { join, ticket_proof, signature: Signature::from_bytes(reader.exactly()?) }))
}

fn decode_exchange(kind: u8, reader: &mut Reader<'_>) -> Result<Frame, Malformed> {
    Ok(match kind {
        0x10 => Frame::Members { records: read_list(reader, MAX_RECORDS, MAX_RECORD)? },
        0x11 => Frame::Have { changes: read_vector(reader)? },
        0x12 => {
            let later = reader.fields(2)?;
            let (packed, mut signatures) = (reader.bytes()?.to_vec(), Vec::new());
            let items = reader.array(2 * MAX_CHANGES)?;
            for _ in 0..items / 2 {
                let at = usize::try_from(reader.uint()?).map_err(|_| Malformed)?;
                signatures.push((at, Signature::from_bytes(reader.exactly()?)));
            }
            let ascending = signatures.is_sorted_by(|(a, _), (b, _)| a < b);
            if items % 2 == 1 || !ascending {
                return Err(Malformed);
            }
            reader.skip(later)?;
            Frame::Changes { packed, signatures }
        }
        0x13 => {
            let later = reader.fields(2)?;
            let frame = Frame::ChangesEnd { digest: reader.exactly()?, changes: read_vector(reader)? };
            reader.skip(later)?;
            frame
        }
        0x14 => Frame::Known { changes: read_vector(reader)? },
        0x15 => {
            let later = reader.fields(1)?;
            let frame = Frame::Held { digest: reader.exactly()? };
            reader.skip(later)?;
            frame
        }
        _ => {
            let mut names = Vec::new();
            for _ in 0..reader.array(MAX_RECORDS)? {
                names.push(reader.exactly()?);
            }
            Frame::Records { names }
        }
    })
}

fn decode_bodies(kind: u8, reader: &mut Reader<'_>) -> Result<Frame, Malformed> {
    let (later, frame) = match kind {
        0x20 => {
            let later = reader.fields(2)?;
            let first = reader.uint()?;
            let mut bodies = Vec::new();
            let items = reader.array(2 * MAX_WANTED)?;
            for _ in 0..items / 2 {
                bodies.push((BlobId::from_bytes(reader.exactly()?), reader.uint()?));
            }
            if items % 2 == 1 || bodies.is_empty() {
                return Err(Malformed);
            }
            (later, Frame::Want { first, bodies })
        }
        0x21 => {
            let later = reader.fields(2)?;
            let len = reader.uint()?;
            let mut numbers = Vec::new();
            for _ in 0..reader.array(MAX_WANTED)? {
                numbers.push(reader.uint()?);
            }
            (later, Frame::Bundle { numbers, len })
        }
        0x23 => {
            let later = reader.fields(4)?;
            let (number, offset, last) = (reader.uint()?, reader.uint()?, reader.bool()?);
            let bytes = reader.bytes()?;
            if bytes.len() > PIECE || (bytes.is_empty() && !last) {
                return Err(Malformed);
            }
            (later, Frame::Chunk { number, offset, last, bytes: bytes.to_vec() })
        }
        0x24 => {
            let later = reader.fields(1)?;
            (later, Frame::Missing { number: reader.uint()? })
        }
        _ => {
            let mut blobs = Vec::new();
            for _ in 0..reader.array(MAX_WANTED)? {
                blobs.push(BlobId::from_bytes(reader.exactly()?));
            }
            (0, Frame::Here { blobs })
        }
    };
    reader.skip(later)?;
    Ok(frame)
}

fn write_list(out: &mut Writer, items: &[Vec<u8>]) {
    out.array(items.len());
    for item in items {
        out.bytes(item);
    }
}

/// A list of byte strings, none of them empty: an empty one costs memory and says nothing.
fn read_list(reader: &mut Reader<'_>, max: usize, max_item: usize) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut items = Vec::new();
    for _ in 0..reader.array(max)? {
        let item = reader.bytes()?;
        if item.is_empty() || item.len() > max_item {
            return Err(Malformed);
        }
        items.push(item.to_vec());
    }
    Ok(items)
}

fn write_vector(out: &mut Writer, changes: &VersionVector) {
    out.map(changes.len());
    for (replica, last) in changes {
        out.bytes(replica.as_bytes()).uint(*last);
    }
}

fn read_vector(reader: &mut Reader<'_>) -> Result<VersionVector, Malformed> {
    let mut changes = VersionVector::new();
    for _ in 0..reader.map(MAX_REPLICAS)? {
        let replica = ReplicaId::from_bytes(reader.exactly()?);
        if changes.insert(replica, reader.uint()?).is_some() {
            return Err(Malformed);
        }
    }
    Ok(changes)
}

/// Gathers items into lists of about [`BATCH`] bytes and at most `most` items.
pub(super) fn batches(items: Vec<Vec<u8>>, most: usize) -> Vec<Vec<Vec<u8>>> {
    let mut lists: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut size = 0;
    for item in items {
        match lists.last_mut() {
            Some(list) if size + item.len() <= BATCH && list.len() < most => {
                size += item.len();
                list.push(item);
            }
            _ => {
                size = item.len();
                lists.push(vec![item]);
            }
        }
    }
    lists
}
