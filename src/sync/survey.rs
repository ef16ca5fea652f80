//! Surveys: what two sides that should have the same ask each other to see whether they do.
//!
//! A question names the state that it is about, by its digest; a side that is in another one says so, and nothing is compared.
//! One question is open at a time, so all that can wait is one answer, which fits a frame.

use super::handshake::Digest;
use crate::blob::BlobId;
use crate::mailbox::{MailboxId, MailboxName};
use crate::member::cbor::{Malformed, Reader, Writer};

/// Most mailboxes in one answer: with the longest names 150 KiB.
pub const MAX_SURVEYED: usize = 256;
/// Most bodies in one answer: 256 KiB. An account of two million messages has as many that begin with the same byte.
pub const MAX_LISTED: usize = 8192;
/// Bodies are counted by the first byte of their names.
pub const BUCKETS: usize = 256;

/// A digest over a set: those of its members, joined with exclusive or. It tells accidents, not lies.
pub type SetDigest = [u8; 16];

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Mailboxes, ascending by their ids, after this one.
    Mailboxes(Option<MailboxId>),
    /// All bodies, by bucket.
    Buckets,
    /// The bodies of a bucket, ascending, from this name on.
    Bodies {
        /// The first byte of their names.
        bucket: u8,
        /// The last one that is known.
        after: Option<BlobId>,
    },
}

/// How a mailbox is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SurveyedMailbox {
    /// The mailbox.
    pub id: MailboxId,
    /// Its name.
    pub name: MailboxName,
    /// How many messages it has.
    pub messages: u64,
    /// Over its messages and their keywords.
    pub entries: SetDigest,
    /// What clients of every server are told; nothing on an observer.
    pub uids: Option<SurveyedUids>,
}

/// The part of a mailbox that servers have alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SurveyedUids {
    /// Its UIDVALIDITY.
    pub validity: u64,
    /// Its UIDNEXT.
    pub next: u64,
    /// Over its UIDs, and the messages and keywords under them.
    pub digest: SetDigest,
}

/// How many bodies of a bucket are here, and which.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// Messages in mailboxes whose bodies are here.
    pub count: u64,
    /// Over these messages and their bodies.
    pub digest: SetDigest,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The state is another one by now.
    Moved(Digest),
    /// Mailboxes, and whether these were the last.
    Mailboxes {
        /// At most [`MAX_SURVEYED`].
        mailboxes: Vec<SurveyedMailbox>,
        /// Whether no more follow.
        last: bool,
    },
    /// All buckets: [`BUCKETS`] of them.
    Buckets(Vec<Bucket>),
    /// Bodies of a bucket, and whether these were the last.
    Bodies {
        /// At most [`MAX_LISTED`].
        blobs: Vec<BlobId>,
        /// Whether no more follow.
        last: bool,
    },
}

/// Which answer a question may get.
fn fits(question: &Question, answer: &Answer) -> bool {
    matches!(
        (question, answer),
        (_, Answer::Moved(_))
            | (Question::Mailboxes(_), Answer::Mailboxes { .. })
            | (Question::Buckets, Answer::Buckets(_))
            | (Question::Bodies { .. }, Answer::Bodies { .. })
    )
}

/// The open questions of a session.
#[derive(Default)]
pub(super) struct Surveying {
    /// Ours, unanswered.
    pub(super) asked: Option<Question>,
    /// The peer's, unanswered.
    pub(super) wanted: Option<Question>,
}

impl Surveying {
    /// Whether an answer is one to our open question, which it closes.
    pub(super) fn answered(&mut self, answer: &Answer) -> bool {
        self.asked.take().is_some_and(|asked| fits(&asked, answer))
    }

    /// The peer asks; false if it does not wait for its last answer.
    pub(super) fn wants(&mut self, question: Question) -> bool {
        self.wanted.replace(question).is_none()
    }

    /// Closes the peer's question; false if this does not answer it.
    pub(super) fn answers(&mut self, answer: &Answer) -> bool {
        self.wanted.take().is_some_and(|wanted| fits(&wanted, answer))
    }
}

/// A frame of a survey.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum SurveyFrame {
    Ask { digest: Digest, question: Question },
    Tell(Answer),
}

