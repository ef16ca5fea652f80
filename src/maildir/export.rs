//! What an export will write: a Maildir++ tree that an unmodified Dovecot serves under our UIDs. Pure; see
//! [`ExportPlan::apply`] for the rest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::file_name::{BaseName, FileNameError, Letters, has_fixed_letter};
use super::folder_name::to_maildir_plus_plus;
use super::keywords::KeywordTable;
use crate::blob::{BlobId, MAX_BLOB};
use crate::mailbox::{EntryId, Keyword, MailboxId, MailboxName, Uid, UidValidity};

/// A mailbox to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportMailbox {
    /// Becomes the GUID in the uidlist.
    pub id: MailboxId,
    /// Its name.
    pub name: MailboxName,
    /// Its UIDVALIDITY.
    pub validity: UidValidity,
    /// Its UIDNEXT, above all of its UIDs.
    pub next: Uid,
    /// Whether it is subscribed.
    pub subscribed: bool,
    /// Its messages, in any order.
    pub messages: Vec<ExportMessage>,
}

/// A message to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportMessage {
    /// Makes the file's name unique.
    pub entry: EntryId,
    /// Its UID.
    pub uid: Uid,
    /// Names its body for whoever opens it.
    pub blob: BlobId,
    /// Bytes of the body.
    pub size: u64,
    /// Internal date in Unix seconds; becomes the file's modification time.
    pub internal_date: i64,
    /// Its flags and keywords.
    pub keywords: BTreeSet<Keyword>,
}

/// Everything that an export will write, decided. Holds no body.
#[derive(Debug)]
pub struct ExportPlan<'a> {
    pub(super) folders: Vec<PlannedFolder<'a>>,
    notes: Vec<ExportNote>,
}

/// One folder. The first is the root, whether there is an INBOX or not.
#[derive(Debug)]
pub(super) struct PlannedFolder<'a> {
    /// Directory below the root; "" is the root.
    pub(super) dir: String,
    /// Nothing for a root without an INBOX.
    pub(super) mailbox: Option<&'a ExportMailbox>,
    pub(super) keywords: KeywordTable,
    /// By UID.
    pub(super) files: Vec<PlannedFile<'a>>,
}

#[derive(Debug)]
pub(super) struct PlannedFile<'a> {
    pub(super) message: &'a ExportMessage,
    pub(super) letters: Letters,
}

/// What Maildir cannot hold as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportNote {
    /// A folder cannot have the mailbox's name: it has a dot in a level, or is too long.
    Renamed {
        /// The mailbox.
        mailbox: MailboxName,
        /// The directory that it becomes.
        dir: String,
    },
    /// More keywords than a folder has letters; the most used ones have them.
    KeywordLost {
        /// The mailbox.
        mailbox: MailboxName,
        /// The keyword.
        keyword: Keyword,
        /// How many messages lose it.
        messages: u64,
    },
}

/// Why mailboxes cannot be exported: they contradict themselves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two mailboxes have one name.
    #[error("two mailboxes are called {name:?}")]
    SameName {
        /// The name.
        name: MailboxName,
    },
    /// Two messages of a mailbox have one UID, or one entry is there twice.
    #[error("mailbox {mailbox:?}: UID {uid} or its message is there twice")]
    Twice {
        /// The mailbox.
        mailbox: MailboxName,
        /// The UID.
        uid: Uid,
    },
    /// A UID is not below UIDNEXT.
    #[error("mailbox {mailbox:?}: UID {uid} is not below UIDNEXT {next}")]
    Next {
        /// The mailbox.
        mailbox: MailboxName,
        /// The UID.
        uid: Uid,
        /// UIDNEXT.
        next: Uid,
    },
    /// A message is larger than one may be ([`MAX_BLOB`]).
    #[error("mailbox {mailbox:?}: the message with UID {uid} is too large")]
    TooLarge {
        /// The mailbox.
        mailbox: MailboxName,
        /// The UID.
        uid: Uid,
    },
}

