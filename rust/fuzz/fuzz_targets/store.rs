//! Any merges in any order: two replicas that saw the same agree, and their digests say so.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turbopump_core::blob::Value;
use turbopump_core::entry::View;
use turbopump_core::version::{NodeId, Version};
use turbopump_fuzz::replica;

fuzz_target!(|writes: Vec<(u8, u8, Option<&[u8]>)>| {
    let (one, other) = (replica(), replica());
    one.store().keep_tombstones(true);
    other.store().keep_tombstones(true);
    let merge = |store: &turbopump_core::store::Store, (key, stamp, bytes): &(u8, u8, Option<&[u8]>)| {
        let version = Version { stamp: u64::from(*stamp) + 1, node: NodeId(1) };
        let view = bytes.map_or(View::tombstone(version), |bytes| View::value(version, Value::Inline(bytes)));
        store.merge(&[*key], &view)
    };
    let full = writes.iter().any(|write| merge(one.store(), write).is_err());
    let full = writes.iter().rev().any(|write| merge(other.store(), write).is_err()) || full;
    assert!(full || one.store().merkle() == other.store().merkle());
});
