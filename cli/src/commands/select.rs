//! Which messages a verb is about, and flags as people write them.

use std::str::FromStr;

use postmerge::mailbox::{Keyword, KeywordError, MailboxName, Uid};
use postmerge::replica::{Replica, ReplicaError};
use postmerge::uid::Seen;

/// UIDs as IMAP writes them: `7`, `3,9`, `10:20`, `5:*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UidSet(Vec<(Uid, Option<Uid>)>);

impl FromStr for UidSet {
    type Err = String;

    fn from_str(text: &str) -> Result<UidSet, String> {
        let uid = |text: &str| text.parse().ok().and_then(Uid::new);
        let part = |part: &str| match part.split_once(':') {
            None => uid(part).map(|uid| (uid, Some(uid))),
            Some((first, "*")) => uid(first).map(|first| (first, None)),
            Some((first, last)) => {
                let (first, last) = (uid(first)?, uid(last)?);
                Some((first.min(last), Some(first.max(last))))
            }
        };
        let parts: Option<Vec<_>> = text.split(',').map(part).collect();
        parts.map(UidSet).ok_or_else(|| "UIDs are written as 7 or 3,9 or 10:20 or 5:*".into())
    }
}

impl UidSet {
    /// The UIDs that there are. One that is named by itself must be there.
    /// The mailbox as it was seen goes with them.
    pub(crate) fn of(
        &self,
        replica: &Replica,
        mailbox: &MailboxName,
    ) -> Result<(Seen, Vec<Uid>), ReplicaError> {
        let (snapshot, seen) = replica.open_mailbox(mailbox)?;
        let mut uids = std::collections::BTreeSet::new();
        for (first, last) in &self.0 {
            if *last == Some(*first) {
                if snapshot.message(seen.id, *first)?.is_none() {
                    return Err(ReplicaError::NoMessage { mailbox: mailbox.clone(), uid: *first });
                }
                uids.insert(*first);
                continue;
            }
            let meant = |uid: &Uid| uid >= first && last.is_none_or(|last| *uid <= last);
            uids.extend(snapshot.uids(seen.id)?.into_iter().filter(meant));
        }
        Ok((seen.seen(), uids.into_iter().collect()))
    }
}

/// Writes UIDs as a set is read, in the order given: the set of new UIDs that a copy prints matches that of the old ones.
pub(crate) fn listed(uids: &[Uid]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for uid in uids.iter().map(|uid| uid.value()) {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
            _ => runs.push((uid, uid)),
        }
    }
    let runs = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}:{last}"),
    });
    runs.collect::<Vec<_>>().join(",")
}

/// A flag or keyword; the five system flags may be written without their backslash, which shells swallow.
pub(crate) fn keyword(text: &str) -> Result<Keyword, KeywordError> {
    let system = ["seen", "answered", "flagged", "deleted", "draft"];
    match system.iter().find(|name| name.eq_ignore_ascii_case(text)) {
        Some(name) => format!("\\{name}").parse(),
        None => text.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_flags_are_read_as_people_write_them() {
        let uid = |n| Uid::new(n).unwrap();
        let set: UidSet = "7,9:3,5:*".parse().unwrap();
        assert_eq!(set.0, [(uid(7), Some(uid(7))), (uid(3), Some(uid(9))), (uid(5), None)]);
        assert_eq!(listed(&[1, 2, 3, 7, 5, 6].map(uid)), "1:3,7,5:6");
        assert_eq!(listed(&[]), "");
        for bad in ["", "0", "a", "1,", "*"] {
            assert!(bad.parse::<UidSet>().is_err(), "{bad:?}");
        }
        assert_eq!(keyword("Seen").unwrap(), Keyword::seen());
        assert_eq!(keyword("\\seen").unwrap(), Keyword::seen());
        assert_eq!(keyword("work").unwrap().as_str(), "work");
    }
}
