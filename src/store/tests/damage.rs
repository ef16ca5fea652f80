//! Bytes rot, files are cut or vanish: it is noticed, named, and repaired as far as it can be.

use std::io::Write;

use redb::ReadableTable as _;

use super::*;
use crate::blob::BlobId;

fn build(dir: &Path) -> (Vec<BlobId>, u64) {
    let mut store = Store::create(dir).unwrap();
    let mut ids =
        store.bodies().put_many((0..20).map(|n| format!("mail {n} {}", "text ".repeat(n)))).unwrap();
    for seq in 1..=5 {
        ids.push(store.bodies().put(format!("single mail {seq}").as_bytes()).unwrap());
        commit(&mut store, &[(A, seq)]);
    }
    ids.push(store.bodies().put(&vec![b'x'; 2 << 20]).unwrap());
    store.write_snapshot(Position(4), b"the document").unwrap();
    commit(&mut store, &[(A, 6)]);
    let end = store.log.end().offset;
    store.close().unwrap();
    (ids, end)
}

fn flip(path: &Path, offset: u64, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset as usize] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

fn problems(dir: &Path) -> Vec<Problem> {
    match Store::check(dir, Level::Full, &mut |_| {}) {
        Ok(report) => report.problems,
        Err(StoreError::Damaged { path, offset, what }) => vec![Problem::Damaged { path, offset, what }],
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn every_flipped_bit_of_truth_is_noticed_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (ids, _) = build(dir.path());
    let bodies = dir.path().join("bodies");
    let large = large::path(&bodies, *ids.last().unwrap());
    let snapshot = snapshot::path(dir.path(), Position(4));
    let files = [
        dir.path().join("log/00000001.log"),
        bodies.join("00000001.pack"),
        large,
        snapshot,
        dir.path().join("STORE"),
    ];
    assert_eq!(problems(dir.path()), []);
    for path in files {
        let length = fs::metadata(&path).unwrap().len();
        // Unused bytes of a header carry no truth, but its checksum covers them all the same.
        for offset in (0..length).step_by(if length > 600 { 17 } else { 5 }) {
            let bit = (offset % 8) as u8;
            flip(&path, offset, bit);
            let found = problems(dir.path());
            let named = found
                .iter()
                .any(|problem| matches!(problem, Problem::Damaged { path: named, .. } if *named == path));
            assert!(named, "bit {bit} of byte {offset} of {}: {found:?}", path.display());
            flip(&path, offset, bit);
        }
    }
    assert_eq!(problems(dir.path()), []);
}

#[test]
fn a_damaged_index_is_noticed_or_harmless_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let path = dir.path().join("index.redb");
    let good = fs::read(&path).unwrap();
    let expected = dump(&Store::open(dir.path()).unwrap());
    for offset in (0..good.len()).step_by(1013) {
        fs::write(&path, &good).unwrap();
        flip(&path, offset as u64, 3);
        if problems(dir.path()).is_empty() {
            let mut store = Store::open(dir.path()).unwrap();
            replay(&mut store);
            assert_eq!(dump(&store), expected, "byte {offset}");
        }
    }
    for spoiled in [Vec::new(), b"not a database".to_vec(), good[..good.len() / 2].to_vec()] {
        fs::write(&path, spoiled).unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        replay(&mut store);
        assert_eq!(dump(&store), expected);
    }
}

#[test]
fn an_index_with_rows_of_another_version_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let expected = dump(&Store::open(dir.path()).unwrap());
    let state = redb::TableDefinition::<&[u8], &[u8]>::new("state");
    for format in [index::FORMAT - 1, index::FORMAT + 1] {
        {
            let database = redb::Database::create(dir.path().join("index.redb")).unwrap();
            let write = database.begin_write().unwrap();
            {
                let mut table = write.open_table(state).unwrap();
                let mut row = table.get(b"state".as_slice()).unwrap().unwrap().value().to_vec();
                row[..4].copy_from_slice(&format.to_le_bytes());
                table.insert(b"state".as_slice(), row.as_slice()).unwrap();
            }
            write.commit().unwrap();
        }
        let mut store = Store::open(dir.path()).unwrap();
        assert_eq!(replay(&mut store), 6);
        assert_eq!(dump(&store), expected);
        store.close().unwrap();
    }
}

