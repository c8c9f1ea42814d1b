//! Two stores that heal each other; a walk of their trees, key by key, is the oracle.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::blob::Value;
use crate::entry::View;
use crate::keyspace::Keyspaces;
use crate::slot::SLOTS;
use crate::store::StoreConfig;
use crate::version::{NodeId, Version};
use proptest::prelude::*;

fn store(node: u64) -> Store {
    let store = Store::new(StoreConfig {
        node: NodeId(node),
        hash_seed: 3,
        digest_secret: [1; 16],
        keyspaces: Keyspaces::default(),
        memory_max: 0,
    });
    store.keep_tombstones(true);
    store
}

fn write(store: &Store, key: &str, stamp: u64, deleted: bool) {
    let version = Version { stamp, node: NodeId(9) };
    let value = (!deleted).then_some(Value::Inline(b"value"));
    let view = View { version, expires_ms: 0, floor: Version::ZERO, value };
    assert!(store.merge(key.as_bytes(), &view).is_ok());
}

fn scope() -> Scope {
    Scope { group: 0, slots: (0..SLOTS as u16).collect() }
}

/// Two sides, and what went between them.
struct Pair {
    stores: [Store; 2],
    exchanges: [Exchange; 2],
    puts: [Vec<Vec<u8>>; 2],
    trips: usize,
    bytes: usize,
    /// Pieces of work.
    steps: usize,
    now_ms: u64,
    unix_ms: u64,
}

impl Pair {
    fn new(a: Store, b: Store) -> Self {
        let exchange = |first| Exchange::new(ExchangeConfig { settle_ms: 0 }, scope(), first);
        let puts = [Vec::new(), Vec::new()];
        Pair {
            stores: [a, b],
            exchanges: [exchange(true), exchange(false)],
            puts,
            trips: 0,
            bytes: 0,
            steps: 0,
            now_ms: 1,
            unix_ms: 1 << 40,
        }
    }

    /// One round, begun by the first; returns what it came to on the other side.
    fn round(&mut self) -> Option<Outcome> {
        (self.trips, self.bytes) = (0, 0);
        self.now_ms += 1;
        self.exchanges[0].start(self.now_ms, &self.stores[0]);
        for turn in 0.. {
            let mut moved = false;
            for side in [0, 1] {
                while self.step(side) {}
                while let Some(bytes) = self.exchanges[side].poll_message() {
                    self.bytes += bytes.len();
                    moved = true;
                    let (to, now) = (1 - side, Now { ms: self.now_ms, unix_ms: self.unix_ms });
                    assert!(self.exchanges[to].handle_message(now, &self.stores[to], &bytes, false).is_ok());
                }
            }
            if !moved {
                self.trips = turn;
                break;
            }
        }
        self.exchanges[1].poll_outcome()
    }

    /// Works; what one puts, the other merges.
    fn step(&mut self, side: usize) -> bool {
        self.steps += 1;
        let mut puts: Vec<(Vec<u8>, Version, bool)> = Vec::new();
        let more = self.exchanges[side].work(self.unix_ms, &self.stores[side], &mut |key, view| {
            puts.push((key.to_vec(), view.version, view.value.is_none()));
            true
        });
        for (key, version, deleted) in puts {
            let text = String::from_utf8_lossy(&key).into_owned();
            write(&self.stores[1 - side], &text, version.stamp, deleted);
            self.puts[side].push(key);
        }
        more
    }

    fn heal(&mut self) -> usize {
        for rounds in 1..=40 {
            if matches!(self.round(), Some(Outcome::Equal(_))) {
                return rounds;
            }
        }
        panic!("not equal after 40 rounds");
    }

    fn contents(&self, side: usize) -> BTreeMap<Vec<u8>, (Version, bool)> {
        let mut all = BTreeMap::new();
        self.stores[side].scan(0, usize::MAX, |key, view| {
            all.insert(key.to_vec(), (view.version, view.value.is_none()));
        });
        all
    }

    /// The keys that differ, found by walking both trees.
    fn differences(&self) -> BTreeSet<Vec<u8>> {
        let (a, b) = (self.contents(0), self.contents(1));
        let slots = self.stores[0].merkle().diff(&self.stores[1].merkle());
        let keys = a.keys().chain(b.keys()).filter(|key| slots.contains(&crate::slot::key_slot(key)));
        keys.filter(|key| a.get(*key) != b.get(*key)).cloned().collect()
    }
}

