//! SORT (RFC 5256, and the display criteria of RFC 5957).

use std::cmp::Ordering;

use super::summary::Summary;
use super::{address, header, search, words};
use crate::grammar::{SortCriterion, SortKey};

/// A message to be sorted.
#[derive(Clone, Copy, Debug)]
pub struct SortRow<'a> {
    /// Its summary.
    pub summary: Summary<'a>,
    /// Its internal date, seconds since 1970.
    pub internal_date: i64,
}

/// What one criterion compares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// Times and sizes.
    Number(i64),
    /// Texts, folded as for SEARCH.
    Text(Vec<u8>),
}

impl SortRow<'_> {
    /// What this message has for one criterion. A sent date that is missing is the internal one.
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
        let Some(first) = self.first(field) else { return Value::Text(Vec::new()) };
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
    Value::Text(out)
}

/// The order of the rows: by the first criterion, then by the next, then as they stand. Each criterion may be
/// reversed. Keys are made once.
pub fn sort(rows: &[SortRow<'_>], by: &[SortCriterion]) -> Vec<usize> {
    let keys: Vec<Vec<Value>> =
        rows.iter().map(|row| by.iter().map(|by| row.key(by.key)).collect()).collect();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| {
        let compared = keys[*a].iter().zip(&keys[*b]).zip(by).map(|((a, b), by)| match by.reverse {
            true => b.cmp(a),
            false => a.cmp(b),
        });
        compared.fold(Ordering::Equal, Ordering::then)
    });
    order
}
