//! Claim runs as the pass takes them in: rules 3a and 3b, and the burns of rule 3c.
//!
//! How many runs span a UID is kept as a step function, so that a late claim is judged without looking at the runs
//! above it. A run costs time in proportion to its UIDs and to what others claimed between its base and its high.

use std::collections::BTreeMap;

use super::pass::{Burn, Event, Pass};
use super::rows::{Claim, UidRow, key_uid, space_key, uid_key};
use super::tables::{Table, TableError, Tables, TablesMut};
use crate::mailbox::{MailboxId, Nonce, Placement, Run, Source, Uid, UidRecord};
use crate::mutation::{Mutation, planted};

/// The highest UID claimed in a mailbox at an epoch, or the floor above it; 0 if there is none. UIDNEXT is one more.
pub(crate) fn top(tables: &impl Tables, mailbox: MailboxId, epoch: u32) -> Result<u32, TableError> {
    let value = tables.get(Table::Runs, &space_key(mailbox, epoch))?;
    Ok(value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes))
}

impl<T: TablesMut> Pass<'_, T> {
    /// Takes in a record of the `uids` map, once.
    pub(super) fn add_record(&mut self, key: &[u8; 16]) -> Result<(), TableError> {
        let Some(record) = self.doc.uid_record(key) else { return Ok(()) };
        let (mailbox, epoch) = match &record {
            UidRecord::Run(run) => (run.mailbox, run.epoch),
            UidRecord::Burn { mailbox, epoch, .. } => (*mailbox, *epoch),
        };
        let mut known = space_key(mailbox, epoch);
        known.extend(key);
        if epoch < self.mailbox(mailbox)?.epoch || self.tables.get(Table::Runs, &known)?.is_some() {
            return Ok(());
        }
        self.tables.put(Table::Runs, &known, &[])?;
        match record {
            UidRecord::Run(run) if !run.is_void() => self.add_run(&run),
            UidRecord::Run(_) => Ok(()),
            UidRecord::Burn { uids, .. } => {
                uids.into_iter().try_for_each(|uid| self.add_burn(mailbox, epoch, uid))
            }
        }
    }

    fn add_run(&mut self, run: &Run) -> Result<(), TableError> {
        let (mailbox, epoch) = (run.mailbox, run.epoch);
        let claims = self.placements(run);
        let (high, end) = (run.high(), run.span_end());
        if self.context.rules.spanned {
            // What lies inside the run and is not in it, its author did not know.
            let (from, to) = (uid_key(mailbox, epoch, run.base + 1), uid_key(mailbox, epoch, end));
            for (key, _) in self.tables.range(Table::Uids, &from, &to, usize::MAX)? {
                self.span_unless_held(run, key_uid(Table::Uids, &key)?, &claims)?;
            }
            let cached =
                (mailbox, epoch, uid_after(run.base))..(mailbox, epoch, Uid::new(end).unwrap_or(Uid::FIRST));
            let cached: Vec<Uid> =
                self.uids.range(cached).filter(|(_, row)| row.is_some()).map(|(k, _)| k.2).collect();
            for uid in cached {
                self.span_unless_held(run, uid, &claims)?;
            }
        }
        let steps = self.cover_steps(mailbox, epoch, run.base, end)?;
        for (uid, placement) in &claims {
            let spans = steps.range(..=uid.value()).next_back().map_or(0, |(_, count)| *count);
            self.add_claim(run, *uid, *placement, spans > 0)?;
        }
        self.cover_add(mailbox, epoch, run.base, end, &steps)?;
        if high > top(self.tables, mailbox, epoch)? {
            self.tables.put(Table::Runs, &space_key(mailbox, epoch), &high.to_be_bytes())?;
        }
        Ok(())
    }

    fn span_unless_held(
        &mut self,
        run: &Run,
        uid: Uid,
        claims: &BTreeMap<Uid, Placement>,
    ) -> Result<(), TableError> {
        let Some(row) = self.uid_row(run.mailbox, run.epoch, uid)? else { return Ok(()) };
        if claims.get(&uid) == Some(&row.placement) || row.spanned {
            return Ok(());
        }
        row.spanned = true;
        let entry = row.claimant();
        self.dirty.extend(entry);
        self.events.push(Event::Burned { mailbox: run.mailbox, uid, entry, rule: Burn::Spanned });
        Ok(())
    }

    /// `spanned`: another run lies over this UID already, and did not hold this claim when it came.
    fn add_claim(
        &mut self,
        run: &Run,
        uid: Uid,
        placement: Placement,
        spanned: bool,
    ) -> Result<(), TableError> {
        let (mailbox, epoch, rules) = (run.mailbox, run.epoch, self.context.rules);
        let inside = u32::from(uid.value() < run.span_end());
        let row = self.uid_row(mailbox, epoch, uid)?;
        let mut burned = None;
        match row {
            Some(row) if row.placement == placement => row.inside += inside,
            Some(row) => {
                if rules.contested && !row.contested {
                    row.contested = true;
                    burned = Some((row.claimant(), Burn::Contested));
                }
            }
            None => {
                let spanned = spanned && rules.spanned && !planted(Mutation::LateClaim);
                *row = Some(UidRow {
                    placement,
                    contested: false,
                    spanned,
                    recorded: false,
                    inside,
                    gone: None,
                });
                burned = spanned.then_some((Some(placement.entry), Burn::Spanned));
            }
        }
        if let Some((entry, rule)) = burned {
            self.dirty.extend(entry);
            self.events.push(Event::Burned { mailbox, uid, entry, rule });
        }
        if let Some(row) = self.entry(placement.entry)? {
            let claim = Claim { mailbox, nonce: placement.nonce, epoch, uid };
            if !row.claims.contains(&claim) {
                row.claims.push(claim);
            }
            self.dirty.insert(placement.entry);
            return Ok(());
        }
        // Only a broken peer claims for a message that nobody has.
        self.hide(mailbox, epoch, uid)
    }

    fn add_burn(&mut self, mailbox: MailboxId, epoch: u32, uid: Uid) -> Result<(), TableError> {
        self.tables.remove(Table::Pending, &uid_key(mailbox, epoch, uid.value()))?;
        let modseq = self.modseq;
        let row = self.uid_row(mailbox, epoch, uid)?;
        let known = row.is_some();
        // If nobody claimed it as far as we know, whoever does comes too late.
        let row = row.get_or_insert(UidRow::unclaimed(modseq));
        row.recorded = true;
        let entry = row.claimant();
        if known {
            self.hide(mailbox, epoch, uid)?;
        } else {
            self.mark_shared(mailbox, epoch, uid)?;
        }
        self.dirty.extend(entry);
        self.events.push(Event::Burned { mailbox, uid, entry, rule: Burn::Recorded });
        Ok(())
    }

    /// The claims of a run. A segment that names a pack or entries which do not exist claims nothing.
    fn placements(&self, run: &Run) -> BTreeMap<Uid, Placement> {
        let mut claims = BTreeMap::new();
        let mut last_pack = None;
        for segment in &run.segments {
            match segment.source {
                Source::Placement(placement) => {
                    claims.insert(segment.first, placement);
                }
                Source::Pack { pack, first } => {
                    if last_pack.as_ref().is_none_or(|(id, _)| *id != pack) {
                        last_pack = self.doc.pack(pack).map(|content| (pack, content));
                    }
                    let Some((_, content)) = last_pack.as_ref().filter(|(id, _)| *id == pack) else {
                        continue;
                    };
                    for offset in 0..segment.count {
                        let index = (first + offset) as usize;
                        if let (Some(uid), true) =
                            (Uid::new(segment.first.value() + offset), index < content.messages.len())
                        {
                            let entry = content.entry_id(pack, index);
                            claims.insert(uid, Placement { entry, nonce: Nonce::INITIAL });
                        }
                    }
                }
            }
        }
        claims
    }

    /// How many runs span each UID above `base` and below `high`, as steps; the first step stands at `base + 1`.
    fn cover_steps(
        &self,
        m: MailboxId,
        epoch: u32,
        base: u32,
        high: u32,
    ) -> Result<BTreeMap<u32, u32>, TableError> {
        let mut steps = BTreeMap::new();
        let start = uid_key(m, epoch, base + 1);
        let count = |bytes: Vec<u8>| bytes.try_into().map_or(0, u32::from_be_bytes);
        let before = self.tables.last(Table::Cover, &uid_key(m, epoch, 0), &uid_key(m, epoch, base + 2))?;
        steps.insert(base + 1, before.map_or(0, |(_, value)| count(value)));
        for (key, value) in self.tables.range(Table::Cover, &start, &uid_key(m, epoch, high), usize::MAX)? {
            steps.insert(key_uid(Table::Cover, &key)?.value(), count(value));
        }
        let end = self.tables.last(
            Table::Cover,
            &uid_key(m, epoch, 0),
            &uid_key(m, epoch, high.saturating_add(1)),
        )?;
        steps.insert(high, end.map_or(0, |(_, value)| count(value)));
        Ok(steps)
    }

    fn cover_add(
        &mut self,
        m: MailboxId,
        epoch: u32,
        base: u32,
        high: u32,
        steps: &BTreeMap<u32, u32>,
    ) -> Result<(), TableError> {
        if high <= base + 1 {
            return Ok(());
        }
        for (uid, count) in steps.range(base + 1..=high) {
            let count = if *uid < high { count + 1 } else { *count };
            self.tables.put(Table::Cover, &uid_key(m, epoch, *uid), &count.to_be_bytes())?;
        }
        Ok(())
    }
}

fn uid_after(base: u32) -> Uid {
    Uid::new(base.saturating_add(1)).expect("one more than any number is not 0")
}
