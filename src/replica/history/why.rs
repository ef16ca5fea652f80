//! What happened to one message.

use std::collections::BTreeSet;

use super::claims::Records;
use super::conflicts::{Decision, Kind};
use super::{Deed, Teller};
use crate::blob::BlobId;
use crate::mailbox::{EntryId, Key, Keyword, MailboxId, MailboxName, Stamp, Uid, Value};
use crate::replica::{Replica, ReplicaError};
use crate::uid::AccountError;

/// The life of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// The message.
    pub entry: EntryId,
    /// Its body.
    pub blob: BlobId,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the body is here.
    pub has_body: bool,
    /// Where it is; nothing once it is expunged.
    pub mailbox: Option<MailboxId>,
    /// The UID under which this replica's clients see it there.
    pub uid: Option<Uid>,
    /// Its keywords.
    pub keywords: BTreeSet<Keyword>,
    /// What was done to it, each after what its author knew.
    pub told: Vec<Told>,
    /// What a merge had to decide about it.
    pub decisions: Vec<Decision>,
}

/// Something that was done to a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// The change that did it.
    pub stamp: Stamp,
    /// What it did.
    pub deed: Deed,
    /// The UID that it claimed or burned.
    pub uid: Option<Uid>,
}

impl Replica {
    /// The message that a UID stands for, or stood for before it vanished. Of a mailbox that is gone, the last one that had the
    /// name is meant.
    pub fn bearer(&self, mailbox: &MailboxName, uid: Uid) -> Result<EntryId, ReplicaError> {
        let snapshot = match self.open_mailbox(mailbox) {
            Ok((snapshot, _)) => snapshot,
            Err(ReplicaError::Account(AccountError::NoMailbox { .. })) => self.view()?,
            Err(error) => return Err(error),
        };
        let view = snapshot.view();
        let mut named = view.find(mailbox)?.map_or_else(Vec::new, |id| vec![id]);
        if named.is_empty() {
            named.extend(view.names()?.into_iter().filter(|(_, name)| name == mailbox).map(|(id, _)| id));
        }
        if named.is_empty() {
            return Err(AccountError::NoMailbox { name: mailbox.clone() }.into());
        }
        for id in named.into_iter().rev() {
            if let Some(entry) = view.bearer(id, uid)? {
                return Ok(entry);
            }
        }
        Err(ReplicaError::NoMessage { mailbox: mailbox.clone(), uid })
    }

    /// Tells what happened to a message. Reads the changes that wrote to it, and no others; the claims of UIDs cost
    /// O(claim runs of the mailboxes it was in), a few µs each. Of packs that brought the same imported message twice, one
    /// is told.
    pub fn why(&self, entry: EntryId) -> Result<Story, ReplicaError> {
        let mut story = self.tell_of(|teller| teller.story(entry))?;
        story.has_body = self.has_body(story.blob)?;
        Ok(story)
    }
}

impl Teller<'_> {
    fn story(&mut self, entry: EntryId) -> Result<Story, ReplicaError> {
        let missing = || ReplicaError::NoEntry { entry };
        let (_, size, mailbox) = self.view.entry(entry)?.ok_or_else(missing)?;
        let message = self.view.message_of(entry)?.ok_or_else(missing)?;
        let home = self.view.home(entry)?.ok_or_else(missing)?;
        let uid = mailbox.map(|mailbox| self.view.uid_in(mailbox, entry)).transpose()?.flatten();
        let (mut told, mut decisions) = (Vec::new(), Vec::new());
        if let Some((pack, _)) = self.view.pack_of(entry)?
            && let Some(stamp) = self.past.author(&Key::Pack(pack))
        {
            let deed = self.record(&Key::Pack(pack)).map(|(deed, _)| deed);
            told.extend(deed.map(|deed| Told { stamp, deed, uid: None }));
        }
        let keywords = self.past.keywords(entry).into_iter().map(|keyword| Key::Keyword(entry, keyword));
        let mut mailboxes = BTreeSet::from([home]);
        for key in std::iter::once(Key::Place(entry)).chain(keywords) {
            let writes = self.past.writes(&key);
            for (at, write) in writes.all().iter().enumerate() {
                if let Value::Place(Some(place)) = &write.value {
                    mailboxes.insert(place.mailbox);
                }
                let deed = self.deed(&key, &write.value, &writes.before(at))?;
                told.extend(deed.map(|deed| Told { stamp: write.stamp, deed, uid: None }));
            }
            for contest in writes.contests() {
                if let Some((kind, mailbox, acts)) = self.decide(&key, &writes, &contest)? {
                    let messages = [entry].into();
                    decisions.push(Decision { kind, mailbox, acts, messages, uids: BTreeSet::new() });
                }
            }
        }
        for mailbox in mailboxes {
            self.tell_uids(entry, mailbox, &mut told, &mut decisions)?;
        }
        told.sort();
        let latest = |decision: &Decision| decision.acts.iter().map(|act| act.stamp).max();
        decisions.sort_by_key(latest);
        let (blob, keywords) = (message.blob, message.keywords);
        Ok(Story { entry, blob, size, has_body: false, mailbox, uid, keywords, told, decisions })
    }

    fn tell_uids(
        &mut self,
        entry: EntryId,
        mailbox: MailboxId,
        told: &mut Vec<Told>,
        decisions: &mut Vec<Decision>,
    ) -> Result<(), ReplicaError> {
        for space in self.view.uid_spaces(mailbox)? {
            let mut records = Records::read(self, space)?;
            let uids = records.uids_of(self, entry)?;
            let wanted: BTreeSet<Uid> = uids.iter().map(|(uid, _)| *uid).collect();
            for (uid, key) in uids {
                let stamp = self.past.author(&Key::Uids(key));
                let deed = Deed::Claimed { mailbox };
                told.extend(stamp.map(|stamp| Told { stamp, deed, uid: Some(uid) }));
            }
            let mut burned = Vec::new();
            for uid in &wanted {
                burned.extend(self.view.burned(space, *uid, *uid)?);
            }
            if burned.is_empty() {
                continue;
            }
            let parties = records.parties(self, &wanted);
            for (uid, rule) in burned {
                let Some(parties) = parties.get(&uid) else { continue };
                let acts = parties.acts(self, records.space, rule);
                let kind = Kind::Uid(rule);
                let messages = parties.claims.iter().map(|(_, placement)| placement.entry).collect();
                decisions.push(Decision { kind, mailbox: Some(mailbox), acts, messages, uids: [uid].into() });
            }
        }
        Ok(())
    }
}