impl SurveyFrame {
    pub(super) fn kind(&self) -> u8 {
        match self {
            SurveyFrame::Ask { .. } => 0x30,
            SurveyFrame::Tell(Answer::Moved(_)) => 0x31,
            SurveyFrame::Tell(Answer::Mailboxes { .. }) => 0x32,
            SurveyFrame::Tell(Answer::Buckets(_)) => 0x33,
            SurveyFrame::Tell(Answer::Bodies { .. }) => 0x34,
        }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        match self {
            SurveyFrame::Ask { digest, question } => {
                let (kind, argument): (u64, Vec<u8>) = match question {
                    Question::Mailboxes(after) => {
                        (0, after.map_or(Vec::new(), |after| after.as_bytes().to_vec()))
                    }
                    Question::Buckets => (1, Vec::new()),
                    Question::Bodies { bucket, after } => {
                        (2, after.map_or(vec![*bucket], |after| after.as_bytes().to_vec()))
                    }
                };
                out.array(3).bytes(digest).uint(kind).bytes(&argument);
            }
            SurveyFrame::Tell(Answer::Moved(digest)) => {
                out.array(1).bytes(digest);
            }
            SurveyFrame::Tell(Answer::Mailboxes { mailboxes, last }) => {
                out.array(2).bool(*last).array(mailboxes.len());
                mailboxes.iter().for_each(|mailbox| write_mailbox(out, mailbox));
            }
            SurveyFrame::Tell(Answer::Buckets(buckets)) => {
                out.array(buckets.len());
                for Bucket { count, digest } in buckets {
                    out.array(2).uint(*count).bytes(digest);
                }
            }
            SurveyFrame::Tell(Answer::Bodies { blobs, last }) => {
                out.array(2).bool(*last).array(blobs.len());
                for blob in blobs {
                    out.bytes(blob.as_bytes());
                }
            }
        }
    }

    pub(super) fn read(kind: u8, reader: &mut Reader<'_>) -> Result<SurveyFrame, Malformed> {
        Ok(match kind {
            0x30 => {
                let later = reader.fields(3)?;
                let digest = reader.exactly()?;
                let question = read_question(reader)?;
                reader.skip(later)?;
                SurveyFrame::Ask { digest, question }
            }
            0x31 => {
                let later = reader.fields(1)?;
                let digest = reader.exactly()?;
                reader.skip(later)?;
                SurveyFrame::Tell(Answer::Moved(digest))
            }
            0x32 => {
                let later = reader.fields(2)?;
                let last = reader.bool()?;
                let mut mailboxes = Vec::new();
                for _ in 0..reader.array(MAX_SURVEYED)? {
                    mailboxes.push(read_mailbox(reader)?);
                }
                reader.skip(later)?;
                let ascending = mailboxes.is_sorted_by(|a, b| a.id < b.id);
                // An answer that brings nothing and has more to come would go on for ever.
                if !ascending || (mailboxes.is_empty() && !last) {
                    return Err(Malformed);
                }
                SurveyFrame::Tell(Answer::Mailboxes { mailboxes, last })
            }
            0x33 => {
                let mut buckets = Vec::new();
                if reader.array(BUCKETS)? != BUCKETS {
                    return Err(Malformed);
                }
                for _ in 0..BUCKETS {
                    let later = reader.fields(2)?;
                    buckets.push(Bucket { count: reader.uint()?, digest: reader.exactly()? });
                    reader.skip(later)?;
                }
                SurveyFrame::Tell(Answer::Buckets(buckets))
            }
            _ => {
                let later = reader.fields(2)?;
                let last = reader.bool()?;
                let mut blobs = Vec::new();
                for _ in 0..reader.array(MAX_LISTED)? {
                    blobs.push(BlobId::from_bytes(reader.exactly()?));
                }
                reader.skip(later)?;
                if !blobs.is_sorted_by(|a, b| a < b) || (blobs.is_empty() && !last) {
                    return Err(Malformed);
                }
                SurveyFrame::Tell(Answer::Bodies { blobs, last })
            }
        })
    }
}

fn read_question(reader: &mut Reader<'_>) -> Result<Question, Malformed> {
    let (kind, argument) = (reader.uint()?, reader.bytes()?);
    Ok(match (kind, argument) {
        (0, []) => Question::Mailboxes(None),
        (0, id) => Question::Mailboxes(Some(MailboxId::from_bytes(id.try_into().map_err(|_| Malformed)?))),
        (1, []) => Question::Buckets,
        (2, [bucket]) => Question::Bodies { bucket: *bucket, after: None },
        (2, blob) => {
            let blob: [u8; 32] = blob.try_into().map_err(|_| Malformed)?;
            Question::Bodies { bucket: blob[0], after: Some(BlobId::from_bytes(blob)) }
        }
        _ => return Err(Malformed),
    })
}

fn write_mailbox(out: &mut Writer, mailbox: &SurveyedMailbox) {
    out.array(7).bytes(mailbox.id.as_bytes()).text(mailbox.name.as_str()).uint(mailbox.messages);
    out.bytes(&mailbox.entries);
    match mailbox.uids {
        Some(SurveyedUids { validity, next, digest }) => out.uint(validity).uint(next).bytes(&digest),
        None => out.uint(0).uint(0).bytes(&[]),
    };
}