type Item = (u16, u64, bool);

fn filled(items: &[Item], node: u64) -> Store {
    let store = store(node);
    items.iter().for_each(|(key, stamp, deleted)| write(&store, &format!("key{key}"), *stamp, *deleted));
    store
}

fn items(count: usize) -> impl Strategy<Value = Vec<Item>> {
    proptest::collection::vec((any::<u16>(), 1u64..5, any::<bool>()), 0..count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_differs_is_found_and_nothing_else(both in items(300), a in items(60), b in items(60)) {
        let mut pair = Pair::new(filled(&[&both[..], &a].concat(), 1), filled(&[&both[..], &b].concat(), 2));
        let differ = pair.differences();
        pair.heal();
        let put: BTreeSet<Vec<u8>> = pair.puts.iter().flatten().cloned().collect();
        prop_assert_eq!(pair.contents(0), pair.contents(1));
        prop_assert_eq!(put, differ);
    }

    #[test]
    fn nonsense_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..12) {
        let store = filled(&[(1, 1, false), (2, 1, false)], 1);
        let mut exchange = Exchange::new(ExchangeConfig { settle_ms: 0 }, scope(), false);
        let bytes = [&[kind, 2, 0, 0, 0], &bytes[..]].concat();
        let root = Message::Root { round: 2, root: 1 }.encode();
        let _ = exchange.handle_message(Now::default(), &store, &root, false);
        let _ = exchange.handle_message(Now::default(), &store, &bytes, false);
        while exchange.work(0, &store, &mut |_, _| true) {}
    }
}

#[test]
fn equal_sides_say_little() {
    let items: Vec<Item> = (0..1000).map(|key| (key, 1, false)).collect();
    let mut pair = Pair::new(filled(&items, 1), filled(&items, 2));
    assert!(matches!(pair.round(), Some(Outcome::Equal(_))));
    assert!(pair.bytes <= 64 && pair.trips == 1, "{} bytes, {} trips", pair.bytes, pair.trips);
    assert_eq!(pair.exchanges[0].stats().equal, 1);
}

#[test]
fn twenty_of_many_take_4_kib_and_three_round_trips() {
    let (a, b) = (store(1), store(2));
    for key in 0..50_000 {
        [&a, &b].into_iter().for_each(|store| write(store, &format!("key{key}"), 1, false));
    }
    for key in 0..10 {
        write(&a, &format!("key{}", key * 777), 2, key % 2 == 0);
        write(&b, &format!("new{key}"), 2, false);
    }
    let mut pair = Pair::new(a, b);
    assert_eq!(pair.round(), Some(Outcome::Healed));
    assert!(pair.bytes <= 4096 && pair.trips <= 3, "{} bytes, {} trips", pair.bytes, pair.trips);
    assert!(matches!(pair.round(), Some(Outcome::Equal(_))));
}

#[test]
fn what_is_sent_and_looked_at_follows_the_differences() {
    let (a, b) = (store(1), store(2));
    for key in 0..200_000 {
        [&a, &b].into_iter().for_each(|store| write(store, &format!("key{key}"), 1, false));
    }
    let mut pair = Pair::new(a, b);
    // To look at all entries once would be 3,125 steps, and sketching all digests on both sides is 128.
    for (stamp, differences, bytes, steps) in [
        (2, 100, 20_000, 300),
        (3, 500, 80_000, 800),
        (4, 1_000, 120_000, 1_300),
        (5, 8_000, 1_500_000, 10_000),
    ] {
        for key in 0..differences {
            write(&pair.stores[usize::from(key % 3 == 0)], &format!("key{}", key * 23), stamp, key % 2 == 0);
        }
        let differ = pair.differences();
        let before = (pair.exchanges[0].stats().bytes, pair.steps);
        pair.puts = [Vec::new(), Vec::new()];
        pair.heal();
        let put: BTreeSet<Vec<u8>> = pair.puts.iter().flatten().cloned().collect();
        assert_eq!(put, differ);
        let after = (pair.exchanges[0].stats().bytes - before.0, pair.steps - before.1);
        assert!(
            after.0 <= bytes && after.1 <= steps,
            "{differences} took {} bytes, {} steps",
            after.0,
            after.1
        );
    }
}

