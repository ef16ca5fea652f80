//! Bodies that are forgotten, and segments that are written anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::blob::BlobId;
use crate::store::disk::Disk;
use crate::store::disk::fault::Fault;

/// Text that compresses, and noise enough that it is not all alike.
fn mail(n: u32) -> Vec<u8> {
    let noise = data_encoding::HEXLOWER.encode(blake3::hash(&n.to_le_bytes()).as_bytes());
    format!("Subject: {n}\r\n\r\n{noise}\r\n{}", "text ".repeat(300)).into_bytes()
}

fn large(n: u8) -> Vec<u8> {
    [vec![n; 1 << 20], blake3::hash(&[n]).as_bytes().to_vec()].concat()
}

/// Goes through a segment and removes it.
fn compact(store: &mut Store, segment: u32, budget: u64) -> Result<bool, StoreError> {
    let mut from = Some(0);
    while let Some(at) = from {
        from = store.bodies().evacuate(segment, at, budget)?.next;
    }
    store.remove_segment(segment)
}

#[test]
fn what_is_forgotten_is_gone_and_its_space_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    let bodies = store.bodies().clone();
    let mails: Vec<Vec<u8>> = (0..900).map(mail).collect();
    let ids = bodies.put_many(&mails).unwrap();
    let big = bodies.put(&large(1)).unwrap();
    commit(&mut store, &[(A, 1)]);
    let before = bodies.segments().unwrap();
    assert_eq!((before.len(), before[0].dead), (1, 0));

    assert_eq!(store.forget_bodies(&ids[..1]).unwrap(), [], "it was put a moment ago");
    bodies.turn_pins();
    bodies.turn_pins();
    let hold = bodies.hold();
    assert_eq!(store.forget_bodies(&ids[..1]).unwrap(), [], "somebody needs all files");
    drop(hold);
    // Two thirds, so that bundles are taken apart; and ten bundles or so as a whole.
    let gone = |n: usize| !n.is_multiple_of(3) || n > 700;
    let (dead, live): (Vec<usize>, Vec<usize>) = (0..900).partition(|n| gone(*n));
    let mut dead: Vec<BlobId> = dead.iter().map(|n| ids[*n]).collect();
    dead.push(big);
    assert_eq!(store.forget_bodies(&dead).unwrap().len(), dead.len());
    assert!(dead.iter().all(|id| !bodies.contains(*id).unwrap()));
    assert_eq!(
        fs::read_dir(dir.path().join("bodies/large"))
            .unwrap()
            .map(|bucket| { fs::read_dir(bucket.unwrap().path()).unwrap().count() })
            .sum::<usize>(),
        0
    );
    let of = bodies.segments().unwrap()[0];
    assert!(of.dead > of.bytes / 2 && of.dead < of.bytes, "{of:?}");

    assert!(compact(&mut store, 1, 3000).unwrap());
    let after = bodies.segments().unwrap();
    assert_eq!((after.len(), after[0].segment, after[0].dead), (1, 2, 0));
    assert!(after[0].bytes < before[0].bytes - of.dead / 2, "{before:?} {after:?}");
    assert!(!pack::path(bodies.dir(), 1).exists());
    let again = bodies.put(&mails[1]).unwrap();
    commit(&mut store, &[(A, 2)]);
    drop(bodies);
    store.close().unwrap();
    assert_eq!(Store::check(dir.path(), Level::Full, &mut |_| {}).unwrap().problems, []);
    for index in ["kept", "built anew"] {
        if index == "built anew" {
            fs::remove_file(dir.path().join("index.redb")).unwrap();
        }
        let mut store = Store::open(dir.path()).unwrap();
        replay(&mut store);
        for n in &live {
            assert_eq!(store.bodies().read(ids[*n]).unwrap(), mails[*n], "{index}");
        }
        assert_eq!(store.bodies().read(again).unwrap(), mails[1]);
        assert!(!store.bodies().contains(ids[2]).unwrap());
        store.close().unwrap();
    }
}

#[test]
fn readers_and_writers_go_on_while_segments_move() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    let mails: Vec<Vec<u8>> = (0..300).map(mail).collect();
    let ids = store.bodies().put_many(&mails).unwrap();
    commit(&mut store, &[(A, 1)]);
    let (bodies, done) = (store.bodies().clone(), AtomicBool::new(false));
    let rounds = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) {
                for (id, mail) in ids.iter().zip(&mails) {
                    assert_eq!(&bodies.read(*id).unwrap(), mail);
                    assert!(bodies.bundle_of(*id).unwrap().is_some());
                }
                rounds += 1;
            }
            rounds
        });
        for segment in 1..=20 {
            store.bodies().put(&mail(1000 + segment)).unwrap();
            assert!(compact(&mut store, segment, 2000).unwrap());
        }
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    assert!(rounds > 0);
    for n in 1001..=1020 {
        assert!(store.bodies().contains(BlobId::of(&mail(n))).unwrap());
    }
}

/// What was told to the caller.
#[derive(Default)]
struct Told {
    created: bool,
    kept: Vec<u32>,
    /// Forgotten, or perhaps not yet.
    dropped: Vec<u32>,
    large: bool,
}

