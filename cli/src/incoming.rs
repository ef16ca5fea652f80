//! What all mail that is delivered has in common, whichever way it came in.

use std::collections::BTreeSet;

use postmerge::blob::BlobId;
use postmerge::mailbox::{Keyword, MailboxName};
use postmerge::replica::{Appended, NewMessage, Replica, ReplicaError};
use postmerge::store::StoreError;
use postmerge::uid::AccountError;
use postmerge_imap::auth::{User, Users};

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
    // A line end would begin another header.
    let sender: String = sender.chars().filter(|c| !c.is_control()).collect();
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || !c.is_ascii();
    let path = match sender.rsplit_once('@') {
        Some((local, domain)) if !local.chars().all(atom) => {
            let local = local.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{local}\"@{domain}")
        }
        _ => sender,
    };
    format!("Return-Path: <{path}>{line_end}")
}

/// The user of an address, and the mailbox that it names if it does. Users may be called by whole addresses or by what stands before
/// the `@`; what follows a `+` is a mailbox unless the user's name has it too. Letters count as they are written, else as
/// small ones.
pub(crate) fn find<'a>(users: &'a Users, address: &str) -> Option<(&'a User, Option<MailboxName>)> {
    let (local, domain) = match address.rsplit_once('@') {
        Some((local, domain)) => (local, Some(domain)),
        None => (address, None),
    };
    // RFC 5321, section 4.5.1: the parser gives the address without a domain so.
    let local = if address.is_empty() { "postmaster" } else { local };
    let whole = |local: &str| domain.map(|domain| format!("{local}@{domain}"));
    let (base, detail) = match local.split_once('+') {
        Some((base, detail)) => (base, detail.parse().ok()),
        None => (local, None),
    };
    let names = [
        (whole(local), None),
        (Some(local.to_owned()), None),
        (whole(base), detail.clone()),
        (Some(base.to_owned()), detail),
    ];
    for lower in [false, true] {
        for (name, detail) in &names {
            let name = name.as_ref().map(|name| if lower { name.to_lowercase() } else { name.clone() });
            let user = name.and_then(|name| name.parse().ok()).and_then(|name| users.find(&name));
            if let Some((user, _)) = user {
                return Some((user, detail.clone()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use postmerge_imap::auth::{Iterations, Salt, Verifier};

    use super::*;

    #[test]
    fn senders_are_quoted_where_they_must_be() {
        for (sender, path) in [
            ("", "<>"),
            ("kim@example.org", "<kim@example.org>"),
            ("k.m+x=y@example.org", "<k.m+x=y@example.org>"),
            ("käthe@例え.jp", "<käthe@例え.jp>"),
            ("a\r\nX: y@example.org", "<\"aX: y\"@example.org>"),
            ("a b@example.org", "<\"a b\"@example.org>"),
            ("a@b@example.org", "<\"a@b\"@example.org>"),
            ("a\"b\\>@example.org", "<\"a\\\"b\\\\>\"@example.org>"),
        ] {
            assert_eq!(return_path(sender, "\n"), format!("Return-Path: {path}\n"));
        }
    }

    #[test]
    fn addresses_mean_users_and_mailboxes() {
        let iterations = Iterations::new(4096).unwrap();
        let verifier = Verifier::derive(b"x", Salt::new([1; 8]).unwrap(), iterations).unwrap();
        let mut users = Users::default();
        for name in
            ["kim", "Lee", "pat@example.org", "root+news", "two words", "Ann@Example.org", "postmaster"]
        {
            users.insert(User::new(name.parse().unwrap(), "/x").unwrap(), verifier.clone());
        }
        for (address, wanted) in [
            ("kim@example.org", Some(("kim", "-"))),
            ("kim", Some(("kim", "-"))),
            ("KIM@localhost", Some(("kim", "-"))),
            ("kim+Lists/rust@example.org", Some(("kim", "Lists/rust"))),
            ("kim+a+b@example.org", Some(("kim", "a+b"))),
            ("kim+inbox@example.org", Some(("kim", "INBOX"))),
            // What is no name of a mailbox names none.
            ("kim+@example.org", Some(("kim", "-"))),
            ("kim+../x@example.org", Some(("kim", "-"))),
            ("Lee@example.org", Some(("Lee", "-"))),
            ("lee@example.org", None),
            ("pat@example.org", Some(("pat@example.org", "-"))),
            ("Pat+Work@EXAMPLE.org", Some(("pat@example.org", "Work"))),
            ("pat@example.com", None),
            ("root+news@example.org", Some(("root+news", "-"))),
            ("root@example.org", None),
            ("two words@example.org", Some(("two words", "-"))),
            ("Ann@Example.org", Some(("Ann@Example.org", "-"))),
            ("", Some(("postmaster", "-"))),
            ("@example.org", None),
            ("+kim@example.org", None),
            ("kim\u{ad}+x@example.org", Some(("kim", "x"))),
            ("nul\u{0}@example.org", None),
        ] {
            let found = find(&users, address);
            let mailbox =
                |named: &Option<MailboxName>| named.as_ref().map_or("-", MailboxName::as_str).to_owned();
            let found = found.as_ref().map(|(user, named)| (user.name().as_str(), mailbox(named)));
            let wanted = wanted.map(|(user, mailbox): (&str, &str)| (user, mailbox.to_owned()));
            assert_eq!(found, wanted, "{address:?}");
        }
    }
}
