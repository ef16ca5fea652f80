//! What all mail that is delivered has in common, whichever way it came in.

use std::collections::BTreeSet;

use postmerge::blob::BlobId;
use postmerge::mailbox::{Keyword, MailboxName};
use postmerge::replica::{Appended, NewMessage, Replica, ReplicaError};
use postmerge::store::StoreError;
use postmerge::uid::AccountError;

/// Adds a message to the mailbox that is meant for it, or to INBOX if that is not there: mail is not sent back because
/// somebody deleted a mailbox. It is durable when this returns. Gives the mailbox that it went to.
pub(crate) fn add(
    replica: &Replica,
    meant: &MailboxName,
    body: BlobId,
    keywords: &BTreeSet<Keyword>,
) -> Result<(MailboxName, Appended), ReplicaError> {
    let add = |to: &MailboxName| {
        let message = NewMessage { body, keywords: keywords.clone(), internal_date: None };
        Ok((to.clone(), replica.append_all(to, vec![message])?.messages[0]))
    };
    match add(meant) {
        Err(ReplicaError::Account(AccountError::NoMailbox { .. })) if !meant.is_inbox() => {
            add(&MailboxName::inbox())
        }
        added => added,
    }
}

/// Whether the message is larger than any store takes, so that trying again is of no use.
pub(crate) fn is_too_large(error: &ReplicaError) -> bool {
    matches!(error, ReplicaError::Store(StoreError::TooLarge { .. }))
}

/// The header that final delivery puts in front of a message (RFC 5321, section 4.4): who gets it back if need be. The
/// sender is an address without its quotes, or empty.
pub(crate) fn return_path(sender: &str, line_end: &str) -> String {
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || !c.is_ascii();
    let path = match sender.rsplit_once('@') {
        Some((local, domain)) if !local.chars().all(atom) => {
            let local = local.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{local}\"@{domain}")
        }
        _ => sender.to_owned(),
    };
    format!("Return-Path: <{path}>{line_end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_quoted_where_they_must_be() {
        for (sender, path) in [
            ("", "<>"),
            ("kim@example.org", "<kim@example.org>"),
            ("k.m+x=y@example.org", "<k.m+x=y@example.org>"),
            ("käthe@例え.jp", "<käthe@例え.jp>"),
            ("a b@example.org", "<\"a b\"@example.org>"),
            ("a@b@example.org", "<\"a@b\"@example.org>"),
            ("a\"b\\>@example.org", "<\"a\\\"b\\\\>\"@example.org>"),
        ] {
            assert_eq!(return_path(sender, "\n"), format!("Return-Path: {path}\n"));
        }
    }
}
