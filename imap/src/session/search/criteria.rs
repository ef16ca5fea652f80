//! What SEARCH asks of each message, made ready once.

use std::collections::VecDeque;

use postmerge::mailbox::{Keyword, ModSeq};
use postmerge::uid::Shown;

use super::super::done::Failed;
use super::super::selected::Selected;
use crate::grammar::{
    Code, Criteria, Date, DateOf, EnvelopeField, Flag, MessageSet, NumberSet, Relation, SearchKey,
};
use crate::message::{Found, Summary, Target, Terms};
use crate::view::View;

/// What is known of a message when it is judged.
pub(super) struct Facts<'a> {
    pub(super) seq: u32,
    pub(super) message: &'a Shown,
    /// Nothing as long as nobody needed it, or its body is not here.
    pub(super) summary: Option<&'a Summary<'a>>,
    /// What of the texts was looked for so far.
    pub(super) found: Option<&'a Found>,
}

/// All keys of a SEARCH, which must all hold.
pub(super) struct Program {
    test: Test,
    terms: Terms,
    needs_summary: bool,
    asks_modseq: bool,
}

enum Test {
    Const(bool),
    Seqs(NumberSet),
    Uids(NumberSet),
    Has(Keyword),
    Term(usize),
    Internal(Relation, i64),
    Saved(Relation, i64),
    Sent(Relation, i64),
    Larger(u64),
    Smaller(u64),
    /// The internal date is at this time or before.
    Until(i64),
    /// The internal date is after this time.
    After(i64),
    ModSeq(ModSeq),
    EmailId(String),
    ThreadId(String),
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
}

struct Compiler<'a> {
    selected: &'a Selected,
    time: i64,
    uid_only: bool,
    terms: Terms,
    needs_summary: bool,
    asks_modseq: bool,
}

impl Program {
    /// `time` is now, in seconds since 1970. Fails for a charset that is not known and for texts that are not in it.
    pub(super) fn new(
        criteria: &Criteria,
        selected: &Selected,
        time: i64,
        uid_only: bool,
    ) -> Result<Program, Failed> {
        if let Some(charset) = &criteria.charset
            && !["US-ASCII", "UTF-8"].iter().any(|known| known.eq_ignore_ascii_case(charset))
        {
            let code = Code::BadCharset(&["US-ASCII", "UTF-8"]);
            return Err(Failed::No(Some(code), "texts are to be in UTF-8".into()));
        }
        let mut compiler = Compiler {
            selected,
            time,
            uid_only,
            terms: Terms::new(),
            needs_summary: false,
            asks_modseq: false,
        };
        let tests = criteria.keys.iter().map(|key| compiler.test(key)).collect::<Result<_, _>>()?;
        let Compiler { terms, needs_summary, asks_modseq, .. } = compiler;
        Ok(Program { test: Test::All(tests), terms, needs_summary, asks_modseq })
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) fn needs_summary(&self) -> bool {
        self.needs_summary
    }

    pub(super) fn asks_modseq(&self) -> bool {
        self.asks_modseq
    }

    /// The messages that have to be looked at, as sequence number and UID: those of a set, where one stands at the top.
    pub(super) fn candidates(&self, view: &View) -> VecDeque<(u32, u32)> {
        let Test::All(tests) = &self.test else { return VecDeque::new() };
        for test in tests {
            match test {
                Test::Seqs(set) => return set.ranges().flat_map(|range| view.by_seq(range)).collect(),
                Test::Uids(set) => return set.ranges().flat_map(|range| view.by_uid(range)).collect(),
                _ => {}
            }
        }
        view.by_seq(1..=view.exists()).collect()
    }

    /// Whether the message is meant; nothing if more must be known.
    pub(super) fn judge(&self, facts: &Facts<'_>) -> Option<bool> {
        judge(&self.test, facts)
    }
}

fn judge(test: &Test, facts: &Facts<'_>) -> Option<bool> {
    let message = facts.message;
    Some(match test {
        Test::Const(known) => *known,
        Test::Seqs(set) => set.contains(facts.seq),
        Test::Uids(set) => set.contains(message.uid.value()),
        Test::Has(keyword) => message.keywords.contains(keyword),
        Test::Term(term) => return facts.found?.has(*term),
        Test::Internal(relation, day) => holds(*relation, message.internal_date.div_euclid(DAY), *day),
        Test::Saved(relation, day) => holds(*relation, message.saved.div_euclid(DAY), *day),
        Test::Sent(relation, day) => {
            let sent = facts.summary?.sent();
            holds(*relation, sent.map_or(message.internal_date.div_euclid(DAY), |sent| sent.day()), *day)
        }
        Test::Larger(size) => facts.summary?.size() > *size,
        Test::Smaller(size) => facts.summary?.size() < *size,
        Test::Until(time) => message.internal_date <= *time,
        Test::After(time) => message.internal_date > *time,
        Test::ModSeq(modseq) => {
            message.modseq.era() != modseq.era() || message.modseq.counter() >= modseq.counter()
        }
        Test::EmailId(id) => super::super::fetch::email_id(message) == *id,
        Test::ThreadId(id) => super::super::fetch::thread_id(message, facts.summary?) == *id,
        Test::Not(test) => !judge(test, facts)?,
        Test::All(tests) => return fold(tests, facts, false),
        Test::Any(tests) => return fold(tests, facts, true),
    })
}

