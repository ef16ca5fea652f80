//! Whose address it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use postmerge::mailbox::MailboxName;
use postmerge::replica::Replica;
use postmerge_imap::auth::UserName;

use super::reply::Reply;
use crate::incoming;
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
        let Some((user, mailbox)) = incoming::find(settings.authenticator.users(), address) else {
            return Err(Reply::new(550, "1.1", "there is no such user here"));
        };
        let mailbox = mailbox.unwrap_or_else(MailboxName::inbox);
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
