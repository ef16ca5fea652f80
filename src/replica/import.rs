//! Taking in the messages of a folder that another program kept.

use std::collections::{BTreeMap, BTreeSet};

use super::read::Snapshot;
use super::{Replica, ReplicaError, now};
use crate::blob::{BlobId, MAX_SMALL};
use crate::mailbox::{Keyword, MailboxId, MailboxName, Message, Pack, Uid, UidValidity};
use crate::uid::{Account, Imported};

/// A message of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportMessage {
    /// Its internal date in seconds since 1970.
    pub internal_date: i64,
    /// Its keywords there.
    pub keywords: BTreeSet<Keyword>,
    /// Its UID there.
    pub uid: Option<Uid>,
}

/// What an import did with a folder, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Messages that are new here.
    pub imported: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that are here already.
    pub known: u64,
    /// Messages that were expunged here, and are not brought back.
    pub expunged: u64,
    /// Bodies that were owed and are here now.
    pub bodies: u64,
    /// Whether the folder's UIDs and UIDVALIDITY are kept.
    pub adopts_uids: bool,
}

/// Imports one folder. Messages are given in the order of the folder, since equal bodies are told apart by their order; the
/// last step is [`Importer::finish`].
pub struct Importer<'a> {
    replica: &'a Replica,
    mailbox: MailboxId,
    name: MailboxName,
    /// How many messages with a body are visible in the mailbox already and have not been met.
    present: BTreeMap<BlobId, u32>,
    met: BTreeMap<BlobId, u32>,
    adopted: Option<(UidValidity, u32)>,
    again: bool,
    dry: bool,
    exists: bool,
    waiting: Vec<Imported>,
    small: Vec<Vec<u8>>,
    small_bytes: usize,
    report: ImportReport,
    /// The index as of the last write.
    snapshot: Option<Snapshot>,
}

/// Bodies that are gathered before they are written together.
const GATHER_BYTES: usize = 4 << 20;

impl Replica {
    /// Begins to import a folder into the mailbox `name`, which is made if it is not there. `adopt` is the folder's
    /// UIDVALIDITY and UIDNEXT: they and the UIDs are kept if this import makes the mailbox. `again` brings back what was
    /// expunged. A `dry` import changes nothing.
    pub fn import(
        &self,
        name: &MailboxName,
        adopt: Option<(UidValidity, u32)>,
        again: bool,
        dry: bool,
    ) -> Result<Importer<'_>, ReplicaError> {
        let found = self.view()?.view().find(name)?;
        let made = found.is_none();
        let mailbox = match found {
            Some(id) => id,
            None if dry => MailboxId::derive(name, 0),
            None => match adopt {
                Some((validity, _)) => {
                    self.change(|account, txn| account.adopt_mailbox(txn, now(), name, validity))?
                }
                None => self.create_mailbox(name, None)?,
            },
        };
        let mut present = BTreeMap::new();
        if !made {
            let snapshot = self.view()?;
            for entry in self.entries_of(mailbox)? {
                if let Some((blob, _, _)) = snapshot.view().entry(entry)? {
                    *present.entry(blob).or_default() += 1;
                }
            }
        }
        let shown = self.view()?.view().mailbox(mailbox)?;
        let takes = |validity: UidValidity| match &shown {
            // A UIDVALIDITY never falls.
            Some(shown) => shown.uid_next == 1 && shown.messages == 0 && shown.uid_validity <= validity,
            None => true,
        };
        let adopted = adopt
            .filter(|(validity, _)| takes(*validity))
            .map(|(validity, next)| (validity, next.saturating_sub(1)));
        Ok(Importer {
            replica: self,
            mailbox,
            name: name.clone(),
            present,
            met: BTreeMap::new(),
            adopted,
            again,
            dry,
            exists: !made,
            waiting: Vec::new(),
            small: Vec::new(),
            small_bytes: 0,
            report: ImportReport { adopts_uids: adopted.is_some(), ..ImportReport::default() },
            snapshot: None,
        })
    }
}

