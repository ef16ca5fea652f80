//! What a replica has, in numbers that two sides can compare: each mailbox, and all bodies.

use std::collections::{BTreeMap, BTreeSet};

use super::{Replica, ReplicaError, Snapshot};
use crate::blob::BlobId;
use crate::mailbox::{EntryId, MailboxId};
use crate::member::Role;
use crate::sync::{
    Answer, BUCKETS, Bucket, MAX_LISTED, MAX_SURVEYED, Question, SetDigest, SurveyedMailbox, SurveyedUids,
};
use crate::uid::Located;

/// Messages that are read at once.
const PAGE: usize = 1000;

/// A replica in one state. Takes the memory of its mailboxes, whatever is in them.
pub(super) struct Survey {
    pub(super) mailboxes: BTreeMap<MailboxId, SurveyedMailbox>,
    pub(super) buckets: Vec<Bucket>,
}

impl Survey {
    /// Reads every message once, and asks for every body whether it is here.
    pub(super) fn of(replica: &Replica, snapshot: &Snapshot) -> Result<Survey, ReplicaError> {
        let observer = replica.role()? != Role::Server;
        let mut digests: BTreeMap<MailboxId, (SetDigest, SetDigest)> = BTreeMap::new();
        let mut buckets = vec![Bucket::default(); BUCKETS];
        each_placed(snapshot, |entry, located, mailbox| {
            let keywords: Vec<u8> = located
                .keywords
                .iter()
                .flat_map(|keyword| [keyword.as_str().as_bytes(), b" "].concat())
                .collect();
            let (entries, uids) = digests.entry(mailbox).or_default();
            add(entries, &[entry.as_bytes(), &keywords]);
            if let Some(uid) = located.shared_uid {
                add(uids, &[&uid.value().to_be_bytes(), entry.as_bytes(), &keywords]);
            }
            if replica.has_body(located.blob)? {
                let bucket = &mut buckets[usize::from(located.blob.as_bytes()[0])];
                bucket.count += 1;
                add(&mut bucket.digest, &[entry.as_bytes(), located.blob.as_bytes()]);
            }
            Ok(())
        })?;
        let mut mailboxes = BTreeMap::new();
        for mailbox in snapshot.view().mailboxes()? {
            let (entries, digest) = digests.remove(&mailbox.id).unwrap_or_default();
            let uids = SurveyedUids {
                validity: mailbox.uid_validity.value().into(),
                next: mailbox.uid_next.into(),
                digest,
            };
            let (id, name, messages) = (mailbox.id, mailbox.name, mailbox.messages);
            let uids = (!observer).then_some(uids);
            mailboxes.insert(id, SurveyedMailbox { id, name, messages, entries, uids });
        }
        Ok(Survey { mailboxes, buckets })
    }

    /// Answers what needs no look at the messages.
    fn answer(&self, question: &Question) -> Option<Answer> {
        match question {
            Question::Mailboxes(after) => {
                let rest = self.mailboxes.values().filter(|one| after.is_none_or(|after| one.id > after));
                let mut mailboxes: Vec<SurveyedMailbox> = rest.take(MAX_SURVEYED + 1).cloned().collect();
                let last = mailboxes.len() <= MAX_SURVEYED;
                mailboxes.truncate(MAX_SURVEYED);
                Some(Answer::Mailboxes { mailboxes, last })
            }
            Question::Buckets => Some(Answer::Buckets(self.buckets.clone())),
            Question::Bodies { .. } => None,
        }
    }

    pub(super) fn tell(
        &self,
        replica: &Replica,
        snapshot: &Snapshot,
        question: &Question,
    ) -> Result<Answer, ReplicaError> {
        if let Some(answer) = self.answer(question) {
            return Ok(answer);
        }
        let Question::Bodies { bucket, after } = *question else {
            return Ok(Answer::Buckets(self.buckets.clone()));
        };
        let mut blobs: Vec<BlobId> = bodies_of(replica, snapshot, bucket)?
            .into_iter()
            .filter(|blob| after.is_none_or(|after| *blob > after))
            .take(MAX_LISTED + 1)
            .collect();
        let last = blobs.len() <= MAX_LISTED;
        blobs.truncate(MAX_LISTED);
        Ok(Answer::Bodies { blobs, last })
    }
}

/// The bodies of a bucket that messages in mailboxes have and that are here.
pub(super) fn bodies_of(
    replica: &Replica,
    snapshot: &Snapshot,
    bucket: u8,
) -> Result<BTreeSet<BlobId>, ReplicaError> {
    let mut blobs = BTreeSet::new();
    each_placed(snapshot, |_, located, _| {
        if located.blob.as_bytes()[0] == bucket && replica.has_body(located.blob)? {
            blobs.insert(located.blob);
        }
        Ok(())
    })?;
    Ok(blobs)
}

fn each_placed(
    snapshot: &Snapshot,
    mut take: impl FnMut(EntryId, &Located, MailboxId) -> Result<(), ReplicaError>,
) -> Result<(), ReplicaError> {
    let mut last = None;
    loop {
        let page = snapshot.view().located_after(last, PAGE)?;
        let Some((end, _)) = page.last() else { return Ok(()) };
        last = Some(*end);
        for (entry, located) in &page {
            if let Some((mailbox, _)) = located.place {
                take(*entry, located, mailbox)?;
            }
        }
    }
}

/// Adds a member to a set. Lengths go in, so that no two members are written alike.
fn add(digest: &mut SetDigest, parts: &[&[u8]]) {
    let mut hasher = blake3::Hasher::new_derive_key("postmerge 1 survey");
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    for (byte, new) in digest.iter_mut().zip(hasher.finalize().as_bytes()) {
        *byte ^= new;
    }
}
