//! SEARCH, SORT and THREAD: messages are looked at in batches, and bodies only where nothing else decides.

mod criteria;

use std::collections::VecDeque;

use postmerge::blob::BlobId;
use postmerge::mailbox::ModSeq;
use postmerge::replica::Replica;
use postmerge::uid::Shown;

use self::criteria::{Facts, Program};
use super::done::{Done, Failed, Reply};
use super::selected::Selected;
use super::{Running, Session, State};
use crate::grammar::{
    Code, Criteria, ESearch, Found, NumberSet, Numbering, Search, SearchKey, SearchReturn, Sort, Tag, Thread,
    ThreadAlgorithm,
};
use crate::message::{self, Sorter, Summary, ThreadRow};
use crate::summaries::{BATCH, summaries, unreadable};

/// A SEARCH, SORT or THREAD under way.
pub(super) struct SearchRun {
    tag: Tag,
    pub(super) numbering: Numbering,
    program: Program,
    answer: Answer,
    targets: VecDeque<(u32, u32)>,
    hits: Vec<Hit>,
    /// Messages that could not be judged: their bodies have not arrived.
    unknown: usize,
}

enum Answer {
    Search(Option<SearchReturn>),
    /// Has a row for each hit.
    Sort(Option<SearchReturn>, Sorter),
    /// So has this.
    Thread(ThreadAlgorithm, Vec<ThreadRow>),
}

impl Answer {
    fn needs_summary(&self) -> bool {
        !matches!(self, Answer::Search(_))
    }

    /// Notes what putting a hit in its place takes, and no more of it: a sender can make the summary as large as he
    /// likes. Without the body there is only the internal date to go by.
    fn note(&mut self, number: u32, internal_date: i64, summary: Option<&[u8]>) {
        let empty;
        let summary = match summary.and_then(|bytes| Summary::read(bytes).ok()) {
            Some(summary) => summary,
            None => {
                empty = message::make(&mut std::io::empty()).unwrap_or_default();
                let Ok(summary) = Summary::read(&empty) else { return };
                summary
            }
        };
        match self {
            Answer::Search(_) => {}
            Answer::Sort(_, sorter) => sorter.add(&summary, internal_date),
            Answer::Thread(_, rows) => rows.push(ThreadRow::new(number, internal_date, &summary)),
        }
    }
}

/// A message that was found.
#[derive(Clone, Copy)]
struct Hit {
    seq: u32,
    uid: u32,
    modseq: ModSeq,
}

impl Hit {
    fn number(&self, numbering: Numbering) -> u32 {
        match numbering {
            Numbering::Sequence => self.seq,
            Numbering::Uid => self.uid,
        }
    }
}

impl Session {
    pub(super) fn search(&mut self, tag: Tag, search: Search) -> Result<Done, Failed> {
        let Search { numbering, returns, criteria } = search;
        self.begin_search(tag, numbering, criteria, Answer::Search(returns))
    }

    pub(super) fn sort(&mut self, tag: Tag, sort: Sort) -> Result<Done, Failed> {
        let Sort { numbering, returns, by, criteria } = sort;
        self.begin_search(tag, numbering, criteria, Answer::Sort(returns, Sorter::new(&by)))
    }

    pub(super) fn thread(&mut self, tag: Tag, thread: Thread) -> Result<Done, Failed> {
        let Thread { numbering, algorithm, criteria } = thread;
        self.begin_search(tag, numbering, criteria, Answer::Thread(algorithm, Vec::new()))
    }

    fn begin_search(
        &mut self,
        tag: Tag,
        numbering: Numbering,
        criteria: Criteria,
        answer: Answer,
    ) -> Result<Done, Failed> {
        if self.enabled.uid_only && numbering == Numbering::Sequence {
            return Err(Failed::UidRequired);
        }
        let most = self.settings.limits.search_keys;
        let time = (self.settings.time)();
        let State::Selected(_, selected) = &mut self.state else { return Err(Failed::unselected()) };
        let program = match bounded(&criteria, most)
            .and_then(|()| Program::new(&criteria, selected, time, self.enabled.uid_only))
        {
            Ok(program) => program,
            Err(failed) => {
                // RFC 5182, section 2.1: a SEARCH that fails leaves nothing saved.
                if matches!(&answer, Answer::Search(Some(returns)) if returns.save) {
                    selected.saved = NumberSet::default();
                }
                return Err(failed);
            }
        };
        self.enabled.condstore |= program.asks_modseq();
        let targets = program.candidates(&selected.view);
        let hits = Vec::new();
        let run = SearchRun { tag, numbering, program, answer, targets, hits, unknown: 0 };
        self.running = Some(Running::Search(Box::new(run)));
        Ok(Done::Runs)
    }

