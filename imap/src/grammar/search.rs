//! SEARCH, SORT and THREAD.

use super::command::Numbering;
use super::error::{Fault, Parsed, Problem};
use super::fetch::{PartialRange, partial_range};
use super::scanner::{Scanner, Switch};
use super::search_key::{SearchKey, search_keys};

/// SEARCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// What the answer counts in. Sets in the keys are sequence numbers but for [`SearchKey::Uid`].
    pub numbering: Numbering,
    /// What the answer is to tell; without it, it is SEARCH (RFC 3501) or ESEARCH with ALL (RFC 9051).
    pub returns: Option<SearchReturn>,
    /// What to find.
    pub criteria: Criteria,
}

/// SORT (RFC 5256).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// What the answer counts in.
    pub numbering: Numbering,
    /// What the answer is to tell (RFC 5267); without it, it is SORT.
    pub returns: Option<SearchReturn>,
    /// By what, the most important first; at least one.
    pub by: Vec<SortCriterion>,
    /// What to find.
    pub criteria: Criteria,
}

/// THREAD (RFC 5256).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// What the answer counts in.
    pub numbering: Numbering,
    /// How threads are made.
    pub algorithm: ThreadAlgorithm,
    /// What to find.
    pub criteria: Criteria,
}

/// What a message must be to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Criteria {
    /// In which charset the texts of the keys are, in the client's spelling; without it US-ASCII, or UTF-8 for
    /// IMAP4rev2.
    pub charset: Option<String>,
    /// All of these; at least one.
    pub keys: Vec<SearchKey>,
}

/// What the answer to SEARCH tells (RFC 4731, RFC 5182, RFC 9394).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchReturn {
    /// The lowest.
    pub min: bool,
    /// The highest.
    pub max: bool,
    /// All; also what `RETURN ()` means.
    pub all: bool,
    /// How many.
    pub count: bool,
    /// Remember them as `$`.
    pub save: bool,
    /// Some, by their places; never with `all`.
    pub partial: Option<PartialRange>,
}

/// One key of SORT, and whether it is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortCriterion {
    /// By what.
    pub key: SortKey,
    /// Largest first.
    pub reverse: bool,
}

/// By what messages are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SortKey {
    /// The internal date.
    Arrival,
    /// The first Cc mailbox.
    Cc,
    /// The Date field, in UTC.
    Date,
    /// The first From display name, else mailbox (RFC 5957).
    DisplayFrom,
    /// The first To display name, else mailbox (RFC 5957).
    DisplayTo,
    /// The first From mailbox.
    From,
    /// The size in octets.
    Size,
    /// The base subject.
    Subject,
    /// The first To mailbox.
    To,
}

/// How threads are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThreadAlgorithm {
    /// ORDEREDSUBJECT
    OrderedSubject,
    /// REFERENCES
    References,
}

pub(super) fn search(scanner: &mut Scanner<'_>, numbering: Numbering) -> Parsed<Search> {
    scanner.space()?;
    let returns = search_return(scanner)?;
    let mut charset_given = None;
    if scanner.eat_word("CHARSET") {
        scanner.space()?;
        charset_given = Some(charset(scanner)?);
        scanner.space()?;
    }
    let criteria = Criteria { charset: charset_given, keys: search_keys(scanner)? };
    Ok(Search { numbering, returns, criteria })
}

pub(super) fn sort(scanner: &mut Scanner<'_>, numbering: Numbering) -> Parsed<Sort> {
    scanner.space()?;
    let returns = search_return(scanner)?;
    let by = scanner.list(|scanner| {
        let reverse = scanner.eat_word("REVERSE");
        if reverse {
            scanner.space()?;
        }
        let key = scanner.one_of(
            "a sort key",
            &[
                ("ARRIVAL", SortKey::Arrival),
                ("CC", SortKey::Cc),
                ("DATE", SortKey::Date),
                ("DISPLAYFROM", SortKey::DisplayFrom),
                ("DISPLAYTO", SortKey::DisplayTo),
                ("FROM", SortKey::From),
                ("SIZE", SortKey::Size),
                ("SUBJECT", SortKey::Subject),
                ("TO", SortKey::To),
            ],
        )?;
        Ok(SortCriterion { key, reverse })
    })?;
    scanner.space()?;
    Ok(Sort { numbering, returns, by, criteria: criteria(scanner)? })
}

pub(super) fn thread(scanner: &mut Scanner<'_>, numbering: Numbering) -> Parsed<Thread> {
    scanner.space()?;
    let algorithm = scanner.one_of(
        "ORDEREDSUBJECT or REFERENCES",
        &[("ORDEREDSUBJECT", ThreadAlgorithm::OrderedSubject), ("REFERENCES", ThreadAlgorithm::References)],
    )?;
    scanner.space()?;
    Ok(Thread { numbering, algorithm, criteria: criteria(scanner)? })
}

/// SORT and THREAD always name the charset.
fn criteria(scanner: &mut Scanner<'_>) -> Parsed<Criteria> {
    let charset = charset(scanner)?;
    scanner.space()?;
    Ok(Criteria { charset: Some(charset), keys: search_keys(scanner)? })
}

/// Any name: one that is not known is answered with BADCHARSET, not BAD.
fn charset(scanner: &mut Scanner<'_>) -> Parsed<String> {
    scanner.astring("a charset").map(|name| String::from_utf8_lossy(&name).into_owned())
}

/// `RETURN (...)` and the space after it.
fn search_return(scanner: &mut Scanner<'_>) -> Parsed<Option<SearchReturn>> {
    if !scanner.eat_word("RETURN") {
        return Ok(None);
    }
    scanner.space()?;
    let at = scanner.at();
    let mut returns = SearchReturn::default();
    let switches: [Switch<SearchReturn>; 5] = [
        ("MIN", |returns| &mut returns.min),
        ("MAX", |returns| &mut returns.max),
        ("ALL", |returns| &mut returns.all),
        ("COUNT", |returns| &mut returns.count),
        ("SAVE", |returns| &mut returns.save),
    ];
    let options = scanner.list_or_empty(|scanner| {
        if !scanner.eat_word("PARTIAL") {
            return scanner.switch("a return option of SEARCH", &switches, &mut returns);
        }
        scanner.space()?;
        match returns.partial.replace(partial_range(scanner)?) {
            Some(_) => Err(scanner.fault(Problem::Conflict("PARTIAL given twice"))),
            None => Ok(()),
        }
    })?;
    returns.all |= options.is_empty();
    if returns.all && returns.partial.is_some() {
        return Err(Fault { at, problem: Problem::Conflict("PARTIAL does not go with ALL") });
    }
    scanner.space()?;
    Ok(Some(returns))
}
