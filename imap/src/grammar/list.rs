//! LIST with its options (RFC 5258, RFC 5819, RFC 6154) and LSUB.

use super::error::{Fault, Parsed, Problem};
use super::names::NameEncoding;
use super::pattern::ListPattern;
use super::scanner::{Scanner, Switch};
use super::status::{StatusItem, status_items};

/// LIST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Which mailboxes are wanted.
    pub select: ListSelect,
    /// Patterns, each behind the reference. One that is empty matches nothing, but see [`List::asks_separator`].
    pub patterns: Vec<ListPattern>,
    /// What is wanted of each mailbox.
    pub returns: ListReturn,
    /// Whether the command has any form that only RFC 5258 knows.
    pub extended: bool,
    /// Whether the pattern was `""` in the basic form: the answer is the separator and the root of the reference.
    pub asks_separator: bool,
}

impl List {
    /// Most patterns in one command: each is tried on every mailbox, and clients give a handful.
    pub const MAX_PATTERNS: usize = 100;
}

/// Which mailboxes LIST is to tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListSelect {
    /// Subscribed names, also of mailboxes that do not exist.
    pub subscribed: bool,
    /// Mailboxes of other servers too.
    pub remote: bool,
    /// Also names that do not match, if a name below them does and was not listed.
    pub recursive_match: bool,
    /// Only mailboxes with a special use.
    pub special_use: bool,
}

/// What LIST is to tell of each mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListReturn {
    /// `\Subscribed`
    pub subscribed: bool,
    /// `\HasChildren`, `\HasNoChildren`
    pub children: bool,
    /// `\Sent` and so on.
    pub special_use: bool,
    /// A STATUS response with these items; empty for none.
    pub status: Vec<StatusItem>,
}

/// LSUB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lsub {
    /// The pattern behind the reference.
    pub pattern: ListPattern,
}

pub(super) fn list(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<List> {
    scanner.space()?;
    let selects = scanner.peek() == Some(b'(');
    let mut select = ListSelect::default();
    if selects {
        select = list_select(scanner)?;
        scanner.space()?;
    }
    let reference = scanner.astring("a reference name")?;
    scanner.space()?;
    let several = scanner.peek() == Some(b'(');
    let at = scanner.at();
    let spelled = if several { scanner.list(Scanner::list_mailbox)? } else { vec![scanner.list_mailbox()?] };
    if spelled.len() > List::MAX_PATTERNS {
        return Err(Fault { at, problem: Problem::Limit { what: "patterns", max: List::MAX_PATTERNS } });
    }
    let returns = if scanner.eat(b' ') { Some(list_return(scanner)?) } else { None };
    let extended = selects || several || returns.is_some();
    let asks_separator = !extended && spelled[0].is_empty();
    let patterns = spelled
        .iter()
        .filter(|pattern| !pattern.is_empty())
        .map(|pattern| ListPattern::new(&reference, pattern, names))
        .collect();
    Ok(List { select, patterns, returns: returns.unwrap_or_default(), extended, asks_separator })
}

pub(super) fn lsub(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<Lsub> {
    scanner.space()?;
    let reference = scanner.astring("a reference name")?;
    scanner.space()?;
    let pattern = scanner.list_mailbox()?;
    Ok(Lsub { pattern: ListPattern::new(&reference, &pattern, names) })
}

fn list_select(scanner: &mut Scanner<'_>) -> Parsed<ListSelect> {
    let at = scanner.at();
    let mut select = ListSelect::default();
    let switches: [Switch<ListSelect>; 4] = [
        ("SUBSCRIBED", |select| &mut select.subscribed),
        ("REMOTE", |select| &mut select.remote),
        ("RECURSIVEMATCH", |select| &mut select.recursive_match),
        ("SPECIAL-USE", |select| &mut select.special_use),
    ];
    scanner.list_or_empty(|scanner| scanner.switch("a selection option of LIST", &switches, &mut select))?;
    if select.recursive_match && !select.subscribed {
        return Err(Fault { at, problem: Problem::Conflict("RECURSIVEMATCH needs SUBSCRIBED") });
    }
    Ok(select)
}

fn list_return(scanner: &mut Scanner<'_>) -> Parsed<ListReturn> {
    if !scanner.eat_word("RETURN") {
        return Err(scanner.expected("RETURN"));
    }
    scanner.space()?;
    let mut returns = ListReturn::default();
    let switches: [Switch<ListReturn>; 3] = [
        ("SUBSCRIBED", |returns| &mut returns.subscribed),
        ("CHILDREN", |returns| &mut returns.children),
        ("SPECIAL-USE", |returns| &mut returns.special_use),
    ];
    scanner.list_or_empty(|scanner| {
        if scanner.eat_word("STATUS") {
            scanner.space()?;
            returns.status = status_items(scanner)?;
            return Ok(());
        }
        scanner.switch("a return option of LIST", &switches, &mut returns)
    })?;
    Ok(returns)
}
