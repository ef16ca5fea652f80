//! Bodies, small, large and in pieces.

use std::io::{self, Read};

use super::*;
use crate::blob::{BlobHasher, BlobId, Bundle, MAX_BLOB, MAX_SMALL};
use crate::store::disk::Disk;
use crate::store::disk::fault::Fault;

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
    out
}

#[test]
fn small_bodies_are_stored_once_and_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    let bodies = store.bodies().clone();
    let mails: Vec<Vec<u8>> =
        (0..300).map(|n| format!("Subject: {n}\r\n\r\n{}", "text ".repeat(200))).map(Into::into).collect();
    let ids = bodies.put_many(&mails).unwrap();
    let length = || fs::metadata(pack::path(bodies.dir(), 1)).unwrap().len();
    let stored = length();
    assert!(stored < 30_000, "{stored} bytes for 300 kB of like text");
    assert_eq!(bodies.put_many(&mails).unwrap(), ids);
    assert_eq!(bodies.put(&mails[7]).unwrap(), ids[7]);
    assert_eq!(length(), stored);
    for pass in ["pending", "in the index", "after a restart"] {
        for (id, mail) in ids.iter().zip(&mails) {
            assert_eq!(&bodies.read(*id).unwrap(), mail, "{pass}");
        }
        assert_eq!(bodies.size(ids[3]).unwrap(), Some(mails[3].len() as u64));
        if pass == "pending" {
            commit(&mut store, &[(A, 1)]);
        }
    }
    let absent = BlobId::of(b"absent");
    assert!(!bodies.contains(absent).unwrap());
    assert_eq!(bodies.size(absent).unwrap(), None);
    assert!(matches!(bodies.read(absent), Err(StoreError::NoBody(id)) if id == absent));
    let mut tail = String::new();
    bodies.open_at(ids[5], 9).unwrap().read_to_string(&mut tail).unwrap();
    assert!(tail.starts_with("5\r\n"));
}

#[test]
fn a_bundle_goes_from_store_to_store_as_it_is() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (Store::create(one.path()).unwrap(), Store::create(two.path()).unwrap());
    let ids = one.bodies().put_many(["first mail", "second mail"]).unwrap();
    let bundle = one.bodies().bundle_of(ids[1]).unwrap().unwrap();
    let got = two.bodies().import_bundle(&bundle).unwrap();
    assert_eq!(got, [(ids[0], 10), (ids[1], 11)]);
    assert_eq!(two.bodies().read(ids[0]).unwrap(), b"first mail");
    assert_eq!(two.bodies().bundle_of(ids[0]).unwrap().unwrap(), bundle);
    let lie = Bundle::encode(&[(ids[0], b"other")]).unwrap();
    assert!(matches!(two.bodies().import_bundle(&lie), Err(StoreError::Bundle(_))));
}

#[test]
fn a_full_segment_is_followed_by_another() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let ids: Vec<BlobId> =
        (0..70).map(|seed| store.bodies().put(&noise(seed, MAX_SMALL - 1)).unwrap()).collect();
    assert!(pack::path(store.bodies().dir(), 2).exists());
    drop(store);
    fs::remove_file(dir.path().join("index.redb")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (seed, id) in ids.iter().enumerate() {
        assert_eq!(store.bodies().read(*id).unwrap(), noise(seed as u8, MAX_SMALL - 1));
    }
}

#[test]
fn a_failed_sync_of_a_full_segment_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(Fault::after(u64::MAX));
    let store = Store::create_on(dir.path(), Disk::stopped_by(Arc::clone(&fault))).unwrap();
    let ids: Vec<BlobId> =
        (0..63).map(|seed| store.bodies().put(&noise(seed, MAX_SMALL - 1)).unwrap()).collect();
    fault.stop_now();
    assert!(matches!(
        store.bodies().put(&noise(63, MAX_SMALL - 1)),
        Err(StoreError::Io { action: "sync", .. })
    ));
    fault.resume();
    assert!(matches!(store.bodies().put(&noise(64, MAX_SMALL - 1)), Err(StoreError::Poisoned)));
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(ids.iter().all(|id| store.bodies().read(*id).is_ok()));
    store.bodies().put(&noise(64, MAX_SMALL - 1)).unwrap();
    assert!(pack::path(store.bodies().dir(), 2).exists());
}

/// Gives bytes without having them, and looks at how much is asked for at once.
struct Generated {
    left: u64,
    state: u64,
    text: bool,
    largest: usize,
}

impl Read for &mut Generated {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = out.len().min(self.left as usize);
        self.largest = self.largest.max(out.len());
        self.left -= length as u64;
        for byte in &mut out[..length] {
            self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = if self.text { b'a' + (self.state >> 62) as u8 } else { (self.state >> 56) as u8 };
        }
        Ok(length)
    }
}

#[test]
fn a_large_body_streams_in_and_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    for text in [true, false] {
        let mut source = Generated { left: 50 << 20, state: 1, text, largest: 0 };
        let (id, length) = store.bodies().put_reader(&mut source).unwrap();
        assert_eq!(length, 50 << 20);
        assert!(source.largest <= MAX_SMALL, "asked for {} bytes at once", source.largest);
        let stored = fs::metadata(large::path(store.bodies().dir(), id)).unwrap().len();
        assert_eq!(stored < length / 2, text, "{stored} bytes on disk");
        assert_eq!(store.bodies().size(id).unwrap(), Some(length));

        for offset in [0, 49 << 20, length] {
            let mut reader = store.bodies().open_at(id, offset).unwrap();
            assert_eq!(reader.remaining(), length - offset);
            let (mut hasher, mut piece, mut count) = (BlobHasher::new(), vec![0; 64 << 10], 0);
            while let n @ 1.. = reader.read(&mut piece).unwrap() {
                hasher.update(&piece[..n]);
                count += n as u64;
            }
            assert_eq!(count, length - offset);
            assert!(offset > 0 || hasher.finish() == id);
        }
        let again = store.bodies().put_reader(&mut Generated { left: 50 << 20, state: 1, text, largest: 0 });
        assert_eq!(again.unwrap().0, id);
    }
    assert_eq!(fs::read_dir(store.bodies().dir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_body_above_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let refused = store.bodies().put_reader(io::repeat(0).take(MAX_BLOB + 1));
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    assert_eq!(fs::read_dir(store.bodies().dir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_fetch_resumes_where_it_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    for length in [1000, 3 << 20] {
        let body = noise(1, length);
        let id = BlobId::of(&body);
        let (first, second) = body.split_at(600);
        let mut store = if dir.path().join("STORE").exists() {
            Store::open(dir.path())
        } else {
            Store::create(dir.path())
        }
        .unwrap();
        store.bodies().partial(id).unwrap().append(first).unwrap();
        store.close().unwrap();
        store = Store::open(dir.path()).unwrap();
        let mut partial = store.bodies().partial(id).unwrap();
        assert_eq!(partial.length(), 600);
        assert_eq!(store.bodies().partials().unwrap(), [(id, 600)]);
        partial.append(second).unwrap();
        assert_eq!(partial.finish().unwrap(), length as u64);
        assert_eq!(store.bodies().read(id).unwrap(), body);

        let wanted = BlobId::of(b"something else");
        let mut partial = store.bodies().partial(wanted).unwrap();
        partial.append(&body).unwrap();
        assert!(matches!(partial.finish(), Err(StoreError::WrongBody { found, .. }) if found == id));
        assert!(!store.bodies().contains(wanted).unwrap());
        assert_eq!(store.bodies().partials().unwrap(), [], "the pieces are gone");
    }
}
