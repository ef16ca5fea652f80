//! SORT (RFC 5256, and the display criteria of RFC 5957).

use std::cmp::Ordering;

use super::summary::Summary;
use super::{address, header, limits, search, words};
use crate::grammar::{SortCriterion, SortKey};

/// Messages to be sorted, of which only what they are sorted by is kept: some dozen bytes each, and at most
/// [`limits::SORT_KEY`] bytes for each kind of criterion there is.
#[derive(Clone, Debug)]
pub struct Sorter {
    by: Vec<SortCriterion>,
    rows: Vec<Box<[Value]>>,
}

impl Sorter {
    /// Sorts by the first criterion, then by the next, then as the messages were added. Each may be reversed.
    pub fn new(by: &[SortCriterion]) -> Sorter {
        // Where a criterion comes again, it finds its messages to be equal.
        let is_first = |(at, criterion): &(usize, &SortCriterion)| {
            by[..*at].iter().all(|earlier| earlier.key != criterion.key)
        };
        let by = by.iter().enumerate().filter(is_first).map(|(_, criterion)| *criterion).collect();
        Sorter { by, rows: Vec::new() }
    }

    /// Adds a message with its internal date in seconds since 1970, which stands in for a sent date that is missing.
    pub fn add(&mut self, summary: &Summary<'_>, internal_date: i64) {
        let row = Row { summary, internal_date };
        self.rows.push(self.by.iter().map(|by| row.key(by.key)).collect());
    }

    /// The messages in order, counted from 0 as they were added.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by(|a, b| {
            let pairs = self.rows[*a].iter().zip(&self.rows[*b]).zip(&self.by);
            let compared = pairs.map(|((a, b), by)| if by.reverse { b.cmp(a) } else { a.cmp(b) });
            compared.fold(Ordering::Equal, Ordering::then)
        });
        order
    }
}

struct Row<'a> {
    summary: &'a Summary<'a>,
    internal_date: i64,
}

/// What one criterion compares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// Times and sizes.
    Number(i64),
    /// Texts, folded as for SEARCH.
    Text(Box<[u8]>),
}

impl Row<'_> {
    /// What this message has for one criterion.
    fn key(&self, by: SortKey) -> Value {
        match by {
            SortKey::Arrival => Value::Number(self.internal_date),
            SortKey::Date => {
                Value::Number(self.summary.sent().map_or(self.internal_date, |sent| sent.seconds))
            }
            SortKey::Size => Value::Number(i64::try_from(self.summary.size()).unwrap_or(i64::MAX)),
            SortKey::Subject => folded(self.summary.base_subject()),
            SortKey::Cc => self.mailbox("cc"),
            SortKey::From => self.mailbox("from"),
            SortKey::To => self.mailbox("to"),
            SortKey::DisplayFrom => self.display("from"),
            SortKey::DisplayTo => self.display("to"),
        }
    }

    fn mailbox(&self, field: &str) -> Value {
        // The name of a group counts like a mailbox (RFC 5256, section 3).
        let first = self.first(field).and_then(|address| address.mailbox);
        folded(&String::from_utf8_lossy(&first.unwrap_or_default()))
    }

    fn display(&self, field: &str) -> Value {
        let Some(first) = self.first(field) else { return folded("") };
        if let Some(name) = first.name {
            return folded(&words::decode(&name));
        }
        let is_group = !first.is_mailbox();
        let mailbox = first.mailbox.unwrap_or_default();
        if is_group {
            return folded(&words::decode(&mailbox));
        }
        let address = [&mailbox[..], b"@", &first.host.unwrap_or_default()].concat();
        folded(&String::from_utf8_lossy(&address))
    }

    fn first(&self, field: &str) -> Option<address::Address> {
        address::parse(header::first(self.summary.header(), field)?.value).into_iter().next()
    }
}

fn folded(text: &str) -> Value {
    let mut out = Vec::new();
    search::fold(text, &mut out);
    out.truncate(limits::SORT_KEY);
    Value::Text(out.into())
}
