//! Taking in the messages of a folder that another program kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, ErrorKind, Read};

use super::core::Standing;
use super::read::Snapshot;
use super::{Replica, ReplicaError, now};
use crate::blob::{BlobHasher, BlobId, MAX_BLOB, MAX_SMALL};
use crate::mailbox::{Keyword, MailboxId, MailboxName, Message, Pack, Run, Uid, UidValidity};
use crate::store::{BodyWriter, StoreError, Txn};
use crate::uid::{Account, AccountError, Imported, Mailbox, TableError, Tables, Written};

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
    /// Those of them whose files another program altered.
    pub altered: u64,
    /// Messages that were expunged here, and are not brought back.
    pub expunged: u64,
    /// Bodies that were owed and are here now.
    pub bodies: u64,
    /// Whether the folder's UIDs and UIDVALIDITY are kept.
    pub adopts_uids: bool,
}

/// A message that is in the mailbox and has not been met in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// Its body.
    pub body: BlobId,
    /// The body's size in bytes.
    pub size: u64,
    /// Whether the body is here.
    pub here: bool,
}

/// Imports one folder. Messages are given in the order of the folder, since equal bodies are told apart by their order; the
/// last step is [`Importer::finish`].
pub struct Importer<'a> {
    replica: &'a Replica,
    mailbox: MailboxId,
    /// The mailboxes that were first made under the name: what was imported into one of them is known, wherever it is now.
    before: Vec<MailboxId>,
    name: MailboxName,
    /// How many messages with a body are visible in the mailbox already and have not been met.
    present: BTreeMap<BlobId, Present>,
    met: BTreeMap<BlobId, u32>,
    adopted: Option<(UidValidity, u32)>,
    again: bool,
    dry: bool,
    exists: bool,
    /// Whether nothing was ever in the mailbox.
    first: bool,
    waiting: Vec<Imported>,
    /// Messages that were expunged here and come back as messages of their own.
    again_here: Vec<Message>,
    seen: u64,
    small: Vec<Vec<u8>>,
    small_bytes: usize,
    /// Bodies that were owed and came.
    arrived: Vec<BlobId>,
    report: ImportReport,
    /// The index as of the last write.
    snapshot: Option<Snapshot>,
}

