//! What a client is told that comes back to a mailbox (RFC 7162, section 3.2.5.1), in steps: first what vanished, then what
//! changed.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use postmerge::mailbox::{MailboxId, Uid};
use postmerge::replica::Snapshot;
use postmerge::uid::{Mailbox, Shown};

use super::done::{Done, Failed};
use super::fetch::read;
use super::select::selected_as;
use super::selected::put_flags;
use super::{OUTPUT, Running, Session, State};
use crate::grammar::{NumberSet, Qresync, Tag};
use crate::view::View;

/// UIDs stay below this; past it a mailbox starts a new epoch (`docs/uids.md`). A client that comes from another server of
/// the account may know any of them.
pub(super) const HIGHEST_UID: u32 = 1 << 31;
/// Messages that are read at a time.
const BATCH: usize = 256;
/// Ranges of UIDs in one VANISHED response: together they fill a step.
const RANGES: usize = 4000;

/// A SELECT with QRESYNC under way. Holds some bytes for each message and range that is still to be told.
pub(super) struct ResyncRun {
    tag: Tag,
    vanished: VecDeque<NumberSet>,
    /// Sequence numbers and UIDs of messages still to be told, ascending.
    targets: VecDeque<(u32, u32)>,
    /// Messages that were read, with their sequence numbers.
    ready: VecDeque<(u32, Shown)>,
}

impl ResyncRun {
    /// What there is to tell a client that knows the mailbox as of `known`. A mod-sequence of another history says nothing
    /// of what the client knows, so it is told everything.
    pub(super) fn new(
        tag: Tag,
        snapshot: &Snapshot,
        mailbox: &Mailbox,
        known: &Qresync,
        view: &View,
    ) -> Result<ResyncRun, Failed> {
        let (vanished, changed) = match snapshot.uids_changed_since(mailbox.id, known.mod_seq)? {
            Some(changes) => (numbers(&changes.vanished), numbers(&changes.shown)),
            None => (hidden(snapshot, mailbox.id)?, NumberSet::from_ranges(view.uids().ranges())),
        };
        let wanted = known.known_uids.as_ref().map(|uids| uids.resolve(HIGHEST_UID));
        let told = |uids: NumberSet| wanted.as_ref().map_or(uids.clone(), |wanted| uids.intersection(wanted));
        let vanished = told(vanished).ranges().collect::<Vec<RangeInclusive<u32>>>();
        let vanished = vanished.chunks(RANGES).map(|part| NumberSet::from_ranges(part.iter().cloned()));
        let changed = told(changed);
        let targets = changed.ranges().flat_map(|range| view.by_uid(range)).collect();
        Ok(ResyncRun { tag, vanished: vanished.collect(), targets, ready: VecDeque::new() })
    }
}

impl Session {
    /// Tells until enough waits for the client, or all is told.
    pub(super) fn resync_on(&mut self, mut run: Box<ResyncRun>) -> (Tag, Result<Done, Failed>) {
        let tag = run.tag.clone();
        let done = self.put_resync(&mut run);
        match done {
            Ok(Done::Runs) => self.running = Some(Running::Resync(run)),
            Ok(_) => {}
            // RFC 9051, section 6.3.2: a SELECT that fails leaves nothing selected.
            Err(_) => drop(self.deselect()),
        }
        (tag, done)
    }

    fn put_resync(&mut self, run: &mut ResyncRun) -> Result<Done, Failed> {
        let State::Selected(account, selected) = &mut self.state else { return Err(Failed::unselected()) };
        while self.out.len() < OUTPUT {
            if let Some(vanished) = run.vanished.pop_front() {
                self.out.vanished(true, &vanished);
                continue;
            }
            if let Some((seq, message)) = run.ready.pop_front() {
                put_flags(&mut self.out, seq, &message, self.enabled, true);
                continue;
            }
            if run.targets.is_empty() {
                return Ok(selected_as(selected.read_only));
            }
            let next: Vec<(u32, u32)> = run.targets.drain(..run.targets.len().min(BATCH)).collect();
            let mailbox = selected.seen.mailbox;
            run.ready.extend(read(&account.replica().snapshot_of(mailbox)?, mailbox, &next)?);
            selected.name_keywords(run.ready.iter().map(|(_, message)| message), &mut self.out);
        }
        Ok(Done::Runs)
    }
}

fn numbers(uids: &[Uid]) -> NumberSet {
    NumberSet::from_numbers(uids.iter().map(|uid| uid.value()))
}

/// Those UIDs of a set that the client does not count. One that it counts must vanish with its sequence number, so never
/// by VANISHED (EARLIER) (RFC 7162, section 3.2.10).
pub(super) fn uncounted(set: &NumberSet, view: &View) -> NumberSet {
    let mut ranges = Vec::new();
    for range in set.ranges() {
        let (mut first, last) = range.into_inner();
        for (_, uid) in view.by_uid(first..=last) {
            ranges.extend((first < uid).then_some(first..=uid - 1));
            first = uid + 1;
        }
        ranges.extend((first <= last).then_some(first..=last));
    }
    NumberSet::from_ranges(ranges)
}

/// UIDs that are not shown, up to the highest that a client of any server of the account can know.
pub(super) fn hidden(snapshot: &Snapshot, mailbox: MailboxId) -> Result<NumberSet, Failed> {
    let highest = Uid::new(HIGHEST_UID).expect("not 0");
    let ranges = snapshot.hidden(mailbox, highest)?;
    Ok(NumberSet::from_ranges(ranges.into_iter().map(|(first, last)| first.value()..=last.value())))
}
