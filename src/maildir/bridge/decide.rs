//! What is to be done about one message, from what it was when both sides were equal and what it is on each side now.
//!
//! Pure, and the whole of the rules: a mark that somebody made is kept on both sides, a move beats a removal, of two moves the
//! replica's holds, and a removal beats flags.

use std::collections::BTreeSet;

use crate::mailbox::{Keyword, MailboxId};
use crate::uid::Fate;

/// A message on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) mailbox: MailboxId,
    /// In the Maildir: those that its file's name can say.
    pub(super) keywords: BTreeSet<Keyword>,
}

/// What is to be done to the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReplicaStep {
    Nothing,
    /// The file is a message that is not there.
    Add,
    Edit {
        set: BTreeSet<Keyword>,
        clear: BTreeSet<Keyword>,
        fate: Fate,
    },
}

/// What is to be done to the Maildir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DiskStep {
    /// The file is as it should be.
    Nothing,
    /// A file is to be there, with these keywords as far as its name can say them.
    Place(State),
    /// The file is to go.
    Remove,
    /// There is no file any more, and need be none.
    Forget,
}

/// Decides about a message of which a state is known on one side at least.
pub(super) fn decide(
    base: Option<&State>,
    disk: Option<&State>,
    replica: Option<&State>,
) -> (ReplicaStep, DiskStep) {
    match (base, disk, replica) {
        (_, None, None) => (ReplicaStep::Nothing, DiskStep::Forget),
        (None, Some(_), None) => (ReplicaStep::Add, DiskStep::Nothing),
        (None, None, Some(replica)) => (ReplicaStep::Nothing, DiskStep::Place(replica.clone())),
        (None, Some(disk), Some(replica)) => first_met(disk, replica),
        (Some(base), None, Some(replica)) if replica.mailbox == base.mailbox => {
            let nothing = BTreeSet::new;
            let gone = ReplicaStep::Edit { set: nothing(), clear: nothing(), fate: Fate::Expunge };
            (gone, DiskStep::Forget)
        }
        (Some(_), None, Some(replica)) => (ReplicaStep::Nothing, DiskStep::Place(replica.clone())),
        (Some(base), Some(disk), None) if disk.mailbox == base.mailbox => {
            (ReplicaStep::Nothing, DiskStep::Remove)
        }
        (Some(_), Some(_), None) => (ReplicaStep::Add, DiskStep::Nothing),
        (Some(base), Some(disk), Some(replica)) => merged(base, disk, replica),
    }
}

fn merged(base: &State, disk: &State, replica: &State) -> (ReplicaStep, DiskStep) {
    let set: BTreeSet<_> = disk.keywords.difference(&base.keywords).cloned().collect();
    let clear: BTreeSet<_> = base.keywords.difference(&disk.keywords).cloned().collect();
    let mut keywords = replica.keywords.clone();
    keywords.extend(set.iter().cloned());
    keywords.retain(|keyword| !clear.contains(keyword));
    let mailbox = if replica.mailbox == base.mailbox { disk.mailbox } else { replica.mailbox };
    both(set, clear, State { mailbox, keywords }, disk, replica)
}

/// They are found to be one message: marks of both are kept, except `\Deleted`, which both must have.
fn first_met(disk: &State, replica: &State) -> (ReplicaStep, DiskStep) {
    let mut keywords: BTreeSet<_> = disk.keywords.union(&replica.keywords).cloned().collect();
    if !(disk.keywords.contains(&Keyword::deleted()) && replica.keywords.contains(&Keyword::deleted())) {
        keywords.remove(&Keyword::deleted());
    }
    let set = keywords.difference(&replica.keywords).cloned().collect();
    let clear = replica.keywords.difference(&keywords).cloned().collect();
    both(set, clear, State { mailbox: replica.mailbox, keywords }, disk, replica)
}