fn read_mailbox(reader: &mut Reader<'_>) -> Result<SurveyedMailbox, Malformed> {
    let later = reader.fields(7)?;
    let id = MailboxId::from_bytes(reader.exactly()?);
    let name = reader.text(MailboxName::MAX_LEN)?.parse().map_err(|_| Malformed)?;
    let (messages, entries) = (reader.uint()?, reader.exactly()?);
    let (validity, next, digest) = (reader.uint()?, reader.uint()?, reader.bytes()?);
    reader.skip(later)?;
    let uids = match digest {
        [] if validity == 0 && next == 0 => None,
        digest => {
            let digest = digest.try_into().map_err(|_| Malformed)?;
            Some(SurveyedUids { validity, next, digest })
        }
    };
    Ok(SurveyedMailbox { id, name, messages, entries, uids })
}

#[cfg(test)]
mod tests {
    use super::super::frame::Frame;
    use super::*;

    fn frames() -> Vec<SurveyFrame> {
        let digest = [7; 16];
        let blobs: Vec<BlobId> = (0..3u8).map(|n| BlobId::from_bytes([n; 32])).collect();
        let mailbox = |n: u8, uids| SurveyedMailbox {
            id: MailboxId::from_bytes([n; 16]),
            name: "Work/Älter".parse().unwrap(),
            messages: 9,
            entries: [3; 16],
            uids,
        };
        let uids = SurveyedUids { validity: 5, next: 1 << 32, digest: [4; 16] };
        vec![
            SurveyFrame::Ask { digest, question: Question::Mailboxes(None) },
            SurveyFrame::Ask { digest, question: Question::Mailboxes(Some(MailboxId::from_bytes([9; 16]))) },
            SurveyFrame::Ask { digest, question: Question::Buckets },
            SurveyFrame::Ask { digest, question: Question::Bodies { bucket: 200, after: None } },
            SurveyFrame::Ask { digest, question: Question::Bodies { bucket: 1, after: Some(blobs[1]) } },
            SurveyFrame::Tell(Answer::Moved(digest)),
            SurveyFrame::Tell(Answer::Mailboxes {
                mailboxes: vec![mailbox(1, None), mailbox(2, Some(uids))],
                last: false,
            }),
            SurveyFrame::Tell(Answer::Mailboxes { mailboxes: vec![], last: true }),
            SurveyFrame::Tell(Answer::Buckets(vec![Bucket { count: 3, digest }; BUCKETS])),
            SurveyFrame::Tell(Answer::Bodies { blobs, last: false }),
        ]
    }

    #[test]
    fn frames_come_back_and_cut_ones_do_not() {
        for frame in frames() {
            let bytes = Frame::Survey(frame.clone()).encode();
            let body = &bytes[bytes.iter().position(|byte| *byte < 0x80).unwrap() + 2..];
            assert_eq!(Frame::decode(frame.kind(), body), Ok(Frame::Survey(frame.clone())), "{frame:?}");
            for cut in 0..body.len() {
                assert!(Frame::decode(frame.kind(), &body[..cut]).is_err(), "{frame:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn answers_that_would_never_end_and_lists_in_no_order_are_refused() {
        let refused = |frame: &SurveyFrame| {
            let mut out = Writer::new();
            frame.write(&mut out);
            Frame::decode(frame.kind(), &out.finish()).is_err()
        };
        let blobs = vec![BlobId::from_bytes([2; 32]), BlobId::from_bytes([2; 32])];
        assert!(refused(&SurveyFrame::Tell(Answer::Bodies { blobs, last: true })));
        assert!(refused(&SurveyFrame::Tell(Answer::Bodies { blobs: vec![], last: false })));
        assert!(refused(&SurveyFrame::Tell(Answer::Mailboxes { mailboxes: vec![], last: false })));
        assert!(refused(&SurveyFrame::Tell(Answer::Buckets(vec![Bucket::default(); 255]))));
        let many = (0..=MAX_LISTED as u32).map(|n| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            BlobId::from_bytes(id)
        });
        assert!(refused(&SurveyFrame::Tell(Answer::Bodies { blobs: many.collect(), last: true })));
    }

    #[test]
    fn one_question_is_open_and_gets_its_own_kind_of_answer() {
        let mut surveying = Surveying::default();
        let bodies = Answer::Bodies { blobs: vec![], last: true };
        assert!(!surveying.answered(&bodies), "nothing was asked");
        surveying.asked = Some(Question::Buckets);
        assert!(!surveying.answered(&bodies));
        surveying.asked = Some(Question::Buckets);
        assert!(surveying.answered(&Answer::Moved([1; 16])));
        assert!(surveying.wants(Question::Buckets) && !surveying.wants(Question::Buckets));
        assert!(!surveying.answers(&bodies) && !surveying.answers(&Answer::Moved([1; 16])));
    }
}
