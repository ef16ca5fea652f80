//! Tests of the store as a whole.

mod bodies;
mod crash;
mod damage;
mod reclaim;
mod rows;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::mailbox::ReplicaId;
use crate::uid::{Table, Tables, TablesMut};

const A: ReplicaId = ReplicaId::from_bytes([0xa; 16]);
const B: ReplicaId = ReplicaId::from_bytes([0xb; 16]);

/// The hash and bytes that tests give a change.
fn change_bytes(actor: ReplicaId, seq: u64) -> ([u8; 32], Vec<u8>) {
    let bytes = format!("change {seq} of {actor}").into_bytes();
    (*blake3::hash(&bytes).as_bytes(), bytes)
}

/// Logs a change and projects it the way a replay does.
fn log(txn: &mut Txn<'_>, actor: ReplicaId, seq: u64) {
    let (hash, bytes) = change_bytes(actor, seq);
    assert!(txn.log_change(actor, seq, hash, &bytes, None).unwrap());
    txn.log_local(&seq.to_be_bytes()).unwrap();
    txn.put(Table::Meta, &seq.to_be_bytes(), b"seen").unwrap();
}

fn replay(store: &mut Store) -> u64 {
    let mut count = 0;
    while let Some((groups, mut txn)) = store.replay().unwrap() {
        for group in groups {
            count += 1;
            for record in group.records {
                if let Record::Local(bytes) = record {
                    txn.put(Table::Meta, &bytes, b"seen").unwrap();
                }
            }
        }
        txn.commit().unwrap();
    }
    count
}

fn commit(store: &mut Store, changes: &[(ReplicaId, u64)]) -> Position {
    let mut txn = store.begin().unwrap();
    for (actor, seq) in changes {
        log(&mut txn, *actor, *seq);
    }
    txn.commit().unwrap()
}

/// Everything a reader sees, to compare two stores.
fn dump(store: &Store) -> (BTreeMap<ReplicaId, u64>, Vec<Change>, Vec<crate::uid::Row>) {
    let reader = store.reader().unwrap();
    let changes = reader.missing(&BTreeMap::new()).unwrap().map(Result::unwrap).collect();
    let rows = Table::ALL.iter().flat_map(|table| reader.range(*table, &[], &[], usize::MAX).unwrap());
    (reader.vector().unwrap(), changes, rows.collect())
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_is_committed_is_there_and_what_is_dropped_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    assert_eq!(commit(&mut store, &[(A, 1), (A, 2)]), Position(1));
    {
        let mut txn = store.begin().unwrap();
        log(&mut txn, A, 3);
        assert_eq!(txn.last_seq(A).unwrap(), 3);
        assert!(txn.has_change(&change_bytes(A, 3).0).unwrap());
        assert_eq!(txn.get(Table::Meta, &3u64.to_be_bytes()).unwrap().unwrap(), b"seen");
    }
    let before = dump(&store);
    assert_eq!(before.0, BTreeMap::from([(A, 2)]));
    let (id, instance) = (store.id(), store.instance());
    store.close().unwrap();

    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!((store.id(), store.instance()), (id, instance));
    assert_eq!(replay(&mut store), 0);
    assert_eq!(dump(&store), before);
    assert!(!store.reader().unwrap().has_change(&change_bytes(A, 3).0).unwrap());
    let (hash, bytes) = change_bytes(A, 2);
    let change = store.reader().unwrap().change(A, 2).unwrap().unwrap();
    assert_eq!(change, Change { actor: A, seq: 2, hash, bytes, signature: None });
}

#[test]
fn a_change_comes_once_in_order_and_never_forks() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    commit(&mut store, &[(A, 1)]);
    let mut txn = store.begin().unwrap();
    let (hash, bytes) = change_bytes(A, 1);
    assert!(!txn.log_change(A, 1, hash, &bytes, None).unwrap());
    assert!(matches!(txn.log_change(A, 1, [9; 32], b"other", None), Err(StoreError::Fork { seq: 1, .. })));
    assert!(matches!(txn.log_change(A, 3, [9; 32], b"", None), Err(StoreError::Gap { expected: 2, .. })));
    let huge = vec![0; frame::MAX_FRAME + 1];
    assert!(matches!(txn.log_local(&huge), Err(StoreError::TooLarge { .. })));
}

