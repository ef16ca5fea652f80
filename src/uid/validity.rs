//! UIDVALIDITY: what makes `(name, UIDVALIDITY, UID)` mean one message for ever.

use crate::mailbox::pack::short_hash;
use crate::mailbox::{AccountId, MailboxId, Run, UidValidity};

use super::rows::MailboxRow;
use super::tables::{Table, TableError, Tables, TablesMut};

/// Bits of a UIDVALIDITY that count incarnation and epoch; the lower ones come from account and mailbox, so that two
/// mailboxes which bear one name on two servers during a split differ.
const GENERATION_SHIFT: u32 = 16;

/// The UIDVALIDITY of a mailbox at its present epoch. It grows with the epoch, and with the incarnation.
pub(crate) fn uid_validity(account: AccountId, id: MailboxId, row: &MailboxRow) -> UidValidity {
    at_epoch(account, id, row, row.epoch)
}

fn at_epoch(account: AccountId, id: MailboxId, row: &MailboxRow, epoch: u32) -> UidValidity {
    let adopted = row.adopted.last().copied();
    if let (0, Some(adopted)) = (epoch, adopted) {
        return adopted;
    }
    let hash = short_hash(&[b"validity", account.as_bytes(), id.as_bytes()]);
    let base = adopted.map_or(1 + row.incarnation, |adopted| adopted.value() >> GENERATION_SHIFT);
    let generation = base.saturating_add(epoch).min(u32::from(u16::MAX));
    let value = generation << GENERATION_SHIFT | u32::from(u16::from_le_bytes([hash[0], hash[1]]));
    UidValidity::new(value.max(1)).expect("at least 1")
}

/// The lowest epoch at which the mailbox's UIDVALIDITY is above `floor`; nothing once the numbers are used up.
pub(crate) fn epoch_above(
    account: AccountId,
    id: MailboxId,
    row: &MailboxRow,
    floor: UidValidity,
) -> Option<u32> {
    let guess = (floor.value() >> GENERATION_SHIFT).saturating_sub(
        row.adopted.last().map_or(1 + row.incarnation, |adopted| adopted.value() >> GENERATION_SHIFT),
    );
    // The hash below the generation may lie on either side of the floor's, so the guess is at most two too low.
    (row.epoch.max(guess)..)
        .take(3)
        .find(|epoch| *epoch <= Run::MAX_EPOCH && at_epoch(account, id, row, *epoch) > floor)
}

/// The name of the row that keeps the highest.
const HIGHEST: &[u8] = b"highest uidvalidity";

/// The highest UIDVALIDITY that any mailbox ever had here, hidden ones too.
pub(crate) fn highest(tables: &impl Tables) -> Result<UidValidity, TableError> {
    let value = tables.get(Table::Meta, HIGHEST)?.and_then(|bytes| bytes.try_into().ok());
    Ok(value.and_then(|bytes| UidValidity::new(u32::from_be_bytes(bytes))).unwrap_or(UidValidity::MIN))
}

/// Notes what a mailbox has now.
pub(crate) fn note_highest(tables: &mut impl TablesMut, now: UidValidity) -> Result<(), TableError> {
    if now > highest(tables)? {
        tables.put(Table::Meta, HIGHEST, &now.value().to_be_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_bytes([8; 16]);

    #[test]
    fn it_grows_with_epoch_and_incarnation_and_above_what_was_adopted() {
        let id = MailboxId::from_bytes([4; 16]);
        let mut row = MailboxRow::default();
        for adopted in [None, UidValidity::new(1), UidValidity::new(1_700_000_000)] {
            row.adopted = adopted.into_iter().collect();
            row.epoch = 0;
            let mut last = uid_validity(ACCOUNT, id, &row);
            assert_eq!(adopted.unwrap_or(last), last);
            for epoch in 1..50 {
                row.epoch = epoch;
                let next = uid_validity(ACCOUNT, id, &row);
                assert!(next > last, "epoch {epoch}: {next} after {last}");
                last = next;
            }
        }
        let (first, again) = (MailboxRow::default(), MailboxRow { incarnation: 1, ..MailboxRow::default() });
        assert!(uid_validity(ACCOUNT, id, &again) > uid_validity(ACCOUNT, MailboxId::inbox(), &first));
    }

    #[test]
    fn the_epoch_above_a_floor_is_the_lowest() {
        let id = MailboxId::from_bytes([5; 16]);
        let row = MailboxRow::default();
        for floor in [1, 65_535, 65_536, 80_000, 1_700_000_000, u32::MAX - 70_000]
            .map(|n| UidValidity::new(n).unwrap())
        {
            let epoch = epoch_above(ACCOUNT, id, &row, floor).unwrap();
            assert!(at_epoch(ACCOUNT, id, &row, epoch) > floor);
            assert!(epoch == 0 || at_epoch(ACCOUNT, id, &row, epoch - 1) <= floor);
        }
        assert_eq!(epoch_above(ACCOUNT, id, &row, UidValidity::new(u32::MAX).unwrap()), None);
    }
}