impl<'a> ExportPlan<'a> {
    /// Decides what to write.
    pub fn new(mailboxes: &'a [ExportMailbox]) -> Result<ExportPlan<'a>, PlanError> {
        let mut by_name = BTreeMap::new();
        for mailbox in mailboxes {
            if by_name.insert(&mailbox.name, mailbox).is_some() {
                return Err(PlanError::SameName { name: mailbox.name.clone() });
            }
        }
        let mut notes = Vec::new();
        let mut dirs = BTreeSet::new();
        let root = by_name.remove(&MailboxName::inbox());
        let mut folders = vec![match root {
            Some(inbox) => plan_folder(String::new(), inbox, &mut notes)?,
            None => PlannedFolder {
                dir: String::new(),
                mailbox: None,
                keywords: KeywordTable::default(),
                files: Vec::new(),
            },
        }];
        // Exact names first, so that none has to give way to a changed one.
        let (exact, changed): (Vec<_>, Vec<_>) = by_name
            .into_values()
            .partition(|mailbox| to_maildir_plus_plus(&mailbox.name, &BTreeSet::new()).1);
        for mailbox in exact.into_iter().chain(changed) {
            let (dir, is_exact) = to_maildir_plus_plus(&mailbox.name, &dirs);
            dirs.insert(dir.clone());
            if !is_exact {
                notes.push(ExportNote::Renamed { mailbox: mailbox.name.clone(), dir: dir.clone() });
            }
            folders.push(plan_folder(dir, mailbox, &mut notes)?);
        }
        Ok(ExportPlan { folders, notes })
    }

    /// What will not be written as it is.
    pub fn notes(&self) -> &[ExportNote] {
        &self.notes
    }

    /// How many messages will be written.
    pub fn messages(&self) -> u64 {
        self.folders.iter().map(|folder| folder.files.len() as u64).sum()
    }

    /// How many bytes of bodies will be written.
    pub fn bytes(&self) -> u64 {
        self.folders.iter().flat_map(|folder| &folder.files).map(|file| file.message.size).sum()
    }
}

impl PlannedFile<'_> {
    /// The name that the file gets once its size with CRLF line ends is known.
    pub(super) fn base(&self, crlf_size: u64) -> Result<BaseName, FileNameError> {
        let token = format!("{}.postmerge", self.message.entry);
        BaseName::unique(self.message.internal_date, &token, self.message.size, crlf_size)
    }
}

fn plan_folder<'a>(
    dir: String,
    mailbox: &'a ExportMailbox,
    notes: &mut Vec<ExportNote>,
) -> Result<PlannedFolder<'a>, PlanError> {
    let mut by_uid = BTreeMap::new();
    let mut entries = BTreeSet::new();
    for message in &mailbox.messages {
        let (name, uid) = (|| mailbox.name.clone(), message.uid);
        if by_uid.insert(uid, message).is_some() || !entries.insert(message.entry) {
            return Err(PlanError::Twice { mailbox: name(), uid });
        }
        if uid >= mailbox.next {
            return Err(PlanError::Next { mailbox: name(), uid, next: mailbox.next });
        }
        if message.size > MAX_BLOB {
            return Err(PlanError::TooLarge { mailbox: name(), uid });
        }
    }
    let keywords = plan_keywords(mailbox, notes);
    let file = |message: &'a ExportMessage| {
        let mut letters = Letters::default();
        letters.set_keywords(&message.keywords, &keywords);
        PlannedFile { message, letters }
    };
    let files = by_uid.into_values().map(file).collect();
    Ok(PlannedFolder { dir, mailbox: Some(mailbox), keywords, files })
}

