//! What happened to the account, told from the log and the document: every change is in the log verbatim, and the document
//! knows which write replaced which.

mod claims;
mod conflicts;
mod why;

use std::collections::{BTreeMap, VecDeque};

use super::{Replica, ReplicaError};
use crate::mailbox::{
    Change, ChangeId, Document, DocumentError, EntryId, Key, Keyword, MailboxField, MailboxId, MailboxName,
    Origin, Past, Place, SpecialUse, Stamp, UidRecord, Value,
};
use crate::store::{Position, Reader, Record};
use crate::uid::View;

pub use conflicts::{Act, Conflicts, Decision, Kind};
pub use why::{Story, Told};

/// One thing that a change did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// A message arrived: delivered, appended or copied.
    Arrived {
        /// Into which mailbox.
        mailbox: MailboxId,
    },
    /// A message was imported from a folder.
    Imported {
        /// Into which mailbox.
        mailbox: MailboxId,
    },
    /// A message was moved.
    Moved {
        /// Where it was, as the author knew.
        from: MailboxId,
        /// Where it went.
        to: MailboxId,
    },
    /// A message that had been expunged was put back.
    BroughtBack {
        /// Where it went.
        to: MailboxId,
    },
    /// A message was expunged.
    Expunged {
        /// Where it was, as the author knew; nothing if it was expunged already.
        from: Option<MailboxId>,
    },
    /// A message's stay was renewed, as clearing `\Deleted` does.
    Kept {
        /// Where it is.
        mailbox: MailboxId,
    },
    /// A keyword was set or cleared.
    Flag {
        /// The keyword.
        keyword: Keyword,
        /// Which of the two.
        set: bool,
    },
    /// A mailbox was made.
    Made {
        /// The mailbox.
        mailbox: MailboxId,
        /// Its name.
        name: String,
    },
    /// A mailbox got another name.
    Renamed {
        /// The mailbox.
        mailbox: MailboxId,
        /// Its earlier name.
        from: String,
        /// Its name from then on.
        to: String,
    },
    /// A mailbox was deleted.
    Deleted {
        /// The mailbox.
        mailbox: MailboxId,
    },
    /// A mailbox was subscribed to, or not any more.
    Subscribed {
        /// The mailbox.
        mailbox: MailboxId,
        /// Which of the two.
        set: bool,
    },
    /// A mailbox got a special use, or none.
    SpecialUse {
        /// The mailbox.
        mailbox: MailboxId,
        /// The use.
        special_use: Option<SpecialUse>,
    },
    /// A mailbox got a higher UIDVALIDITY.
    Renumbered {
        /// The mailbox.
        mailbox: MailboxId,
    },
    /// A UID was claimed.
    Claimed {
        /// The mailbox.
        mailbox: MailboxId,
    },
    /// UIDs were counted past, because the author did not know that somebody had claimed them.
    PassedOver {
        /// The mailbox.
        mailbox: MailboxId,
    },
    /// A UID was burned by a record.
    Burned {
        /// The mailbox.
        mailbox: MailboxId,
    },
}

/// A change and what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// The commit that brought it here.
    pub position: Position,
    /// Who made it, and when.
    pub stamp: Stamp,
    /// What it did, and to how many.
    pub deeds: BTreeMap<Deed, u64>,
    /// Its size in bytes.
    pub bytes: usize,
}

/// Reads changes for [`Past`].
pub(super) type Fetch<'a> = Box<dyn FnMut(&ChangeId) -> Option<Change> + 'a>;

/// From the log, or from the document where the log was damaged.
pub(super) fn fetch<'a>(reader: &'a Reader, doc: &'a Document) -> Fetch<'a> {
    Box::new(move |id| {
        let logged = reader.change_of(&id.0).ok().flatten();
        let logged = logged.and_then(|(actor, seq)| reader.change(actor, seq).ok().flatten());
        logged.and_then(|change| Change::vet(&change.bytes).ok()).or_else(|| doc.change(&id.0))
    })
}

