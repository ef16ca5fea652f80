//! SELECT and EXAMINE with the parameters of CONDSTORE and QRESYNC (RFC 7162).

use postmerge::mailbox::{ModSeq, UidValidity};

use super::command::{mod_sequence, uid_validity};
use super::error::{Parsed, Problem};
use super::names::{MailboxArg, NameEncoding, mailbox};
use super::scanner::Scanner;
use super::set::{SequenceSet, numbered_set};

/// SELECT or EXAMINE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// Which mailbox.
    pub mailbox: MailboxArg,
    /// Whether `(CONDSTORE)` was given.
    pub condstore: bool,
    /// What the client knows of the mailbox.
    pub qresync: Option<Qresync>,
}

/// What a client knows of a mailbox and wants to be told the rest of (RFC 7162, section 3.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qresync {
    /// The last known UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// The last known mod-sequence.
    pub mod_seq: ModSeq,
    /// The UIDs that it knows; without them, all up to UIDNEXT.
    pub known_uids: Option<SequenceSet>,
    /// Some sequence numbers and their UIDs, as it remembers them.
    pub matches: Option<SequenceMatch>,
}

/// Sequence numbers and the UIDs that belong to them; a hint, to be thrown away where the two differ in length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceMatch {
    /// Sequence numbers, to be ascending.
    pub numbers: SequenceSet,
    /// UIDs, to be ascending.
    pub uids: SequenceSet,
}

pub(super) fn select(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<Select> {
    scanner.space()?;
    let mut select = Select { mailbox: mailbox(scanner, names)?, condstore: false, qresync: None };
    if scanner.eat(b' ') {
        scanner.list(|scanner| {
            if scanner.eat_word("CONDSTORE") {
                select.condstore = true;
            } else if scanner.eat_word("QRESYNC") {
                if select.qresync.is_some() {
                    return Err(scanner.fault(Problem::Conflict("QRESYNC given twice")));
                }
                scanner.space()?;
                select.qresync = Some(qresync(scanner)?);
            } else {
                return Err(scanner.expected("CONDSTORE or QRESYNC"));
            }
            Ok(())
        })?;
    }
    Ok(select)
}

fn qresync(scanner: &mut Scanner<'_>) -> Parsed<Qresync> {
    scanner.open()?;
    let uid_validity = uid_validity(scanner)?;
    scanner.space()?;
    let mod_seq = mod_sequence(scanner)?;
    let mut qresync = Qresync { uid_validity, mod_seq, known_uids: None, matches: None };
    let mut more = scanner.eat(b' ');
    if more && scanner.peek() != Some(b'(') {
        qresync.known_uids = Some(numbered_set(scanner)?);
        more = scanner.eat(b' ');
    }
    if more {
        scanner.open()?;
        let numbers = numbered_set(scanner)?;
        scanner.space()?;
        let uids = numbered_set(scanner)?;
        scanner.close()?;
        qresync.matches = Some(SequenceMatch { numbers, uids });
    }
    scanner.close()?;
    Ok(qresync)
}
