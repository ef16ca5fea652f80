//! What is remembered to know when bodies may go: a clock that only counts, and marks in the history.
//!
//! A *mark* says: at this commit, by this count of the clock, this was all that was here. A message that was expunged up to a
//! mark is covered by it; once the mark is older than the retention, and every member has all that was here then, its body may
//! go. So there are some thirty marks for a whole account, and nothing for each message or peer.
//!
//! The clock counts time in which the replica was seen alive: of the time between two looks at the machine's clock a day at most.
//! A clock that jumped ahead adds a day, for which every retention is a day longer than was asked for; one that jumped back adds
//! nothing. A machine that is off, or runs once a week, keeps bodies longer.
//!
//! Nothing depends on the file: what is lost with it only starts the time again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::Retention;
use crate::mailbox::ReplicaId;
use crate::sync::VersionVector;

const FILE: &str = "forgetting";
const HEAD: &str = "postmerge forgetting 1\n";
const END: &str = "end\n";
/// What the clock counts at most between two looks.
const DAY: u64 = 86_400;
/// Marks in a retention: bodies stay at most a thirtieth longer than they must.
const MARKS: u64 = 30;
/// Marks are no closer than this.
const HOUR: u64 = 3600;

/// Everything that was here at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Mod-sequences of commits up to it.
    pub(super) counter: u64,
    /// What the clock had counted.
    alive: u64,
    pub(super) version: VersionVector,
}

/// Bodies of expunged messages that are here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) bodies: u64,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::replica) struct Note {
    /// Of the index: another one counts from another beginning.
    era: u16,
    /// Seconds in which the replica was alive.
    alive: u64,
    /// The machine's clock at the last look.
    seen: i64,
    /// Expunges up to this counter were covered by a mark that was old enough and known to all.
    pub(super) due: u64,
    /// Up to which counter bodies were looked through.
    pub(super) done: u64,
    /// What the clock had counted at the last look at all bodies, and what stayed.
    pub(super) looked: u64,
    pub(super) kept: Kept,
    /// By ascending counter.
    marks: Vec<Mark>,
}

impl Note {
    pub(in crate::replica) fn read(dir: &Path) -> Note {
        let text = std::fs::read_to_string(dir.join(FILE));
        text.ok().and_then(|text| Note::parse(&text)).unwrap_or_default()
    }