/// Equal messages of the mailbox.
#[derive(Clone, Copy, Default)]
struct Present {
    left: u32,
    size: u64,
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
        self.must_be_joined()?;
        let snapshot = self.view()?;
        let view = snapshot.view();
        let (found, before) = (view.find(name)?, view.incarnations(name)?);
        // A mailbox that is not there is made with the first messages, so that a folder of which everything was expunged
        // here does not come back as an empty mailbox.
        let mailbox = found.unwrap_or_else(|| MailboxId::derive(name, before.len() as u32));
        let mut present = BTreeMap::new();
        if found.is_some() {
            for entry in view.entries_of(mailbox)? {
                if let Some((blob, size, _)) = view.entry(entry)? {
                    let present: &mut Present = present.entry(blob).or_default();
                    (present.left, present.size) = (present.left + 1, size);
                }
            }
        }
        // An observer never claims, and a UIDVALIDITY without its UIDs would be a lie.
        let adopt = adopt.filter(|_| self.standing() != Standing::Observer);
        let shown = view.mailbox(mailbox)?;
        let adopted = adopt
            .filter(|(validity, next)| may_adopt(shown.as_ref(), before.is_empty(), *validity, *next))
            .map(|(validity, next)| (validity, next.saturating_sub(1)));
        let first = present.is_empty()
            && before.iter().all(|before| *before == mailbox)
            && shown.is_none_or(|shown| shown.uid_next == 1);
        Ok(Importer {
            replica: self,
            mailbox,
            before,
            name: name.clone(),
            present,
            met: BTreeMap::new(),
            adopted,
            again,
            dry,
            exists: found.is_some(),
            first,
            waiting: Vec::new(),
            again_here: Vec::new(),
            seen: 0,
            small: Vec::new(),
            small_bytes: 0,
            arrived: Vec::new(),
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

    /// The replica that is imported into.
    pub fn replica(&self) -> &Replica {
        self.replica
    }

    /// Whether nothing was ever in the mailbox, so that every message of the folder is new.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Whether a message with this body, given next, would be one that is here, or was expunged here.
    pub fn knows(&mut self, body: BlobId) -> Result<bool, ReplicaError> {
        if self.present.get(&body).is_some_and(|present| present.left > 0) {
            return Ok(true);
        }
        let occurrence = self.met.get(&body).copied().unwrap_or(0);
        Ok(self.imported_before(body, occurrence)?.is_some())
    }

    /// The messages of the mailbox that have not been met.
    pub fn unmet(&self) -> Result<Vec<Unmet>, ReplicaError> {
        let mut unmet = Vec::new();
        for (body, present) in &self.present {
            let bodies = self.replica.0.handle.bodies();
            bodies.pin(*body);
            let here = bodies.contains_sized(*body, present.size)?;
            let one = Unmet { body: *body, size: present.size, here };
            unmet.extend(std::iter::repeat_n(one, present.left as usize));
        }
        Ok(unmet)
    }

    /// The folder has this message of the mailbox with other bytes, because another program altered its file.
    pub fn meet_altered(&mut self, unmet: &Unmet) {
        if let Some(present) = self.present.get_mut(&unmet.body) {
            present.left = present.left.saturating_sub(1);
        }
        *self.met.entry(unmet.body).or_default() += 1;
        self.seen += 1;
        self.report.known += 1;
        self.report.altered += 1;
    }

    /// Takes a message. Its body is streamed: a mebibyte of it is in memory at most, and 4 MiB of small ones that wait to be
    /// written together. If the reader fails ([`ReplicaError::Source`]), or the message is too large, the next one can be
    /// taken all the same. Gives the body's name.
    pub fn add(&mut self, message: ImportMessage, body: impl Read) -> Result<BlobId, ReplicaError> {
        let (count, limit) = (message.keywords.len(), Pack::MAX_KEYWORDS);
        if count > limit {
            return Err(AccountError::TooMany { what: "keywords of one message", count, limit }.into());
        }
        let (mut body, mut start) = (body, Vec::new());
        let read = (&mut body).take(MAX_SMALL as u64).read_to_end(&mut start);
        read.map_err(|source| ReplicaError::Source { source })?;
        if start.len() >= MAX_SMALL {
            return self.add_large(&message, start, body);
        }
        let blob = BlobId::of(&start);
        let (wanted, held) = self.judge(&message, blob, start.len() as u64)?;
        if self.dry || held || !wanted {
            return Ok(blob);
        }
        self.small_bytes += start.len();
        self.small.push(start);
        if self.small_bytes >= GATHER_BYTES {
            self.write_bodies()?;
        }
        Ok(blob)
    }

    /// Whether a body is wanted is known at its end, so it goes to the disk before that; a dry import only names it.
    fn add_large(
        &mut self,
        message: &ImportMessage,
        start: Vec<u8>,
        body: impl Read,
    ) -> Result<BlobId, ReplicaError> {
        let mut source = Cursor::new(start).chain(body);
        let mut piece = vec![0; 128 << 10];
        let mut writer = (!self.dry).then(|| self.replica.body_writer());
        let (mut hasher, mut size) = (BlobHasher::new(), 0);
        loop {
            let length = match source.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(ReplicaError::Source { source }),
            };
            size += length as u64;
            if size > MAX_BLOB {
                return Err(StoreError::TooLarge { what: "a body", size, limit: MAX_BLOB }.into());
            }
            match &mut writer {
                Some(writer) => writer.push(&piece[..length])?,
                None => hasher.update(&piece[..length]),
            }
        }
        let blob = writer.as_ref().map_or_else(|| hasher.finish(), BodyWriter::id);
        let (wanted, held) = self.judge(message, blob, size)?;
        if let Some(writer) = writer.filter(|_| wanted && !held) {
            writer.finish()?;
        }
        Ok(blob)
    }

    /// Decides about a message: whether its body is to be stored, and whether it is here already.
    fn judge(
        &mut self,
        message: &ImportMessage,
        blob: BlobId,
        size: u64,
    ) -> Result<(bool, bool), ReplicaError> {
        self.seen += 1;
        self.replica.0.handle.bodies().pin(blob);
        let held = self.replica.0.handle.bodies().contains_sized(blob, size)?;
        let occurrence = {
            let met = self.met.entry(blob).or_default();
            *met += 1;
            *met - 1
        };
        if let Some(present) = self.present.get_mut(&blob).filter(|present| present.left > 0) {
            present.left -= 1;
            return Ok((true, self.meet(blob, held)));
        }
        let known = self.imported_before(blob, occurrence)?;
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
            Some(true) => {
                // It was moved to another mailbox here.
                return Ok((true, self.meet(blob, held)));
            }
            Some(false) if !self.again => {
                self.report.expunged += 1;
                return Ok((false, held));
            }
            Some(false) if self.dry => {}
            // Its imported id is spent: it comes back as a message of its own.
            Some(false) => self.again_here.push(imported.message),
            None => self.waiting.push(imported),
        }
        // Adopted UIDs come into force all at once, and with them where they end.
        if self.adopted.is_none() && self.waiting.len() + self.again_here.len() >= Account::MAX_BATCH {
            self.write_messages()?;
        }
        self.report.imported += 1;
        self.report.bytes += size;
        Ok((true, held))
    }

    /// Whether the message that an import of this body made is visible; nothing if none was made.
    fn imported_before(&mut self, blob: BlobId, occurrence: u32) -> Result<Option<bool>, ReplicaError> {
        if self.snapshot.is_none() {
            self.snapshot = Some(self.replica.view()?);
        }
        let snapshot = self.snapshot.as_ref().expect("it was just taken");
        let mut visible = None;
        for mailbox in self.before.iter().chain([&self.mailbox]) {
            let entry = snapshot.view().entry(Pack::imported_id(*mailbox, &blob, occurrence))?;
            visible = visible.max(entry.map(|(_, _, mailbox)| mailbox.is_some()));
        }
        Ok(visible)
    }