/// What is needed to tell of the past.
pub(super) struct Teller<'a> {
    pub(super) view: View<'a, Reader>,
    pub(super) past: Past<'a, Fetch<'a>>,
}

impl Replica {
    /// Tells of the past as of the last commit. Loads the document, and nobody else can use it meanwhile.
    fn tell_of<R>(
        &self,
        tell: impl FnOnce(&mut Teller<'_>) -> Result<R, ReplicaError>,
    ) -> Result<R, ReplicaError> {
        self.with(|core| {
            // Within the lock, so that index and document are of one commit.
            let snapshot = self.view()?;
            let reader = snapshot.tables();
            let doc = core.account()?.document();
            let past = Past::new(doc, fetch(reader, doc));
            tell(&mut Teller { view: snapshot.view(), past })
        })
    }

    /// The last `limit` changes, oldest first, each with the commit that brought it here.
    pub fn history(&self, limit: usize) -> Result<Vec<(Position, Change)>, ReplicaError> {
        let reader = self.0.handle.reader()?;
        let (mut found, mut until) = (VecDeque::new(), reader.position());
        // A commit holds a change or more, seldom none, so that this looks at little more than it gives.
        while found.len() < limit && until > Position(0) {
            let (part, from) = part_of_log(&reader, until, limit)?;
            part.into_iter().rev().for_each(|change| found.push_front(change));
            until = from;
        }
        found.drain(..found.len().saturating_sub(limit));
        Ok(found.into())
    }

    /// The last `limit` changes, newest first, with what they did. Costs as much as these changes and the earlier writes to
    /// the keys they wrote to.
    pub fn happened(&self, limit: usize) -> Result<Vec<Happened>, ReplicaError> {
        let changes = self.history(limit)?;
        self.tell_of(|teller| {
            let told = |(position, change): &(Position, Change)| {
                let deeds = teller.deeds(change)?;
                Ok(Happened {
                    position: *position,
                    stamp: change.stamp(),
                    deeds,
                    bytes: change.bytes().len(),
                })
            };
            changes.iter().rev().map(told).collect()
        })
    }

    /// The names of all mailboxes that there ever were: those that are gone by the last name they had.
    pub fn mailbox_names(&self) -> Result<BTreeMap<MailboxId, MailboxName>, ReplicaError> {
        Ok(self.view()?.view().names()?)
    }

    /// The changes whose hash starts with these hexadecimal digits, two at most: more than one is too many to choose.
    pub fn find_changes(&self, digits: &str) -> Result<Vec<Stamp>, ReplicaError> {
        let reader = self.0.handle.reader()?;
        let mut found = Vec::new();
        for (actor, seq) in reader.changes_named(digits, 2)? {
            if let Some(change) = reader.change(actor, seq)? {
                found.push(Change::vet(&change.bytes).map_err(DocumentError::from)?.stamp());
            }
        }
        Ok(found)
    }
}

/// Some commits up to `until`, oldest first, and the position before them.
fn part_of_log(
    reader: &Reader,
    until: Position,
    commits: usize,
) -> Result<(Vec<(Position, Change)>, Position), ReplicaError> {
    let from = Position(until.0.saturating_sub(commits.clamp(1, 1000) as u64));
    let mut part = Vec::new();
    for group in reader.groups_after(from)? {
        let group = group?;
        if group.position > until {
            break;
        }
        for record in group.records {
            if let Record::Change(change) = record {
                part.push((group.position, Change::vet(&change.bytes).map_err(DocumentError::from)?));
            }
        }
    }
    Ok((part, from))
}

impl Teller<'_> {
    /// What a change did, and to how many.
    fn deeds(&mut self, change: &Change) -> Result<BTreeMap<Deed, u64>, ReplicaError> {
        let mut deeds = BTreeMap::new();
        let writes = change.writes();
        for (key, value) in &writes {
            let told = match key {
                Key::Pack(_) | Key::Uids(_) => self.record(key),
                // Of a new mailbox the name is told.
                Key::Mailbox(_, MailboxField::Incarnation) => None,
                Key::Mailbox(id, MailboxField::Name)
                    if writes.iter().any(|(key, _)| *key == Key::Mailbox(*id, MailboxField::Incarnation)) =>
                {
                    Some((Deed::Made { mailbox: *id, name: text(value) }, 1))
                }
                _ => {
                    let written = self.past.writes(key);
                    let of = written.all().iter().rposition(|write| write.stamp.change == change.id());
                    let before = of.map_or(Vec::new(), |of| written.before(of));
                    self.deed(key, value, &before)?.map(|deed| (deed, 1))
                }
            };
            if let Some((deed, count)) = told {
                *deeds.entry(deed).or_default() += count;
            }
        }
        Ok(deeds)
    }

