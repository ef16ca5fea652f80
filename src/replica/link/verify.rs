//! A conversation in which two sides compare what they have: asking, and answering.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Link, LinkError};
use crate::blob::BlobId;
use crate::mailbox::MailboxId;
use crate::replica::survey::{Survey, bodies_of};
use crate::replica::verifying::{MailboxVerdict, Unverified, Verdict};
use crate::replica::{ReplicaError, Snapshot};
use crate::sync::{Answer, Bucket, Digest, Question, Refusal, SurveyedMailbox};

/// How long a comparison begins anew when somebody goes on: sides that never rest for a moment in this time have much to do.
const RESTLESS: Duration = Duration::from_secs(60);
/// Buckets of which bodies are listed, each of which costs a look at all messages on both sides.
const MAX_BUCKETS: usize = 16;

/// This side, in the state that is compared.
pub(super) struct Ours {
    digest: Digest,
    snapshot: Snapshot,
    survey: Survey,
}

/// A comparison that goes on.
pub(super) struct Verifying {
    ours: Ours,
    theirs: BTreeMap<MailboxId, SurveyedMailbox>,
    buckets: Vec<Bucket>,
    /// Buckets that differ and are still to be listed; the last one is being listed.
    differing: Vec<u8>,
    differ: u64,
    listed: BTreeSet<BlobId>,
    only_here: Vec<BlobId>,
    only_there: Vec<BlobId>,
}

impl Link {
    /// Whether a comparison goes on, or is asked for: the conversation is not over before.
    pub(super) fn is_to_verify(&self) -> bool {
        self.verifying.is_some()
            || self.member.as_ref().is_some_and(|member| self.replica.is_to_verify(member.replica))
    }

    /// Begins to compare, if somebody asked for it and both sides are in one state.
    pub(super) fn begin_to_verify(&mut self) -> Result<(), LinkError> {
        if self.verifying.is_some() || !self.is_to_verify() {
            return Ok(());
        }
        if self.now >= *self.verify_since.get_or_insert(self.now) + RESTLESS {
            self.verified(Err(Unverified::NeverStill));
            return Ok(());
        }
        let Some(theirs) = self.peer_state() else { return Ok(()) };
        let snapshot = self.replica.view()?;
        if self.replica.state_at(&snapshot)?.digest != theirs {
            return Ok(());
        }
        let survey = Survey::of(&self.replica, &snapshot)?;
        self.verifying = Some(Verifying {
            ours: Ours { digest: theirs, snapshot, survey },
            theirs: BTreeMap::new(),
            buckets: Vec::new(),
            differing: Vec::new(),
            differ: 0,
            listed: BTreeSet::new(),
            only_here: Vec::new(),
            only_there: Vec::new(),
        });
        self.ask(Question::Mailboxes(None))
    }

    fn ask(&mut self, question: Question) -> Result<(), LinkError> {
        let Some(verifying) = &self.verifying else { return Ok(()) };
        Ok(self.session.ask(verifying.ours.digest, question, self.now)?)
    }

    fn verified(&mut self, outcome: Result<Verdict, Unverified>) {
        self.verify_since = None;
        if let Some(member) = &self.member {
            self.replica.verified_with(member.replica, outcome);
        }
    }

    /// The peer answered: asks on, or judges.
    pub(super) fn surveyed(&mut self, answer: Answer) -> Result<(), LinkError> {
        let Some(mut verifying) = self.verifying.take() else { return Ok(()) };
        let next = match answer {
            // What it was in, it will tell in its own time.
            Answer::Moved(_) => return self.begin_to_verify(),
            Answer::Mailboxes { mailboxes, last } => verifying.take_mailboxes(mailboxes, last)?,
            Answer::Buckets(buckets) => {
                verifying.take_buckets(buckets);
                verifying.next_bucket()
            }
            Answer::Bodies { blobs, last } => verifying
                .take_bodies(blobs, last, |bucket, snapshot| bodies_of(&self.replica, snapshot, bucket))?,
        };
        match next {
            Some(question) => {
                self.verifying = Some(verifying);
                self.ask(question)
            }
            None => {
                self.verified(Ok(verifying.judge()));
                self.leave_if_done()
            }
        }
    }

