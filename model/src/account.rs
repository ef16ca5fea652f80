//! What an account's replicas know and show: the rules of `docs/uids.md`, section by section, and nothing else.
//!
//! Written from the page and not from the program, so that one can find fault with the other. UIDs, changes and messages are
//! small numbers; a lane's block is one UID, so that lanes interleave as closely as they can.

use std::collections::{BTreeMap, BTreeSet};

pub type Mailbox = u8;
pub type Uid = u8;

/// A change: its author and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub author: u8,
    pub seq: u8,
}

/// A stay of a message: that of its delivery, or the move that began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Placement {
    pub message: Id,
    pub by: Id,
}

/// A stay and where it is.
pub type Place = (Mailbox, Placement);

/// Claims, their base, and the mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    pub mailbox: Mailbox,
    pub base: Uid,
    pub claims: Vec<(Uid, Placement)>,
}

impl Run {
    fn high(&self) -> Uid {
        self.claims.last().map_or(self.base, |(uid, _)| *uid)
    }

    /// Rule 3b.
    fn spans(&self, uid: Uid, placement: Placement) -> bool {
        self.base < uid && uid < self.high() && !self.claims.contains(&(uid, placement))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    Deliver(Mailbox),
    Move(Id, Mailbox),
    Expunge(Id),
    Settle,
}

/// What one replica did as one unit, and how much it knew: of each author so many changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    pub past: Vec<u8>,
    pub clock: u8,
    pub deed: Deed,
    pub runs: Vec<Run>,
    pub burns: Vec<(Mailbox, Uid)>,
}

/// Which rules hold; a mutation takes one out.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub contested: bool,
    pub spanned: bool,
    pub recorded: bool,
    pub lanes: bool,
}

/// All changes there are, by author. Each replica knows a part that is closed under the past.
pub type Log = Vec<Vec<Change>>;

/// A set of changes as a document: everything follows from it, in whatever order they came (P3).
pub struct Document<'a> {
    pub log: &'a Log,
    pub known: &'a [u8],
    pub rules: Rules,
}

impl<'a> Document<'a> {
    fn changes(&self) -> impl Iterator<Item = (Id, &'a Change)> + use<'_, 'a> {
        self.log.iter().enumerate().flat_map(|(author, changes)| {
            let known = usize::from(self.known[author]);
            changes[..known]
                .iter()
                .enumerate()
                .map(move |(seq, change)| (Id { author: author as u8, seq: seq as u8 }, change))
        })
    }

    pub fn clock(&self) -> u8 {
        self.changes().map(|(_, change)| change.clock).max().unwrap_or(0)
    }

    pub fn messages(&self) -> Vec<Id> {
        let delivered = self.changes().filter(|(_, change)| matches!(change.deed, Deed::Deliver(_)));
        delivered.map(|(id, _)| id).collect()
    }

    /// Where a message is, and the stays that lost against a concurrent move. A write replaces those its author knew; of
    /// those that are left a move beats an expunge, and the later move beats the other.
    pub fn places(&self, message: Id) -> (Option<Place>, Vec<Place>) {
        let about = |change: &Change| match change.deed {
            Deed::Move(moved, _) => moved == message,
            Deed::Expunge(gone) => gone == message,
            Deed::Deliver(_) | Deed::Settle => false,
        };
        let writes: Vec<(Id, &Change)> = self.changes().filter(|(_, change)| about(change)).collect();
        if writes.is_empty() {
            let Deed::Deliver(home) = self.log[usize::from(message.author)][usize::from(message.seq)].deed
            else {
                unreachable!("a message is named by its delivery")
            };
            return (Some((home, Placement { message, by: message })), Vec::new());
        }
        let replaced = |id: Id| writes.iter().any(|(_, later)| later.past[usize::from(id.author)] > id.seq);
        let mut moves: Vec<(u8, Id, Mailbox)> = Vec::new();
        for (id, change) in &writes {
            if let (Deed::Move(_, to), false) = (&change.deed, replaced(*id)) {
                moves.push((change.clock, *id, *to));
            }
        }
        moves.sort();
        let mut stays: Vec<Place> =
            moves.into_iter().map(|(_, by, to)| (to, Placement { message, by })).collect();
        (stays.pop(), stays)
    }

    pub fn runs(&self, mailbox: Mailbox) -> Vec<&'a Run> {
        self.changes().flat_map(|(_, change)| &change.runs).filter(|run| run.mailbox == mailbox).collect()
    }

    /// The highest high; UIDNEXT is one more.
    pub fn top(&self, mailbox: Mailbox) -> Uid {
        self.runs(mailbox).iter().map(|run| run.high()).max().unwrap_or(0)
    }

    /// Rule 3. Only what was claimed is looked at: a burn of anything else shows nothing.
    pub fn is_burned(&self, mailbox: Mailbox, uid: Uid) -> bool {
        let runs = self.runs(mailbox);
        let claims = runs.iter().flat_map(|run| &run.claims).filter(|(claimed, _)| *claimed == uid);
        let placements: BTreeSet<Placement> = claims.map(|(_, placement)| *placement).collect();
        let contested = self.rules.contested && placements.len() > 1;
        let spanned = |placement: &Placement| runs.iter().any(|run| run.spans(uid, *placement));
        let spanned = self.rules.spanned && placements.iter().any(spanned);
        contested || spanned || self.changes().any(|(_, change)| change.burns.contains(&(mailbox, uid)))
    }

    /// The claims of a stay that are not burned, ascending.
    pub fn claims(&self, mailbox: Mailbox, placement: Placement) -> Vec<Uid> {
        let runs = self.runs(mailbox);
        let claims = runs.iter().flat_map(|run| &run.claims).filter(|(_, claimed)| *claimed == placement);
        let good: BTreeSet<Uid> =
            claims.map(|(uid, _)| *uid).filter(|uid| !self.is_burned(mailbox, *uid)).collect();
        good.into_iter().collect()
    }

    /// Every claim that is known.
    pub fn all_claims(&self, mailbox: Mailbox) -> BTreeMap<Uid, BTreeSet<Placement>> {
        let mut all: BTreeMap<Uid, BTreeSet<Placement>> = BTreeMap::new();
        for (uid, placement) in self.runs(mailbox).iter().flat_map(|run| &run.claims) {
            all.entry(*uid).or_default().insert(*placement);
        }
        all
    }
}

/// `u ≡ index (mod 2^bits)`.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    bits: u8,
    index: u8,
}

impl Lane {
    /// As many as there are servers: the first owns all, and each new one gets half of what the last one has.
    pub fn of(server: u8, servers: u8) -> Lane {
        let mut lane = Lane { bits: 0, index: 0 };
        for n in 1..servers {
            let half = Lane { bits: lane.bits + 1, index: lane.index };
            let other = Lane { bits: lane.bits + 1, index: lane.index | 1 << lane.bits };
            if server < n {
                return half;
            }
            lane = other;
        }
        lane
    }

    pub fn next(self, after: Uid) -> Uid {
        (after + 1..).find(|uid| uid & ((1 << self.bits) - 1) == self.index).expect("the bounds are small")
    }
}
