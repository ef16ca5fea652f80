//! Sets of messages: as a client writes them, and as plain numbers.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use super::encode::put_number;
use super::error::{Fault, Parsed, Problem};
use super::scanner::Scanner;

/// Which messages a command names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageSet {
    /// `$`: what the last `SEARCH RETURN (SAVE)` found (RFC 5182).
    Saved,
    /// Numbers, `*` and ranges.
    Numbers(SequenceSet),
}

/// One end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SequenceNumber {
    /// A sequence number or a UID.
    Number(NonZeroU32),
    /// `*`, the largest in use.
    Last,
}

impl SequenceNumber {
    /// The number that is meant where `last` is the largest in use.
    pub fn resolve(self, last: u32) -> u32 {
        match self {
            SequenceNumber::Number(number) => number.get(),
            SequenceNumber::Last => last,
        }
    }
}

/// Numbers and ranges as a client wrote them, in its order, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceSet(Vec<(SequenceNumber, SequenceNumber)>);

impl From<SequenceNumber> for SequenceSet {
    fn from(number: SequenceNumber) -> SequenceSet {
        SequenceSet(vec![(number, number)])
    }
}

impl SequenceSet {
    /// The ranges in the client's order; a single number is a range of one. Ends may be swapped.
    pub fn ranges(&self) -> &[(SequenceNumber, SequenceNumber)] {
        &self.0
    }

    /// Whether `*` occurs.
    pub fn names_last(&self) -> bool {
        self.0.iter().any(|(from, to)| [*from, *to].contains(&SequenceNumber::Last))
    }

    /// The largest number that is written out, for the check that message numbers exist.
    pub fn largest_number(&self) -> Option<u32> {
        self.0.iter().flat_map(|(from, to)| [from.resolve(0), to.resolve(0)]).max().filter(|max| *max > 0)
    }

    /// The numbers up to `last`, the largest in use (0 if there is none).
    ///
    /// `n:*` holds `last` even where n is larger (RFC 9051, section 9, `seq-range`). What is above `last` is
    /// left out: no message has such a number.
    pub fn resolve(&self, last: u32) -> NumberSet {
        let ranges = self.0.iter().map(|(from, to)| {
            let (from, to) = (from.resolve(last), to.resolve(last));
            (from.min(to), from.max(to).min(last))
        });
        NumberSet::normalise(ranges.filter(|(from, to)| (1..=*to).contains(from)).collect())
    }
}

/// Numbers above 0, kept as sorted ranges that neither touch nor overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NumberSet(Vec<(u32, u32)>);

impl NumberSet {
    /// Takes numbers in any order, also repeated.
    pub fn from_numbers(numbers: impl IntoIterator<Item = u32>) -> NumberSet {
        let mut set = NumberSet::default();
        let mut sorted = true;
        for number in numbers {
            match set.0.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
                Some((_, last)) => {
                    sorted &= *last < number;
                    set.0.push((number, number));
                }
                None => set.0.push((number, number)),
            }
        }
        if sorted { set } else { NumberSet::normalise(set.0) }
    }

    /// Takes ranges in any order.
    pub fn from_ranges(ranges: impl IntoIterator<Item = RangeInclusive<u32>>) -> NumberSet {
        NumberSet::normalise(
            ranges.into_iter().filter(|range| !range.is_empty()).map(RangeInclusive::into_inner).collect(),
        )
    }

    /// Takes ranges whose ends are in order, themselves in any order.
    fn normalise(mut ranges: Vec<(u32, u32)>) -> NumberSet {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match merged.last_mut() {
                Some((_, last)) if from <= last.saturating_add(1) => *last = to.max(*last),
                _ => merged.push((from, to)),
            }
        }
        NumberSet(merged)
    }

    /// The ranges, lowest first.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = RangeInclusive<u32>> {
        self.0.iter().map(|(from, to)| *from..=*to)
    }

    /// The numbers, lowest first. A range may hold four thousand million: bound the set by
    /// [`SequenceSet::resolve`] first.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ranges().flatten()
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| u64::from(to - from) + 1).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `number` is one of them; a binary search.
    pub fn contains(&self, number: u32) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= number);
        after.checked_sub(1).is_some_and(|at| number <= self.0[at].1)
    }

    /// The numbers that are in both.
    pub fn intersection(&self, other: &NumberSet) -> NumberSet {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            let (from, to) = (a.0.max(b.0), a.1.min(b.1));
            if from <= to {
                both.push((from, to));
            }
            if a.1 < b.1 {
                mine.next()
            } else {
                theirs.next()
            };
        }
        NumberSet(both)
    }

    /// Writes the set as a `sequence-set`; an empty set writes nothing, which no response may hold.
    pub fn put(&self, out: &mut Vec<u8>) {
        for (at, range) in self.0.iter().enumerate() {
            put_range(out, at, *range);
        }
    }
}

impl FromIterator<u32> for NumberSet {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> NumberSet {
        NumberSet::from_numbers(numbers)
    }
}