fn both(
    set: BTreeSet<Keyword>,
    clear: BTreeSet<Keyword>,
    wanted: State,
    disk: &State,
    replica: &State,
) -> (ReplicaStep, DiskStep) {
    let set: BTreeSet<_> = set.difference(&replica.keywords).cloned().collect();
    let clear: BTreeSet<_> = clear.intersection(&replica.keywords).cloned().collect();
    let fate = if wanted.mailbox == replica.mailbox { Fate::Stay } else { Fate::Move(wanted.mailbox) };
    let unchanged = set.is_empty() && clear.is_empty() && fate == Fate::Stay;
    let replica = if unchanged { ReplicaStep::Nothing } else { ReplicaStep::Edit { set, clear, fate } };
    let disk = if wanted == *disk { DiskStep::Nothing } else { DiskStep::Place(wanted) };
    (replica, disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `A.SF` is in mailbox A with `\Seen` and `\Flagged`; `-` is nowhere.
    fn state(text: &str) -> Option<State> {
        let (mailbox, letters) = text.split_once('.').unwrap_or((text, ""));
        let keyword = |letter| match letter {
            'S' => Keyword::seen(),
            'T' => Keyword::deleted(),
            'F' => "\\Flagged".parse().unwrap(),
            other => other.to_string().parse().unwrap(),
        };
        let id = MailboxId::from_bytes([mailbox.as_bytes()[0]; 16]);
        (text != "-").then(|| State { mailbox: id, keywords: letters.chars().map(keyword).collect() })
    }

    /// What both sides come to, by the steps.
    fn outcome(base: &str, disk: &str, replica: &str) -> (Option<State>, Option<State>) {
        let (base, disk, replica) = (state(base), state(disk), state(replica));
        let (on_replica, on_disk) = decide(base.as_ref(), disk.as_ref(), replica.as_ref());
        let replica = match on_replica {
            ReplicaStep::Nothing => replica,
            ReplicaStep::Add => disk.clone(),
            ReplicaStep::Edit { fate: Fate::Expunge, .. } => None,
            ReplicaStep::Edit { set, clear, fate } => replica.map(|mut state| {
                assert!(
                    set.is_disjoint(&state.keywords) && clear.is_subset(&state.keywords),
                    "no idle write"
                );
                state.keywords.extend(set);
                state.keywords.retain(|keyword| !clear.contains(keyword));
                if let Fate::Move(target) = fate {
                    state.mailbox = target;
                }
                state
            }),
        };
        let disk = match on_disk {
            DiskStep::Nothing => disk,
            DiskStep::Place(state) => Some(state),
            DiskStep::Remove | DiskStep::Forget => None,
        };
        (replica, disk)
    }

    #[test]
    fn every_combination_has_its_outcome() {
        // base, disk, replica, what both have afterwards
        for (base, disk, replica, expected) in [
            ("-", "A.S", "-", "A.S"),
            ("-", "-", "A.S", "A.S"),
            ("-", "A.S", "A.F", "A.SF"),
            ("-", "A.T", "A.F", "A.F"),
            ("-", "A.F", "A.T", "A.F"),
            ("-", "A.T", "A.T", "A.T"),
            ("A", "A", "A", "A"),
            ("A", "A.S", "A", "A.S"),
            ("A", "A", "A.S", "A.S"),
            ("A", "A.S", "A.F", "A.SF"),
            ("A.S", "A", "A.SF", "A.F"),
            ("A.S", "A.SF", "A", "A.F"),
            ("A.S", "A", "A", "A"),
            ("A", "A.S", "A.xy", "A.Sxy"),
            ("A", "B", "A", "B"),
            ("A", "A", "B", "B"),
            ("A", "B", "B", "B"),
            ("A", "B", "C", "C"),
            ("A", "B.S", "A.F", "B.SF"),
            ("A", "A.S", "B.F", "B.SF"),
            ("A", "-", "A", "-"),
            ("A", "-", "A.F", "-"),
            ("A", "-", "B", "B"),
            ("A", "A", "-", "-"),
            ("A", "A.F", "-", "-"),
            ("A", "B.F", "-", "B.F"),
            ("A", "-", "-", "-"),
        ] {
            let case = format!("base {base}, disk {disk}, replica {replica}");
            let (left, right) = outcome(base, disk, replica);
            assert_eq!((&left, &right), (&state(expected), &state(expected)), "{case}");
            if state(expected).is_some() {
                let again = decide(left.as_ref(), right.as_ref(), left.as_ref());
                assert_eq!(again, (ReplicaStep::Nothing, DiskStep::Nothing), "{case}, once more");
            }
        }
    }
}
