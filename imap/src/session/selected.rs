//! The selected mailbox: what the client was told of it, and the lines that bring it up to date.

use std::collections::{BTreeMap, BTreeSet};

use postmerge::mailbox::{Keyword, ModSeq, Uid};
use postmerge::replica::{ReplicaError, Snapshot};
use postmerge::uid::{Mailbox, Seen, Shown};

use super::done::Failed;
use super::{Enabled, Session, State};
use crate::grammar::{Code, Condition, MessageSet, NumberSet, Numbering, Responses};
use crate::view::{self, OutOfOrder, Update, View};

/// Keywords that FLAGS names at most: clients hold each of them, and no person uses more.
const MAX_NAMED: usize = 200;

/// Why a mailbox cannot stay selected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// It was deleted.
    #[error("the mailbox was deleted")]
    Deleted,
    /// Its UIDVALIDITY is another one.
    #[error("the mailbox has another UIDVALIDITY now; select it again")]
    Validity,
    /// What is shown does not fit to what was shown.
    #[error("the mailbox is inconsistent: {0}")]
    OutOfOrder(#[from] OutOfOrder),
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

/// A mailbox and what the client knows of it.
pub(super) struct Selected {
    pub(super) seen: Seen,
    pub(super) view: View,
    pub(super) read_only: bool,
    /// What `$` means, in UIDs (RFC 5182).
    pub(super) saved: NumberSet,
    /// The mod-sequence up to which the client was told.
    pub(super) told: ModSeq,
    /// Mod-sequences of changes that the client made, and was answered, itself.
    known: BTreeMap<u32, u64>,
    /// What FLAGS has named.
    flags: BTreeSet<Keyword>,
}

impl Selected {
    /// The mailbox as of a snapshot, which the client is about to be told.
    pub(super) fn new(mailbox: &Mailbox, uids: View, read_only: bool) -> Selected {
        let common = [
            "\\Answered",
            "\\Flagged",
            "\\Deleted",
            "\\Seen",
            "\\Draft",
            "$Forwarded",
            "$MDNSent",
            "$Junk",
            "$NotJunk",
        ];
        Selected {
            seen: mailbox.seen(),
            view: uids,
            read_only,
            saved: NumberSet::default(),
            told: mailbox.highest_modseq,
            known: BTreeMap::new(),
            flags: common.iter().filter_map(|flag| flag.parse().ok()).collect(),
        }
    }

    /// Notes that the client knows a message as of this mod-sequence: it was answered so.
    pub(super) fn knows(&mut self, uid: Uid, modseq: ModSeq) {
        self.known.insert(uid.value(), modseq.value());
    }

    /// Names new keywords in FLAGS before a message shows them (RFC 9051, section 7.3.5).
    pub(super) fn name_keywords<'a>(
        &mut self,
        messages: impl IntoIterator<Item = &'a Shown>,
        out: &mut Responses,
    ) {
        self.name(messages.into_iter().flat_map(|message| &message.keywords), out);
    }

    /// The same for the keywords themselves.
    pub(super) fn name<'a>(&mut self, keywords: impl IntoIterator<Item = &'a Keyword>, out: &mut Responses) {
        let mut fresh = false;
        for keyword in keywords {
            if !self.flags.contains(keyword) && self.flags.len() < MAX_NAMED {
                fresh |= self.flags.insert(keyword.clone());
            }
        }
        if fresh {
            self.put_flags(out);
        }
    }

    /// FLAGS and PERMANENTFLAGS.
    pub(super) fn put_flags(&self, out: &mut Responses) {
        out.flags(&self.flags);
        let all: Vec<Keyword> = self.flags.iter().cloned().collect();
        let code = match self.read_only {
            true => Code::PermanentFlags(&[], false),
            false => Code::PermanentFlags(&all, true),
        };
        out.status(None, Condition::Ok, Some(code), "flags that can be changed");
    }

    /// Tells what happened since the client was last told. Expunges only if the command that ends allows them.
    pub(super) fn refresh(
        &mut self,
        snapshot: &Snapshot,
        enabled: Enabled,
        may_expunge: bool,
        with_uid: bool,
        out: &mut Responses,
    ) -> Result<(), Lost> {
        let mailbox = snapshot.mailbox(self.seen.mailbox)?.ok_or(Lost::Deleted)?;
        if mailbox.uid_validity != self.seen.uid_validity {
            return Err(Lost::Validity);
        }
        if mailbox.highest_modseq == self.told && !self.view.owes_expunges() {
            return Ok(());
        }
        // Counters go on where a new era begins, so what was told under the old one need not be told again.
        let since = ModSeq::new(self.told.counter(), snapshot.era()?);
        let changes = snapshot.changed_since(self.seen.mailbox, since)?.unwrap_or_default();
        let plain = view::Changes {
            changed: changes.changed.iter().map(|m| (m.uid.value(), m.modseq.value())).collect(),
            vanished: changes.vanished.iter().map(|uid| uid.value()).collect(),
        };
        let updates = self.view.update(&plain, &std::mem::take(&mut self.known), may_expunge)?;
        self.told = mailbox.highest_modseq;
        self.name_keywords(&changes.changed, out);
        for update in updates {
            match update {
                Update::Expunged(gone) if enabled.qresync || enabled.uid_only => {
                    out.vanished(false, &NumberSet::from_numbers(gone.iter().map(|(_, uid)| *uid)));
                }
                // From the highest down, so that no number shifts before its line.
                Update::Expunged(gone) => gone.iter().rev().for_each(|(seq, _)| out.expunge(*seq)),
                Update::Exists(count) => out.exists(count),
                Update::Flags { seq, uid } => {
                    let at = changes.changed.binary_search_by_key(&uid, |message| message.uid.value());
                    let message = &changes.changed[at.expect("the view names what it was given")];
                    put_flags(out, seq, message, enabled, with_uid || enabled.qresync);
                }
            }
        }
        Ok(())
    }

    /// The messages a set means, as sequence number and UID, ascending.
    fn targets(&self, set: &MessageSet, numbering: Numbering) -> Result<Vec<(u32, u32)>, Failed> {
        let mut targets = Vec::new();
        match (set, numbering) {
            (MessageSet::Saved, _) => {
                for range in self.saved.ranges() {
                    targets.extend(self.view.by_uid(range));
                }
            }
            (MessageSet::Numbers(set), Numbering::Uid) => {
                for range in set.resolve(self.view.last_uid().unwrap_or(0)).ranges() {
                    targets.extend(self.view.by_uid(range));
                }
            }
            (MessageSet::Numbers(set), Numbering::Sequence) => {
                let exists = self.view.exists();
                if set.largest_number().is_some_and(|number| number > exists)
                    || (set.names_last() && exists == 0)
                {
                    return Err(Failed::Bad("there is no message with such a number"));
                }
                for range in set.resolve(exists).ranges() {
                    targets.extend(self.view.by_seq(range));
                }
            }
        }
        Ok(targets)
    }
}