    /// A torn or lost file only costs time, so nothing waits for the disk.
    pub(super) fn write(&self, dir: &Path) -> std::io::Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let new = dir.join(FILE).with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(self.text().as_bytes())?;
        std::fs::rename(&new, dir.join(FILE))
    }

    /// Looks at the machine's clock. In an index of another era, counting starts anew.
    pub(super) fn see(&mut self, now: i64, era: u16) {
        if era != self.era {
            // A day ahead of the last look at all messages, which never was.
            *self = Note { era, seen: now, alive: DAY, ..Note::default() };
        }
        let passed = u64::try_from(now.saturating_sub(self.seen)).unwrap_or(0);
        self.alive += passed.min(DAY);
        self.seen = now;
    }

    /// Makes a mark, if something happened since the last one and it is time for one.
    pub(super) fn mark(&mut self, counter: u64, version: &VersionVector, retention: Retention) {
        let spacing = (retention.seconds() / MARKS).max(if retention.seconds() == 0 { 0 } else { HOUR });
        let is_due = self
            .marks
            .last()
            .is_none_or(|last| counter > last.counter && self.alive.saturating_sub(last.alive) >= spacing);
        if is_due {
            self.marks.push(Mark { counter, alive: self.alive, version: version.clone() });
        }
    }

    /// Takes note of marks that are old enough and known to all, and drops what needs no note: of the others that are old enough
    /// the first and the last are enough, however long somebody is away.
    pub(super) fn settle(&mut self, retention: Retention, is_known: impl Fn(&VersionVector) -> bool) {
        let old = self.marks.iter().take_while(|mark| self.is_old(mark, retention)).count();
        let known = self.marks[..old].iter().rposition(|mark| is_known(&mark.version));
        if let Some(known) = known {
            self.due = self.due.max(self.marks[known].counter);
        }
        let (from, last) = (known.map_or(0, |known| known + 1), old.saturating_sub(1));
        let mut at = 0;
        self.marks.retain(|_| {
            at += 1;
            let place = at - 1;
            place >= from && (place == from || place >= last)
        });
    }

    /// The newest mark that is old enough and that somebody does not know yet; after [`Note::settle`].
    pub(super) fn waiting(&self, retention: Retention) -> Option<&Mark> {
        self.marks.iter().take_while(|mark| self.is_old(mark, retention)).last()
    }

    /// Whether all bodies are to be looked through: some became due, or nobody looked for a day.
    pub(super) fn is_time(&self) -> bool {
        self.due > self.done || self.alive.saturating_sub(self.looked) >= DAY
    }

    pub(super) fn looked(&mut self, kept: Kept) {
        (self.done, self.looked, self.kept) = (self.due, self.alive, kept);
    }

    fn is_old(&self, mark: &Mark, retention: Retention) -> bool {
        let wanted = match retention.seconds() {
            0 => 0,
            // The clock may have jumped ahead once.
            seconds => seconds.saturating_add(DAY),
        };
        retention != Retention::FOREVER && self.alive.saturating_sub(mark.alive) >= wanted
    }

    fn text(&self) -> String {
        let Note { era, alive, seen, due, done, looked, kept, marks } = self;
        let mut text = format!("{HEAD}clock {era} {alive} {seen}\n");
        writeln!(text, "bodies {due} {done} {looked} {} {}", kept.bodies, kept.bytes)
            .expect("a string takes text");
        for Mark { counter, alive, version } in marks {
            write!(text, "mark {counter} {alive}").expect("a string takes text");
            for (replica, seq) in version {
                write!(text, " {replica}:{seq}").expect("a string takes text");
            }
            text.push('\n');
        }
        text + END
    }

    fn parse(text: &str) -> Option<Note> {
        let mut note = Note::default();
        for line in text.strip_prefix(HEAD)?.strip_suffix(END)?.lines() {
            let mut fields = line.split(' ');
            let kind = fields.next()?;
            match kind {
                "clock" => {
                    note.era = fields.next()?.parse().ok()?;
                    note.alive = fields.next()?.parse().ok()?;
                    note.seen = fields.next()?.parse().ok()?;
                }
                "bodies" => {
                    let mut number = || fields.next()?.parse().ok();
                    (note.due, note.done, note.looked) = (number()?, number()?, number()?);
                    note.kept = Kept { bodies: number()?, bytes: number()? };
                }
                "mark" => {
                    let (counter, alive) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
                    let place = |field: &str| {
                        let (replica, seq) = field.split_once(':')?;
                        Some((replica.parse::<ReplicaId>().ok()?, seq.parse().ok()?))
                    };
                    let version = fields.map(place).collect::<Option<BTreeMap<_, _>>>()?;
                    note.marks.push(Mark { counter, alive, version });
                }
                _ => return None,
            }
        }
        Some(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: Retention = Retention::days(30);
    const ONE: ReplicaId = ReplicaId::from_bytes([1; 16]);

    fn version(seq: u64) -> VersionVector {
        VersionVector::from([(ONE, seq)])
    }

    /// A replica that looks every six hours and changes as often; `known` says what everybody has.
    fn live(note: &mut Note, now: &mut i64, days: i64, known: impl Fn(i64) -> u64) {
        for step in 0..days * 4 {
            *now += 6 * 3600;
            note.see(*now, 7);
            let counter = (*now / (6 * 3600)) as u64;
            note.mark(counter, &version(counter), MONTH);
            note.settle(MONTH, |all| all[&ONE] <= known(step));
        }
    }

    #[test]
    fn what_was_expunged_is_due_a_retention_later_and_not_before() {
        let (mut note, mut now) = (Note::default(), 4_000_000_000);
        let start = (now / (6 * 3600)) as u64;
        live(&mut note, &mut now, 31, |_| u64::MAX);
        assert_eq!(note.due, 0, "30 days and the one that a clock may jump");
        live(&mut note, &mut now, 2, |_| u64::MAX);
        assert!(note.due > start && note.due <= start + 8, "{} {start}", note.due);
        live(&mut note, &mut now, 300, |_| u64::MAX);
        assert!(note.marks.len() <= 35, "{}", note.marks.len());
        assert!(note.text().len() < 3000, "{}", note.text().len());
        assert_eq!(Note::parse(&note.text()), Some(note.clone()));
    }

    #[test]
    fn a_clock_that_jumps_frees_nothing_early() {
        let (mut note, mut now) = (Note::default(), 4_000_000_000);
        live(&mut note, &mut now, 1, |_| u64::MAX);
        now += 400 * DAY as i64;
        live(&mut note, &mut now, 28, |_| u64::MAX);
        assert_eq!(note.due, 0);
        now -= 900 * DAY as i64;
        live(&mut note, &mut now, 1, |_| u64::MAX);
        assert_eq!(note.due, 0);
        // An index that was built anew counts from another beginning.
        let before = note.clone();
        note.see(now, 8);
        assert!(note.marks.is_empty() && note.alive == DAY && before.alive > DAY && note.is_time());
    }

    #[test]
    fn who_is_away_for_years_costs_no_more_than_two_marks() {
        let (mut note, mut now) = (Note::default(), 4_000_000_000);
        live(&mut note, &mut now, 40, |_| u64::MAX);
        let (due, marks) = (note.due, note.marks.len());
        assert!(due > 0);
        live(&mut note, &mut now, 1000, |_| due);
        assert_eq!(note.due, due, "somebody does not know of what came later");
        assert!(note.marks.len() <= marks + 2, "{} {marks}", note.marks.len());
        let waiting = note.waiting(MONTH).unwrap().counter;
        // It comes back for a moment, and is away again.
        let first = note.marks[0].counter;
        assert!(first < waiting);
        note.settle(MONTH, |all| all[&ONE] <= first + 1);
        assert_eq!(note.due, first, "the first of them is not lost among later ones");
        note.settle(MONTH, |_| true);
        assert_eq!(note.due, waiting);
        assert_eq!(note.waiting(MONTH), None);
    }

    #[test]
    fn nothing_is_due_where_bodies_stay_for_ever_and_all_is_at_once_with_no_retention() {
        let (mut note, none) = (Note::default(), Retention::days(0));
        for now in [100, 100 + 9 * DAY as i64, 100 + 1000 * DAY as i64] {
            note.see(now, 7);
            note.mark(now as u64, &version(1), Retention::FOREVER);
            note.settle(Retention::FOREVER, |_| true);
        }
        assert_eq!(note.due, 0);
        note.mark(2 << 30, &version(2), none);
        note.settle(none, |_| true);
        assert_eq!(note.due, 2 << 30);
    }

    #[test]
    fn a_note_that_is_damaged_is_none() {
        let mut note = Note::default();
        note.see(5, 1);
        note.mark(9, &version(3), MONTH);
        let text = note.text();
        assert_eq!(Note::parse(&text).as_ref(), Some(&note));
        for damaged in ["", &text[..text.len() - 1], &text.replace("mark", "park"), &text.replace(':', ";")] {
            assert_eq!(Note::parse(damaged), None, "{damaged:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Note::read(dir.path()), Note::default());
        note.write(dir.path()).unwrap();
        assert_eq!(Note::read(dir.path()), note);
    }
}
