//! What an operation reads of the index must not grow with the account. Rows are counted, not time.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::{Account, Block, Grant, KeywordChange, MemoryTables, Row, Table, TableError, Tables, TablesMut};
use crate::blob::BlobId;
use crate::mailbox::{AccountId, Document, MailboxId, Message, ReplicaId};

/// Tables that count the rows they are asked for, and those they give.
struct Counted {
    tables: MemoryTables,
    reads: Cell<usize>,
}

impl Counted {
    fn count<R>(&self, rows: usize, read: R) -> R {
        self.reads.set(self.reads.get() + rows);
        read
    }
}

impl Tables for Counted {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.count(1, self.tables.get(table, key))
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, TableError> {
        let rows = self.tables.range(table, from, to, limit)?;
        Ok(self.count(1 + rows.len(), rows))
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, TableError> {
        self.count(1, self.tables.last(table, from, to))
    }
}

impl TablesMut for Counted {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        self.tables.put(table, key, value)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), TableError> {
        self.tables.remove(table, key)
    }
}

/// The reads of one flag, one delivery and one move in an account of so many mailboxes with a message each, with all that
/// a commit does beside them.
fn reads(mailboxes: usize) -> [usize; 3] {
    let doc = Document::new(ReplicaId::from_bytes([3; 16]));
    let id = AccountId::from_bytes([5; 16]);
    let mut account = Account::new(id, doc, Some(Grant::whole()), Block::STANDARD, 1);
    let mut tables = Counted { tables: MemoryTables::default(), reads: Cell::new(0) };
    account.prepare(&mut tables).unwrap();
    let message = |n: usize| Message {
        blob: BlobId::of(&n.to_le_bytes()),
        internal_date: 1_000_000_000,
        size: 3000,
        keywords: BTreeSet::new(),
    };
    let mut entries = Vec::new();
    for n in 0..mailboxes {
        let name = format!("Folder {n}").parse().unwrap();
        let (mailbox, _) = account.create_mailbox(&mut tables, 0, &name, None).unwrap();
        // Two, so that no mailbox is empty after the move.
        entries.extend(account.append(&mut tables, 0, mailbox, vec![message(n), message(n)]).unwrap().0);
    }
    let target = MailboxId::derive(&"Folder 1".parse().unwrap(), 0);
    let set = BTreeSet::from(["\\Flagged".parse().unwrap()]);
    let flag = KeywordChange::Edit { set, clear: BTreeSet::new() };
    let mut commit = |act: &dyn Fn(&mut Account, &mut Counted)| {
        tables.reads.set(0);
        let name = "Folder 1".parse().unwrap();
        assert_eq!(account.view(&tables).find(&name).unwrap(), Some(target));
        act(&mut account, &mut tables);
        account.settle(&mut tables, 0, None).unwrap();
        account.highest_uid_validity(&tables).unwrap();
        tables.reads.get()
    };
    [
        commit(&|account, tables| {
            account.store_keywords(tables, 0, &entries[..1], &flag).unwrap();
        }),
        commit(&|account, tables| {
            account.append(tables, 0, target, vec![message(9)]).unwrap();
        }),
        commit(&|account, tables| {
            account.move_to(tables, 0, &entries[..1], target).unwrap();
        }),
    ]
}

#[test]
fn a_commit_among_1500_mailboxes_reads_no_more_than_among_ten() {
    assert_eq!(reads(10), reads(1500));
}