    /// Answers the peer, from one look at each state.
    pub(super) fn tell_survey(&mut self, digest: Digest, question: Question) -> Result<(), LinkError> {
        let snapshot = self.replica.view()?;
        let now = self.replica.state_at(&snapshot)?.digest;
        if now != digest {
            self.surveyed = None;
            return Ok(self.session.tell(Answer::Moved(now))?);
        }
        // All but the lists is found once, when a comparison begins.
        let survey = match (self.surveyed.take().filter(|(of, _)| *of == digest), question) {
            (Some((_, survey)), Question::Buckets | Question::Mailboxes(Some(_))) => survey,
            (known, question) => {
                if !self.looks.take(self.now) {
                    return Err(Refusal::Busy.into());
                }
                match (known, question) {
                    (Some((_, survey)), Question::Bodies { .. }) => survey,
                    _ => Survey::of(&self.replica, &snapshot)?,
                }
            }
        };
        let answer = survey.tell(&self.replica, &snapshot, &question)?;
        self.surveyed = Some((digest, survey));
        Ok(self.session.tell(answer)?)
    }
}

/// How often a peer may have all messages looked at: as often as some comparisons need, and then once in [`Looks::EVERY`].
pub(super) struct Looks {
    left: u32,
    since: Duration,
}

impl Default for Looks {
    fn default() -> Looks {
        Looks { left: Looks::MOST, since: Duration::ZERO }
    }
}

impl Looks {
    const MOST: u32 = 4 * (MAX_BUCKETS as u32 + 1);
    const EVERY: Duration = Duration::from_secs(10);

    fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.since).as_secs() / Looks::EVERY.as_secs();
        if earned > 0 {
            self.left = self.left.saturating_add(earned.min(Looks::MOST.into()) as u32).min(Looks::MOST);
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

impl Verifying {
    fn take_mailboxes(
        &mut self,
        mailboxes: Vec<SurveyedMailbox>,
        last: bool,
    ) -> Result<Option<Question>, LinkError> {
        let before = self.theirs.keys().next_back().copied();
        let behind = mailboxes.first().is_none_or(|first| before.is_none_or(|before| first.id > before));
        // Both know the same changes, so the peer cannot have many more.
        if !behind || self.theirs.len() + mailboxes.len() > 2 * self.ours.survey.mailboxes.len() + MAX_MORE {
            return Err(LinkError::Peer { what: "mailboxes without end".into() });
        }
        self.theirs.extend(mailboxes.into_iter().map(|mailbox| (mailbox.id, mailbox)));
        Ok(Some(match last {
            true => Question::Buckets,
            false => Question::Mailboxes(self.theirs.keys().next_back().copied()),
        }))
    }

    fn take_buckets(&mut self, buckets: Vec<Bucket>) {
        let both = self.ours.survey.buckets.iter().zip(&buckets);
        let differing = (0..=u8::MAX).zip(both).filter(|(_, (ours, theirs))| ours != theirs);
        self.differing = differing.map(|(bucket, _)| bucket).collect();
        self.differ = self.differing.len() as u64;
        self.differing.truncate(MAX_BUCKETS);
        self.buckets = buckets;
    }

    fn next_bucket(&self) -> Option<Question> {
        self.differing.last().map(|bucket| Question::Bodies { bucket: *bucket, after: None })
    }

    fn take_bodies(
        &mut self,
        blobs: Vec<BlobId>,
        last: bool,
        ours: impl FnOnce(u8, &Snapshot) -> Result<BTreeSet<BlobId>, ReplicaError>,
    ) -> Result<Option<Question>, LinkError> {
        let Some(bucket) = self.differing.last().copied() else { return Ok(None) };
        let in_order = self.listed.last().is_none_or(|end| blobs.first().is_none_or(|first| first > end));
        let count = self.buckets[usize::from(bucket)].count;
        if !in_order
            || blobs.iter().any(|blob| blob.as_bytes()[0] != bucket)
            || (self.listed.len() + blobs.len()) as u64 > count
        {
            return Err(LinkError::Peer { what: "a list of bodies that is none".into() });
        }
        self.listed.extend(blobs);
        if !last {
            return Ok(Some(Question::Bodies { bucket, after: self.listed.last().copied() }));
        }
        let (theirs, ours) = (std::mem::take(&mut self.listed), ours(bucket, &self.ours.snapshot)?);
        let room = |list: &Vec<BlobId>| Verdict::MAX_NAMED - list.len();
        let (here, there) = (room(&self.only_here), room(&self.only_there));
        self.only_here.extend(ours.difference(&theirs).take(here));
        self.only_there.extend(theirs.difference(&ours).take(there));
        self.differing.pop();
        Ok(self.next_bucket())
    }

    fn judge(self) -> Verdict {
        let Ours { digest, survey: Survey { mailboxes: ours, buckets }, .. } = self.ours;
        let ids: BTreeSet<MailboxId> = ours.keys().chain(self.theirs.keys()).copied().collect();
        let of = |id| judge_mailbox(ours.get(&id).cloned(), self.theirs.get(&id).cloned());
        let mut mailboxes: Vec<MailboxVerdict> = ids.into_iter().filter_map(of).collect();
        mailboxes.sort_by(|a, b| a.name.cmp(&b.name));
        let private = |all: &BTreeMap<MailboxId, SurveyedMailbox>| all.values().any(|one| one.uids.is_none());
        Verdict {
            digest,
            bodies: buckets.iter().map(|bucket| bucket.count).sum(),
            only_here: self.only_here,
            only_there: self.only_there,
            differing_buckets: self.differ,
            without_uids: private(&ours) || private(&self.theirs),
            mailboxes,
        }
    }
}

/// Mailboxes that a peer may have and this side not, beside as many as this one has.
const MAX_MORE: usize = 1000;

fn judge_mailbox(here: Option<SurveyedMailbox>, there: Option<SurveyedMailbox>) -> Option<MailboxVerdict> {
    let mut differs = Vec::new();
    match (&here, &there) {
        (Some(ours), Some(theirs)) => {
            let uids = ours.uids.zip(theirs.uids);
            let differ = [
                ("name", ours.name != theirs.name),
                ("number of messages", ours.messages != theirs.messages),
                ("messages or flags", ours.entries != theirs.entries),
                ("UIDVALIDITY", uids.is_some_and(|(ours, theirs)| ours.validity != theirs.validity)),
                ("UIDNEXT", uids.is_some_and(|(ours, theirs)| ours.next != theirs.next)),
                ("UIDs", uids.is_some_and(|(ours, theirs)| ours.digest != theirs.digest)),
            ];
            differs.extend(differ.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what));
        }
        (Some(_), None) => differs.push("only here"),
        (None, _) => differs.push("only there"),
    }
    let name = here.as_ref().or(there.as_ref())?.name.clone();
    Some(MailboxVerdict { name, here, there, differs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::SurveyedUids;

    #[test]
    fn each_difference_of_a_mailbox_is_named() {
        let uids = SurveyedUids { validity: 1, next: 2, digest: [3; 16] };
        let one = SurveyedMailbox {
            id: MailboxId::inbox(),
            name: "INBOX".parse().unwrap(),
            messages: 4,
            entries: [5; 16],
            uids: Some(uids),
        };
        let judge = |theirs: &SurveyedMailbox| {
            let verdict = judge_mailbox(Some(one.clone()), Some(theirs.clone())).unwrap();
            verdict.differs
        };
        let other = |uids| SurveyedMailbox { uids: Some(uids), ..one.clone() };
        assert_eq!(judge(&one), [""; 0]);
        assert_eq!(judge(&SurveyedMailbox { name: "Work".parse().unwrap(), ..one.clone() }), ["name"]);
        assert_eq!(judge(&SurveyedMailbox { messages: 5, ..one.clone() }), ["number of messages"]);
        assert_eq!(judge(&SurveyedMailbox { entries: [6; 16], ..one.clone() }), ["messages or flags"]);
        assert_eq!(judge(&other(SurveyedUids { validity: 2, ..uids })), ["UIDVALIDITY"]);
        assert_eq!(judge(&other(SurveyedUids { next: 3, ..uids })), ["UIDNEXT"]);
        assert_eq!(judge(&other(SurveyedUids { digest: [4; 16], ..uids })), ["UIDs"]);
        assert_eq!(judge(&SurveyedMailbox { uids: None, ..one.clone() }), [""; 0], "an observer has its own");
        assert_eq!(judge_mailbox(Some(one.clone()), None).unwrap().differs, ["only here"]);
        assert_eq!(judge_mailbox(None, Some(one)).unwrap().differs, ["only there"]);
    }

    #[test]
    fn looks_are_given_out_at_once_and_then_slowly() {
        let mut looks = Looks::default();
        let at = Duration::from_secs;
        assert!((0..Looks::MOST).all(|_| looks.take(at(0))) && !looks.take(at(9)));
        assert!(looks.take(at(10)) && !looks.take(at(11)) && looks.take(at(45)));
    }
}
