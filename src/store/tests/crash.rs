//! Power is lost at every disk operation of a store's life, and what was promised is looked for.

use std::sync::Arc;

use super::*;
use crate::blob::BlobId;
use crate::store::disk::Disk;
use crate::store::disk::fault::Fault;

/// What the store said is done.
#[derive(Default)]
struct Promised {
    created: bool,
    commits: u64,
    bodies: Vec<(BlobId, Vec<u8>)>,
    snapshot: Option<u64>,
}

/// A body for a commit; every third is large.
fn body(seq: u64) -> Vec<u8> {
    let length = if seq.is_multiple_of(3) { 1 << 20 } else { 3000 };
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&seq.to_le_bytes()).finalize_xof().fill(&mut out[..length / 2]);
    out
}

/// Makes a store, commits, closes, opens, commits more. Stops at the first error.
fn live(dir: &Path, disk: &Disk, promised: &mut Promised) -> Result<(), StoreError> {
    let mut store = Store::create_on(dir, disk.clone())?;
    promised.created = true;
    for seq in 1..=7 {
        store.log.set_segment_bytes(900);
        let body = body(seq);
        let id = store.bodies().put(&body)?;
        let mut txn = store.begin()?;
        log(&mut txn, A, seq);
        log(&mut txn, B, seq);
        txn.commit()?;
        promised.commits = seq;
        promised.bodies.push((id, body));
        if seq == 3 {
            store.write_snapshot(Position(3), b"document")?;
            promised.snapshot = Some(3);
        }
        if seq == 4 {
            store.close()?;
            store = Store::open_on(dir, disk.clone())?;
        }
    }
    store.close()
}

fn look(dir: &Path, promised: &Promised) {
    let disk = Disk::stopped_by(Arc::new(Fault::after(u64::MAX)));
    let mut store = match Store::open_on(dir, disk.clone()) {
        Err(StoreError::NotAStore { .. }) if !promised.created => {
            Store::create_on(dir, disk).expect("what an interrupted create left is made anew");
            return;
        }
        other => other.unwrap(),
    };
    replay(&mut store);
    let reader = store.reader().unwrap();
    let commits = store.position().0;
    assert!(commits == promised.commits || commits == promised.commits + 1, "{commits} commits");
    let expected = if commits == 0 { BTreeMap::new() } else { BTreeMap::from([(A, commits), (B, commits)]) };
    assert_eq!(reader.vector().unwrap(), expected);
    for seq in 1..=commits {
        assert_eq!(reader.change(A, seq).unwrap().unwrap().bytes, change_bytes(A, seq).1);
        assert_eq!(store.bodies().read(BlobId::of(&body(seq))).unwrap(), body(seq), "a commit's body");
    }
    for (id, body) in &promised.bodies {
        assert_eq!(&store.bodies().read(*id).unwrap(), body);
    }
    assert_eq!(reader.range(Table::Meta, &[], &[], 99).unwrap().len() as u64, commits);
    assert!(store.latest_snapshot().unwrap().map(|(position, _)| position.0) >= promised.snapshot);
    drop(reader);
    commit(&mut store, &[(A, commits + 1)]);
    store.close().unwrap();
    assert_eq!(Store::check(dir, Level::Full, &mut |_| {}).unwrap().problems, []);
}

#[test]
fn power_is_lost_at_every_operation() {
    let count = {
        let dir = tempfile::tempdir().unwrap();
        let fault = Arc::new(Fault::after(u64::MAX));
        live(dir.path(), &Disk::stopped_by(Arc::clone(&fault)), &mut Promised::default()).unwrap();
        fault.done()
    };
    assert!(count > 100, "{count} operations");
    for stop in 0..count {
        for after in [After::Kill, After::PowerCut, After::KillThenPowerCut] {
            let dir = tempfile::tempdir().unwrap();
            let fault = Arc::new(Fault::after(stop));
            let mut promised = Promised::default();
            let disk = Disk::stopped_by(Arc::clone(&fault));
            let ended = live(dir.path(), &disk, &mut promised);
            // Once everything is durable, what the database does to close may fail.
            assert!(ended.is_err() || promised.commits == 7, "operation {stop} of {count} was not noticed");
            // In a process that died, nothing was left to empty the lock file.
            fs::write(dir.path().join("lock"), "1\n").unwrap();
            if after == After::KillThenPowerCut {
                fault.resume();
                reopened(dir.path(), &disk, &mut promised);
            }
            if after != After::Kill {
                fault.lose_unsynced();
            }
            let found = std::panic::catch_unwind(|| look(dir.path(), &promised));
            assert!(found.is_ok(), "stopped at operation {stop} of {count}, then {after:?}");
        }
    }
}

/// What happens once the disk stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The process died; what it wrote is there.
    Kill,
    /// The machine died; what was not synced is gone.
    PowerCut,
    /// The process died, another opened and closed the store, and then the machine died.
    KillThenPowerCut,
}

/// Opens what a dead process left and closes it. What was seen then must not vanish any more.
fn reopened(dir: &Path, disk: &Disk, promised: &mut Promised) {
    if let Ok(mut store) = Store::open_on(dir, disk.clone()) {
        replay(&mut store);
        let seen = store.position().0;
        assert!(seen == promised.commits || seen == promised.commits + 1);
        store.close().unwrap();
        promised.commits = seen;
        promised.created = true;
    }
}

#[test]
fn a_failed_commit_never_leaves_the_store_in_doubt_silently() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(Fault::after(u64::MAX));
    let mut store = Store::create_on(dir.path(), Disk::stopped_by(Arc::clone(&fault))).unwrap();
    commit(&mut store, &[(A, 1)]);
    fault.stop_now();
    let mut txn = store.begin().unwrap();
    log(&mut txn, A, 2);
    assert!(txn.commit().is_err());
    assert!(matches!(store.begin(), Err(StoreError::Poisoned)));
}

#[test]
fn a_full_disk_fails_one_commit_and_not_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(Fault::after(u64::MAX));
    let mut store = Store::create_on(dir.path(), Disk::stopped_by(Arc::clone(&fault))).unwrap();
    commit(&mut store, &[(A, 1)]);
    let mut txn = store.begin().unwrap();
    log(&mut txn, A, 2);
    fault.fill();
    assert!(matches!(txn.commit(), Err(StoreError::Io { action: "write", .. })));
    fault.fill();
    assert!(store.bodies().put(&[b'x'; 5000]).is_err());
    let id = store.bodies().put(b"short").unwrap();
    commit(&mut store, &[(A, 2)]);
    let expected = dump(&store);
    drop(store);
    fs::remove_file(dir.path().join("index.redb")).unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(replay(&mut store), 2);
    assert_eq!(dump(&store), expected);
    assert_eq!(store.bodies().read(id).unwrap(), b"short");
}