impl Session {
    pub(super) fn selected(&self) -> Result<&Selected, Failed> {
        match &self.state {
            State::Selected(_, selected) => Ok(selected),
            _ => Err(Failed::unselected()),
        }
    }

    /// The messages a set means, as sequence number and UID, ascending. UIDs that mean nothing are left out; sequence
    /// numbers that mean nothing are an error (RFC 9051, section 9, `seq-number`).
    pub(super) fn targets(&self, set: &MessageSet, numbering: Numbering) -> Result<Vec<(u32, u32)>, Failed> {
        if self.enabled.uid_only && numbering == Numbering::Sequence && *set != MessageSet::Saved {
            return Err(Failed::UidRequired);
        }
        self.selected()?.targets(set, numbering)
    }

    pub(super) fn target_uids(&self, set: &MessageSet, numbering: Numbering) -> Result<Vec<Uid>, Failed> {
        let targets = self.targets(set, numbering)?;
        Ok(targets.into_iter().filter_map(|(_, uid)| Uid::new(uid)).collect())
    }
}

/// FETCH with the flags of a message, and what a client that knows CONDSTORE or QRESYNC wants with them.
pub(super) fn put_flags(out: &mut Responses, seq: u32, message: &Shown, enabled: Enabled, with_uid: bool) {
    let (flags, modseq) = (Some(&message.keywords), enabled.condstore.then_some(message.modseq));
    Line { seq, uid: message.uid, flags, modseq }.put(out, enabled, with_uid);
}

/// What a FETCH response that the client did not ask for tells of a message.
pub(super) struct Line<'a> {
    pub(super) seq: u32,
    pub(super) uid: Uid,
    pub(super) flags: Option<&'a BTreeSet<Keyword>>,
    pub(super) modseq: Option<ModSeq>,
}

impl Line<'_> {
    /// Writes it, with the UID if the client counts on that or knows messages by nothing else.
    pub(super) fn put(&self, out: &mut Responses, enabled: Enabled, with_uid: bool) {
        let mut row = match enabled.uid_only {
            true => out.uid_fetch(self.uid),
            false => out.fetch(self.seq),
        };
        if with_uid && !enabled.uid_only {
            row.uid(self.uid);
        }
        if let Some(flags) = self.flags {
            row.flags(flags);
        }
        if let Some(modseq) = self.modseq {
            row.mod_seq(modseq);
        }
        row.end();
    }
}