/// Whether one test gives `decides`; nothing if none does and some must know more.
fn fold(tests: &[Test], facts: &Facts<'_>, decides: bool) -> Option<bool> {
    let mut unknown = false;
    for test in tests {
        match judge(test, facts) {
            Some(known) if known == decides => return Some(decides),
            Some(_) => {}
            None => unknown = true,
        }
    }
    (!unknown).then_some(!decides)
}

const DAY: i64 = 86_400;

fn holds(relation: Relation, day: i64, than: i64) -> bool {
    match relation {
        Relation::Before => day < than,
        Relation::On => day == than,
        Relation::Since => day >= than,
    }
}

impl Compiler<'_> {
    fn test(&mut self, key: &SearchKey) -> Result<Test, Failed> {
        Ok(match key {
            SearchKey::All | SearchKey::SaveDateSupported => Test::Const(true),
            SearchKey::Messages(MessageSet::Saved) | SearchKey::Uid(MessageSet::Saved) => {
                Test::Uids(self.selected.saved.clone())
            }
            SearchKey::Messages(MessageSet::Numbers(_)) if self.uid_only => return Err(Failed::UidRequired),
            SearchKey::Messages(MessageSet::Numbers(set)) => {
                let exists = self.selected.view.exists();
                // `1:*` of an empty mailbox is nothing, and clients do ask.
                if !set.names_last() && set.largest_number().is_some_and(|number| number > exists) {
                    return Err(Failed::Bad("there is no message with such a number"));
                }
                Test::Seqs(set.resolve(exists))
            }
            SearchKey::Uid(MessageSet::Numbers(set)) => {
                Test::Uids(set.resolve(self.selected.view.last_uid().unwrap_or(0)))
            }
            SearchKey::Has(flag) => has(flag),
            SearchKey::HasNot(flag) => Test::Not(Box::new(has(flag))),
            // No message is recent here: no session is the first to see it, as every replica shows it.
            SearchKey::Recent => Test::Const(false),
            SearchKey::Envelope(field, text) => self.term(Target::Header(name(*field).to_vec()), text)?,
            SearchKey::Header(name, text) => self.term(Target::Header(name.clone()), text)?,
            SearchKey::Body(text) => self.term(Target::Body, text)?,
            SearchKey::Text(text) => self.term(Target::Text, text)?,
            SearchKey::Date(DateOf::Internal, relation, date) => Test::Internal(*relation, days(*date)),
            SearchKey::Date(DateOf::Saved, relation, date) => Test::Saved(*relation, days(*date)),
            SearchKey::Date(DateOf::Sent, relation, date) => {
                self.needs_summary = true;
                Test::Sent(*relation, days(*date))
            }
            SearchKey::Larger(size) => {
                self.needs_summary = true;
                Test::Larger(*size)
            }
            SearchKey::Smaller(size) => {
                self.needs_summary = true;
                Test::Smaller(*size)
            }
            SearchKey::Older(seconds) => Test::Until(self.time.saturating_sub((*seconds).into())),
            SearchKey::Younger(seconds) => Test::After(self.time.saturating_sub((*seconds).into())),
            SearchKey::ModSeq(modseq) => {
                self.asks_modseq = true;
                Test::ModSeq(*modseq)
            }
            SearchKey::EmailId(id) => Test::EmailId(id.clone()),
            SearchKey::ThreadId(id) => {
                self.needs_summary = true;
                Test::ThreadId(id.clone())
            }
            SearchKey::Not(key) => Test::Not(Box::new(self.test(key)?)),
            SearchKey::Or(one, other) => Test::Any(vec![self.test(one)?, self.test(other)?]),
            SearchKey::And(keys) => {
                Test::All(keys.iter().map(|key| self.test(key)).collect::<Result<_, _>>()?)
            }
        })
    }

    fn term(&mut self, target: Target, text: &[u8]) -> Result<Test, Failed> {
        let text = std::str::from_utf8(text).map_err(|_| {
            Failed::No(Some(Code::BadCharset(&["US-ASCII", "UTF-8"])), "a text is not UTF-8".into())
        })?;
        self.needs_summary = true;
        Ok(Test::Term(self.terms.add(target, text)))
    }
}

fn has(flag: &Flag) -> Test {
    match flag {
        Flag::Keyword(keyword) => Test::Has(keyword.clone()),
        Flag::Other(_) => Test::Const(false),
    }
}

fn days(date: Date) -> i64 {
    date.days().into()
}

fn name(field: EnvelopeField) -> &'static [u8] {
    match field {
        EnvelopeField::Bcc => b"bcc",
        EnvelopeField::Cc => b"cc",
        EnvelopeField::From => b"from",
        EnvelopeField::Subject => b"subject",
        EnvelopeField::To => b"to",
    }
}