#[test]
fn a_peer_gets_what_it_lacks_in_the_order_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    store.log.set_segment_bytes(600);
    for changes in [vec![(A, 1), (B, 1)], vec![(B, 2)], vec![(A, 2)], vec![(B, 3), (A, 3)]] {
        commit(&mut store, &changes);
    }
    assert!(store.log.end().segment > 1, "the test wants several segments");
    let lacks = |store: &Store, vector: &[(ReplicaId, u64)]| -> Vec<(ReplicaId, u64)> {
        let vector = vector.iter().copied().collect();
        let missing = store.reader().unwrap().missing(&vector).unwrap();
        missing.map(|change| change.unwrap()).map(|change| (change.actor, change.seq)).collect()
    };
    let all = vec![(A, 1), (B, 1), (B, 2), (A, 2), (B, 3), (A, 3)];
    assert_eq!(lacks(&store, &[]), all);
    assert_eq!(lacks(&store, &[(A, 2), (B, 1)]), [(B, 2), (B, 3), (A, 3)]);
    assert_eq!(lacks(&store, &[(A, u64::MAX), (B, 3)]), []);
    let after = |position| -> Vec<u64> {
        let changes = store.reader().unwrap().changes_after(Position(position)).unwrap();
        changes.map(|change| change.unwrap().seq).collect()
    };
    assert_eq!(after(2), [2, 3, 3]);
    assert_eq!(after(4), [] as [u64; 0]);

    let before = dump(&store);
    store.close().unwrap();
    fs::remove_file(dir.path().join("index.redb")).unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    assert!(matches!(store.begin(), Err(StoreError::ReplayPending { .. })));
    assert_eq!(replay(&mut store), 4);
    assert_eq!(dump(&store), before);
    assert_eq!(lacks(&store, &[(A, 2), (B, 1)]), [(B, 2), (B, 3), (A, 3)]);
    store.close().unwrap();
    assert_eq!(Store::check(dir.path(), Level::Full, &mut |_| {}).unwrap().problems, []);
}

#[test]
fn a_second_open_is_told_who_has_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let handle = store.handle();
    for _ in 0..2 {
        match Store::open(dir.path()) {
            Err(StoreError::Locked { path, pid }) => {
                assert_eq!((path, pid), (dir.path().join("lock"), Some(std::process::id())));
            }
            other => panic!("{other:?}"),
        }
    }
    drop(store);
    let reader = handle.reader().unwrap();
    drop(handle);
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked { .. })), "a reader keeps the lock");
    drop(reader);
    Store::open(dir.path()).unwrap();
}

#[test]
fn only_a_store_of_a_known_format_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::NotAStore { .. })));
    fs::write(dir.path().join("mail"), "").unwrap();
    assert!(matches!(Store::create(dir.path()), Err(StoreError::NotEmpty { .. })));

    let dir = tempfile::tempdir().unwrap();
    Store::create(dir.path()).unwrap();
    let text = "postmerge store\nformat 2\nid 00\n";
    let check: [u8; 8] = disk::checksum(&[text.as_bytes()]);
    let text = format!("{text}check {}\n", data_encoding::HEXLOWER.encode(&check));
    fs::write(dir.path().join("STORE"), text).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Newer { found: 2, known: 1, .. })));
}

#[test]
fn the_newest_whole_snapshot_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    assert_eq!(store.latest_snapshot().unwrap(), None);
    for seq in 1..=3 {
        let position = commit(&mut store, &[(A, seq)]);
        store.write_snapshot(position, format!("document {seq}").as_bytes()).unwrap();
    }
    let newest = store.latest_snapshot().unwrap().unwrap();
    assert_eq!(newest, (Position(3), b"document 3".to_vec()));
    assert_eq!(snapshot::list(dir.path()).unwrap(), [Position(3), Position(2)]);
    let path = snapshot::path(dir.path(), Position(3));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    assert_eq!(store.latest_snapshot().unwrap().unwrap().0, Position(2));
}

fn backup(store: &Store, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<BackupReport, StoreError> {
    store.backup_source()?.copy(to, progress)
}

#[test]
fn a_backup_opens_as_the_same_store_and_is_brought_up_to_date() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = Store::create(dir.path()).unwrap();
    let small = store.bodies().put(b"small").unwrap();
    let large = store.bodies().put(&vec![7; 2 << 20]).unwrap();
    commit(&mut store, &[(A, 1)]);
    store.write_snapshot(Position(1), b"document").unwrap();
    let mut files = 0;
    assert_eq!(backup(&store, to.path(), &mut |_| files += 1).unwrap().position, Position(1));
    assert!(files >= 3);
    commit(&mut store, &[(A, 2)]);
    assert_eq!(backup(&store, to.path(), &mut |_| {}).unwrap().position, Position(2));

    let mut copy = Store::open(to.path()).unwrap();
    assert_eq!(replay(&mut copy), 2);
    assert_eq!(dump(&copy), dump(&store));
    assert_eq!(copy.bodies().read(small).unwrap(), b"small");
    assert_eq!(copy.bodies().read(large).unwrap(), vec![7; 2 << 20]);
    assert_eq!(copy.latest_snapshot().unwrap().unwrap().1, b"document");
    assert_eq!(copy.id(), store.id());
    assert_ne!(copy.instance(), store.instance());

    let foreign = tempfile::tempdir().unwrap();
    Store::create(foreign.path()).unwrap();
    assert!(matches!(backup(&store, foreign.path(), &mut |_| {}), Err(StoreError::NotEmpty { .. })));
}

