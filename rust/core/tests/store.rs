//! What the store promises, against a plain map and under every order of writes.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use turbopump_core::blob::Value;
use turbopump_core::entry::View;
use turbopump_core::keyspace::{Keyspace, Keyspaces, Writes};
use turbopump_core::merkle::{DigestKey, MerkleTree};
use turbopump_core::store::{Merged, Store, StoreConfig};
use turbopump_core::version::{NodeId, Version};

const HOME: NodeId = NodeId(7);

fn store_with(memory_max: u64, keyspaces: Vec<Keyspace>) -> Store {
    let keyspaces = Keyspaces::new(keyspaces);
    Store::new(StoreConfig { node: HOME, hash_seed: 1, digest_secret: [3; 16], keyspaces, memory_max })
}

fn store() -> Store {
    store_with(0, Vec::new())
}

fn version(stamp: u64) -> Version {
    Version { stamp, node: NodeId(stamp % 3 + 6) }
}

fn value(stamp: u64, bytes: &[u8]) -> View<'_> {
    View::value(version(stamp), Value::Inline(bytes))
}

/// A write as it could come from anywhere: a key, a stamp, a value or none, an expiry or none.
type Write = (u8, u64, Option<Vec<u8>>, u64);

fn write() -> impl Strategy<Value = Write> {
    (0u8..20, 1u64..30, proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)), 0u64..3)
}

fn merge(store: &Store, (key, stamp, bytes, expires_ms): &Write) -> Merged {
    let view = match bytes {
        Some(bytes) => View { expires_ms: *expires_ms, ..value(*stamp, bytes) },
        None => View::tombstone(version(*stamp)),
    };
    store.merge(&[*key], &view).expect("there is no limit")
}

fn contents(store: &Store) -> BTreeMap<Vec<u8>, (Version, Option<Vec<u8>>)> {
    let mut all = BTreeMap::new();
    store.scan(0, usize::MAX, |key, view| {
        all.insert(key.to_vec(), (view.version, view.value.map(|value| value.to_vec())));
    });
    all
}

/// What must always hold: the digests and the accounts say what is in the tables.
fn check(store: &Store) {
    let (mut tree, secret) = (MerkleTree::new(), DigestKey::new(&[3; 16]));
    let all = contents(store);
    for (key, (version, value)) in &all {
        tree.toggle(&secret, key, *version, value.is_none());
    }
    assert_eq!(store.merkle(), tree);
    assert_eq!(store.root(), tree.root());
    let values = all.values().filter(|(_, value)| value.is_some()).count();
    assert_eq!(store.usage().total().keys(), values as u64);
    let footprints: usize = all.keys().filter_map(|key| store.footprint(key)).sum();
    let accounts: u64 = store.usage().keyspaces().iter().map(|account| account.bytes()).sum();
    assert!(accounts <= store.usage().total().bytes() && accounts <= footprints as u64);
}