impl Importer<'_> {
    /// The mailbox that is imported into.
    pub fn mailbox(&self) -> &MailboxName {
        &self.name
    }

    /// Whether the mailbox was there before.
    pub fn existed(&self) -> bool {
        self.exists
    }

    /// Takes a message whose body is in memory.
    pub fn add(&mut self, message: ImportMessage, body: Vec<u8>) -> Result<(), ReplicaError> {
        let blob = BlobId::of(&body);
        let (wanted, held) = self.judge(&message, blob, body.len() as u64)?;
        if self.dry || held || !wanted {
            return Ok(());
        }
        if body.len() >= MAX_SMALL {
            self.replica.0.handle.bodies().put(&body)?;
        } else {
            self.small_bytes += body.len();
            self.small.push(body);
        }
        if self.small_bytes >= GATHER_BYTES {
            self.write_bodies()?;
        }
        Ok(())
    }

    /// Decides about a message: whether its body is to be stored, and whether it is here already.
    fn judge(
        &mut self,
        message: &ImportMessage,
        blob: BlobId,
        size: u64,
    ) -> Result<(bool, bool), ReplicaError> {
        let held = self.replica.0.handle.bodies().contains(blob)?;
        let occurrence = {
            let met = self.met.entry(blob).or_default();
            *met += 1;
            *met - 1
        };
        if let Some(left) = self.present.get_mut(&blob).filter(|left| **left > 0) {
            *left -= 1;
            self.report.known += 1;
            self.report.bodies += u64::from(!held);
            return Ok((true, held));
        }
        let id = Pack::imported_id(self.mailbox, &blob, occurrence);
        if self.snapshot.is_none() {
            self.snapshot = Some(self.replica.view()?);
        }
        let known = self.snapshot.as_ref().expect("it was just taken").view().entry(id)?;
        let imported = Imported {
            message: Message {
                blob,
                internal_date: message.internal_date,
                size,
                keywords: message.keywords.clone(),
            },
            occurrence,
            uid: message.uid,
        };
        match known {
            Some((_, _, Some(_))) => {
                // It was moved to another mailbox here.
                self.report.known += 1;
                self.report.bodies += u64::from(!held);
                return Ok((true, held));
            }
            Some((_, _, None)) if !self.again => {
                self.report.expunged += 1;
                return Ok((false, held));
            }
            Some((_, _, None)) if self.dry => {}
            Some((_, _, None)) => {
                // Its imported id is spent: it comes back as a message of its own.
                let message = imported.message;
                let mailbox = self.mailbox;
                self.report.imported += 1;
                self.report.bytes += size;
                self.replica.change(|account, txn| account.append(txn, now(), mailbox, vec![message]))?;
                return Ok((true, held));
            }
            None => {
                // The last batch is never empty, since it has to say where the folder's UIDs end.
                if self.waiting.len() >= Account::MAX_BATCH {
                    self.write_messages(false)?;
                }
                self.waiting.push(imported);
            }
        }
        self.report.imported += 1;
        self.report.bytes += size;
        Ok((true, held))
    }

    fn write_bodies(&mut self) -> Result<(), ReplicaError> {
        let bodies = std::mem::take(&mut self.small);
        self.small_bytes = 0;
        self.replica.0.handle.bodies().put_many(bodies)?;
        Ok(())
    }

    fn write_messages(&mut self, last: bool) -> Result<(), ReplicaError> {
        self.write_bodies()?;
        let messages = std::mem::take(&mut self.waiting);
        if self.dry || (messages.is_empty() && self.adopted.is_none()) {
            return Ok(());
        }
        let mailbox = self.mailbox;
        let adopted = self.adopted.map(|(validity, floor)| (validity, if last { floor } else { 0 }));
        self.snapshot = None;
        self.replica.change(|account, txn| Ok(((), account.import(txn, now(), mailbox, &messages, adopted)?)))
    }

    /// Writes what waits and says what was done.
    pub fn finish(mut self) -> Result<ImportReport, ReplicaError> {
        self.write_messages(true)?;
        Ok(self.report)
    }
}
