//! What a merge had to decide: writes that were made apart, and which of them holds.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::Records;
use super::{Deed, Teller, part_of_log, text};
use crate::mailbox::{
    Change, ChangeId, EntryId, Key, MailboxField, MailboxId, Place, Run, Stamp, Uid, UidRecord, Value, Writes,
};
use crate::replica::{Replica, ReplicaError};
use crate::store::Position;
use crate::uid::{Burn, UidSpace};

/// What kind of decision it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Of several moves one holds.
    Moves,
    /// A move holds against an expunge.
    MoveAgainstExpunge,
    /// Clearing `\Deleted` holds against an expunge.
    KeepAgainstExpunge,
    /// A keyword was set and cleared.
    Flag,
    /// One mailbox got two names.
    Name,
    /// Two mailboxes got one name; the one that lost got a marked name.
    NameClash,
    /// A mailbox got two special uses, or was subscribed to and not.
    Attribute,
    /// A UID was burned.
    Uid(Burn),
}

/// What somebody did that had to be decided against what others did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    /// The change that did it.
    pub stamp: Stamp,
    /// What it did.
    pub deed: Deed,
    /// Whether it holds.
    pub won: bool,
}

/// One decision, about all the messages or UIDs that it was the same for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What kind of decision.
    pub kind: Kind,
    /// The mailbox of UIDs, or the one that was named; nothing where it is about messages.
    pub mailbox: Option<MailboxId>,
    /// What was done, the same order everywhere.
    pub acts: Vec<Act>,
    /// The messages.
    pub messages: BTreeSet<EntryId>,
    /// The UIDs that were burned.
    pub uids: BTreeSet<Uid>,
}

/// Decisions, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    /// In the order in which they came up here, the newest first.
    pub decisions: Vec<Decision>,
    /// How many changes were looked at.
    pub changes: u64,
    /// Whether older changes were not looked at.
    pub more: bool,
}

/// What tells decisions about several messages or UIDs together.
type Sort = (Kind, Option<MailboxId>, Vec<Act>);

impl Replica {
    /// The last decisions that merges had to make, `limit` at most, among the last `changes` changes. Costs as much as these
    /// changes and the writes to keys that somebody wrote to later; where UIDs were burned, also O(claim runs of the mailbox).
    pub fn conflicts(&self, limit: usize, changes: u64) -> Result<Conflicts, ReplicaError> {
        /// Commits that are looked at while nobody else can use the document.
        const AT_A_TIME: usize = 256;
        let mut scan = Scan::default();
        let mut found = Conflicts::default();
        let mut until = self.0.handle.reader()?.position();
        while until > Position(0) && found.decisions.len() < limit && found.changes < changes {
            let reader = self.0.handle.reader()?;
            let (part, from) = part_of_log(&reader, until, AT_A_TIME)?;
            self.tell_of(|teller| {
                for (_, change) in part.iter().rev() {
                    found.changes += 1;
                    found.decisions.extend(scan.look(teller, change)?);
                }
                Ok(())
            })?;
            until = from;
        }
        found.more = until > Position(0) || found.decisions.len() > limit;
        found.decisions.truncate(limit);
        Ok(found)
    }
}

/// What was told already, so that it is not told of an older change again.
#[derive(Default)]
struct Scan {
    writes: BTreeSet<(Key, ChangeId)>,
    uids: BTreeSet<(UidSpace, Uid, Burn)>,
}

impl Scan {
    fn look(&mut self, teller: &mut Teller<'_>, change: &Change) -> Result<Vec<Decision>, ReplicaError> {
        let mut found: BTreeMap<Sort, Decision> = BTreeMap::new();
        for (key, value) in change.writes() {
            if let Key::Uids(record) = &key {
                self.look_at_uids(teller, record, &mut found)?;
                continue;
            }
            if let (Key::Mailbox(mailbox, MailboxField::Name), Value::Text(name)) = (&key, &value) {
                let clash = teller.clash(*mailbox, name, change)?;
                add(&mut found, clash.map(|acts| (Kind::NameClash, Some(*mailbox), acts)), None);
            }
            let told = (key, change.id());
            if matches!(told.0, Key::Pack(_))
                || self.writes.contains(&told)
                || teller.past.is_plain(&told.0, &told.1)
            {
                continue;
            }
            let key = told.0;
            let writes = teller.past.writes(&key);
            let ours = |one: &usize| writes.all()[*one].stamp.change == change.id();
            for contest in writes.contests().iter().filter(|contest| contest.iter().any(ours)) {
                let members = contest.iter().map(|one| (key.clone(), writes.all()[*one].stamp.change));
                self.writes.extend(members);
                add(&mut found, teller.decide(&key, &writes, contest)?, key.message());
            }
        }
        Ok(found.into_values().collect())
    }