#[test]
fn a_blank_side_and_sides_with_little_in_common_heal() {
    for (a, b) in [(0..20_000, 0..0), (0..0, 0..20_000), (0..15_000, 10_000..30_000)] {
        let (left, right) = (store(1), store(2));
        a.clone().for_each(|key| write(&left, &format!("key{key}"), 1, false));
        b.clone().for_each(|key| write(&right, &format!("key{key}"), 1, false));
        let mut pair = Pair::new(left, right);
        let rounds = pair.heal();
        assert!(rounds <= 6, "{rounds} rounds for {a:?} and {b:?}");
        assert_eq!(pair.contents(0), pair.contents(1));
    }
}

#[test]
fn what_may_be_on_its_way_is_left_alone_for_a_while() {
    let (a, b) = (store(1), store(2));
    // A thousand keys are written all the time; an old one is missing.
    let written_ms = 1 << 40;
    let stamp = |ms: u64, key: u64| ms << 16 | key;
    (0..1000).for_each(|key| write(&a, &format!("key{key}"), stamp(written_ms, key), false));
    write(&a, "old", stamp(written_ms - 10_000, 0), false);
    let mut pair = Pair::new(a, b);
    write(&pair.stores[1], "other", stamp(written_ms - 10_000, 0), false);
    for exchange in &mut pair.exchanges {
        exchange.config.settle_ms = 500;
    }
    pair.unix_ms = written_ms + 100;
    pair.round();
    assert_eq!(pair.puts, [vec![b"old".to_vec()], vec![b"other".to_vec()]]);
    pair.unix_ms = written_ms + 501;
    assert_eq!(pair.heal(), 2);
    assert_eq!(pair.contents(0), pair.contents(1));
}

#[test]
fn who_heals_with_another_is_not_healed_twice() {
    let (a, b) = (store(1), store(2));
    write(&a, "key", 1, false);
    let mut pair = Pair::new(a, b);
    let now = Now { ms: 5, unix_ms: 1 << 40 };
    for begins in [0, 1] {
        let [first, second] = [begins, 1 - begins];
        pair.exchanges[first].start(5, &pair.stores[first]);
        let mut to = second;
        while let Some(bytes) = pair.exchanges[1 - to].poll_message() {
            // The second node is the busy one.
            let busy = to == 1;
            assert!(pair.exchanges[to].handle_message(now, &pair.stores[to], &bytes, busy).is_ok());
            assert!(!pair.step(to), "there is nothing to be done");
            to = 1 - to;
        }
        assert!(pair.exchanges.iter().all(|exchange| !exchange.is_healing(6)));
    }
    assert_eq!(pair.puts, [Vec::<Vec<u8>>::new(), Vec::new()]);
    assert!(pair.heal() <= 2);
    assert_eq!(pair.contents(0), pair.contents(1));
}

#[test]
fn messages_go_there_and_back_and_are_refused_when_cut() {
    let cells = Sketch::new(3).cells().to_vec();
    let part = |region| Part { region, until_ms: 1 << 40 };
    let all = [
        Message::Root { round: 1, root: 5 << 100 },
        Message::Equal { round: 2 },
        Message::Branches { round: 3, digests: (0..FANOUT as u64).collect() },
        Message::Slots { round: 4, digests: vec![(1, 2, 3), (16383, u64::MAX, 4)], last: true },
        Message::Sketch { round: 5, part: Some(part(Region::Branches(6))), from: 0, end: 3, cells },
        Message::More { round: 6, part: part(Region::Slots(vec![1, 2])), end: 128 },
        Message::More { round: 6, part: part(Region::Digests(1 << 127)), end: 0 },
        Message::Want { round: 7, items: vec![1, 2, u64::MAX] },
        Message::Ship { round: 8, slots: vec![5, 6] },
        Message::Done { round: 9 },
    ];
    for message in all {
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Ok(message.clone()));
        (0..bytes.len()).for_each(|end| assert_ne!(Message::decode(&bytes[..end]), Ok(message.clone())));
    }
    assert!(Message::decode(&[99, 0, 0, 0, 0]).is_err());
}