#[test]
fn a_store_without_its_empty_directories_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    let small = store.bodies().put(b"small").unwrap();
    commit(&mut store, &[(A, 1)]);
    store.close().unwrap();
    for name in ["large", "partial", "tmp"] {
        fs::remove_dir(dir.path().join("bodies").join(name)).unwrap();
    }
    assert_eq!(problems(dir.path()), []);
    let store = Store::open_read_only(dir.path()).unwrap();
    assert!(store.bodies().contains(small).unwrap());
    assert_eq!(store.bodies().partials().unwrap(), []);
    drop(store);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    let mut store = Store::open(copy.path()).unwrap();
    assert_eq!(replay(&mut store), 0);
    let large = store.bodies().put(&vec![b'x'; 2 << 20]).unwrap();
    assert!(store.bodies().contains(large).unwrap());
    store.close().unwrap();
    assert_eq!(problems(copy.path()), []);
}

#[test]
fn a_torn_group_is_cut_off_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    commit(&mut store, &[(A, 1)]);
    let from = store.log.end().offset;
    commit(&mut store, &[(A, 2)]);
    let to = store.log.end().offset;
    // A copy of an open store is what a killed process leaves: the index lags behind.
    let image = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), image.path());
    for cut in from..=to {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(image.path(), copy.path());
        let log = fs::File::options().write(true).open(copy.path().join("log/00000001.log")).unwrap();
        log.set_len(cut).unwrap();
        let mut store = Store::open(copy.path()).unwrap();
        let groups = if cut == to { 2 } else { 1 };
        assert_eq!(replay(&mut store), groups, "cut at {cut}");
        assert_eq!(dump(&store).0, BTreeMap::from([(A, groups)]));
        commit(&mut store, &[(A, groups + 1)]);
    }
}

#[test]
fn garbage_behind_the_end_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (ids, end) = build(dir.path());
    let expected = dump(&Store::open(dir.path()).unwrap());
    for length in [1, 7, 20, 300, 70_000] {
        let mut garbage = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut garbage);
        for file in ["log/00000001.log", "bodies/00000001.pack"] {
            let mut file = fs::File::options().append(true).open(dir.path().join(file)).unwrap();
            file.write_all(&garbage).unwrap();
        }
        assert_eq!(problems(dir.path()), [], "what was never acknowledged is no loss");
        let mut store = Store::open(dir.path()).unwrap();
        assert_eq!((replay(&mut store), store.log.end().offset), (0, end));
        assert_eq!(dump(&store), expected);
        assert_eq!(store.bodies().read(ids[21]).unwrap(), b"single mail 2");
    }
}

#[test]
fn a_log_that_lost_what_the_index_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, end) = build(dir.path());
    let path = dir.path().join("log/00000001.log");
    fs::File::options().write(true).open(&path).unwrap().set_len(end - 1).unwrap();
    match Store::open(dir.path()) {
        Err(StoreError::Damaged { path: named, offset, .. }) => assert_eq!((named, offset), (path, end - 1)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_group_is_cut_out_and_its_changes_are_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let path = dir.path().join("log/00000001.log");
    let text = fs::read(&path).unwrap();
    let (_, wanted) = change_bytes(A, 3);
    let offset = text.windows(wanted.len()).position(|window| window == wanted).unwrap() as u64;
    flip(&path, offset, 0);

    // Without an index the log must be read, and is refused by name.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    fs::remove_file(copy.path().join("index.redb")).unwrap();
    assert!(matches!(Store::open(copy.path()), Err(StoreError::Damaged { .. })));

    for dir in [dir.path(), copy.path()] {
        let report = Store::repair(dir, &mut |_| {}).unwrap();
        assert_eq!(report.lost_changes, [LostChanges { actor: A, first: 3, last: 3 }]);
        assert!(report.lost_bodies.is_empty() && report.lost_local);
        assert!(dir.join("log/00000001.damaged").exists());

        let mut store = Store::open(dir).unwrap();
        assert_eq!(replay(&mut store), 6);
        assert_eq!(dump(&store).0, BTreeMap::from([(A, 2)]));
        assert_eq!(dump(&store).2.len(), 6, "the record beside the lost change was saved");
        commit(&mut store, &[(A, 3)]);
        assert_eq!(dump(&store).0, BTreeMap::from([(A, 6)]));
        store.close().unwrap();
        assert_eq!(problems(dir), []);
    }
}

#[test]
fn damaged_bodies_are_reported_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (ids, _) = build(dir.path());
    let bodies = dir.path().join("bodies");
    let store = Store::open(dir.path()).unwrap();
    let record = store.bodies().bundle_of(ids[22]).unwrap().unwrap();
    store.close().unwrap();
    let pack = bodies.join("00000001.pack");
    let text = fs::read(&pack).unwrap();
    let offset = text.windows(record.len()).position(|window| window == record).unwrap() as u64;
    flip(&pack, offset + 20, 1);
    let large = large::path(&bodies, ids[25]);
    flip(&large, 90, 1);

    let found = problems(dir.path());
    assert!(found.contains(&Problem::LostBody(ids[22])), "{found:?}");
    let mut report = Store::repair(dir.path(), &mut |_| {}).unwrap();
    report.lost_bodies.sort();
    let mut lost = vec![ids[22], ids[25]];
    lost.sort();
    assert_eq!(report.lost_bodies, lost);
    let mut store = Store::open(dir.path()).unwrap();
    replay(&mut store);
    assert!(!store.bodies().contains(ids[22]).unwrap() && !store.bodies().contains(ids[25]).unwrap());
    assert_eq!(store.bodies().read(ids[21]).unwrap(), b"single mail 2");
    store.bodies().put(b"single mail 3").unwrap();
    assert_eq!(store.bodies().read(ids[22]).unwrap(), b"single mail 3");
}