    fn look_at_uids(
        &mut self,
        teller: &mut Teller<'_>,
        key: &[u8; 16],
        found: &mut BTreeMap<Sort, Decision>,
    ) -> Result<(), ReplicaError> {
        let Some(record) = teller.past.document().uid_record(key) else { return Ok(()) };
        let (mailbox, epoch, first, last) = match &record {
            UidRecord::Run(run) => (run.mailbox, run.epoch, Uid::new(run.base + 1), Uid::new(run.high())),
            UidRecord::Burn { mailbox, epoch, uids } => {
                (*mailbox, *epoch, uids.first().copied(), uids.last().copied())
            }
        };
        let space = UidSpace { mailbox, epoch };
        let Some((first, last)) = first.zip(last) else { return Ok(()) };
        let is_void = matches!(&record, UidRecord::Run(run) if Run::is_void(run));
        let burned = if is_void { Vec::new() } else { teller.view.burned(space, first, last)? };
        let fresh = |(uid, rule): &(Uid, Burn)| !self.uids.contains(&(space, *uid, *rule));
        let burned: Vec<(Uid, Burn)> = burned.into_iter().filter(fresh).collect();
        if burned.is_empty() {
            return Ok(());
        }
        let wanted = burned.iter().map(|(uid, _)| *uid).collect();
        let parties = Records::read(teller, space)?.parties(teller, &wanted);
        for (uid, rule) in burned {
            let Some(parties) = parties.get(&uid).filter(|parties| parties.involve(key)) else { continue };
            let is_burn = matches!(record, UidRecord::Burn { .. });
            if is_burn != (rule == Burn::Recorded) {
                continue;
            }
            self.uids.insert((space, uid, rule));
            let acts = parties.acts(teller, space, rule);
            let sort = (Kind::Uid(rule), Some(mailbox), acts);
            let decision = decision(found, sort);
            decision.uids.insert(uid);
            decision.messages.extend(parties.claims.iter().map(|(_, placement)| placement.entry));
        }
        Ok(())
    }
}

fn add(found: &mut BTreeMap<Sort, Decision>, sort: Option<Sort>, message: Option<EntryId>) {
    if let Some(sort) = sort {
        decision(found, sort).messages.extend(message);
    }
}

fn decision(found: &mut BTreeMap<Sort, Decision>, sort: Sort) -> &mut Decision {
    let (kind, mailbox, acts) = sort.clone();
    let empty = Decision { kind, mailbox, acts, messages: BTreeSet::new(), uids: BTreeSet::new() };
    found.entry(sort).or_insert(empty)
}

impl Key {
    /// The message that it is about.
    pub(super) fn message(&self) -> Option<EntryId> {
        match self {
            Key::Place(entry) | Key::Keyword(entry, _) => Some(*entry),
            Key::Pack(_) | Key::Mailbox(..) | Key::Uids(_) => None,
        }
    }
}