    /// Looks at the next messages, or answers.
    pub(super) fn search_on(&mut self, mut run: Box<SearchRun>) -> (Tag, Result<Done, Failed>) {
        let tag = run.tag.clone();
        let State::Selected(account, selected) = &mut self.state else {
            return (tag, Err(Failed::unselected()));
        };
        if !run.targets.is_empty() {
            let looked = run.look(account.replica(), selected);
            return match looked {
                Ok(()) => {
                    self.running = Some(Running::Search(run));
                    (tag, Ok(Done::Runs))
                }
                Err(failed) => (tag, Err(failed)),
            };
        }
        run.answer(selected, self.enabled.rev2, &mut self.out);
        let done = match run.unknown {
            0 => Done::ok("that is all"),
            count => {
                let text = format!("{count} messages could not be looked at: their bodies have not arrived");
                Done::Ok(Reply::Plain(Code::Unavailable), text.into())
            }
        };
        (tag, Ok(done))
    }
}

impl SearchRun {
    /// Judges the next messages.
    fn look(&mut self, replica: &Replica, selected: &Selected) -> Result<(), Failed> {
        let snapshot = replica.snapshot_of(selected.seen.mailbox)?;
        let wanted: Vec<(u32, u32)> = self.targets.drain(..self.targets.len().min(BATCH)).collect();
        let messages = super::fetch::read(&snapshot, selected.seen.mailbox, &wanted)?;
        drop(snapshot);
        let needs_summary = self.program.needs_summary() || self.answer.needs_summary();
        let mut summaries = match needs_summary {
            true => {
                let blobs: Vec<BlobId> = messages.iter().map(|(_, message)| message.blob).collect();
                summaries(replica, &blobs)?.into_iter()
            }
            false => Vec::new().into_iter(),
        };
        for (seq, message) in messages {
            let summary = summaries.next().flatten();
            match self.judge(replica, seq, &message, summary.as_deref())? {
                Some(false) => {}
                Some(true) => {
                    let hit = Hit { seq, uid: message.uid.value(), modseq: message.modseq };
                    if self.answer.needs_summary() {
                        let number = hit.number(self.numbering);
                        self.answer.note(number, message.internal_date, summary.as_deref());
                    }
                    self.hits.push(hit);
                }
                None => self.unknown += 1,
            }
        }
        Ok(())
    }

    /// Whether a message is meant; nothing if that cannot be known without its body, which is not here.
    fn judge(
        &self,
        replica: &Replica,
        seq: u32,
        message: &Shown,
        summary: Option<&[u8]>,
    ) -> Result<Option<bool>, Failed> {
        let summary = summary.and_then(|bytes| Summary::read(bytes).ok());
        let judge = |found: Option<&message::Found>| {
            self.program.judge(&Facts { seq, message, summary: summary.as_ref(), found })
        };
        if let Some(known) = judge(None) {
            return Ok(Some(known));
        }
        let Some(summary) = &summary else { return Ok(None) };
        let mut found = self.program.terms().in_summary(summary);
        if let Some(known) = judge(Some(&found)) {
            return Ok(Some(known));
        }
        let open = |offset| replica.open_body(message.blob, offset).map_err(std::io::Error::other);
        match self.program.terms().in_body(summary, &mut found, open) {
            Ok(()) => {}
            Err(_) if !replica.has_body(message.blob)? => return Ok(None),
            Err(error) => return Err(Failed::Replica(unreadable(error))),
        }
        Ok(judge(Some(&found)))
    }

