//! Whose address it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use postmerge::mailbox::MailboxName;
use postmerge::replica::Replica;
use postmerge_imap::auth::{User, UserName, Users};

use super::reply::Reply;
use crate::users::Directory;

/// Where a message for a recipient goes.
#[derive(Clone)]
pub(super) struct Recipient {
    /// The user, for the log.
    pub(super) user: UserName,
    /// The directory of the replica: what tells two of them apart.
    pub(super) store: PathBuf,
    pub(super) replica: Replica,
    /// The mailbox that the address names, which may not be there.
    pub(super) mailbox: MailboxName,
}

/// The users of this machine, and the replicas that are served.
pub(super) struct Recipients {
    users: Directory,
    hosted: BTreeMap<PathBuf, Replica>,
}

impl Recipients {
    /// `hosted` goes by directory, each as the system spells it.
    pub(super) fn new(users: Directory, hosted: BTreeMap<PathBuf, Replica>) -> Recipients {
        Recipients { users, hosted }
    }

    /// The recipient of an address. The users are those of now.
    pub(super) fn find(&self, address: &str) -> Result<Recipient, Reply> {
        let settings = self.users.settings();
        let Some((user, mailbox)) = find(settings.authenticator.users(), address) else {
            return Err(Reply::new(550, "1.1", "there is no such user here"));
        };
        let store = user.replica().canonicalize().unwrap_or_else(|_| user.replica().to_owned());
        let Some(replica) = self.hosted.get(&store).cloned() else {
            // It can be mended here, so the mail stays where it is.
            let user = user.name().as_str();
            tracing::error!(user, store = %store.display(), "mail for a replica that is not served: add --host");
            return Err(Reply::new(451, "3.5", "that user's mail is not served here now"));
        };
        Ok(Recipient { user: user.name().clone(), store, replica, mailbox })
    }
}

/// The user of an address, and the mailbox that it names. Users may be called by whole addresses or by what stands before
/// the `@`; what follows a `+` is a mailbox unless the user's name has it too. Letters count as they are written, else as
/// small ones.
fn find<'a>(users: &'a Users, address: &str) -> Option<(&'a User, MailboxName)> {
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
                return Some((user, detail.clone().unwrap_or_else(MailboxName::inbox)));
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
            ("kim@example.org", Some(("kim", "INBOX"))),
            ("kim", Some(("kim", "INBOX"))),
            ("KIM@localhost", Some(("kim", "INBOX"))),
            ("kim+Lists/rust@example.org", Some(("kim", "Lists/rust"))),
            ("kim+a+b@example.org", Some(("kim", "a+b"))),
            ("kim+inbox@example.org", Some(("kim", "INBOX"))),
            // What is no name of a mailbox names none.
            ("kim+@example.org", Some(("kim", "INBOX"))),
            ("kim+../x@example.org", Some(("kim", "INBOX"))),
            ("Lee@example.org", Some(("Lee", "INBOX"))),
            ("lee@example.org", None),
            ("pat@example.org", Some(("pat@example.org", "INBOX"))),
            ("Pat+Work@EXAMPLE.org", Some(("pat@example.org", "Work"))),
            ("pat@example.com", None),
            ("root+news@example.org", Some(("root+news", "INBOX"))),
            ("root@example.org", None),
            ("two words@example.org", Some(("two words", "INBOX"))),
            ("Ann@Example.org", Some(("Ann@Example.org", "INBOX"))),
            ("", Some(("postmaster", "INBOX"))),
            ("@example.org", None),
            ("+kim@example.org", None),
            ("kim\u{ad}+x@example.org", Some(("kim", "x"))),
            ("nul\u{0}@example.org", None),
        ] {
            let found = find(&users, address);
            let found = found.as_ref().map(|(user, mailbox)| (user.name().as_str(), mailbox.as_str()));
            assert_eq!(found, wanted, "{address:?}");
        }
    }
}