impl Teller<'_> {
    /// What came of writes that were made apart; nothing if all wanted the same.
    pub(super) fn decide(
        &self,
        key: &Key,
        writes: &Writes,
        contest: &BTreeSet<usize>,
    ) -> Result<Option<Sort>, ReplicaError> {
        let latest = writes.latest(contest);
        let values: Vec<&Value> = latest.iter().map(|one| &writes.all()[*one].value).collect();
        let Some((kind, won)) = judge(key, &values) else { return Ok(None) };
        let mut acts = Vec::new();
        for (one, won) in latest.iter().zip(won) {
            let write = &writes.all()[*one];
            let deed = self.deed(key, &write.value, &writes.before(*one))?;
            acts.extend(deed.map(|deed| Act { stamp: write.stamp, deed, won }));
        }
        acts.sort();
        let mailbox = match key {
            Key::Mailbox(mailbox, _) => Some(*mailbox),
            _ => None,
        };
        Ok(Some((kind, mailbox, acts)))
    }

    /// Whether this change gave a mailbox a name that another one bears or bore, and what was done then.
    fn clash(
        &mut self,
        mailbox: MailboxId,
        name: &str,
        change: &Change,
    ) -> Result<Option<Vec<Act>>, ReplicaError> {
        let key = Key::Mailbox(mailbox, MailboxField::Name);
        let writes = self.past.writes(&key);
        let of = writes.all().iter().rposition(|write| write.stamp.change == change.id());
        let before = of.map_or(Vec::new(), |of| writes.before(of));
        let earlier = before.last().map_or(String::new(), |value| text(value));
        let mark = name.strip_prefix(earlier.as_str()).and_then(|rest| rest.strip_prefix('~'));
        let marked = mark.is_some_and(|mark| mark.len() >= 6 && mailbox.to_string().starts_with(mark));
        let wanted = match marked {
            true => earlier.clone(),
            false if self.view.clashes()?.get(&mailbox).is_some_and(|clash| clash.as_str() == name) => {
                name.to_owned()
            }
            false => return Ok(None),
        };
        let deed = self.deed(&key, &Value::Text(name.into()), &before)?;
        let mut acts: Vec<Act> =
            deed.map(|deed| Act { stamp: change.stamp(), deed, won: false }).into_iter().collect();
        let bearer = wanted.parse().ok().map(|name| self.view.find(&name)).transpose()?.flatten();
        if let Some(bearer) = bearer.filter(|bearer| *bearer != mailbox) {
            let named = self.past.writes(&Key::Mailbox(bearer, MailboxField::Name));
            if let Some(write) = named.all().last() {
                let deed = Deed::Made { mailbox: bearer, name: text(&write.value) };
                acts.push(Act { stamp: write.stamp, deed, won: true });
            }
        }
        Ok(Some(acts))
    }
}

/// The kind of a decision between concurrent values of a key, and for each whether it holds; nothing if nothing was lost.
fn judge(key: &Key, values: &[&Value]) -> Option<(Kind, Vec<bool>)> {
    match key {
        Key::Place(_) => judge_places(values),
        Key::Keyword(_, keyword) => {
            let set = |value: &&Value| **value == Value::Set(true);
            let holds = keyword.winner(values.iter().map(set))?;
            let won: Vec<bool> = values.iter().map(|value| set(value) == holds).collect();
            won.contains(&false).then_some((Kind::Flag, won))
        }
        Key::Mailbox(_, field) => {
            let (kind, holds) = match field {
                MailboxField::Name => (Kind::Name, *values.last()?),
                MailboxField::SpecialUse => (Kind::Attribute, *values.last()?),
                MailboxField::Subscribed => (Kind::Attribute, &Value::Set(true)),
                // The highest holds, or there is one value only; nothing that anybody wanted is lost.
                MailboxField::Incarnation
                | MailboxField::Epoch
                | MailboxField::Adopted
                | MailboxField::Deleted => return None,
            };
            let won: Vec<bool> = values.iter().map(|value| *value == holds).collect();
            won.contains(&false).then_some((kind, won))
        }
        Key::Pack(_) | Key::Uids(_) => None,
    }
}

fn judge_places(values: &[&Value]) -> Option<(Kind, Vec<bool>)> {
    let place = |value: &&Value| match value {
        Value::Place(place) => *place,
        _ => None,
    };
    let places: Vec<Place> = values.iter().filter_map(place).collect();
    let winner = Place::winner(&places)?;
    let stay = |place: &Place| (place.mailbox, place.nonce);
    let moved = places.iter().any(|one| one.renewal == 0 && stay(one) != stay(&winner));
    let expunged = values.iter().any(|value| place(value).is_none());
    let kind = match (moved, expunged, winner.renewal) {
        (true, _, _) => Kind::Moves,
        (false, true, 0) => Kind::MoveAgainstExpunge,
        (false, true, _) => Kind::KeepAgainstExpunge,
        (false, false, _) => return None,
    };
    Some((kind, values.iter().map(|value| place(value) == Some(winner)).collect()))
}