/// Writes numbers in their order, with ranges where they go up by one; an empty list writes nothing.
pub(super) fn put_runs(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u32>) {
    let mut numbers = numbers.into_iter().peekable();
    let mut at = 0;
    while let Some(first) = numbers.next() {
        let mut last = first;
        while let Some(next) = numbers.next_if(|next| last.checked_add(1) == Some(*next)) {
            last = next;
        }
        put_range(out, at, (first, last));
        at += 1;
    }
}

fn put_range(out: &mut Vec<u8>, at: usize, (from, to): (u32, u32)) {
    if at > 0 {
        out.push(b',');
    }
    put_number(out, from.into());
    if to > from {
        out.push(b':');
        put_number(out, to.into());
    }
}

pub(super) fn message_set(scanner: &mut Scanner<'_>) -> Parsed<MessageSet> {
    if scanner.eat(b'$') { Ok(MessageSet::Saved) } else { sequence_set(scanner).map(MessageSet::Numbers) }
}

pub(super) fn sequence_set(scanner: &mut Scanner<'_>) -> Parsed<SequenceSet> {
    let mut ranges = Vec::new();
    loop {
        let from = sequence_number(scanner)?;
        let to = if scanner.eat(b':') { sequence_number(scanner)? } else { from };
        ranges.push((from, to));
        if !scanner.eat(b',') {
            return Ok(SequenceSet(ranges));
        }
    }
}

pub(super) fn sequence_number(scanner: &mut Scanner<'_>) -> Parsed<SequenceNumber> {
    if scanner.eat(b'*') {
        return Ok(SequenceNumber::Last);
    }
    let number = scanner.nz_number("a message number or \"*\"")?;
    NonZeroU32::new(number).map(SequenceNumber::Number).ok_or_else(|| scanner.expected("a message number"))
}

/// A set without `*`, in the client's order.
pub(super) fn numbered_set(scanner: &mut Scanner<'_>) -> Parsed<SequenceSet> {
    let start = scanner.at();
    let set = sequence_set(scanner)?;
    if set.names_last() {
        return Err(Fault { at: start, problem: Problem::Expected("a set without \"*\"") });
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(text: &str) -> SequenceSet {
        let mut scanner = Scanner::new(text.as_bytes());
        let set = sequence_set(&mut scanner).unwrap();
        assert!(scanner.at_end(), "{text}");
        set
    }

    fn put(set: &NumberSet) -> String {
        let mut out = Vec::new();
        set.put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn star_is_the_last_and_a_range_to_it_always_holds_it() {
        for (text, last, numbers) in [
            ("1", 5, "1"),
            ("*", 5, "5"),
            ("2,4:7,9,12:*", 15, "2,4:7,9,12:15"),
            ("*:4,5:7", 10, "4:10"),
            ("559:*", 23, "23"),
            ("*:559", 23, "23"),
            ("559", 23, ""),
            ("20:30", 23, "20:23"),
            ("4:2", 9, "2:4"),
            ("04:10", 9, "4:9"),
            ("3,1,2,2", 9, "1:3"),
            ("1:*", 0, ""),
            ("*", 0, ""),
            ("1:4294967295", u32::MAX, "1:4294967295"),
            ("4294967295,1:4294967294", u32::MAX, "1:4294967295"),
        ] {
            assert_eq!(put(&set(text).resolve(last)), numbers, "{text} of {last}");
        }
        assert_eq!(set("3:*,7").largest_number(), Some(7));
        assert_eq!(set("*").largest_number(), None);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for bad in ["", "0", "1:", ":1", "1,,2", ",", "00", "4294967296", "-1", "1:0"] {
            assert!(sequence_set(&mut Scanner::new(bad.as_bytes())).is_err(), "{bad}");
        }
        assert!(numbered_set(&mut Scanner::new(b"1:*")).is_err());
    }

    #[test]
    fn runs_keep_the_order() {
        for (numbers, written) in [
            (&[][..], ""),
            (&[3], "3"),
            (&[3, 4, 5, 9], "3:5,9"),
            (&[5, 4, 3], "5,4,3"),
            (&[7, 8, 1, 2], "7:8,1:2"),
        ] {
            let mut out = Vec::new();
            put_runs(&mut out, numbers.iter().copied());
            assert_eq!(String::from_utf8(out).unwrap(), written);
        }
    }

    proptest! {
        #[test]
        fn as_a_set_of_numbers(
            a in proptest::collection::vec(1u32..40, 0..30),
            b in proptest::collection::vec(1u32..40, 0..30),
        ) {
            let (naive_a, naive_b): (BTreeSet<u32>, BTreeSet<u32>) =
                (a.iter().copied().collect(), b.iter().copied().collect());
            let (a, b) = (NumberSet::from_numbers(a), NumberSet::from_numbers(b));
            prop_assert_eq!(a.iter().collect::<Vec<_>>(), naive_a.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(a.count(), naive_a.len() as u64);
            for number in 0..42 {
                prop_assert_eq!(a.contains(number), naive_a.contains(&number));
            }
            let both: Vec<u32> = naive_a.intersection(&naive_b).copied().collect();
            prop_assert_eq!(a.intersection(&b).iter().collect::<Vec<_>>(), both);
            if !a.is_empty() {
                prop_assert_eq!(set(&put(&a)).resolve(u32::MAX), a);
            }
        }
    }
}
