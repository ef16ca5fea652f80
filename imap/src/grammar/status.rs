//! What STATUS tells of a mailbox (RFC 9051, section 6.3.11).

use super::error::Parsed;
use super::scanner::Scanner;

/// One thing that STATUS tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatusItem {
    /// How many messages there are.
    Messages,
    /// How many are recent (RFC 3501).
    Recent,
    /// The next UID.
    UidNext,
    /// The UIDVALIDITY.
    UidValidity,
    /// How many have no `\Seen`.
    Unseen,
    /// How many have `\Deleted`.
    Deleted,
    /// The sum of their sizes.
    Size,
    /// The highest mod-sequence (RFC 7162); asking for it enables CONDSTORE.
    HighestModSeq,
    /// The mailbox's id (RFC 8474).
    MailboxId,
}

impl StatusItem {
    const TABLE: [(&str, StatusItem); 9] = [
        ("MESSAGES", StatusItem::Messages),
        ("RECENT", StatusItem::Recent),
        ("UIDNEXT", StatusItem::UidNext),
        ("UIDVALIDITY", StatusItem::UidValidity),
        ("UNSEEN", StatusItem::Unseen),
        ("DELETED", StatusItem::Deleted),
        ("SIZE", StatusItem::Size),
        ("HIGHESTMODSEQ", StatusItem::HighestModSeq),
        ("MAILBOXID", StatusItem::MailboxId),
    ];
}

/// `(MESSAGES UNSEEN)`, each once, in the client's order.
pub(super) fn status_items(scanner: &mut Scanner<'_>) -> Parsed<Vec<StatusItem>> {
    let mut items = Vec::new();
    scanner.list(|scanner| {
        let item = scanner.one_of("a STATUS item", &StatusItem::TABLE)?;
        if !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    Ok(items)
}
