//! What a member does for an account, and which changes that lets it make.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mailbox::Touched;

/// What a member does for an account.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves mail clients and assigns UIDs; owns a lane.
    Server,
    /// Holds and changes mail, but assigns no shared UIDs.
    Observer,
    /// Holds mail and changes nothing.
    Reader,
    /// Holds mail and may add messages to mailboxes, nothing else.
    Deliver,
}

impl Role {
    const ALL: [Role; 4] = [Role::Server, Role::Observer, Role::Reader, Role::Deliver];

    /// The number that formats use.
    pub const fn code(self) -> u8 {
        match self {
            Role::Server => 1,
            Role::Observer => 2,
            Role::Reader => 3,
            Role::Deliver => 4,
        }
    }

    /// Nothing for a number that this version does not know.
    pub fn from_code(code: u64) -> Option<Role> {
        Role::ALL.into_iter().find(|role| u64::from(role.code()) == code)
    }

    /// Its name, as people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Observer => "observer",
            Role::Reader => "reader",
            Role::Deliver => "deliver",
        }
    }

    /// Whether a change that wrote `touched` is one that a member in this role may make; if not, what it may not do.
    pub fn permits(self, touched: &Touched) -> Result<(), Overstep> {
        let Touched { packs: _, places, stays: _, keywords, mailboxes, uids } = touched;
        let alters = !places.is_empty() || !keywords.is_empty() || !mailboxes.is_empty();
        match self {
            Role::Server => Ok(()),
            Role::Reader => Err(Overstep::Write),
            Role::Observer | Role::Deliver if !uids.is_empty() => Err(Overstep::Claim),
            Role::Deliver if alters => Err(Overstep::Alter),
            Role::Observer | Role::Deliver => Ok(()),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Role, RoleError> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or(RoleError)
    }
}

/// A text is not a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is server, observer, reader or deliver")]
pub struct RoleError;

/// What a change does that its author's role does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overstep {
    /// It is a reader's.
    #[error("changes the mail")]
    Write,
    /// Only servers do.
    #[error("assigns UIDs")]
    Claim,
    /// It does more than add messages.
    #[error("does more than add messages")]
    Alter,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{EntryId, MailboxId, PackId};

    #[test]
    fn each_role_may_write_what_its_name_says() {
        let nothing = Touched::default;
        let adds = Touched { packs: [(PackId::from_bytes([1; 16]), 0)].into(), ..nothing() };
        let moves = Touched { places: [EntryId::from_bytes([1; 16])].into(), ..adds.clone() };
        let names = Touched { mailboxes: [MailboxId::inbox()].into(), ..adds.clone() };
        let claims = Touched { uids: [[1; 16]].into(), ..adds.clone() };
        let may = |role: Role| [&adds, &moves, &names, &claims].map(|touched| role.permits(touched).is_ok());
        assert_eq!(may(Role::Server), [true, true, true, true]);
        assert_eq!(may(Role::Observer), [true, true, true, false]);
        assert_eq!(may(Role::Deliver), [true, false, false, false]);
        assert_eq!(may(Role::Reader), [false, false, false, false]);
    }

    #[test]
    fn names_and_codes_come_back() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert_eq!(Role::from_code(role.code().into()), Some(role));
        }
        assert_eq!(Role::from_code(5), None);
    }
}