#[test]
fn a_scrub_finds_each_damaged_body_and_nothing_else_and_its_place_can_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    let noise = |seed: u8, length: usize| {
        let mut out = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
        out
    };
    let bodies = store.bodies().clone();
    // A record each, in two segments; and two large ones.
    let small: Vec<_> = (0..20).map(|seed| bodies.put(&noise(seed, 3000)).unwrap()).collect();
    commit(&mut store, &[(A, 1)]);
    let half = bodies.evacuate(1, 0, 30_000).unwrap();
    assert!(half.next.is_some());
    let large: Vec<_> = (50..52).map(|seed| bodies.put(&noise(seed, 1 << 20)).unwrap()).collect();
    commit(&mut store, &[(A, 2)]);
    let flip = |path: &Path, at: u64| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at as usize] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let pass = |place: ScrubPlace| {
        let (mut scrub, mut all, mut places) = (Scrub::from(place), Scrubbed::default(), Vec::new());
        while !scrub.is_done() {
            let found = scrub.step(&bodies, 2000).unwrap();
            all.bytes += found.bytes;
            all.bodies += found.bodies;
            all.damaged.extend(found.damaged);
            places.push(scrub.place());
        }
        (all, places)
    };
    let (whole, places) = pass(ScrubPlace::Segment(0));
    assert_eq!((whole.bodies, whole.damaged), (22, vec![]));
    assert!(whole.bytes > (2 << 20) && whole.bytes < 2_300_000, "{}", whole.bytes);
    assert!(places.contains(&ScrubPlace::Segment(2)));
    // The first record of the second segment, the last one of the first, its header, and a large body.
    flip(&pack::path(bodies.dir(), 2), 100);
    let end = fs::metadata(pack::path(bodies.dir(), 1)).unwrap().len();
    flip(&pack::path(bodies.dir(), 1), end - 3050);
    flip(&large::path(bodies.dir(), large[1]), 900_000);
    let (found, _) = pass(ScrubPlace::Segment(0));
    let damaged: Vec<_> = found.damaged.iter().map(|body| body.blob).collect();
    assert_eq!((found.bodies, damaged), (19, vec![small[19], small[0], large[1]]));
    let (rest, _) = pass(ScrubPlace::Segment(2));
    assert_eq!(rest.damaged.len(), 2, "the first segment was read before");
    let after = pass(ScrubPlace::Large(Some(large[0].max(large[1])))).0;
    assert_eq!((after.bodies, after.damaged.len()), (0, 0));

    assert!(bodies.evacuate(1, 0, u64::MAX).is_err(), "what lives in there is damaged");
    store.drop_damaged(&found.damaged).unwrap();
    assert!(found.damaged.iter().all(|body| !bodies.contains(body.blob).unwrap()));
    assert!(large::path(bodies.dir(), large[1]).with_extension("damaged").exists());
    bodies.put(&noise(19, 3000)).unwrap();
    commit(&mut store, &[(A, 3)]);
    assert!(bodies.evacuate(1, 0, u64::MAX).unwrap().next.is_none(), "and now only damage is left behind");
    assert!(store.remove_segment(1).unwrap());
    for seed in 1..20 {
        assert_eq!(bodies.read(small[seed as usize]).unwrap(), noise(seed, 3000));
    }
}
