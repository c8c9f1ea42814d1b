//! What a replica promises, whatever peers sent and however many threads call it.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::thread;

use turbopump_core::blob::Value;
use turbopump_core::config::Limits;
use turbopump_core::entry::View;
use turbopump_core::error::Refusal;
use turbopump_core::feed::{Feed, Filter, Kind, Kinds};
use turbopump_core::keyspace::Keyspaces;
use turbopump_core::replica::{Body, Condition, Lifetime, Replica};
use turbopump_core::store::{Store, StoreConfig};
use turbopump_core::version::{NodeId, Version};
use turbopump_core::waits::Waits;

const NOW_MS: u64 = 1_700_000_000_000;

fn store() -> Arc<Store> {
    Arc::new(Store::new(StoreConfig {
        node: NodeId(1),
        hash_seed: 1,
        digest_secret: [0; 16],
        keyspaces: Keyspaces::default(),
        memory_max: 0,
    }))
}

fn waits() -> Arc<Waits> {
    Arc::new(Waits::new(1, Box::new(|_| {})))
}

fn put(replica: &Replica, key: &[u8], value: &[u8]) -> Result<Version, Refusal> {
    replica.put(key, Body::Lent(value), Lifetime::Keyspace, Condition::Always, NOW_MS)
}

#[test]
fn no_count_is_lost_where_several_threads_call() {
    let replica = Replica::for_threads(store(), waits(), Arc::new(Limits::default()));
    put(&replica, b"a", b"1").expect("there is room");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100_000).for_each(|_| replica.get(b"a", NOW_MS, |_| {})));
        }
    });
    assert_eq!(replica.counters().hits.get(), 400_000);
}

#[test]
fn a_key_at_the_last_stamp_is_not_written_and_says_so() {
    let replica = Replica::new(store(), waits(), Arc::new(Limits::default()));
    let last = View::value(Version { stamp: u64::MAX, node: NodeId(2) }, Value::Inline(b"theirs"));
    replica.store().merge(b"a", &last).expect("there is room");
    assert!(matches!(put(&replica, b"a", b"ours"), Err(Refusal::Internal(_))));
    assert!(matches!(replica.delete(b"a", Condition::Always, NOW_MS), Err(Refusal::Internal(_))));
    assert!(replica.get(b"a", NOW_MS, |view| view.and_then(|view| view.value) == last.value));
}

#[test]
fn the_feed_tells_of_writes_deletes_and_what_expires() -> Result<(), Refusal> {
    let feed = Arc::new(Feed::default());
    let replica = Replica::new(store(), waits(), Arc::new(Limits::default())).with_feed(Arc::clone(&feed));
    let mut watch = feed.watch(Filter { prefix: b"a".to_vec(), kinds: Kinds::ALL }, None)?;
    let first = put(&replica, b"a", b"12")?;
    put(&replica, b"b", b"not watched")?;
    let deleted = replica.delete(b"a", Condition::Always, NOW_MS)?;
    replica.delete(b"a", Condition::Always, NOW_MS)?; // there is nothing to be told of
    let until = Lifetime::Until(NOW_MS + 1);
    let last = replica.put(b"a", Body::Lent(b"123"), until, Condition::Always, NOW_MS)?;
    replica.collect(0, usize::MAX, NOW_MS);
    replica.collect(0, usize::MAX, NOW_MS + 1);

    let (found, more) = watch.read(100)?;
    let found: Vec<_> = found.iter().map(|change| (change.kind, change.version, change.size)).collect();
    let gone = deleted.expect("there was a value");
    let expected = [
        (Kind::Written, first, 2),
        (Kind::Deleted, gone, 0),
        (Kind::Written, last, 3),
        (Kind::Expired, last, 3),
    ];
    assert_eq!((found.as_slice(), more), (&expected[..], false));
    Ok(())
}
