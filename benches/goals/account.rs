//! The document alone: its size, how fast it loads, and what one change costs in an account of any size.

use std::collections::BTreeSet;

use postmerge::blob::BlobId;
use postmerge::mailbox::{AccountId, Document, EntryId, Keyword, MailboxId, Message, ReplicaId};
use postmerge::uid::{Account, Block, Grant, Imported, KeywordChange, MemoryTables};

use crate::HEAP;
use crate::meter::{Random, Table, Unit, cpu, median, timed};

const MAILBOXES: usize = 20;
const REPLICA: ReplicaId = ReplicaId::from_bytes([3; 16]);

/// An account in memory, as an import leaves it.
struct Big {
    account: Account,
    tables: MemoryTables,
    mailboxes: Vec<MailboxId>,
    entries: Vec<EntryId>,
    random: Random,
}

impl Big {
    fn import(messages: usize) -> Big {
        let mut random = Random(messages as u64);
        let doc = Document::new(REPLICA);
        let id = AccountId::from_bytes([5; 16]);
        let mut account = Account::new(id, doc, Some(Grant::whole()), Block::STANDARD, 1);
        let mut tables = MemoryTables::default();
        account.prepare(&mut tables).expect("an index in memory takes rows");
        let mut mailboxes = vec![MailboxId::inbox()];
        for n in 1..MAILBOXES {
            let name = format!("Folder {n}").parse().expect("a name");
            mailboxes.push(account.create_mailbox(&mut tables, 0, &name, None).expect("a new name").0);
        }
        let (mut left, mut date, mut turn) = (messages, 1_030_000_000, 0);
        while left > 0 {
            let part: Vec<Imported> =
                (0..left.min(Account::MAX_BATCH)).map(|_| imported(&mut random, &mut date)).collect();
            left -= part.len();
            let mailbox = mailboxes[turn % MAILBOXES];
            turn += 1;
            account.import(&mut tables, date, mailbox, &part, None).expect("new messages");
        }
        let view = account.view(&tables);
        let entries = mailboxes.iter().flat_map(|id| view.entries_of(*id).expect("an index in memory"));
        let entries = entries.collect();
        Big { account, tables, mailboxes, entries, random }
    }

    fn any(&mut self) -> EntryId {
        self.entries[self.random.below(self.entries.len())]
    }

    fn flag(&mut self) {
        let (entry, flagged) = (self.any(), BTreeSet::from([keyword("\\Flagged")]));
        let (set, clear) =
            if self.random.below(3) > 0 { (flagged, BTreeSet::new()) } else { (BTreeSet::new(), flagged) };
        let change = KeywordChange::Edit { set, clear };
        self.account.store_keywords(&mut self.tables, 0, &[entry], &change).expect("a flag");
    }

    fn change(&mut self) {
        match self.random.below(20) {
            0 | 1 => {
                let target = self.mailboxes[self.random.below(MAILBOXES)];
                let entry = self.any();
                self.account.move_to(&mut self.tables, 0, &[entry], target).expect("a move");
            }
            2 => {
                let entry = self.any();
                self.account.expunge(&mut self.tables, 0, &[entry]).expect("an expunge");
            }
            _ => self.flag(),
        }
    }
}

fn keyword(text: &str) -> Keyword {
    text.parse().expect("a keyword")
}

fn imported(random: &mut Random, date: &mut i64) -> Imported {
    *date += 1 + random.below(120) as i64;
    let mut keywords = BTreeSet::new();
    for (name, percent) in [("\\Seen", 90), ("\\Answered", 15), ("\\Flagged", 3)] {
        if random.below(100) < percent {
            keywords.insert(keyword(name));
        }
    }
    let message = Message {
        blob: BlobId::from_bytes(random.bytes32()),
        internal_date: *date,
        size: 400 + random.size(3500.0) as u64,
        keywords,
    };
    Imported { message, occurrence: 0, uid: None }
}

/// CPU seconds of a load, and MB of heap after it.
fn load(saved: &[u8]) -> (f64, f64) {
    let before = HEAP.current_usage();
    let (mut cpus, mut heap) = (Vec::new(), 0.0);
    for _ in 0..3 {
        let (seconds, doc) = timed(|| Document::load(saved, REPLICA).expect("what was saved loads"));
        cpus.push(seconds);
        heap = (HEAP.current_usage() - before) as f64 / 1e6;
        drop(doc);
    }
    (median(cpus), heap)
}

