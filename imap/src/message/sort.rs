//! SORT (RFC 5256, and the display criteria of RFC 5957).

use std::cmp::Ordering;

use super::summary::Summary;
use super::{address, header, search, words};

/// What to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// Internal date and time.
    Arrival,
    /// Local part of the first Cc.
    Cc,
    /// Sent date and time; the internal one where the message has none.
    Date,
    /// What a client shows for the first From: its name, else its address.
    DisplayFrom,
    /// The same for the first To.
    DisplayTo,
    /// Local part of the first From.
    From,
    /// Size as IMAP counts it.
    Size,
    /// Base subject.
    Subject,
    /// Local part of the first To.
    To,
}

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
pub enum SortKey {
    /// Times and sizes.
    Number(i64),
    /// Texts, folded as for SEARCH.
    Text(Vec<u8>),
}

impl SortRow<'_> {
    /// The key of this message for one criterion.
    pub fn key(&self, by: Criterion) -> SortKey {
        match by {
            Criterion::Arrival => SortKey::Number(self.internal_date),
            Criterion::Date => {
                SortKey::Number(self.summary.sent().map_or(self.internal_date, |sent| sent.seconds))
            }
            Criterion::Size => SortKey::Number(i64::try_from(self.summary.size()).unwrap_or(i64::MAX)),
            Criterion::Subject => folded(self.summary.base_subject()),
            Criterion::Cc => self.mailbox("cc"),
            Criterion::From => self.mailbox("from"),
            Criterion::To => self.mailbox("to"),
            Criterion::DisplayFrom => self.display("from"),
            Criterion::DisplayTo => self.display("to"),
        }
    }

    fn mailbox(&self, field: &str) -> SortKey {
        // The name of a group counts like a mailbox (RFC 5256, section 3).
        let first = self.first(field).and_then(|address| address.mailbox);
        folded(&String::from_utf8_lossy(&first.unwrap_or_default()))
    }

    fn display(&self, field: &str) -> SortKey {
        let Some(first) = self.first(field) else { return SortKey::Text(Vec::new()) };
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

fn folded(text: &str) -> SortKey {
    let mut out = Vec::new();
    search::fold(text, &mut out);
    SortKey::Text(out)
}

/// The order of the rows: by the first criterion, then by the next, then as they stand. Each criterion may be
/// reversed. Keys are made once.
pub fn sort(rows: &[SortRow<'_>], by: &[(Criterion, bool)]) -> Vec<usize> {
    let keys: Vec<Vec<SortKey>> =
        rows.iter().map(|row| by.iter().map(|(criterion, _)| row.key(*criterion)).collect()).collect();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| {
        let compared =
            keys[*a].iter().zip(&keys[*b]).zip(by).map(|((a, b), (_, is_reversed))| match is_reversed {
                true => b.cmp(a),
                false => a.cmp(b),
            });
        compared.fold(Ordering::Equal, Ordering::then)
    });
    order
}