proptest! {
    /// Replicas that saw the same writes in any order hold the same, when they keep tombstones.
    #[test]
    fn order_does_not_matter(writes in proptest::collection::vec(write(), 0..60), seed: u64) {
        for kind in [Writes::Versioned, Writes::Immutable] {
            let replica = || {
                let store = store_with(0, vec![Keyspace { writes: kind, ..Keyspace::default() }]);
                store.keep_tombstones(true);
                store
            };
            let (one, other) = (replica(), replica());
            let mut shuffled = writes.clone();
            shuffled.sort_by_key(|write| (write.1 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            writes.iter().for_each(|write| { merge(&one, write); });
            shuffled.iter().chain(&shuffled).for_each(|write| { merge(&other, write); });
            prop_assert_eq!(contents(&one), contents(&other));
            prop_assert_eq!(one.merkle(), other.merkle());
            check(&one);
        }
    }

    /// A node alone: the latest write of a key is there, nothing of a deleted key remains.
    #[test]
    fn alone_it_is_a_map(writes in proptest::collection::vec(write(), 0..80)) {
        let (store, mut map) = (store(), BTreeMap::new());
        for (stamp, (key, _, bytes, expires_ms)) in writes.into_iter().enumerate() {
            let stamp = stamp as u64 + 1;
            merge(&store, &(key, stamp, bytes.clone(), expires_ms));
            match bytes {
                Some(bytes) => map.insert(vec![key], (version(stamp), Some(bytes))),
                None => map.remove(&vec![key]),
            };
            check(&store);
        }
        prop_assert_eq!(&contents(&store), &map);
        for key in map.keys() {
            store.merge(key, &View::tombstone(version(1_000_000))).expect("a delete needs no room");
        }
        prop_assert_eq!((store.usage().total().bytes(), store.root(), store.expiring()), (0, 0, 0));
    }

    /// A scan finds what is there all along, whatever comes and goes meanwhile.
    #[test]
    fn a_scan_misses_nothing(
        stay in 1usize..300,
        step in 1usize..50,
        churn in proptest::collection::vec(any::<u16>(), 0..200),
    ) {
        let store = store();
        let key = |group: &str, number: usize| format!("{{{}}}{group}{number}", number % 4).into_bytes();
        for number in 0..stay {
            store.merge(&key("stay", number), &value(1, b"x")).expect("there is no limit");
        }
        let (mut seen, mut cursor, mut churn) = (BTreeSet::new(), 0, churn.into_iter().enumerate());
        loop {
            cursor = store.scan(cursor, step, |key, _| { seen.insert(key.to_vec()); });
            for (stamp, number) in churn.by_ref().take(20) {
                let (key, stamp) = (key("come", usize::from(number % 64)), stamp as u64 + 2);
                let view = if number % 2 == 0 { value(stamp, b"y") } else { View::tombstone(version(stamp)) };
                store.merge(&key, &view).expect("there is no limit");
            }
            if cursor == 0 { break }
        }
        for number in 0..stay {
            prop_assert!(seen.contains(&key("stay", number)), "{number}");
        }
    }
}

#[test]
fn a_delete_is_not_undone_by_an_older_write() {
    let store = store();
    assert_eq!(merge(&store, &(1, 5, Some(b"a".to_vec()), 0)), Merged::Applied);
    assert_eq!(merge(&store, &(1, 9, None, 0)), Merged::Applied);
    assert_eq!(store.usage().total().keys(), 0, "without peers a tombstone is collected at once");
    assert_eq!(merge(&store, &(1, 7, Some(b"b".to_vec()), 0)), Merged::Stale);
    assert_eq!(merge(&store, &(1, 12, Some(b"c".to_vec()), 0)), Merged::Applied);
    assert_eq!(merge(&store, &(1, 11, Some(b"d".to_vec()), 0)), Merged::Kept);
}

#[test]
fn tombstones_are_kept_for_peers() {
    let store = store();
    store.keep_tombstones(true);
    merge(&store, &(1, 5, Some(b"a".to_vec()), 0));
    merge(&store, &(1, 9, None, 0));
    assert_eq!(contents(&store), BTreeMap::from([(vec![1], (version(9), None))]));
    check(&store);
}

#[test]
fn what_has_expired_is_collected() {
    let store = store();
    for number in 0..100u32 {
        let view = View { expires_ms: if number % 2 == 0 { 1_000 } else { 0 }, ..value(1, b"x") };
        store.merge(&number.to_be_bytes(), &view).expect("there is no limit");
    }
    assert_eq!(store.collect(0, usize::MAX, 999), (0, 0));
    assert_eq!(store.usage().total().keys(), 100);
    let (mut cursor, mut due) = store.collect(0, 10, 1_000);
    while cursor != 0 {
        let (next, more) = store.collect(cursor, 10, 1_000);
        (cursor, due) = (next, due + more);
    }
    assert_eq!(due, 50);
    assert_eq!((store.usage().total().keys(), store.expired(), store.expiring()), (50, 50, 0));
    check(&store);
}

#[test]
fn a_full_store_refuses_writes_and_keeps_the_rest() {
    let limited = Keyspace { prefix: b"small/".to_vec(), memory_max: 1_000, ..Keyspace::default() };
    let store = store_with(200_000, vec![limited]);
    let fill = |prefix: &str| {
        (0..)
            .find(|number| store.merge(format!("{prefix}{number}").as_bytes(), &value(1, &[0; 200])).is_err())
    };
    let small = fill("small/").expect("the keyspace is full");
    assert!((2..=4).contains(&small), "{small}");
    let all = fill("other/").expect("the node is full");
    assert!((500..1000).contains(&all), "{all}");
    assert!(store.usage().total().bytes() <= 200_000);
    assert_eq!(store.merge(b"other/0", &value(2, &[1; 200])), Ok(Merged::Applied), "no larger than before");
    assert_eq!(store.merge(b"other/1", &View::tombstone(version(2))), Ok(Merged::Applied));
    check(&store);
}

#[test]
fn tombstones_are_no_keys_and_go_when_they_need_not_be_kept() {
    let store = store();
    store.keep_tombstones(true);
    for key in 0..100u8 {
        store.merge(&[key], &value(1, b"x")).expect("there is room");
        store.merge(&[key], &View::tombstone(version(4))).expect("a delete needs no room");
    }
    assert_eq!((store.usage().total().keys(), contents(&store).len()), (0, 100));
    assert_eq!((store.has_passing(), store.collect(0, usize::MAX, 1)), (false, (0, 0)));
    store.keep_tombstones(false);
    assert!(store.has_passing());
    assert_eq!(store.collect(0, usize::MAX, 1), (0, 100));
    assert_eq!((store.usage().total().bytes(), store.root(), store.expired()), (0, 0, 0));
    assert!(!store.has_passing());
}