    /// A message is here already, and its body perhaps too.
    fn meet(&mut self, blob: BlobId, held: bool) -> bool {
        self.report.known += 1;
        if !held {
            self.report.bodies += 1;
            self.arrived.push(blob);
        }
        held
    }

    fn write_bodies(&mut self) -> Result<(), ReplicaError> {
        let bodies = std::mem::take(&mut self.small);
        self.small_bytes = 0;
        self.replica.0.handle.bodies().put_many(bodies)?;
        Ok(())
    }

    fn write_messages(&mut self) -> Result<(), ReplicaError> {
        self.write_bodies()?;
        let (mut messages, again) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.again_here));
        let nothing = messages.is_empty() && again.is_empty();
        if self.dry || (nothing && (self.exists || self.seen > 0)) {
            return Ok(());
        }
        self.snapshot = None;
        let (before, name) = (messages.len(), &self.name);
        let (mailbox, new, adopts) = self.replica.change(|account, txn| {
            let mut written = Written::default();
            // A merge may have brought the mailbox, its messages or its UIDVALIDITY since this import began.
            let found = account.view(txn).find(name)?;
            let shown = found.map(|id| account.view(txn).mailbox(id)).transpose()?.flatten();
            let first = account.view(txn).incarnations(name)?.is_empty();
            let adopted = self
                .adopted
                .filter(|(validity, end)| may_adopt(shown.as_ref(), first, *validity, end.saturating_add(1)));
            let mailbox = match (found, adopted) {
                (Some(id), _) => id,
                (None, adopted) => {
                    let (id, made) = match adopted {
                        Some((validity, _)) => account.adopt_mailbox(txn, now(), name, validity)?,
                        None => account.create_mailbox(txn, now(), name, None)?,
                    };
                    written.append(made);
                    id
                }
            };
            retain_new(account, txn, mailbox, &mut messages)?;
            if adopted.is_some() {
                // A run claims above the one before it.
                messages.sort_by_key(|imported| (imported.uid.is_none(), imported.uid));
            }
            written.append(import(account, txn, mailbox, &messages, adopted)?);
            for part in again.chunks(Account::MAX_BATCH) {
                written.append(account.append(txn, now(), mailbox, part.to_vec())?.1);
            }
            Ok(((mailbox, messages.len(), adopted.is_some()), written))
        })?;
        (self.mailbox, self.exists) = (mailbox, true);
        self.report.adopts_uids &= adopts;
        self.report.imported -= (before - new) as u64;
        self.report.known += (before - new) as u64;
        Ok(())
    }

    /// Writes what waits and says what was done.
    pub fn finish(mut self) -> Result<ImportReport, ReplicaError> {
        self.write_messages()?;
        if !self.dry && !self.arrived.is_empty() {
            // Bodies alone make no change of the account that would have taken them along.
            self.replica.with(|core| Ok(core.store.begin()?.commit()?))?;
            self.replica.tell_arrived(self.arrived);
        }
        Ok(self.report)
    }
}

/// Whether a folder's UIDVALIDITY and UIDs can be a mailbox's: one that is not there yet and whose name was never borne, or
/// one that has shown nothing.
fn may_adopt(shown: Option<&Mailbox>, first: bool, validity: UidValidity, next: u32) -> bool {
    match shown {
        _ if next > Run::MAX_LEAP => false,
        // A UIDVALIDITY never falls.
        Some(shown) => shown.uid_next == 1 && shown.messages == 0 && shown.uid_validity <= validity,
        // A mailbox made again has a higher UIDVALIDITY than the one before.
        None => first,
    }
}

/// Leaves out what a peer imported in the meantime: a message that has a UID must not be claimed again.
fn retain_new(
    account: &Account,
    tables: &impl Tables,
    mailbox: MailboxId,
    messages: &mut Vec<Imported>,
) -> Result<(), TableError> {
    let mut new = Vec::with_capacity(messages.len());
    for imported in messages.drain(..) {
        let id = Pack::imported_id(mailbox, &imported.message.blob, imported.occurrence);
        if account.view(tables).entry(id)?.is_none() {
            new.push(imported);
        }
    }
    *messages = new;
    Ok(())
}

/// Adopted UIDs come into force all at once, and with the last of them where they end.
fn import(
    account: &mut Account,
    txn: &mut Txn<'_>,
    mailbox: MailboxId,
    messages: &[Imported],
    adopted: Option<(UidValidity, u32)>,
) -> Result<Written, AccountError> {
    let mut written = Written::default();
    let parts = messages.len().div_ceil(Account::MAX_BATCH).max(usize::from(adopted.is_some()));
    for part in 0..parts {
        let from = part * Account::MAX_BATCH;
        let batch = &messages[from..messages.len().min(from + Account::MAX_BATCH)];
        let floor = |floor| if part + 1 == parts { floor } else { 0 };
        let adopted = adopted.map(|(validity, end)| (validity, floor(end)));
        written.append(account.import(txn, now(), mailbox, batch, adopted)?);
    }
    Ok(written)
}

#[cfg(test)]
mod tests;
