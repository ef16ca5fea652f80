//! Folders that another program kept.

use super::messages::{CHANGE_BYTES, initial, parts, weight};
use super::{Account, AccountError, Written, limit};
use crate::mailbox::{EntryId, MailboxId, Message, Origin, Pack, Run, Uid, UidRecord, UidValidity};
use crate::uid::settle::{Unclaimed, segments};
use crate::uid::tables::TablesMut;

/// A message of a folder that is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The message.
    pub message: Message,
    /// How many equal bodies stand before it in its folder.
    pub occurrence: u32,
    /// The UID it has there, to be adopted with the folder's UIDVALIDITY.
    pub uid: Option<Uid>,
}

impl Account {
    /// Adds a folder's messages, each of which must be new here, [`Account::MAX_BATCH`] at most. `adopted` is the folder's
    /// UIDVALIDITY and the UID before its UIDNEXT; only the import that makes the mailbox has it. With it messages keep
    /// their UIDs, unless the mailbox's epoch has risen. Without it a server claims UIDs for them, as an observer never
    /// does: there `adopted` is passed over, because a UIDVALIDITY without its UIDs would be a lie.
    pub fn import(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        mailbox: MailboxId,
        messages: &[Imported],
        adopted: Option<(UidValidity, u32)>,
    ) -> Result<Written, AccountError> {
        limit("messages", messages.len(), Account::MAX_BATCH)?;
        let keywords = messages.iter().map(|imported| imported.message.keywords.len()).max().unwrap_or(0);
        limit("keywords of one message", keywords, Pack::MAX_KEYWORDS)?;
        let adopted = adopted.filter(|_| self.grant.is_some());
        let parts = match messages {
            // There is still a floor to be set.
            [] => vec![messages],
            messages => parts(messages, Account::MAX_BATCH, CHANGE_BYTES, |m| weight(&m.message)),
        };
        let (last, mut written) = (parts.len() - 1, Written::default());
        for (number, part) in parts.into_iter().enumerate() {
            let adopted = adopted.map(|(validity, end)| (validity, if number == last { end } else { 0 }));
            written.append(self.import_part(tables, time, mailbox, part, adopted)?);
        }
        Ok(written)
    }

    fn import_part(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        mailbox: MailboxId,
        messages: &[Imported],
        adopted: Option<(UidValidity, u32)>,
    ) -> Result<Written, AccountError> {
        let space = self.space(tables, mailbox)?;
        let adopted = adopted.filter(|_| space.epoch == 0);
        self.write(tables, time, |writer| {
            let mut waiting = Vec::new();
            for part in messages.chunks(Pack::MAX_MESSAGES) {
                let pack = Pack {
                    mailbox,
                    origin: Origin::Imported { occurrences: part.iter().map(|m| m.occurrence).collect() },
                    messages: part.iter().map(|m| m.message.clone()).collect(),
                };
                let id = writer.pack(&pack);
                let entries: Vec<EntryId> = (0..part.len()).map(|index| pack.entry_id(id, index)).collect();
                waiting.extend(initial(id, &entries));
            }
            match adopted {
                Some((validity, floor)) => {
                    writer.adopt_uid_validity(mailbox, validity);
                    if let Some(run) = adopted_run(mailbox, space.base, floor, &waiting, messages) {
                        writer.uid_record(&UidRecord::Run(run));
                    }
                }
                None => space.claim(writer, &waiting),
            }
        })
    }
}

/// The claims of UIDs that a Dovecot has shown. Messages without a UID wait for the pass.
fn adopted_run(
    mailbox: MailboxId,
    base: u32,
    floor: u32,
    waiting: &[Unclaimed],
    messages: &[Imported],
) -> Option<Run> {
    let mut claims: Vec<(Uid, Unclaimed)> = messages
        .iter()
        .zip(waiting)
        .filter_map(|(message, waiting)| Some((message.uid?, *waiting)))
        .collect();
    claims.sort_by_key(|(uid, _)| *uid);
    claims.retain(|(uid, _)| uid.value() > base);
    let floor = if floor > base { floor } else { 0 };
    let segments = segments(claims.into_iter());
    (!segments.is_empty() || floor > 0).then_some(Run { mailbox, epoch: 0, base, floor, segments })
}