#[test]
fn a_large_import_leaves_no_empty_half_in_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    let handle = store.handle();
    for group in 0..40u64 {
        let mut txn = store.begin().unwrap();
        for row in 0..1000 {
            let key = blake3::hash(&(group * 1000 + row).to_le_bytes());
            txn.put(Table::Entries, key.as_bytes(), &[7; 60]).unwrap();
        }
        txn.commit().unwrap();
    }
    let path = dir.path().join("index.redb");
    let length = || fs::metadata(&path).unwrap().len();
    let before = dump(&store);
    let grown = length();
    // A handle that reads nothing is not in the way.
    store.close().unwrap();
    drop(handle);
    assert!(length() < grown * 2 / 3, "{} of {grown}", length());
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(dump(&store), before);
    store.close().unwrap();
    assert_eq!(Store::check(dir.path(), Level::Full, &mut |_| {}).unwrap().problems, []);
}

#[test]
fn a_backup_holds_one_moment_however_long_it_takes() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = Store::create(dir.path()).unwrap();
    let before = store.bodies().put(b"before").unwrap();
    commit(&mut store, &[(A, 1)]);
    store.write_snapshot(Position(1), b"document 1").unwrap();
    let source = store.backup_source().unwrap();
    let expected = dump(&store);
    // The store is written to after the moment was fixed, and while files are copied.
    let after = store.bodies().put(b"after").unwrap();
    commit(&mut store, &[(A, 2)]);
    store.write_snapshot(Position(2), b"document 2").unwrap();
    let mut seq = 2;
    let report = source.copy(to.path(), &mut |_| {
        seq += 1;
        commit(&mut store, &[(A, seq)]);
    });
    assert!(seq > 3, "the writer was at work");
    assert_eq!(report.unwrap().position, Position(1));
    let mut copy = Store::open(to.path()).unwrap();
    replay(&mut copy);
    assert_eq!(dump(&copy), expected);
    assert_eq!(copy.bodies().read(before).unwrap(), b"before");
    assert!(!copy.bodies().contains(after).unwrap());
    assert_eq!(copy.latest_snapshot().unwrap().unwrap().1, b"document 1");
}

#[test]
fn a_backup_does_not_go_into_its_own_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let link = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(dir.path(), link.path().join("link")).unwrap();
    for inside in [dir.path().to_owned(), dir.path().join("deep/er"), link.path().join("link/backup")] {
        let refused = backup(&store, &inside, &mut |_| {});
        assert!(matches!(refused, Err(StoreError::InsideItself { .. })), "{refused:?}");
        assert!(!inside.join("log/00000001.log").exists() || inside == dir.path());
    }
    assert!(!dir.path().join("deep").exists());
}

#[test]
fn a_second_backup_copies_only_what_grew() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = Store::create(dir.path()).unwrap();
    let mut noise = vec![0; 3 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    store.bodies().put(&noise).unwrap();
    commit(&mut store, &[(A, 1)]);
    assert!(backup(&store, to.path(), &mut |_| {}).unwrap().copied > 3 << 20);
    assert_eq!(backup(&store, to.path(), &mut |_| {}).unwrap().copied, 0);
    commit(&mut store, &[(A, 2)]);
    let grown = backup(&store, to.path(), &mut |_| {}).unwrap().copied;
    assert_eq!(grown, fs::metadata(dir.path().join("log/00000001.log")).unwrap().len());
}

/// What every file of a directory holds.
fn contents(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(contents(&entry.path()));
        } else {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn a_store_that_is_only_read_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    let body = store.bodies().put(b"body").unwrap();
    for seq in 1..=5 {
        commit(&mut store, &[(A, seq)]);
    }
    let expected = dump(&store);
    // As after a crash: the index lags behind, an append was torn, and the holder's pid is in the lock.
    let image = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), image.path());
    for file in ["log/00000001.log", "bodies/00000001.pack"] {
        let mut file = fs::File::options().append(true).open(image.path().join(file)).unwrap();
        std::io::Write::write_all(&mut file, b"torn").unwrap();
    }
    fs::write(image.path().join("bodies/tmp/0"), "spooled").unwrap();
    for index in ["lags", "is damaged", "is missing"] {
        match index {
            "lags" => {}
            "is damaged" => fs::write(image.path().join("index.redb"), b"not a database").unwrap(),
            _ => fs::remove_file(image.path().join("index.redb")).unwrap(),
        }
        let before = contents(image.path());
        let mut store = Store::open_read_only(image.path()).unwrap();
        let second = Store::open_read_only(image.path()).unwrap();
        assert!(matches!(Store::open(image.path()), Err(StoreError::Locked { .. })));
        assert!(replay(&mut store) > 0, "the index {index}");
        assert_eq!(dump(&store), expected, "the index {index}");
        assert_eq!(store.bodies().read(body).unwrap(), b"body");
        let mut txn = store.begin().unwrap();
        log(&mut txn, A, 6);
        assert!(matches!(txn.commit(), Err(StoreError::ReadOnly { .. })));
        assert!(store.bodies().put(b"another").is_err());
        assert_eq!(dump(&store), expected);
        store.close().unwrap();
        drop(second);
        assert!(contents(image.path()) == before, "the index {index}");
    }
    let mut store = Store::open(image.path()).unwrap();
    replay(&mut store);
    assert!(matches!(Store::open_read_only(image.path()), Err(StoreError::Locked { pid: Some(_), .. })));
}