    fn record(&self, key: &Key) -> Option<(Deed, u64)> {
        match key {
            Key::Pack(id) => {
                let pack = self.past.document().pack(*id)?;
                let mailbox = pack.mailbox;
                let deed = match pack.origin {
                    Origin::Arrived { .. } => Deed::Arrived { mailbox },
                    Origin::Imported { .. } => Deed::Imported { mailbox },
                };
                Some((deed, pack.messages.len() as u64))
            }
            Key::Uids(key) => match self.past.document().uid_record(key)? {
                UidRecord::Run(run) => {
                    let count = run.segments.iter().map(|segment| u64::from(segment.count)).sum();
                    Some((Deed::Claimed { mailbox: run.mailbox }, count))
                }
                UidRecord::Burn { mailbox, uids, .. } => Some((Deed::Burned { mailbox }, uids.len() as u64)),
            },
            Key::Place(_) | Key::Keyword(..) | Key::Mailbox(..) => None,
        }
    }

    /// What one write did to what stood before.
    fn deed(&self, key: &Key, value: &Value, before: &[&Value]) -> Result<Option<Deed>, ReplicaError> {
        Ok(match (key, value) {
            (Key::Place(entry), Value::Place(place)) => {
                let from = self.place_before(*entry, before)?;
                Some(match (from, place) {
                    (from, None) => Deed::Expunged { from },
                    (_, Some(place)) if place.renewal > 0 => Deed::Kept { mailbox: place.mailbox },
                    (None, Some(place)) => Deed::BroughtBack { to: place.mailbox },
                    (Some(from), Some(place)) => Deed::Moved { from, to: place.mailbox },
                })
            }
            (Key::Keyword(_, keyword), Value::Set(set)) => {
                Some(Deed::Flag { keyword: keyword.clone(), set: *set })
            }
            (Key::Mailbox(mailbox, field), value) => {
                let mailbox = *mailbox;
                match field {
                    MailboxField::Name => {
                        let from = before.last().map_or(String::new(), |value| text(value));
                        Some(Deed::Renamed { mailbox, from, to: text(value) })
                    }
                    MailboxField::Subscribed => {
                        Some(Deed::Subscribed { mailbox, set: *value == Value::Set(true) })
                    }
                    MailboxField::SpecialUse => {
                        let special_use = SpecialUse::from_name(&text(value));
                        Some(Deed::SpecialUse { mailbox, special_use })
                    }
                    MailboxField::Epoch | MailboxField::Adopted => Some(Deed::Renumbered { mailbox }),
                    MailboxField::Deleted => Some(Deed::Deleted { mailbox }),
                    MailboxField::Incarnation => None,
                }
            }
            _ => None,
        })
    }

    /// Where a message was, as somebody knew who saw these values; nothing if it was expunged.
    fn place_before(&self, entry: EntryId, values: &[&Value]) -> Result<Option<MailboxId>, ReplicaError> {
        if values.is_empty() {
            return Ok(self.view.home(entry)?);
        }
        let places = values.iter().filter_map(|value| match value {
            Value::Place(place) => *place,
            _ => None,
        });
        Ok(Place::winner(&places.collect::<Vec<_>>()).map(|place| place.mailbox))
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        _ => String::new(),
    }
}