fn live(dir: &Path, disk: &Disk, told: &mut Told) -> Result<(), StoreError> {
    let mut store = Store::create_on(dir, disk.clone())?;
    told.created = true;
    store.bodies().put_many((0..6).map(mail))?;
    store.bodies().put(&mail(6))?;
    store.bodies().put(&large(1))?;
    commit_or_fail(&mut store, 1)?;
    told.kept = (0..7).collect();
    told.large = true;
    store.bodies().turn_pins();
    store.bodies().turn_pins();
    told.kept = vec![0, 2, 4];
    told.dropped = vec![1, 3, 5, 6];
    told.large = false;
    let dead: Vec<BlobId> = told.dropped.iter().map(|n| BlobId::of(&mail(*n))).collect();
    store.forget_bodies(&[dead, vec![BlobId::of(&large(1))]].concat())?;
    let half = store.bodies().evacuate(1, 0, 1)?;
    store.bodies().put(&mail(7))?;
    commit_or_fail(&mut store, 2)?;
    told.kept.push(7);
    assert!(store.bodies().evacuate(1, half.next.unwrap(), u64::MAX)?.next.is_none());
    assert!(store.remove_segment(1)?);
    // It is needed again.
    store.bodies().put(&mail(3))?;
    commit_or_fail(&mut store, 3)?;
    told.kept.push(3);
    assert!(compact(&mut store, 2, u64::MAX)?);
    store.close()
}

fn commit_or_fail(store: &mut Store, seq: u64) -> Result<(), StoreError> {
    let mut txn = store.begin()?;
    log(&mut txn, A, seq);
    txn.commit().map(drop)
}

fn look(dir: &Path, told: &Told, anew: bool) {
    let mut store = match Store::open(dir) {
        Err(StoreError::NotAStore { .. }) if !told.created => return,
        other => other.unwrap(),
    };
    replay(&mut store);
    for n in &told.kept {
        assert_eq!(store.bodies().read(BlobId::of(&mail(*n))).unwrap(), mail(*n), "mail {n}");
    }
    assert!(!told.large || store.bodies().read(BlobId::of(&large(1))).unwrap() == large(1));
    for n in &told.dropped {
        match store.bodies().read(BlobId::of(&mail(*n))) {
            Ok(body) => assert_eq!(body, mail(*n)),
            Err(error) => assert!(matches!(error, StoreError::NoBody(_)), "{error}"),
        }
    }
    store.bodies().put(&mail(99)).unwrap();
    let seq = store.reader().unwrap().last_seq(A).unwrap() + 1;
    commit(&mut store, &[(A, seq)]);
    store.close().unwrap();
    assert_eq!(Store::check(dir, Level::Full, &mut |_| {}).unwrap().problems, []);
    if !anew {
        return;
    }
    fs::remove_file(dir.join("index.redb")).unwrap();
    let mut store = Store::open(dir).unwrap();
    replay(&mut store);
    for n in told.kept.iter().chain(&[99]) {
        assert_eq!(store.bodies().read(BlobId::of(&mail(*n))).unwrap(), mail(*n), "mail {n}, index anew");
    }
}

#[test]
fn power_is_lost_at_every_operation_of_forgetting_and_compacting() {
    let count = {
        let dir = tempfile::tempdir().unwrap();
        let fault = Arc::new(Fault::after(u64::MAX));
        live(dir.path(), &Disk::stopped_by(Arc::clone(&fault)), &mut Told::default()).unwrap();
        fault.done()
    };
    assert!(count > 100, "{count} operations");
    for stop in 0..count {
        for power_cut in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let fault = Arc::new(Fault::after(stop));
            let mut told = Told::default();
            let _ = live(dir.path(), &Disk::stopped_by(Arc::clone(&fault)), &mut told);
            fs::write(dir.path().join("lock"), "1\n").unwrap();
            if power_cut {
                fault.lose_unsynced();
            }
            let found = std::panic::catch_unwind(|| look(dir.path(), &told, power_cut));
            assert!(found.is_ok(), "stopped at operation {stop} of {count}, power cut: {power_cut}");
        }
    }
}

#[test]
fn a_backup_that_is_brought_up_to_date_keeps_no_segment_that_is_gone() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = Store::create(dir.path()).unwrap();
    let ids = store.bodies().put_many((0..6).map(mail)).unwrap();
    let big = store.bodies().put(&large(1)).unwrap();
    commit(&mut store, &[(A, 1)]);
    let back_up = |store: &Store| {
        store.backup_source().unwrap().copy(copy.path(), &mut |_| {}).unwrap();
    };
    let source = store.backup_source().unwrap();
    assert!(!compact(&mut store, 1, u64::MAX).unwrap(), "a backup of it goes on");
    source.copy(copy.path(), &mut |_| {}).unwrap();
    drop(source);
    store.bodies().turn_pins();
    store.bodies().turn_pins();
    store.forget_bodies(&[ids[0], big]).unwrap();
    assert!(compact(&mut store, 1, u64::MAX).unwrap() && compact(&mut store, 2, u64::MAX).unwrap());
    back_up(&store);
    let packs = disk::numbered(&copy.path().join("bodies"), pack::EXTENSION).unwrap();
    assert_eq!(packs, disk::numbered(&dir.path().join("bodies"), pack::EXTENSION).unwrap());
    assert_eq!(Store::check(copy.path(), Level::Full, &mut |_| {}).unwrap().problems, []);
    let mut restored = Store::open(copy.path()).unwrap();
    replay(&mut restored);
    assert!(!restored.bodies().contains(ids[0]).unwrap() && !restored.bodies().contains(big).unwrap());
    assert_eq!(restored.bodies().read(ids[1]).unwrap(), mail(1));
}