/// Gives the letters to the most used keywords, in the keywords' order, so that a rerun writes the same.
fn plan_keywords(mailbox: &ExportMailbox, notes: &mut Vec<ExportNote>) -> KeywordTable {
    let mut uses: BTreeMap<&Keyword, u64> = BTreeMap::new();
    for keyword in mailbox.messages.iter().flat_map(|message| &message.keywords) {
        if !keyword.is_system() {
            *uses.entry(keyword).or_default() += 1;
        }
    }
    let mut ranked: Vec<(&Keyword, u64)> = uses.into_iter().collect();
    // $Forwarded has a letter of its own for those who know it, so that it is the first to give way.
    ranked.sort_by_key(|(keyword, uses)| (has_fixed_letter(keyword), Reverse(*uses), *keyword));
    let lost = ranked.split_off(ranked.len().min(KeywordTable::MAX));
    for (keyword, messages) in lost.into_iter().filter(|(keyword, _)| !has_fixed_letter(keyword)) {
        notes.push(ExportNote::KeywordLost {
            mailbox: mailbox.name.clone(),
            keyword: keyword.clone(),
            messages,
        });
    }
    let mut table = KeywordTable::default();
    for keyword in ranked.into_iter().map(|(keyword, _)| keyword).collect::<BTreeSet<_>>() {
        table.add(keyword);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(name: &str, messages: Vec<ExportMessage>) -> ExportMailbox {
        ExportMailbox {
            id: MailboxId::from_bytes([7; 16]),
            name: name.parse().unwrap(),
            validity: UidValidity::new(9).unwrap(),
            next: Uid::new(100).unwrap(),
            subscribed: true,
            messages,
        }
    }

    fn message(uid: u32, keywords: &[&str]) -> ExportMessage {
        ExportMessage {
            entry: EntryId::from_bytes([uid as u8; 16]),
            uid: Uid::new(uid).unwrap(),
            blob: BlobId::of(b""),
            size: 1,
            internal_date: 0,
            keywords: keywords.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let inbox = MailboxName::inbox();
        let uid = |n| Uid::new(n).unwrap();
        let plan = |messages| ExportPlan::new(&[mailbox("INBOX", messages)]).map(|_| ()).unwrap_err();
        assert_eq!(
            plan(vec![message(1, &[]), message(1, &[])]),
            PlanError::Twice { mailbox: inbox.clone(), uid: uid(1) }
        );
        assert_eq!(
            plan(vec![message(100, &[])]),
            PlanError::Next { mailbox: inbox.clone(), uid: uid(100), next: uid(100) }
        );
        let same = [mailbox("INBOX", vec![]), mailbox("inbox", vec![])];
        assert_eq!(ExportPlan::new(&same).map(|_| ()).unwrap_err(), PlanError::SameName { name: inbox });
    }

    #[test]
    fn an_exact_name_never_gives_way() {
        let mailboxes = [mailbox("a.b", vec![]), mailbox("a_b", vec![]), mailbox("z", vec![])];
        let plan = ExportPlan::new(&mailboxes).unwrap();
        let dirs: Vec<&str> = plan.folders.iter().map(|folder| &*folder.dir).collect();
        assert_eq!(dirs, ["", ".a_b", ".z", ".a_b~2"]);
        assert_eq!(
            plan.notes(),
            [ExportNote::Renamed { mailbox: "a.b".parse().unwrap(), dir: ".a_b~2".into() }]
        );
    }

    #[test]
    fn the_most_used_keywords_have_the_letters() {
        let names: Vec<String> = (0..27).map(|n| format!("k{n:02}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).chain(["$Forwarded", "\\Seen"]).collect();
        let mailboxes = [mailbox("INBOX", vec![message(1, &all), message(2, &all[1..])])];
        let plan = ExportPlan::new(&mailboxes).unwrap();
        let lost = ExportNote::KeywordLost {
            mailbox: MailboxName::inbox(),
            keyword: "k00".parse().unwrap(),
            messages: 1,
        };
        assert_eq!(plan.notes(), [lost]);
        assert_eq!(format!("{:?}", plan.folders[0].files[0].letters), "PSabcdefghijklmnopqrstuvwxyz");
    }
}
