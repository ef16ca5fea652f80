//! A transaction's view of the tables against a model in memory.

use super::*;
use crate::uid::MemoryTables;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Remove(u8),
    Commit,
    Rollback,
    Range(u8, u8, usize),
    Last(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0u8..20;
    let step = prop_oneof![
        4 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        3 => key.clone().prop_map(Step::Remove),
        1 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        3 => (key.clone(), key.clone(), 0usize..8).prop_map(|(from, to, limit)| Step::Range(from, to, limit)),
        2 => (key.clone(), key).prop_map(|(from, to)| Step::Last(from, to)),
    ];
    prop::collection::vec(step, 1..60)
}

/// Key 0 stands for the empty key, which means "to the end" as an upper bound.
fn bytes(key: u8) -> Vec<u8> {
    if key == 0 { Vec::new() } else { vec![key] }
}

fn run(store: &mut Store, model: &mut MemoryTables, steps: &[Step]) -> Result<(), TestCaseError> {
    let table = Table::Uids;
    let mut at = 0;
    while at < steps.len() {
        let mut txn = store.begin().unwrap();
        let mut uncommitted = model.clone();
        let mut keep = false;
        for step in &steps[at..] {
            at += 1;
            match step {
                Step::Put(key, value) => {
                    txn.put(table, &bytes(*key), &[*value]).unwrap();
                    uncommitted.put(table, &bytes(*key), &[*value]).unwrap();
                }
                Step::Remove(key) => {
                    txn.remove(table, &bytes(*key)).unwrap();
                    uncommitted.remove(table, &bytes(*key)).unwrap();
                }
                Step::Range(from, to, limit) => {
                    let range = txn.range(table, &bytes(*from), &bytes(*to), *limit).unwrap();
                    let expected = uncommitted.range(table, &bytes(*from), &bytes(*to), *limit).unwrap();
                    prop_assert_eq!(range, expected);
                }
                Step::Last(from, to) => {
                    let last = txn.last(table, &bytes(*from), &bytes(*to)).unwrap();
                    prop_assert_eq!(last, uncommitted.last(table, &bytes(*from), &bytes(*to)).unwrap());
                }
                Step::Commit => keep = true,
                Step::Rollback => {}
            }
            if matches!(step, Step::Commit | Step::Rollback) {
                break;
            }
        }
        if keep {
            txn.commit().unwrap();
            *model = uncommitted;
        }
        let rows = store.reader().unwrap().range(table, &[], &[], usize::MAX).unwrap();
        prop_assert_eq!(rows, model.range(table, &[], &[], usize::MAX).unwrap());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_transaction_reads_like_the_model(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::create(dir.path()).unwrap();
        run(&mut store, &mut MemoryTables::default(), &steps)?;
    }
}

#[test]
fn a_reader_sees_one_state_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(dir.path()).unwrap();
    commit(&mut store, &[(A, 1)]);
    let handle = store.handle();
    let old = handle.reader().unwrap();
    let mut txn = store.begin().unwrap();
    log(&mut txn, A, 2);
    let during =
        std::thread::scope(|scope| scope.spawn(|| handle.reader().unwrap().position()).join().unwrap());
    assert_eq!(during, Position(1));
    txn.commit().unwrap();
    assert_eq!(old.last_seq(A).unwrap(), 1);
    assert_eq!(handle.reader().unwrap().last_seq(A).unwrap(), 2);
}

#[test]
fn after_much_was_written_the_index_is_compacted_on_close_and_after_little_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let index = || fs::metadata(dir.path().join("index.redb")).unwrap().len();
    let mut store = Store::create(dir.path()).unwrap();
    let row = |n: u32| (blake3::hash(&n.to_le_bytes()), [n as u8; 100]);
    // Keys in no order, as ids are: each batch writes most pages anew.
    for batch in 0..20 {
        let mut txn = store.begin().unwrap();
        for (key, value) in (batch * 1000..(batch + 1) * 1000).map(row) {
            txn.put(Table::Entries, key.as_bytes(), &value).unwrap();
        }
        txn.log_local(b"batch").unwrap();
        txn.commit().unwrap();
    }
    let before = index();
    store.close().unwrap();
    let compacted = index();
    assert!(compacted < 20_000 * 132 * 2, "{compacted} bytes for rows of 2.6 MB");
    assert!(compacted * 3 < before * 2, "{before} bytes became {compacted}");

    let mut store = Store::open(dir.path()).unwrap();
    let mut txn = store.begin().unwrap();
    txn.put(Table::Meta, b"one", b"more").unwrap();
    txn.log_local(b"little").unwrap();
    txn.commit().unwrap();
    store.close().unwrap();
    assert!(index() > compacted * 3 / 2, "it was compacted for one row");
    let store = Store::open(dir.path()).unwrap();
    let reader = store.reader().unwrap();
    for (key, value) in (0..20_000).step_by(997).map(row) {
        assert_eq!(reader.get(Table::Entries, key.as_bytes()).unwrap().unwrap(), value);
    }
}