/// Goals 1 and 2.
pub(crate) fn document(table: &mut Table, messages: usize, changes: usize) {
    let mut big = Big::import(messages);
    let scale = messages as f64 / 1e6;
    let saved = big.account.document().save();
    let (seconds, heap) = load(&saved);
    let (floor, _) = timed(|| std::hint::black_box(blake3::hash(&saved)));
    table.beside(
        &format!("document of {messages} imported messages, saved, a message"),
        Unit::Bytes,
        45.0,
        saved.len() as f64 / messages as f64,
        32.0,
        "the hashes alone",
    );
    table.beside("– loaded: CPU", Unit::Seconds, 1.0 * scale, seconds, floor, "hashing its bytes");
    table.row("– loaded: heap", Unit::Megabytes, 60.0 * scale, heap);
    let (writing, ()) = timed(|| (0..changes).for_each(|_| big.change()));
    let (saving, saved) = timed(|| big.account.document().save());
    let (seconds, heap) = load(&saved);
    let (floor, _) = timed(|| std::hint::black_box(blake3::hash(&saved)));
    table.beside(
        &format!("after {changes} single changes, loaded: CPU"),
        Unit::Seconds,
        2.0 * scale,
        seconds,
        floor,
        "hashing its bytes",
    );
    table.row("– loaded: heap", Unit::Megabytes, 150.0 * scale, heap);
    table.note(format!(
        "The document after {changes} changes is {:.1} MB; saving it costs {}; writing one change {:.0} µs with its pass.",
        saved.len() as f64 / 1e6,
        Unit::Seconds.show(saving),
        writing / changes as f64 * 1e6
    ));
}

/// What one change costs in an account of `messages`: flag and move, the pass alone and the whole write, in µs.
pub(crate) struct PassCost {
    pub(crate) messages: usize,
    pub(crate) flag_pass: f64,
    pub(crate) move_pass: f64,
    pub(crate) flag_write: f64,
}

/// Goal 11.
pub(crate) fn pass(table: &mut Table, sizes: &[usize]) -> Vec<PassCost> {
    const CHANGES: usize = 400;
    let mut costs = Vec::new();
    for &messages in sizes {
        let mut big = Big::import(messages);
        // The pass alone is that of a second index, which follows the same document.
        let mut second = big.tables.clone();
        let (mut flag_pass, mut move_pass, mut flag_write) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..2 * CHANGES {
            let entry = big.any();
            let start = cpu();
            let written = if n % 2 == 0 {
                let (set, clear) = (BTreeSet::from([keyword("$Forwarded")]), BTreeSet::new());
                let change = KeywordChange::Edit { set, clear };
                big.account.store_keywords(&mut big.tables, 0, &[entry], &change)
            } else {
                let target = big.mailboxes[big.random.below(MAILBOXES)];
                big.account.move_to(&mut big.tables, 0, &[entry], target)
            };
            let wrote = cpu();
            let written = written.expect("a change");
            let Some(batch) = written.batches.into_iter().next() else { continue };
            let middle = cpu();
            big.account.replay(&mut second, batch).expect("the second index follows");
            let pass = (cpu() - middle) * 1e6;
            match n % 2 {
                0 => {
                    flag_pass.push(pass);
                    flag_write.push((wrote - start) * 1e6);
                }
                _ => move_pass.push(pass),
            }
        }
        let [flag_pass, move_pass, flag_write] = [flag_pass, move_pass, flag_write].map(median);
        table.note(format!(
            "One change among {messages} messages: pass of a flag {flag_pass:.1} µs, of a move {move_pass:.1} µs; \
             a flag written and passed {flag_write:.1} µs."
        ));
        costs.push(PassCost { messages, flag_pass, move_pass, flag_write });
    }
    if let (Some(first), Some(last)) = (costs.first(), costs.last()) {
        table.beside(
            &format!("pass of one flag change among {} messages", last.messages),
            Unit::Micros,
            2.0 * first.flag_pass,
            last.flag_pass,
            first.flag_pass,
            &format!("among {}", first.messages),
        );
    }
    costs
}