    fn answer(&mut self, selected: &mut Selected, rev2: bool, out: &mut crate::grammar::Responses) {
        let hits = std::mem::take(&mut self.hits);
        let number = |hit: &Hit| hit.number(self.numbering);
        let modseq = |hits: &mut dyn Iterator<Item = &Hit>| {
            hits.map(|hit| hit.modseq)
                .max_by_key(|modseq| modseq.value())
                .filter(|_| self.program.asks_modseq())
        };
        match &self.answer {
            Answer::Search(None) if !rev2 => out.search(hits.iter().map(number), modseq(&mut hits.iter())),
            Answer::Search(returns) => {
                let returns = returns.unwrap_or(SearchReturn { all: true, ..SearchReturn::default() });
                save(&returns, &hits, selected);
                extended(&self.tag, self.numbering, &returns, &hits, &number, &modseq, false, out);
            }
            Answer::Sort(returns, sorter) => {
                let sorted: Vec<Hit> = sorter.order().into_iter().map(|at| hits[at]).collect();
                match returns {
                    None => out.sort(sorted.iter().map(number), modseq(&mut sorted.iter())),
                    Some(returns) => {
                        save(returns, &sorted, selected);
                        extended(&self.tag, self.numbering, returns, &sorted, &number, &modseq, true, out);
                    }
                }
            }
            Answer::Thread(algorithm, rows) => {
                let forest = match algorithm {
                    ThreadAlgorithm::OrderedSubject => message::by_subject(rows),
                    ThreadAlgorithm::References => message::by_references(rows),
                };
                let mut lists = Vec::new();
                forest.put(&mut lists);
                out.thread(&lists);
            }
        }
    }
}

fn bounded(criteria: &Criteria, most: usize) -> Result<(), Failed> {
    let keys: usize = criteria.keys.iter().map(SearchKey::count).sum();
    match keys <= most {
        true => Ok(()),
        false => Err(Failed::No(Some(Code::Limit), format!("a search may have {most} keys"))),
    }
}

/// Notes what `$` means from now on (RFC 5182, section 2.4: only the lowest and highest if only those were asked for).
fn save(returns: &SearchReturn, hits: &[Hit], selected: &mut Selected) {
    if !returns.save {
        return;
    }
    let ends_only =
        (returns.min || returns.max) && !returns.all && !returns.count && returns.partial.is_none();
    let uids: Vec<u32> = match ends_only {
        false => match returns.partial {
            Some(partial) => hits[partial.places(hits.len())].iter().map(|hit| hit.uid).collect(),
            None => hits.iter().map(|hit| hit.uid).collect(),
        },
        true => {
            let first = hits.first().filter(|_| returns.min);
            first.into_iter().chain(hits.last().filter(|_| returns.max)).map(|hit| hit.uid).collect()
        }
    };
    selected.saved = NumberSet::from_numbers(uids);
}

#[expect(clippy::too_many_arguments, reason = "all of them are what the one answer is made of")]
fn extended(
    tag: &Tag,
    numbering: Numbering,
    returns: &SearchReturn,
    hits: &[Hit],
    number: &dyn Fn(&Hit) -> u32,
    modseq: &dyn Fn(&mut dyn Iterator<Item = &Hit>) -> Option<ModSeq>,
    in_order: bool,
    out: &mut crate::grammar::Responses,
) {
    let only_save = returns.save
        && !(returns.min || returns.max || returns.all || returns.count)
        && returns.partial.is_none();
    if only_save {
        return;
    }
    let part = returns.partial.map(|range| (range, &hits[range.places(hits.len())]));
    let told: &[Hit] = part.map_or(hits, |(_, part)| part);
    let numbers: Vec<u32> = told.iter().map(number).collect();
    let set = if in_order { NumberSet::default() } else { NumberSet::from_numbers(numbers.iter().copied()) };
    let found = if in_order { Found::Sorted(&numbers) } else { Found::Set(&set) };
    let ends_only = (returns.min || returns.max) && !returns.all && !returns.count && part.is_none();
    // RFC 7162, section 3.1.5: of what is told, where only the ends are.
    let highest = match ends_only {
        true => {
            let first = hits.first().filter(|_| returns.min);
            modseq(&mut first.into_iter().chain(hits.last().filter(|_| returns.max)))
        }
        false => modseq(&mut told.iter()),
    };
    out.esearch(&ESearch {
        tag,
        numbering,
        min: hits.first().filter(|_| returns.min).map(number),
        max: hits.last().filter(|_| returns.max).map(number),
        all: returns.all.then_some(found),
        count: returns.count.then(|| u32::try_from(hits.len()).unwrap_or(u32::MAX)),
        partial: part.map(|(range, _)| (range, found)),
        mod_seq: highest,
    });
}
